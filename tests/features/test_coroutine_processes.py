"""Processes of ``latergator --concurrency``: killed, told to leave, kept by their parent, side by side."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from alligator.backends.base import Counts, Found
from alligator.retries import MAX_DELIVERIES
from tests.features import coroutine_work as jobs
from tests.integration import jobs as functions
from tests.integration.scenes import AT_ONCE, BEFORE_LEASE, Program, Scene, kill, until


def start(scene: Scene, *options: str, **environment: str) -> Program:
    """Start workers that have the tasks' code at hand: what they start is in the journal at once."""
    target = "tests.features.coroutine_gator:gator"
    return scene.latergator("--quiet", *options, target=target, SCENE_DSN=scene.dsn, **environment)


def push_all(scene: Scene, count: int, *args: Any, **options: Any) -> list[str]:
    """Queue coroutines, and a function after every four of them; return their names."""
    names = [f"t{number}" for number in range(count)]
    with scene.gator.batch(**options) as batch:
        for number, name in enumerate(names):
            func = jobs.work_at_once if number % 5 == 4 else jobs.work
            with batch.options(task_id=name) as opts:
                opts.task(func, scene.journal.path, name, *args)
    return names


def push_gated(scene: Scene, *names: str, **options: Any) -> None:
    """Queue coroutines that run until "gate" is opened."""
    for name in names:
        scene.push(name, jobs.wait_at_gate, str(scene.folder / "gate-all"), **options)


def found(scene: Scene, name: str) -> Found:
    """Return a task that is queued or runs."""
    task = scene.gator.backend.find("all", name)
    assert task is not None
    return task


def reasons(scene: Scene) -> dict[str, str]:
    """Return why tasks were buried."""
    return {letter.task_id: json.loads(letter.note)["reason"] for letter in scene.dead}


# Killed.


def test_a_death_counts_for_what_had_started_and_for_nothing_else(scene: Scene) -> None:
    started = [f"t{number}" for number in range(20)]
    push_gated(scene, *started)
    scene.push_gated("function")
    program = start(scene, "--concurrency", "30")
    for name in [*started, "function"]:
        scene.started(name)
    waiting = [f"f{number}" for number in range(5)]  # for the only thread
    for name in waiting:
        scene.push(name, functions.work)

    kill(program.children[0])
    deliveries: dict[str, int] = {}
    # Faster than a new process can be.
    until(lambda: deliveries.update(scene.deliveries()) or len(deliveries) == 26, "all is back")

    assert deliveries == {**dict.fromkeys([*started, "function"], 2), **dict.fromkeys(waiting, 1)}


def test_those_in_flight_when_processes_die_run_alone_in_the_end_and_keep_nobody_for_ever(
    scene: Scene,
) -> None:
    in_flight = [f"s{number}" for number in range(20)]
    push_gated(scene, *in_flight)
    start(scene, "--concurrency", "20")
    for name in in_flight:
        scene.started(name)
    behind = push_all(scene, 100, 0.05)

    victims: list[int] = []
    for time_number in range(1, MAX_DELIVERIES):  # after the first death, again beside each other
        [victim] = {scene.started(name, time_number).pid for name in in_flight}
        victims.append(victim)
        kill(victim)
    (scene.folder / "gate-all").touch()

    until(lambda: scene.counts == Counts(), "all are done")
    runs = runs_after(scene, victims)
    assert sorted(runs) == sorted([*in_flight, *behind])
    for name in in_flight:
        began, ended = runs[name]
        others = [one for other, one in runs.items() if other != name]
        assert all(ended <= other[0] or other[1] <= began for other in others)


def runs_after(scene: Scene, victims: list[int]) -> dict[str, tuple[float, float]]:
    """Return from when to when each task ran, in processes other than those."""
    starts = {one.name: one.at for one in scene.journal.entries("start") if one.pid not in victims}
    ends = {one.name: one.at for one in scene.journal.entries("finish") if one.pid not in victims}
    return {name: (at, ends[name]) for name, at in starts.items()}


# Told to leave.


@pytest.mark.parametrize("kind", ["latergator", "worker"])
def test_what_runs_is_finished_within_the_grace_and_the_rest_goes_back(
    scene: Scene, kind: str
) -> None:
    names = [f"t{number}" for number in range(50)]
    push_gated(scene, *names, retries=2)
    program = running(scene, kind, 20, grace=30)
    until(lambda: len(scene.journal.entries("start")) == 20, "as many run as can")

    program.signal(signal.SIGTERM)
    until(lambda: scene.counts == Counts(waiting=30, running=20), "the rest is given back")
    (scene.folder / "gate-all").touch()

    assert program.wait() == 0
    assert program.stderr == ""
    assert sorted(scene.journal.names("finish")) == sorted(scene.journal.names("start"))
    left = scene.deliveries()
    assert len(left) == 30
    assert set(left.values()) == {1}


@pytest.mark.parametrize("how", ["after the grace", "at a second signal"])
@pytest.mark.parametrize("kind", ["latergator", "worker"])
def test_what_runs_for_longer_goes_back_too(scene: Scene, kind: str, how: str) -> None:
    names = [f"t{number}" for number in range(50)]
    push_gated(scene, *names, retries=2)
    program = running(scene, kind, 20, grace=0.5 if how == "after the grace" else 30)
    until(lambda: len(scene.journal.entries("start")) == 20, "as many run as can")

    told_at = program.signal(signal.SIGTERM)
    if how == "at a second signal":
        told_at = program.signal(signal.SIGINT)  # another one: two of a kind may arrive as one

    assert program.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE  # a machine may be busy
    assert program.stderr == ""
    assert scene.deliveries() == dict.fromkeys(names, 1)
    batch = scene.gator.backend.find("all", "t0")
    assert batch is not None
    assert scene.gator.task_class.deserialize(batch.body).retries == 2
    if kind == "worker" or how == "after the grace":  # at a second signal they may be killed first
        assert sorted(scene.journal.names("cancelled")) == sorted(scene.journal.names("start"))


@pytest.mark.parametrize("kind", ["latergator", "worker"])
def test_what_is_broken_off_has_time_to_tidy_up(scene: Scene, kind: str) -> None:
    scene.push("t1", jobs.tidy_up)
    program = running(scene, kind, 20, grace=0.1)
    scene.started("t1")

    program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert scene.journal.names("tidied") == ["t1"]
    assert scene.deliveries() == {"t1": 1}


def running(scene: Scene, kind: str, concurrency: int, grace: float) -> Program:
    """Start a latergator, or a Worker in a script."""
    if kind == "latergator":
        return start(scene, "--concurrency", str(concurrency), "--grace", str(grace))
    return scene.worker(concurrency=concurrency, grace=grace)


# Kept.


def test_the_leases_of_a_thousand_coroutines_are_kept(scene: Scene) -> None:
    names = [f"t{number}" for number in range(1000)]
    with scene.gator.batch() as batch:
        for name in names:
            with batch.options(task_id=name) as opts:
                opts.task(jobs.work, scene.journal.path, name, 10.0)
    program = start(scene, "--workers", "2", "--concurrency", "1000", "--lease", "2")

    until(lambda: len(scene.journal.entries("start")) >= 1000, "all run")
    until(lambda: scene.counts == Counts(), "all are done", within=40)

    assert sorted(scene.journal.names("start")) == sorted(names)
    assert sorted(scene.journal.names("finish")) == sorted(names)
    assert program.stderr == ""


def test_leases_hold_while_a_coroutine_blocks_the_loop(scene: Scene) -> None:
    names = [f"t{number}" for number in range(50)]
    for name in names:
        scene.push(name, jobs.work, 0.5)
    program = start(scene, "--workers", "2", "--concurrency", "25", "--lease", "1")
    until(lambda: len(scene.journal.entries("start")) >= 20, "they run")
    for number in range(2):
        scene.push(f"block-{number}", jobs.block, 3.0)

    until(lambda: scene.counts == Counts(), "all are done")

    assert sorted(scene.journal.names("start")) == sorted([*names, "block-0", "block-1"])
    assert program.stderr == ""


# Ended.


@pytest.mark.parametrize("func", [jobs.hear_nothing, jobs.block])
def test_a_coroutine_that_does_not_end_in_time_is_ended_with_its_process_and_nothing_else(
    scene: Scene, func: Callable[..., Any]
) -> None:
    others = [f"t{number}" for number in range(20)]
    push_gated(scene, *others, retries=1)
    program = start(scene, "--concurrency", "50")
    for name in others:
        scene.started(name)
    scene.push("deaf", func, *([3600] if func is jobs.block else []), timeout=0.5)

    scene.started(others[-1], 2)
    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(dead=1), "all are done")

    assert reasons(scene) == {"deaf": "timeout"}
    assert len(scene.journal.entries("start", "deaf")) == 1
    started = Counter(scene.journal.names("start"))
    assert {started[name] for name in others} == {2}
    assert "does not end: replacing its worker process" in program.stderr
    assert "died" not in program.stderr


@pytest.mark.parametrize(
    "func",
    [
        jobs.block,
        pytest.param(
            jobs.block_inside,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12), reason="Python cannot tell whose task that is"
            ),
        ),
    ],
)
def test_those_that_a_coroutine_blocks_do_not_fail_for_it(
    scene: Scene, func: Callable[..., Any]
) -> None:
    others = [f"t{number}" for number in range(10)]
    program = start(scene, "--concurrency", "20")
    push_gated(scene, *others, timeout=2.0)
    for name in others:
        scene.started(name)
    scene.push("bad", func, 3600, timeout=2.5)  # its time is over after that of the others

    scene.started(others[-1], 2)
    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(dead=1), "all are done")

    assert reasons(scene) == {"bad": "timeout"}
    assert sorted(scene.journal.names("finish")) == sorted(others)
    assert "'bad' has run for longer than it may, and does not end" in program.stderr
    assert program.stderr.count("does not end") == 1


def test_a_coroutine_that_is_ended_in_time_costs_no_process(scene: Scene) -> None:
    push_gated(scene, "slow", timeout=0.3)
    push_gated(scene, "t1")
    program = start(scene, "--concurrency", "50")
    scene.started("t1")
    until(lambda: reasons(scene) == {"slow": "timeout"}, "it is ended")

    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(dead=1), "all are done")

    assert scene.journal.names("cancelled") == ["slow"]
    assert Counter(scene.journal.names("start")) == {"slow": 1, "t1": 1}
    assert len({entry.pid for entry in scene.journal.entries("start")}) == 1
    assert program.runs


@pytest.mark.parametrize("kind", ["latergator", "worker"])
def test_a_coroutine_is_canceled_from_another_process(scene: Scene, kind: str) -> None:
    names = [f"t{number}" for number in range(10)]
    push_gated(scene, *names, retries=3)
    program = running(scene, kind, 20, grace=30)
    for name in names:
        scene.started(name)

    assert scene.gator.cancel("t3") is not None
    until(lambda: scene.journal.names("cancelled") == ["t3"], "it is cancelled where it waits")
    until(lambda: scene.gator.status("t3").state == "canceled", "it is canceled")
    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(), "the others are done")

    assert sorted(scene.journal.names("start")) == sorted(names)
    assert program.runs


def test_coroutines_that_end_programs_end_no_process(scene: Scene) -> None:
    names = push_all(scene, 50)
    for how in ["itself", "task", "loop"]:
        scene.push(f"bad-{how}", jobs.leave_program, how)
    program = start(scene, "--concurrency", "20", "--burst")

    assert program.wait() == 0
    assert reasons(scene) == dict.fromkeys(["bad-itself", "bad-task", "bad-loop"], "failed")
    assert sorted(scene.journal.names("finish")) == sorted(names)
    assert len({entry.pid for entry in scene.journal.entries("start")}) == 1
    assert "died" not in program.stderr


def test_a_process_that_is_kept_from_its_end_by_a_thread_is_ended(scene: Scene) -> None:
    gate = str(scene.folder / "gate-thread")
    scene.push("t1", jobs.leave_a_thread, gate)
    program = start(scene, "--concurrency", "20", "--max-tasks", "1", "--grace", "0.5")
    first = scene.finished("t1")

    scene.push("t2", jobs.work)

    assert scene.finished("t2").pid != first.pid
    until(lambda: first.pid not in program.children, "the first process has ended")
    assert scene.counts.dead == 0


@pytest.mark.parametrize("then", ["returns", "waits"])
def test_a_copy_that_a_coroutine_forks_does_not_go_on_with_the_others(
    scene: Scene, then: str
) -> None:
    others = [f"t{number}" for number in range(10)]
    push_gated(scene, *others)
    program = start(scene, "--concurrency", "20")
    for name in others:
        scene.started(name)

    scene.push("fork", jobs.fork, then)
    scene.finished("fork")
    until(lambda: len(program.members) == 2, "the copy has ended")
    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(), "all are done")

    [worker] = program.children
    assert {entry.pid for entry in scene.journal.entries("start")} == {worker}
    assert {entry.pid for entry in scene.journal.entries("finish") if entry.name != "fork"} == {
        worker
    }


# Beside one another.


def test_what_one_worker_holds_and_cannot_run_goes_to_the_other(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    workers = [start(scene, "--concurrency", "50") for _ in range(2)]
    scene.push_gated("long")
    busy = scene.started("long").pid
    names = [f"f{number}" for number in range(20)]
    with scene.gator.batch() as batch:
        for name in names:
            with batch.options(task_id=name) as opts:
                opts.task(jobs.work_at_once, scene.journal.path, name)
    pushed_at = time.monotonic()

    took = max(scene.finished(name).at for name in names) - pushed_at
    record_property("seconds until all are done", round(took, 3))
    print(f"all done after {took:.3f} s")

    assert took < AT_ONCE  # 1 s is promised; a machine may be busy
    assert {scene.started(name).pid for name in names}.isdisjoint([busy])
    scene.open("long")
    until(lambda: scene.counts == Counts(), "all are done")
    assert max(Counter(scene.journal.names("start")).values()) == 1
    assert all(worker.runs for worker in workers)


def test_coroutines_are_run_while_functions_wait_for_a_thread_in_every_worker(
    scene: Scene,
) -> None:
    start(scene, "--workers", "2", "--concurrency", "50", "--threads", "1")
    longs = [f"long-{number}" for number in range(30)]
    for name in longs:
        scene.push(name, functions.wait_at_gate, str(scene.folder / "gate-all"))
    until(lambda: len(scene.journal.entries("start")) == 2, "all threads are kept")

    names = [f"t{number}" for number in range(200)]
    for name in names:
        scene.push(name, jobs.work, 0.01)
    for name in names:
        scene.finished(name)

    assert len(scene.journal.entries("start")) == 202
    (scene.folder / "gate-all").touch()
    until(lambda: scene.counts == Counts(), "all are done")
    assert sorted(scene.journal.names("start")) == sorted([*longs, *names])


def test_a_process_that_has_run_its_maximum_is_replaced(scene: Scene) -> None:
    names = push_all(scene, 100, 0.01)
    program = start(scene, "--concurrency", "8", "--threads", "2", "--max-tasks", "30", "--burst")

    assert program.wait() == 0
    runs = Counter(entry.pid for entry in scene.journal.entries("start"))
    assert sorted(runs.values()) == [10, 30, 30, 30]
    assert sorted(scene.journal.names("finish")) == sorted(names)
    assert program.stderr == ""


def test_a_process_that_has_grown_too_big_is_replaced_after_what_it_runs(scene: Scene) -> None:
    for number in range(4):
        scene.push(f"big-{number}", jobs.grow, 150)
    names = push_all(scene, 50, 0.01)
    program = start(scene, "--concurrency", "2", "--max-memory", "150", "--burst")

    assert program.wait() == 0
    assert sorted(scene.journal.names("finish")) == sorted(
        [*names, *map("big-{}".format, range(4))]
    )
    assert sorted(scene.journal.names("start")) == sorted(scene.journal.names("finish"))
    assert len({entry.pid for entry in scene.journal.entries("start")}) >= 3
    assert program.stderr == ""


def test_a_burst_runs_what_is_tried_again_too(scene: Scene) -> None:
    names = push_all(scene, 100, 0.01)
    for number in range(20):
        scene.push(f"bad-{number}", functions.fail, "plain", retries=2)
    program = start(scene, "--workers", "2", "--concurrency", "20", "--burst")

    assert program.wait() == 0
    started = Counter(scene.journal.names("start"))
    assert {name: started[name] for name in names} == dict.fromkeys(names, 1)
    assert scene.counts.delayed == 0
