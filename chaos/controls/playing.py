"""Which controls there are, and what is expected of each.

Those that are known to lose tasks must be seen to: a harness that finds nothing there would find nothing
anywhere. The others stand beside them for comparison.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from chaos.campaign import Open, Play, Scenario
from chaos.controls.foreign import ForeignStage
from chaos.controls.systems import RQ, Huey, RQByPriority, System, are_installed
from chaos.scenarios.deaths import children_killed, trees_killed
from chaos.stage import Stage
from chaos.stores import Place, redis
from tests.integration import jobs
from tests.integration.scenes import until
from tests.support.servers import Server

AS_SHIPPED = ("--save", "3600 1 300 100 60 10000", "--appendonly", "no")
"""A Redis as it comes: snapshots only."""
NOTHING_KEPT = ("--save", "", "--appendonly", "no")
TASKS = 2000
SLOWLY = 0.005
"""Seconds that a task takes, so that some wait whenever the server is killed."""


def server_killed_amid_work(stage: Stage) -> None:
    """The server is killed three times amid pushes and runs, and started anew after half a second."""
    stage.start("--workers", "2")
    names = stage.names(TASKS)
    for part in (names[0::3], names[1::3], names[2::3]):
        started = len(stage.journal.entries("start"))
        with stage.producing(part, jobs.work, SLOWLY):
            until(lambda: len(stage.journal.entries("start")) > started, "one is started")  # noqa: B023
            stage.restart_server(away=0.5)


def _redis_with(*options: str) -> Open:
    @contextmanager
    def place(folder: Path) -> Generator[Place]:
        with Server.redis(folder, *options) as server:
            yield Place("redis", server.dsn, server)

    return place


def _control(
    name: str,
    play: Play,
    place: Open,
    system: Callable[[str], System] | None = None,
    *,
    full: float = 1.0,
    quick: float = 0.0,
    loses: bool | None = True,
) -> Scenario:
    stage = Stage if system is None else partial(ForeignStage, system)
    patience = 0.9 if system in (RQ, RQByPriority) else 0.0
    return Scenario(play, [name], quick, full, {name: place}, stage, loses, patience)


OURS = [
    _control(
        "redis, nothing on disk", server_killed_amid_work, _redis_with(*NOTHING_KEPT), quick=0.2
    ),
]
HUEY = [
    # It takes a task out of the store before it runs.
    _control("huey", children_killed, redis, Huey, full=0.2, quick=0.04),
    _control("huey", trees_killed, redis, Huey, full=0.1),
    _control("huey, redis as shipped", server_killed_amid_work, _redis_with(*AS_SHIPPED), Huey),
]
RQS = [
    # With one queue, it moves a task in one step to where it is found again.
    _control("rq", children_killed, redis, RQ, full=0.02, loses=None),
    # With several, it takes it out, and a moment later writes down that it did.
    _control("rq, three queues", trees_killed, redis, RQByPriority, full=0.03),
    _control(
        "rq, redis as shipped", server_killed_amid_work, _redis_with(*AS_SHIPPED), RQ, full=0.2
    ),
]


FOREIGN = [*HUEY, *RQS]


def controls() -> list[Scenario]:
    """Return those that can be played here."""
    return [*OURS, *FOREIGN] if are_installed() else OURS
