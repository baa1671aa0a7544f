"""Leases last as long as tasks do; nothing waits behind a long task while another process is idle."""

import time

from alligator.backends.base import Counts
from tests.integration import jobs
from tests.integration.scenes import BEFORE_LEASE, BEHIND, ON_SQLITE, SHORT, Scene, until


def test_tasks_of_five_leases_start_once_even_if_they_let_no_thread_run(scene: Scene) -> None:
    scene.push("sleeps", jobs.work, 5)
    scene.push("holds", jobs.hold_the_lock, 5)

    program = scene.latergator("--workers", "3", "--lease", "1")  # the third is hungry

    sleeping, holding = scene.finished("sleeps"), scene.finished("holds")
    assert sleeping.at - scene.started("sleeps").at >= 5
    assert holding.at - scene.started("holds").at >= 5
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert sorted(scene.journal.names("start")) == ["holds", "sleeps"]
    assert program.stderr == ""


@ON_SQLITE
def test_a_worker_alone_extends_its_lease_by_a_thread(scene: Scene) -> None:
    scene.push("sleeps", jobs.work, 3)
    for _ in range(2):  # one of them is hungry
        scene.worker(lease=1)

    scene.finished("sleeps")

    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert scene.journal.names("start") == ["sleeps"]


def test_short_tasks_do_not_wait_for_the_long_one_of_their_batch(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    busy = scene.latergator()
    long = scene.started("long")
    hungry = scene.latergator()

    # What was done is out of the store, and what was not started runs elsewhere.
    scene.finished(BEHIND[-1])
    until(lambda: scene.counts == Counts(running=1), "only the long one is left")
    took = time.monotonic() - long.at
    scene.open("long")
    scene.finished("long")

    print(f"free {took:.2f} s after the long one began")
    assert took < BEFORE_LEASE  # 0.5 to 1 s, and the time that the second one takes to start
    behind = {entry.pid for entry in scene.journal.entries("finish") if entry.name in BEHIND}
    assert behind == set(hungry.children)
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert len(scene.journal.names("start")) == len(SHORT) + 1 + len(BEHIND)
    assert busy.stderr == hungry.stderr == ""


def test_what_a_long_task_holds_up_is_given_back_uncounted(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)

    scene.latergator()
    long = scene.started("long")
    until(lambda: scene.counts == Counts(waiting=len(BEHIND), running=1), "they are given back")

    print(f"given back {time.monotonic() - long.at:.2f} s after the long one began")
    assert scene.deliveries() == dict.fromkeys(BEHIND, 1)


@ON_SQLITE
def test_a_worker_alone_gives_back_what_a_long_task_holds_up(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    busy = scene.worker()
    scene.started("long")

    scene.worker()

    scene.finished(BEHIND[-1])
    until(lambda: scene.counts == Counts(running=1), "only the long one is left")
    scene.open("long")
    scene.finished("long")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert len(scene.journal.names("start")) == len(SHORT) + 1 + len(BEHIND)
    assert busy.stderr == ""


@ON_SQLITE
def test_a_task_that_waits_its_turn_for_long_starts_once(scene: Scene) -> None:
    """Longer than its lease, behind a long task that came with it, and with nobody else to take it."""
    scene.push_many(*SHORT)
    scene.push("long", jobs.work, 3)
    scene.push_many(*BEHIND)

    program = scene.latergator("--lease", "1", "--burst")

    assert program.wait() == 0
    assert sorted(scene.journal.names("start")) == sorted([*SHORT, "long", *BEHIND])
    assert scene.counts == Counts()
