"""A primary dies and its replica takes over: workers go on, and lose nothing that was replicated."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import pytest

from alligator.backends.base import Counts
from alligator.exceptions import BackendUnavailable
from tests.integration import jobs
from tests.integration.scenes import Scene, played, until
from tests.support.clusters import Pair, by_cluster, by_sentinel, has_all, is_primary, is_replica

T = TypeVar("T")

TASKS = [f"t{number}" for number in range(600)]
FAILED_OVER = 60.0
"""Seconds until a replica has noticed, has been chosen, and workers have found it, on a busy machine."""


@pytest.fixture(params=[by_sentinel, by_cluster])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Pair]:
    """A primary with a queue of its own, that may be killed."""
    with request.param(tmp_path / "servers") as pair:
        yield pair


@pytest.fixture
def scene(pair: Pair, tmp_path: Path) -> Generator[Scene]:
    """A scene whose store fails over."""
    with played(pair.dsn, tmp_path) as scene:
        yield scene


def test_workers_go_on_at_the_replica_and_nothing_that_it_had_is_lost(
    pair: Pair, scene: Scene
) -> None:
    program = scene.latergator("--workers", "2", "--lease", "4")
    program.says("starting")
    scene.push_gated("held")
    for name in TASKS:
        scene.push(name, jobs.work, 0.02)
    until(lambda: len(scene.journal.names("finish")) >= 50, "work goes on")
    scene.push("last")
    scene.push("delayed", delay_by=3600)
    # Replication lags by moments: what the primary had not yet sent is not promised.
    until(lambda: has_all(pair.replica, pair.primary), "the replica has it all")

    pair.primary.kill()
    assert len(scene.journal.names("finish")) < len(TASKS)

    until(lambda: is_primary(pair.replica), "the replica takes over", FAILED_OVER)
    patiently(lambda: scene.push("afterwards"))
    scene.open("held")
    scene.finished("afterwards", within=FAILED_OVER)
    until(lambda: patiently(lambda: scene.counts) == Counts(delayed=1), "all is done", FAILED_OVER)
    finished = scene.journal.names("finish")
    assert {*finished} == {*TASKS, "held", "last", "afterwards"}
    # What the replica did not know to be done, or held for longer than its lease, ran again.
    assert max(finished.count(name) for name in finished) <= 2
    assert "died" not in program.stderr
    assert "Traceback" not in program.stderr
    assert program.stderr.count("The store is back") >= 1


def test_a_producer_and_those_who_wait_go_on_at_the_replica(pair: Pair, scene: Scene) -> None:
    backend = scene.gator.backend
    task = scene.push("t1", keep_result=3600)
    scene.latergator()
    assert task.wait(timeout=20) == "result of t1"
    until(lambda: has_all(pair.replica, pair.primary), "the replica has it all")

    pair.primary.kill()
    until(lambda: is_primary(pair.replica), "the replica takes over", FAILED_OVER)

    task = patiently(lambda: scene.push("t2", keep_result=3600))
    assert patiently(lambda: task.wait(timeout=FAILED_OVER)) == "result of t2"
    assert scene.gator.result("t1") == "result of t1"
    assert backend.queues() == ["all"]


def test_an_old_primary_that_comes_back_is_not_written_to(pair: Pair, scene: Scene) -> None:
    scene.push("t1")
    until(lambda: has_all(pair.replica, pair.primary), "the replica has it all")
    pair.primary.kill()
    until(lambda: is_primary(pair.replica), "the replica takes over", FAILED_OVER)
    pair.primary.start()
    until(lambda: is_replica(pair.primary), "it follows the other", FAILED_OVER)

    patiently(lambda: scene.push("t2"))
    program = scene.latergator()
    scene.finished("t1")
    scene.finished("t2")
    until(lambda: scene.counts == Counts(), "all is done")
    assert program.children != []


def patiently(call: Callable[[], T]) -> T:
    """Call until the store answers."""
    answers: list[T] = []

    def answers_now() -> bool:
        try:
            answers.append(call())
        except BackendUnavailable:
            return False
        return True

    until(answers_now, "the store answers", FAILED_OVER)
    return answers[0]
