"""Tasks that run for many leases: each is to start once, though others are hungry."""

from collections.abc import Callable
from typing import Any

from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import LEASE
from tests.integration import jobs

LONG = 4
"""How many long tasks there are."""


@scenario(["sqlite", "redis", "postgres"])
def interpreter_held(stage: Stage) -> None:
    """Tasks let no other thread of their process run for three leases. (Not for beanstalkd.)"""
    _play(stage, jobs.hold_the_lock, round(3 * LEASE))


@scenario()
def tasks_of_many_leases(stage: Stage) -> None:
    """Tasks take five leases."""
    _play(stage, jobs.work, 5 * LEASE)


def _play(stage: Stage, func: Callable[..., Any], seconds: float) -> None:
    stage.push_batch([f"long{number}" for number in range(LONG)], func, seconds)
    stage.push_batch(stage.names(1000), jobs.work, 0.002)
    busy, hungry = stage.start("--workers", f"{LONG}"), stage.start("--workers", "2")
    stage.come_to_rest()
    # Nothing was done to them: whatever has started twice is unexplained.
    stage.expect(not busy.stderr + hungry.stderr, f"logged: {busy.stderr:.500}{hungry.stderr:.500}")
