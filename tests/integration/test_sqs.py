"""``latergator`` on SQS: what holds on every store holds there, too."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alligator import Gator, Worker
from alligator.backends.base import Counts
from alligator.backends.sqs import sending
from tests.integration import jobs
from tests.integration.scenes import BEHIND, SHORT, Scene, played, until
from tests.support.kinds import empty_store


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with played(empty_store("sqs", request), tmp_path) as scene:
        yield scene


def test_tasks_run_once_each(scene: Scene) -> None:
    names = [f"t{number}" for number in range(60)]
    scene.push_many(*names)

    program = scene.latergator("--burst", "--workers", "2", "--threads", "2")

    assert program.wait() == 0
    assert sorted(entry.name for entry in scene.journal.entries("finish")) == sorted(names)
    assert scene.counts == Counts()


def test_a_task_is_retried_and_then_a_dead_letter(scene: Scene) -> None:
    task = scene.push("fails", jobs.fail, "plain", retries=1)

    scene.latergator("--burst", "--quiet").wait()

    assert len(scene.journal.entries("start", "fails")) == 2
    [letter] = scene.dead
    assert letter.task_id == task.task_id  # that of the first message
    assert "ValueError: plain" in letter.note


def test_a_killed_process_is_replaced_and_its_task_runs_again_at_once(scene: Scene) -> None:
    scene.push("t1", jobs.be_killed_once)

    scene.latergator("--quiet")

    scene.finished("t1")
    assert len(scene.journal.entries("start", "t1")) == 2


def test_a_lost_host_is_noticed_by_its_lease(scene: Scene) -> None:
    scene.push_gated("t1")
    lost = scene.latergator("--lease", "2", "--quiet")
    scene.started("t1")
    lost.kill_all()

    scene.latergator("--lease", "2", "--quiet")

    scene.started("t1", 2)
    scene.open("t1")
    scene.finished("t1")


def test_a_task_that_holds_the_lock_beyond_its_lease_runs_once(scene: Scene) -> None:
    scene.push("t1", jobs.hold_the_lock, 4)
    programs = [scene.latergator("--lease", "1", "--quiet") for _ in range(2)]

    scene.finished("t1")

    for program in programs:
        program.signal(signal.SIGTERM)
    assert [program.wait() for program in programs] == [0, 0]
    assert len(scene.journal.entries("start", "t1")) == 1
    assert scene.counts == Counts()


def test_who_is_told_to_leave_finishes_what_runs(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--quiet")
    scene.started("t1")
    scene.push("t2")

    program.signal(signal.SIGTERM)
    scene.open("t1")

    assert program.wait() == 0
    scene.finished("t1")
    assert list(scene.deliveries().values()) == [1]


def test_what_outlasts_the_grace_goes_back_uncounted(scene: Scene) -> None:
    scene.push_gated("t1")
    for deploy in range(1, 3):
        program = scene.latergator("--grace", "0.2", "--quiet")
        scene.started("t1", deploy)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0

    assert list(scene.deliveries().values()) == [1]


def test_what_waits_behind_a_long_task_goes_to_others_uncounted(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    program = scene.latergator("--quiet")
    scene.started("long")

    other = scene.latergator("--quiet")

    for name in BEHIND:
        scene.finished(name)
    assert "may have killed" not in program.stderr + other.stderr
    scene.open("long")
    scene.finished("long")
    until(lambda: scene.counts == Counts(), "all is settled")
    assert len(scene.journal.entries("start")) == len(SHORT) + len(BEHIND) + 1


def test_an_idle_worker_leaves_soon(scene: Scene) -> None:
    program = scene.latergator()
    program.says("starting")

    told_at = program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert time.monotonic() - told_at < 10


def test_a_missing_queue_is_told_at_the_start(scene: Scene) -> None:
    program = scene.latergator("--queue", "nobody-made-it")

    assert program.wait() == 1
    assert "aws sqs create-queue --queue-name nobody-made-it" in program.stderr


def test_a_delay_longer_than_sqs_has_ends_in_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LONGEST_DELAY", 1)
    began = time.monotonic()
    scene.push("t1", delay_by=2.5)

    Worker(scene.gator, max_tasks=1).run_forever()

    assert time.monotonic() - began >= 2.45
    assert len(scene.journal.entries("finish", "t1")) == 1
    assert scene.counts == Counts()


def test_results_are_kept_in_another_store(scene: Scene, tmp_path: Path) -> None:
    results = f"sqlite://{tmp_path}/results.db"
    gator = Gator(scene.dsn, results=results)
    with gator.options(keep_result=60, retries=1, task_id="mine") as opts:
        task = opts.task(jobs.add, 1, 2)
    assert task.task_id != "mine"

    scene.latergator("--quiet", "--results", results)

    assert task.wait(20) == 3
    gator.backend.close()
