"""Processes of latergator that die, are stopped or told to leave: no task is lost, none is miscounted."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from alligator.backends.base import Counts
from tests.integration import jobs
from tests.integration.scenes import (
    AT_ONCE,
    BEFORE_LEASE,
    BEHIND,
    ON_SQLITE,
    SHORT,
    Program,
    Scene,
    kill,
    until,
)


def push_amid_others(scene: Scene, name: str, func: Callable[..., Any], *args: Any) -> None:
    """Queue a task among others that will be in the same batch."""
    scene.push_many(*SHORT)
    scene.push(name, func, *args)
    scene.push_many(*BEHIND)


# A child that dies under a living parent.


def test_the_task_of_a_killed_child_starts_again_within_a_second(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    program = scene.latergator("--workers", "2")
    scene.push_gated("t1")
    first = scene.started("t1")
    until(lambda: len(program.children) == 2, "both processes run")

    killed_at = kill(first.pid)
    again = scene.started("t1", 2)
    scene.open("t1")

    scene.finished("t1")
    record_property("seconds until it starts again", round(again.at - killed_at, 3))
    print(f"started again after {again.at - killed_at:.3f} s")
    assert again.at - killed_at < BEFORE_LEASE  # 1 s is promised; a machine may be busy
    until(lambda: len(program.children) == 2, "the child is replaced")
    assert first.pid not in program.children
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert "SIGKILL" in program.stderr


def test_the_only_child_is_replaced_and_the_task_starts_again(scene: Scene) -> None:
    program = scene.latergator()
    scene.push_gated("t1")
    first = scene.started("t1")

    killed_at = kill(first.pid)
    again = scene.started("t1", 2)
    scene.open("t1")

    scene.finished("t1")
    print(f"started again after {again.at - killed_at:.3f} s")
    assert again.at - killed_at < BEFORE_LEASE
    assert program.children == [again.pid]


def test_a_death_counts_for_what_ran_and_for_nothing_else(scene: Scene) -> None:
    push_amid_others(scene, "killer", jobs.be_killed_once)
    scene.latergator()

    scene.started("killer")
    deliveries: dict[str, int] = {}
    # Faster than a new process can be.
    until(lambda: deliveries.update(scene.deliveries()) or deliveries, "all is given back")

    assert deliveries.pop("killer") == 2
    assert set(deliveries.values()) == {1}
    assert set(deliveries) <= set(BEHIND)


@pytest.mark.parametrize(
    ("func", "how"), [(jobs.end_process, "exit status 1"), (jobs.segfault, "SIGSEGV")]
)
def test_a_task_that_kills_its_process_is_buried_after_three_starts(
    scene: Scene, func: Callable[..., Any], how: str
) -> None:
    push_amid_others(scene, "bad", func)

    program = scene.latergator("--burst")

    assert program.wait() == 0
    assert len(scene.journal.entries("start", "bad")) == 3
    [letter] = scene.dead
    assert letter.task_id == "bad"
    assert json.loads(letter.note)["reason"] == "poison"
    assert sorted(scene.journal.names("start")) == sorted([*SHORT, *BEHIND, *["bad"] * 3])
    assert sorted(scene.journal.names("finish")) == sorted([*SHORT, *BEHIND])
    assert scene.counts == Counts(dead=1)
    assert how in program.stderr


@ON_SQLITE
@pytest.mark.parametrize("status", [0, 3])
def test_a_task_that_ends_its_process_with_a_status_of_ours_is_no_graceful_end(
    scene: Scene, status: int
) -> None:
    push_amid_others(scene, "bad", jobs.end_process, status)

    program = scene.latergator("--burst")

    assert program.wait() == 0
    assert len(scene.journal.entries("start", "bad")) == 3
    assert sorted(scene.journal.names("finish")) == sorted([*SHORT, *BEHIND])
    assert scene.counts == Counts(dead=1)


@ON_SQLITE
def test_several_poisonous_tasks_take_no_innocent_along(scene: Scene) -> None:
    scene.push_many(*SHORT)
    for number in range(4):
        scene.push(f"bad-{number}", jobs.end_process)
        scene.push_many(f"good-{number}")

    program = scene.latergator("--burst", "--workers", "2")

    assert program.wait(60) == 0
    assert {letter.task_id for letter in scene.dead} == {f"bad-{number}" for number in range(4)}
    started = [name for name in scene.journal.names("start") if name not in SHORT]
    assert {name: started.count(name) for name in started} == {
        **{f"bad-{number}": 3 for number in range(4)},
        **{f"good-{number}": 1 for number in range(4)},
    }


# The parent, or all of it, dies.


def test_children_whose_parent_is_killed_give_back_and_end(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    program = scene.latergator("--lease", "2")
    scene.started("long")
    children = program.children

    killed_at = kill(program.pid)
    # Two, for on a busy machine they start when what runs is given back, too: that comes first, and stays.
    hungry = scene.latergator("--lease", "2", "--workers", "2")

    scene.finished(BEHIND[-1])
    given_back = time.monotonic() - killed_at
    until(lambda: not set(program.members) & set(children), "the children end", within=2 + 5)
    ended = time.monotonic() - killed_at
    assert scene.started("long", 2).pid in hungry.children
    scene.open("long")
    scene.finished("long")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    print(f"given back and done {given_back:.2f} s, ended {ended:.2f} s after the parent")
    assert given_back < BEFORE_LEASE
    assert set(children) == {scene.journal.entries("start", "long")[0].pid}
    assert scene.journal.names("finish").count("long") == 1
    started = [name for name in scene.journal.names("start") if name != "long"]
    assert sorted(started) == sorted([*SHORT, *BEHIND])


def test_an_idle_child_whose_parent_is_killed_ends(scene: Scene) -> None:
    program = scene.latergator("--lease", "2")
    program.says("starting")
    children = program.children
    assert len(children) == 1

    kill(program.pid)

    until(lambda: not program.members, "the child ends", within=2 + 5)


def test_a_task_can_finish_after_the_parent_was_killed(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--lease", "4")
    first = scene.started("t1")

    kill(program.pid)
    program.says("The parent process has died")
    scene.open("t1")

    assert scene.finished("t1").pid == first.pid
    until(lambda: not program.members, "the child ends", within=4 + 5)
    assert scene.counts == Counts()


def test_what_a_lost_host_held_runs_elsewhere_when_its_leases_end(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    lost = scene.latergator("--workers", "2", "--lease", "2")
    scene.started("long")
    other = scene.latergator("--lease", "2")
    other.says("starting")

    killed_at = lost.kill_all()
    again = scene.started("long", 2, within=2 + 5)
    scene.open("long")

    scene.finished("long")
    until(lambda: scene.counts == Counts(), "the queue is empty", within=2 + 5)
    print(f"started again after {again.at - killed_at:.2f} s")
    assert again.at - killed_at < 2 + 5
    assert set(scene.journal.names("finish")) == {*SHORT, "long", *BEHIND}


# A host that stands still.


def test_a_worker_that_slept_through_its_lease_cannot_touch_the_new_holders_task(
    scene: Scene,
) -> None:
    scene.push_gated("t1")
    slow = scene.latergator("--lease", "1")
    stale = scene.started("t1")
    scene.freeze(slow)
    other = scene.latergator("--lease", "1")
    fresh = scene.started("t1", 2)
    assert fresh.pid in other.children

    scene.open("t1", stale.pid)
    slow.thaw()

    slow.says("void")
    assert scene.finished("t1").pid == stale.pid
    assert scene.counts == Counts(running=1)  # what the stale one did changed nothing
    scene.open("t1")
    assert scene.finished("t1", 2).pid == fresh.pid
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert "void" not in other.stderr
    scene.push("t2")
    scene.finished("t2")


def test_the_failure_of_a_worker_that_slept_is_void_and_so_are_its_retries(scene: Scene) -> None:
    scene.push_gated("t1", jobs.fail_at_gate)
    slow = scene.latergator("--lease", "1")
    stale = scene.started("t1")
    scene.freeze(slow)
    other = scene.latergator("--lease", "1")
    scene.started("t1", 2)

    scene.open("t1", stale.pid)
    slow.thaw()
    slow.says("void")

    assert scene.counts == Counts(running=1)
    scene.open("t1")
    other.says("'t1' failed")
    until(lambda: scene.counts == Counts(dead=1), "one dead letter")


def test_tasks_not_started_before_a_long_sleep_are_not_run_twice(scene: Scene) -> None:
    names = [f"t{number}" for number in range(40)]
    scene.push_many(*SHORT)
    scene.push_gated("first")
    scene.push_many(*names)
    slow = scene.latergator("--lease", "1")
    stale = scene.started("first")
    scene.freeze(slow)
    scene.latergator("--lease", "1")
    scene.started("first", 2)
    scene.open("first")
    scene.finished(names[-1])

    slow.thaw()

    slow.says("void")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    scene.push("after")
    scene.finished("after")
    started = scene.journal.names("start")
    assert [started.count(name) for name in names] == [1] * len(names)
    ended = partial(scene.journal.entries, "finish", "first")
    until(lambda: stale.pid in [one.pid for one in ended()], "the stale run ends")


@pytest.mark.parametrize("dsn", ["redis"], indirect=True)
def test_a_wake_up_that_a_frozen_worker_got_is_made_good(scene: Scene) -> None:
    """The server wakes who has waited longest, and cannot know that it stands still."""
    frozen = scene.latergator()
    frozen.says("starting")
    scene.push("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "the frozen one waits")
    other = scene.latergator()
    other.says("starting")
    scene.freeze(frozen)

    scene.push("t2")

    assert scene.started("t2", within=10).pid in other.children  # 5 s: it looks by itself


# Told to leave.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_and_the_rest_is_given_back_unscathed(
    scene: Scene, number: int
) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    for name in BEHIND:
        scene.push(name, jobs.work, retries=0)
    program = scene.latergator()
    scene.started("long")

    program.signal(number)
    # Given back at once, though the long task goes on.
    until(lambda: scene.counts == Counts(waiting=len(BEHIND), running=1), "the rest is given back")
    scene.open("long")

    assert program.wait() == 0
    assert scene.journal.names("finish").count("long") == 1
    assert scene.deliveries() == dict.fromkeys(BEHIND, 1)


def test_a_second_signal_gives_back_at_once_and_uncounted(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--workers", "2")
    scene.started("t1")
    program.signal(signal.SIGTERM)
    until(lambda: len(program.children) == 1, "the idle process has left")

    told_at = program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE
    assert program.members == []
    assert scene.counts == Counts(waiting=1)
    other = scene.latergator()
    scene.started("t1", 2)
    other.signal(signal.SIGTERM)
    other.signal(signal.SIGINT)  # another one: two of a kind may arrive as one
    assert other.wait() == 0
    assert scene.deliveries() == {"t1": 1}


def test_the_end_of_the_grace_gives_back_at_once_and_uncounted(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--grace", "0.5")
    scene.started("t1")

    told_at = program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert 0.5 <= time.monotonic() - told_at < BEFORE_LEASE
    assert program.members == []
    assert scene.deliveries() == {"t1": 1}


UNANSWERED = """
import sys
from pathlib import Path

from alligator import latergator
from alligator.processes import inquiry, supervisor


def tick(asked):
    Path(sys.argv[1]).touch()
    return False


inquiry.Inquiry.tick = tick
supervisor.ANSWERS_WITHIN = 600.0
sys.exit(latergator.main(sys.argv[2:]))
"""


@ON_SQLITE
def test_who_ends_while_it_is_asked_what_hangs_is_not_waited_for(scene: Scene) -> None:
    scene.push_gated("t1")
    asked = scene.folder / "asked"
    program = scene.python(
        "-c", UNANSWERED, str(asked), scene.dsn, "--workers", "2", "--grace", "0.1"
    )
    scene.started("t1")
    program.signal(signal.SIGTERM)
    until(asked.exists, "it is asked where its task hangs")

    scene.open("t1")

    assert program.wait() == 0
    assert scene.counts == Counts()


def test_an_idle_latergator_leaves_at_once(scene: Scene) -> None:
    program = scene.latergator("--workers", "2")
    until(lambda: program.stdout.count("starting") == 2, "both processes started")

    told_at = program.signal(signal.SIGTERM)

    assert program.wait() == 0
    took = time.monotonic() - told_at
    print(f"left after {took:.2f} s")
    assert took < AT_ONCE
    assert program.stdout.count("leaving. It consumed 0 tasks.") == 2
    assert program.stderr == ""


@ON_SQLITE
def test_signals_from_the_first_moment_on_end_it_in_peace(scene: Scene) -> None:
    for number in range(6):
        scene.push(f"t{number}")
    for _ in range(5):
        stop_as_it_starts(scene.latergator("--workers", "2"))

    started = scene.journal.names("start")
    assert started == scene.journal.names("finish")
    assert set(scene.deliveries().values()) <= {1}
    assert len(started) == len(set(started))


def stop_as_it_starts(program: Program) -> None:
    until(lambda: program.children, "the first process is started")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.stderr == ""


def test_a_signal_to_all_processes_is_one_to_leave(scene: Scene) -> None:
    """As service managers send it."""
    scene.push_gated("t1")
    program = scene.latergator("--workers", "2")
    scene.started("t1")
    until(lambda: program.stdout.count("starting") == 2, "both processes started")

    for pid in program.members:
        kill(pid, signal.SIGTERM)
    until(lambda: len(program.children) == 1, "the idle process has left")
    scene.open("t1")

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t1"]
    assert scene.counts == Counts()


def test_a_child_told_to_leave_by_hand_is_replaced(scene: Scene) -> None:
    program = scene.latergator()
    program.says("starting")
    [child] = program.children

    os.kill(child, signal.SIGTERM)

    until(lambda: program.children not in ([], [child]), "it is replaced")
    scene.push("t1")
    scene.finished("t1")
