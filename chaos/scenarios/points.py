"""Kills at each point of what a process does."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from alligator import Gator
from chaos.campaign import scenario
from chaos.files import check_file
from chaos.forking import ForkServer, fork_server
from chaos.stage import Stage
from chaos.steps import STEPS, FailedOnPurpose, fail
from chaos.tracing import counting, killing, points_in, traced
from tests.integration import jobs
from tests.support.postgres import PostgresServer

AT_LEAST = 12
"""Points in the shortest campaign."""
PATIENCE = 60.0
KILLED = -9
TRIES = 4
"""Steps to take, until one comes to a point: they poll and yield now more, now less."""
MAY_MISS = 0.02
"""Of all points."""


class Point(NamedTuple):
    """A moment in a step: just before a system call."""

    step: str
    call: str
    number: int
    """Of the calls of that kind."""


@scenario(quick=0.01, patience=0.2)
def killed_at_any_call(stage: Stage) -> None:
    """A process that pushes, runs, settles, cancels or leaves is killed at its n-th system call, for all n."""
    stage.recovers_within = math.inf  # no worker is there, before the last point
    can_cancel = stage.gator.backend.can_pick
    steps = [step for step in STEPS if can_cancel or step != "cancel"]
    with fork_server(stage.folder / "forks.log") as server:
        sweep = Sweep(stage, server)
        sweep.play([point for step in steps for point in sweep.points_of(step)])
    _work_off(stage)
    check_file(stage)


@scenario(["sqlite", "postgres"], quick=0.02, quick_on=["sqlite"], patience=0.2)
def killed_at_the_first_push_of_all(stage: Stage) -> None:
    """A process that makes the file or the tables, to push, is killed at its n-th system call, for all n."""
    with fork_server(stage.folder / "forks.log") as server:
        sweep = SweepOfNewStores(stage, server)
        sweep.play(sweep.points_of("push"))


def _work_off(stage: Stage) -> None:
    """Run whatever is in any queue, until the last lease has lapsed."""
    deadline = time.monotonic() + PATIENCE
    while not stage.is_done() and time.monotonic() < deadline:
        for queue in stage.gator.backend.queues():
            _work_off_one(stage.other(queue))


def _work_off_one(gator: Gator) -> None:
    is_empty = False
    while not is_empty:
        with suppress(FailedOnPurpose):
            is_empty = gator.pop() is None


class Sweep:
    """Kills at points, each in a queue of its own.

    Args:
        stage: Where it is played.
        server: Makes the processes.
    """

    def __init__(self, stage: Stage, server: ForkServer) -> None:
        self._stage = stage
        self._server = server
        self._log = stage.folder / "calls.log"
        self._dsn = stage.dsn

    def points_of(self, step: str) -> list[Point]:
        """Take a step undisturbed, and return its points."""
        for turn in ("first", "second"):  # at first there is more to do, such as to bring scripts
            status = self._take(step, f"{step}-{turn}", counting(self._log))
            self._stage.expect(status == 0, f"{step}, undisturbed, ended with {status}")
        return [Point(step, *point) for point in points_in(self._log, self._stage.journal.path)]

    def play(self, points: Sequence[Point]) -> None:
        """Take steps up to these points, or in a smaller campaign to some of them."""
        chosen = self._stage.rng.sample(points, self._stage.many(len(points), AT_LEAST))
        missed = [point for point in chosen if not self._is_killed_at(point)]
        self._stage.show(f"{len(chosen) - len(missed)} of {len(chosen)} points")
        self._stage.expect_measured(
            len(missed) <= MAY_MISS * len(chosen), f"did not come there: {missed[:20]}"
        )

    def _is_killed_at(self, point: Point) -> bool:
        """Take a step up to a point; return whether it came there, if only at another try."""
        for number in range(TRIES):
            queue = "-".join(map(str, (*point, number)))
            status = self._take(point.step, queue, killing(point.call, point.number))
            # The calls of a process are not always the same: it may come to its end before that point.
            self._stage.expect(status in (KILLED, 0), f"{queue} ended with {status}")
            if status == KILLED:
                return True
        return False

    def _take(self, step: str, queue: str, tracing: Sequence[str]) -> int:
        ids = self._prepare(step, queue)
        pid = self._server.fork(step, self._dsn, queue, ids, self._stage.journal.path)
        with traced(pid, tracing):
            status = self._server.go()
        if status == KILLED:
            self._stage.journal.note("kill", pid=pid)
        return status

    def _prepare(self, step: str, queue: str) -> list[str]:
        """Push what the step needs; return the tasks' ids."""
        stage = self._stage
        gator = stage.other(queue)
        ids: list[str] = []
        for number, func in enumerate(STEPS[step].tasks):
            name = f"{queue}-{number}"
            ids.append(stage.push(name, func, gator=gator, **STEPS[step].options).task_id)
            if func is fail:
                stage.rightly_dead.add(name)
        if stage.place.server is None:
            stage.gator.backend.close()  # the last to leave a file tidies up: disturb that, too
        return ids


class SweepOfNewStores(Sweep):
    """Kills at points in stores that nobody has used before. Each is then worked off."""

    def _take(self, step: str, queue: str, tracing: Sequence[str]) -> int:
        self._dsn = self._new_store(queue)
        status = super()._take(step, queue, tracing)
        gator = Gator(self._dsn, queue)
        self._stage.push(f"{queue}-after", jobs.work, gator=gator)
        _work_off_one(gator)
        gator.backend.close()
        return status

    def _new_store(self, name: str) -> str:
        server = self._stage.place.server
        if isinstance(server, PostgresServer):
            server.empty()
            return self._stage.dsn
        return f"sqlite://{self._stage.folder}/{name}.db"
