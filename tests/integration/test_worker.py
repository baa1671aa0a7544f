"""A Worker in a script: what it prints, when it leaves, what becomes of what it holds."""

import signal
import time

import pytest

from alligator.backends.base import Counts
from alligator.retries import MAX_DELIVERIES
from tests.integration import jobs
from tests.integration.scenes import (
    AT_ONCE,
    BEFORE_LEASE,
    BEHIND,
    ON_SQLITE,
    SHORT,
    Scene,
    kill,
    until,
)

# What it runs and prints.


def test_it_runs_what_comes_and_prints_results(scene: Scene) -> None:
    worker = scene.worker()
    worker.says("starting, consuming 'all'.")

    scene.push("t1")
    scene.push("t2", jobs.work_soon)
    for name in ["t1", "t2"]:
        scene.finished(name)
        worker.says(f"result of {name}\n")
    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    ident = f"Alligator worker #{worker.pid}"
    assert worker.stdout.splitlines() == [
        f"{ident} starting, consuming 'all'.",
        "result of t1",
        "result of t2",
        f"{ident} was told to leave. It finishes what runs, for 30 s at most.",
        f"{ident} leaving. It consumed 2 tasks.",
    ]
    assert worker.stderr == ""


@ON_SQLITE
def test_a_subclass_says_it_otherwise(scene: Scene) -> None:
    scene.push("t1")
    worker = scene.worker("laconic")
    scene.finished("t1")
    worker.says("Laconic: result of t1")

    worker.signal(signal.SIGINT)

    assert worker.wait() == 0
    assert worker.stdout.splitlines() == [
        "Laconic: on",
        "Laconic: result of t1",
        "Laconic: told",
        "Laconic: off",
    ]


@ON_SQLITE
def test_it_leaves_after_its_maximum_and_leaves_the_rest(scene: Scene) -> None:
    names = [f"t{number}" for number in range(10)]
    scene.push_many(*names)

    worker = scene.worker(max_tasks=4)

    assert worker.wait() == 0
    assert scene.journal.names("finish") == names[:4]
    assert "It leaves after 4 tasks.\n" in worker.stdout
    assert "It consumed 4 tasks.\n" in worker.stdout
    assert scene.deliveries() == dict.fromkeys(names[4:], 1)


@ON_SQLITE
def test_a_failure_is_one_of_the_maximum_and_so_is_a_retry(scene: Scene) -> None:
    scene.push("bad", jobs.fail, "plain", retries=1)
    scene.push_many("t1", "t2")

    worker = scene.worker(max_tasks=3)

    assert worker.wait() == 0
    assert scene.journal.names("start") == ["bad", "t1", "t2"]
    assert scene.counts == Counts(waiting=1)


def test_a_burst_ends_when_nothing_is_ready(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push("later", delay_by=3600)

    worker = scene.worker(burst=True)

    assert worker.wait() == 0
    assert scene.journal.names("finish") == SHORT
    assert scene.counts == Counts(delayed=1)


def test_queues_are_consumed_in_strict_order(scene: Scene) -> None:
    for queue_name in ["low", "high", "other"]:
        scene.gator.queue_name = queue_name
        scene.push_many(*[f"{queue_name}-{number}" for number in range(3)])

    worker = scene.worker(to_consume=["high", "low"], burst=True)

    assert worker.wait() == 0
    expected = [f"{queue}-{number}" for queue in ["high", "low"] for number in range(3)]
    assert scene.journal.names("start") == expected
    assert scene.counts == Counts(waiting=3)
    assert "consuming 'high', 'low'." in worker.stdout


@ON_SQLITE
@pytest.mark.parametrize("nap_time", [0.001, 5])
def test_a_nap_is_no_pause_between_tasks(scene: Scene, nap_time: float) -> None:
    scene.push_many(*SHORT)

    worker = scene.worker(nap_time=nap_time, burst=True)

    assert worker.wait(within=10) == 0
    assert scene.journal.names("finish") == SHORT


# Threads.


def test_threads_run_tasks_at_the_same_time(scene: Scene) -> None:
    names = [f"t{number}" for number in range(4)]
    for name in names:
        scene.push_gated(name)
    worker = scene.worker(threads=4)

    for name in names:
        assert scene.started(name).pid == worker.pid
    for name in reversed(names):
        scene.open(name)
        scene.finished(name)

    until(lambda: scene.counts == Counts(), "the queue is empty")


def test_threads_go_on_beside_a_long_task(scene: Scene) -> None:
    scene.push_gated("long")
    worker = scene.worker(threads=2)
    scene.started("long")

    scene.push_many(*SHORT)

    scene.finished(SHORT[-1])
    until(lambda: scene.counts == Counts(running=1), "only the long one is left")
    scene.open("long")
    scene.finished("long")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert scene.counts == Counts()
    started = scene.journal.names("start")
    assert len(started) == len(set(started)) == len(SHORT) + 1


def test_threads_told_to_leave_finish_what_runs_and_give_back_the_rest(scene: Scene) -> None:
    for name in ["t1", "t2"]:
        scene.push_gated(name)
    worker = scene.worker(threads=2)
    for name in ["t1", "t2"]:
        scene.started(name)
    scene.push_many(*BEHIND)

    worker.signal(signal.SIGTERM)
    worker.says("was told to leave")
    scene.open("t2")
    scene.finished("t2")
    until(lambda: scene.counts == Counts(waiting=len(BEHIND), running=1), "t2 is settled")
    assert worker.runs
    scene.open("t1")

    assert worker.wait() == 0
    assert sorted(scene.journal.names("finish")) == ["t1", "t2"]
    assert scene.deliveries() == dict.fromkeys(BEHIND, 1)


@pytest.mark.parametrize("grace", [0.5, 30.0])
def test_threads_that_run_for_too_long_are_left_and_their_tasks_given_back(
    scene: Scene, grace: float
) -> None:
    for name in ["t1", "t2"]:
        scene.push_gated(name)
    worker = scene.worker(threads=2, grace=grace)
    for name in ["t1", "t2"]:
        scene.started(name)

    told_at = worker.signal(signal.SIGTERM)
    worker.says("was told to leave")
    if grace == 30.0:
        told_at = worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE
    assert scene.deliveries() == {"t1": 1, "t2": 1}


def test_a_task_that_may_have_killed_workers_runs_alone_the_last_time(scene: Scene) -> None:
    scene.push_gated("suspect")
    for time_number in range(1, MAX_DELIVERIES):
        lost = scene.worker(lease=1)
        scene.started("suspect", time_number)
        lost.kill_all()

    worker = scene.worker(threads=3, lease=1)
    scene.started("suspect", MAX_DELIVERIES)
    scene.push_many("t1", "t2")
    lapses_at = held_until(scene, "suspect")
    until(lambda: held_until(scene, "suspect") > lapses_at, "its lease is extended")
    assert scene.counts == Counts(waiting=2, running=1)  # nothing else is held with it
    scene.open("suspect")
    scene.finished("t2")

    ended = scene.finished("suspect").at
    assert all(scene.started(name).at > ended for name in ["t1", "t2"])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert scene.counts == Counts()


def held_until(scene: Scene, name: str) -> float:
    """Return when the lease of a task that runs ends."""
    found = scene.gator.backend.find("all", name)
    assert found is not None
    return found.lapses_at


# Told to leave.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_and_the_rest_is_given_back_unscathed(
    scene: Scene, number: int
) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    for name in BEHIND:
        scene.push(name, retries=2)
    worker = scene.worker()
    scene.started("long")

    worker.signal(number)
    worker.says("was told to leave")
    scene.open("long")

    assert worker.wait() == 0
    assert scene.journal.names("finish").count("long") == 1
    batch = scene.gator.backend.reserve(["all"], "inspector", limit=1000)
    assert sorted(held.task_id for held in batch.reservations) == sorted(BEHIND)
    assert {held.deliveries for held in batch.reservations} == {1}
    bodies = [scene.gator.task_class.deserialize(held.body) for held in batch.reservations]
    assert {task.retries for task in bodies} == {2}


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_gives_back_at_once_and_uncounted(scene: Scene, again: int) -> None:
    scene.push_gated("t1")
    worker = scene.worker()
    scene.started("t1")
    worker.signal(signal.SIGTERM)
    worker.says("was told to leave")
    assert worker.runs

    told_at = worker.signal(again)

    assert worker.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE
    assert scene.journal.names("finish") == []
    other = scene.worker()
    scene.started("t1", 2, within=BEFORE_LEASE)
    scene.open("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert other.stderr == ""


def test_leaving_again_and_again_costs_no_delivery(scene: Scene) -> None:
    """As many deploys: a task that outlasts the grace each time is no poison."""
    scene.push_gated("t1")
    for times in range(1, 6):
        worker = scene.worker(grace=0.1)
        scene.started("t1", times)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0

    assert scene.deliveries() == {"t1": 1}


def test_the_end_of_the_grace_gives_back_at_once_and_uncounted(scene: Scene) -> None:
    scene.push_gated("t1")
    worker = scene.worker(grace=0.5)
    scene.started("t1")

    told_at = worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert 0.5 <= time.monotonic() - told_at < BEFORE_LEASE
    assert scene.deliveries() == {"t1": 1}


def test_an_idle_worker_leaves_at_once(scene: Scene) -> None:
    worker = scene.worker()
    worker.says("starting")
    scene.push("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "the queue is empty")

    told_at = worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    took = time.monotonic() - told_at
    print(f"left after {took:.2f} s")
    assert took < AT_ONCE


def interrupt_at_work(scene: Scene) -> None:
    """Start a worker, and tell it to leave as soon as it has done something."""
    before = len(scene.journal.entries())
    worker = scene.worker()
    until(lambda: len(scene.journal.entries()) > before, "it works")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.stderr == ""


@ON_SQLITE
def test_a_signal_between_tasks_loses_and_repeats_none(scene: Scene) -> None:
    names = [f"t{number}" for number in range(500)]
    scene.push_many(*names)
    for _ in range(5):
        interrupt_at_work(scene)

    left = scene.deliveries()

    started = scene.journal.names("start")
    assert started == scene.journal.names("finish")
    assert len(started) == len(set(started))
    assert sorted([*started, *left]) == sorted(names)
    assert set(left.values()) <= {1}


def test_a_killed_worker_costs_a_lease_and_a_delivery(scene: Scene) -> None:
    scene.push_gated("t1")
    worker = scene.worker(lease=1)
    scene.started("t1")

    killed_at = kill(worker.pid)
    other = scene.worker(lease=1)

    again = scene.started("t1", 2)
    print(f"started again after {again.at - killed_at:.2f} s")
    assert again.at - killed_at < 1 + 5
    scene.open("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert other.stderr == ""


# Failures.


@ON_SQLITE
@pytest.mark.parametrize("kind", ["exit", "interrupt", "own", "plain", "hostile"])
@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_a_task_raises_it_has_failed_and_the_worker_goes_on(
    scene: Scene, kind: str, threads: int
) -> None:
    scene.push("bad", jobs.fail, kind, retries=1)
    scene.push("t1")
    worker = scene.worker(threads=threads)

    until(lambda: scene.counts == Counts(dead=1), "it is buried")
    scene.push("t2")
    scene.finished("t2")
    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert scene.journal.names("start").count("bad") == 2
    assert scene.journal.names("finish") == ["t1", "t2"]


@ON_SQLITE
def test_a_result_that_cannot_be_printed_changes_no_outcome(scene: Scene) -> None:
    scene.push("t1")
    with scene.gator.options(task_id="hostile") as opts:
        opts.task(jobs.return_hostile)
    scene.push("t2")

    quarrelsome = scene.worker("quarrelsome", burst=True)

    assert quarrelsome.wait() == 0
    assert scene.journal.names("finish") == ["t1", "t2"]
    assert scene.counts == Counts()
    assert quarrelsome.stderr.count("result() raised") == 3


@ON_SQLITE
def test_hostile_results_are_printed_escaped(scene: Scene) -> None:
    with scene.gator.options(task_id="☃\u202e") as opts:
        opts.task(jobs.return_hostile)
    scene.push("t1")
    scene.environment["PYTHONIOENCODING"] = "utf-8:strict"

    worker = scene.worker(burst=True)

    assert worker.wait() == 0
    assert "surrogate \\udcff" in worker.stdout
    assert scene.journal.names("finish") == ["t1"]


@ON_SQLITE
def test_no_result_passes_for_a_line_of_the_workers(scene: Scene) -> None:
    scene.gator.task(jobs.return_forgery)
    scene.gator.task(jobs.return_what_leaves)
    scene.push("t1")

    worker = scene.worker(burst=True)

    assert worker.wait() == 0
    assert r"ok\r\n2026-11-23 ERROR forged\x1b[31m" in worker.stdout.splitlines()
    assert worker.stderr.count("result() raised") == 1
    assert scene.journal.names("finish") == ["t1"]


@ON_SQLITE
@pytest.mark.parametrize("where", ["| head -n 1", ">&-", "<&- >&- 2>&-"])
def test_output_that_nobody_reads_stops_nothing(scene: Scene, where: str) -> None:
    scene.push_many(*SHORT)
    scene.push("bad", jobs.fail, "plain")

    scene.shell("exec {worker} " + where)

    scene.finished(SHORT[-1])
    until(lambda: scene.counts == Counts(dead=1), "all is done")
    scene.push("t1")
    scene.finished("t1")
