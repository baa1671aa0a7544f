"""Networks that lose answers, or swallow all that is said."""

import math
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from itertools import accumulate

from alligator import Gator
from alligator.verify.proxy import Proxy
from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import LEASE
from tests.integration import jobs
from tests.integration.scenes import until

SERVERS = ["redis", "postgres", "beanstalk"]
LONG_AFTER = 30
"""So many tasks later: more than are held at a time, and few enough to be run in much less than a lease."""
SILENT = 6.0
"""Seconds, which are more than any store's lease here."""
ANSWERS_WITHIN = {"redis": 10.0, "postgres": 20.0, "beanstalk": 10.0}
"""Seconds after which a store's client takes a connection for lost that says nothing."""


@scenario(SERVERS, quick=0.05, quick_on=["postgres"], patience=0.2)
def answers_to_pushes_lost(stage: Stage) -> None:
    """One answer in ten is lost on its way to those who push, after the command was carried out."""
    names = stage.names(2000)
    with _behind_proxy(stage) as (proxy, dsn), _pushing_to(stage, dsn), ExitStack() as producers:
        lost = _lose_one_in(10, stage, proxy)
        for part in (names[0::2], names[1::2]):
            producers.enter_context(stage.producing(part))
    stage.show(f"{len(lost)} answers lost")
    stage.expect(len(lost) >= len(names) // 40, f"only {len(lost)} answers were lost")
    if stage.gator.backend.keeps_ids:
        waiting = stage.counts.waiting
        stage.expect(waiting == len(names), f"{len(names)} were pushed, and {waiting} wait")
    stage.start("--workers", "2")


@scenario(SERVERS, quick=0.1, quick_on=["redis"], patience=0.5)
def answers_to_workers_lost(stage: Stage) -> None:
    """One answer in fifty is lost on its way to a worker, after the command was carried out."""
    with _behind_proxy(stage) as (proxy, dsn):
        names = stage.names(2000)
        stage.push_batch(names, jobs.work, 0.02)
        stage.start("--workers", "4", SCENE_DSN=dsn)
        until(lambda: stage.journal.names("start"), "work has begun")
        # beanstalkd gives what a connection held to others at once. Elsewhere nothing may run twice.
        is_strict = stage.gator.backend.shares_leases
        # In a short campaign there are few answers: then one in ten is lost.
        lost = _lose_one_in(stage.many(50, 10), stage, proxy, "" if is_strict else "cut")
        stage.come_to_rest()
        proxy.lose(None)
    stage.show(f"{len(lost)} answers lost")
    stage.expect(len(lost) >= max(1, len(names) // 200), f"only {len(lost)} answers were lost")
    if is_strict:
        late, name = _longest_left_lying(stage, names)
        stage.show(f"a task waited for {max(0.0, late):.2f} s behind later ones")
        stage.expect_measured(
            late < 0.75 * LEASE, f"{name} was left lying: nobody knew that it was held"
        )
    else:
        # To beanstalkd the end of a connection is one of its client, and each counts a delivery.
        stage.rightly_dead |= set(stage.names_of_dead())
        stage.show(f"{len(stage.dead)} buried after three of them")


@scenario(SERVERS, patience=0.5)
def network_silent(stage: Stage) -> None:
    """The network swallows everything for longer than the lease, closing nothing; old connections stay dead."""
    stage.back_to_work += ANSWERS_WITHIN[stage.place.name]
    with _behind_proxy(stage) as (proxy, dsn):
        stage.push_batch(stage.names(200), jobs.work, 0.02)
        program = stage.start("--workers", "2", SCENE_DSN=dsn)
        until(lambda: len(stage.at_work(program)) == 2, "work has begun")
        stage.journal.note("down")
        proxy.fall_silent()
        time.sleep(SILENT)
        proxy.speak()
        stage.journal.note("up")
        stage.come_back(program, since=time.monotonic())
        if stage.place.name == "beanstalk":
            # It may forget the lease of who fell silent (beanstalkd#262) until it learns that he is gone.
            stage.journal.note("cut")
            proxy.cut()
        stage.come_to_rest()


def _longest_left_lying(stage: Stage, names: list[str]) -> tuple[float, str]:
    """Return how long a task began after one that was pushed long after it: nobody knew that it was held."""
    starts = {entry.name: entry.at for entry in stage.journal.entries("start")}
    at = [starts.get(name, math.inf) for name in names]
    soonest = list(accumulate(reversed(at), min))[
        ::-1
    ]  # of a task and all that were pushed after it
    return max(
        (
            (mine - later, name)
            for name, mine, later in zip(names, at, soonest[LONG_AFTER:], strict=False)
        ),
        default=(0.0, ""),
    )


@contextmanager
def _behind_proxy(stage: Stage) -> Generator[tuple[Proxy, str]]:
    """A proxy before the store's server, and the DSN that goes through it."""
    assert stage.place.server is not None
    port = stage.place.server.port
    with Proxy(port) as proxy:
        yield proxy, stage.dsn.replace(f":{port}", f":{proxy.port}")


@contextmanager
def _pushing_to(stage: Stage, dsn: str) -> Generator[None]:
    """Let those who push go another way to the store."""
    direct, stage.gator = stage.gator, Gator(dsn)
    try:
        yield
    finally:
        stage.gator.backend.close()
        stage.gator = direct


def _lose_one_in(count: int, stage: Stage, proxy: Proxy, note: str = "") -> list[float]:
    """Let answers be lost from now on; return when, as it happens."""
    lost: list[float] = []
    coming = stage.rng.randrange(count)

    def loses() -> bool:
        nonlocal coming
        if coming:
            coming -= 1
            return False
        coming = stage.rng.randrange(2 * count)  # as often, and never after more
        if note:
            stage.journal.note(note)
        lost.append(time.monotonic())
        return True

    proxy.lose(loses)
    return lost
