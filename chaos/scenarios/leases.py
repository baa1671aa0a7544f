"""Tasks that run for many leases: each is to start once, though others are hungry."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from alligator.verify.findings import Findings
from chaos.campaign import SCENARIOS, Scenario, scenario
from chaos.stage import Stage
from chaos.stores import LEASE
from tests.integration import jobs

LONG = 4
"""How many long tasks there are."""


@scenario(["sqlite", "redis", "postgres"])
def interpreter_held(stage: Stage) -> None:
    """Tasks let no other thread of their process run for three leases. (Not for beanstalkd.)"""
    _play(stage, jobs.hold_the_lock, round(3 * LEASE))


@scenario(patience=0.5)
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


class Doubling(Stage):
    """A control: what runs here twice has no cause, and the checker is to say so of it, and nothing else."""

    def findings(self) -> Findings:
        """Judge what happened."""
        found = super().findings()
        seen = len(found.unexplained)
        self.expect(seen, "the checker has seen no task run twice")
        self.show(f"a control: {seen} unexplained runs, as is known")
        return replace(found, unexplained=[])


def leases_not_extended(stage: Stage) -> None:
    """Nobody extends the leases of long tasks: they run again beside themselves, and nothing explains it."""
    names = [f"long{number}" for number in range(LONG)]
    stage.rightly_dead.update(
        names
    )  # of a task that three have taken and none could settle, who knows
    stage.push_batch(names, jobs.work, 1.2 * LEASE)
    for _ in range(2):
        stage.start("--workers", f"{LONG}", target="chaos.unextended:gator")
    stage.come_to_rest()


SCENARIOS[leases_not_extended.__name__] = Scenario(
    leases_not_extended, ["sqlite"], quick=0.5, stage=Doubling
)
