"""Canceling: a task that waits is taken out, one that runs is told, and one that does not hear it is ended."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, Task, current_task, results, stops, track
from alligator.backends.base import Counts, Records
from alligator.constants import CANCELED, RUNNING
from alligator.exceptions import Canceled, TaskCanceled
from alligator.running import RunningTask
from alligator.testing.running import in_processes
from tests.features import stop_work as jobs
from tests.features.work import QuietWorker, do, done, work_off
from tests.integration.scenes import BEFORE_LEASE, Scene, kill, until


def outcome(gator: Gator, task_id: str) -> str:
    """How a task ended: success, failed or canceled; or nothing is known."""
    assert gator.results is not None
    found = results.outcome_of(gator.results, gator.queue_name, task_id)
    return found.state if found else ""


def records_of(gator: Gator) -> Records:
    assert gator.backend.records is not None
    return gator.backend.records


# Of a task that waits.


def test_one_that_waits_is_taken_out(gator: Gator) -> None:
    with gator.options(task_id="t1", keep_result=60) as opts:
        task = opts.task(do, "t1")

    canceled = gator.cancel("t1")
    work_off(gator)

    assert canceled is not None
    assert canceled.status == CANCELED
    assert (done, gator.len()) == ([], 0)
    assert gator.status("t1").state == "canceled"
    with pytest.raises(TaskCanceled):
        task.wait(0)


def test_one_that_is_to_be_tried_again_is_taken_out(gator: Gator) -> None:
    with gator.options(task_id="t1", retries=3, backoff=60) as opts:
        opts.task(fail_once, "t1")
    work_off(gator)

    canceled = gator.cancel("t1")

    assert canceled is not None
    assert canceled.status == CANCELED
    assert gator.backend.count("all") == Counts()


def fail_once(what: str) -> None:
    done.append(what)
    raise ValueError


def test_what_is_not_there_is_not_canceled(gator: Gator) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(do, "t1")
    work_off(gator)

    assert gator.cancel("t1") is None
    assert gator.cancel("t2") is None
    assert records_of(gator).list("stops") == {}


def test_canceling_a_task_forgets_how_far_it_was(gator: Gator) -> None:
    """A later one of its id, and with the same arguments, begins anew."""
    with gator.options(task_id="t1", retries=1, backoff=60) as opts:
        opts.task(fail_half_way, 10)
    work_off(gator)
    assert done == list(range(6))

    gator.cancel("t1")
    done.clear()
    with gator.options(task_id="t1") as opts:
        opts.task(fail_half_way, 10)
    work_off(gator)

    assert done == list(range(6))


def fail_half_way(items: int) -> None:
    for item in track(range(items)):
        done.append(item)
        if item == items // 2:
            raise ValueError


# Of a task that runs, told by the worker's own thread.

went_on = threading.Event()


@contextmanager
def working(gator: Gator, **settings: Any) -> Generator[QuietWorker]:
    """A worker in a thread while the block runs."""
    worker = QuietWorker(gator, **settings)
    thread = threading.Thread(target=worker.run_forever)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def go_through(items: int) -> None:
    for item in track(range(items)):
        done.append(item)
        time.sleep(0.01)


def look(out: str) -> str:
    done.append("start")
    while not current_task().canceled:
        time.sleep(0.01)
    done.append("heard")
    return "tidied up"


def raise_canceled(out: str) -> None:
    try:
        look(out)
    finally:
        done.append("finally")
    raise Canceled


def fail_when_told(out: str) -> None:
    look(out)
    raise ValueError("gave up")


async def sleep_on(out: str) -> None:
    import asyncio

    done.append("start")
    try:
        await asyncio.sleep(60)
    finally:
        done.append("finally")


@pytest.mark.parametrize(
    ("func", "settings"),
    [
        (raise_canceled, {}),
        (raise_canceled, {"threads": 2}),
        (sleep_on, {}),
        (sleep_on, {"threads": 2}),
        (sleep_on, {"concurrency": 2}),
        (fail_when_told, {}),
    ],
    ids=[
        "alone",
        "in threads",
        "a coroutine",
        "a coroutine in threads",
        "one of many coroutines",
        "one that fails then",
    ],
)
def test_a_task_that_runs_is_told(
    func: Callable[[str], Any], settings: dict[str, int], gator: Gator
) -> None:
    with gator.options(task_id="t1", retries=3, keep_result=60) as opts:
        opts.task(func, "t1")

    with working(gator, **settings):
        until(lambda: done, "it runs")
        canceled = gator.cancel("t1")
        until(lambda: gator.backend.count("all") == Counts(), "it has ended")
        until(lambda: not stops.listed(gator.backend), "nothing is asked any more")

    assert canceled is not None
    assert canceled.status == RUNNING
    assert done.count("start") == 1
    assert outcome(gator, "t1") == "canceled"
    assert gator.status("t1").state == "canceled"


def test_a_task_that_goes_through_items_ends_at_the_next(gator: Gator) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(go_through, 100_000)

    with working(gator):
        until(lambda: done, "it runs")
        gator.cancel("t1")
        until(lambda: gator.backend.count("all") == Counts(), "it has ended")

    assert len(done) < 2000
    assert outcome(gator, "t1") == "canceled"
    assert records_of(gator).list("progress") == {}


def test_a_task_may_end_well_when_it_hears_of_it(gator: Gator) -> None:
    """It is up to the task: what it has done is done."""
    with gator.options(task_id="t1", keep_result=60) as opts:
        task = opts.task(look, "t1")

    with working(gator):
        until(lambda: done, "it runs")
        gator.cancel("t1")
        assert task.wait(20) == "tidied up"
        until(lambda: not stops.listed(gator.backend), "nothing is asked any more")

    assert outcome(gator, "t1") == "success"


def test_canceling_again_changes_nothing(gator: Gator) -> None:
    with gator.options(task_id="t1", keep_result=60) as opts:
        opts.task(raise_canceled, "t1")

    with working(gator):
        until(lambda: done, "it runs")
        for _ in range(5):
            gator.cancel("t1")
        until(lambda: gator.backend.count("all") == Counts(), "it has ended")

    assert outcome(gator, "t1") == "canceled"


# What comes between.


def wait_and_snooze(out: str) -> None:
    from alligator.exceptions import Snooze

    done.append(out)
    assert went_on.wait(30)
    raise Snooze(3600)


def wait_and_fail(out: str) -> None:
    done.append(out)
    assert went_on.wait(30)
    raise ValueError(out)


def tell_nobody(running: RunningTask) -> None:
    pass


@pytest.mark.parametrize("func", [wait_and_snooze, wait_and_fail])
def test_a_task_that_ends_before_it_was_told_does_not_come_again(
    func: Callable[[str], Any], gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunningTask, "cancel", tell_nobody)
    went_on.clear()
    with gator.options(task_id="t1", retries=5) as opts:
        opts.task(func, "t1")

    with working(gator):
        until(lambda: done, "it runs")
        gator.cancel("t1")
        went_on.set()
        until(lambda: gator.backend.count("all") == Counts(), "it is over")

    assert done == ["t1"]
    assert outcome(gator, "t1") == "canceled"
    until(lambda: not stops.listed(gator.backend), "nothing is asked any more")


def test_one_that_waits_behind_a_long_task_in_its_process_is_not_run_elsewhere(
    scene: Scene,
) -> None:
    """It is held, though it has not been started: so all that can be done is to ask for its end."""
    scene.push_many(*(f"short-{number}" for number in range(300)))
    scene.push_gated("long")
    scene.push_many(*(f"behind-{number}" for number in range(20)))
    scene.latergator()
    scene.started("long")

    canceled = [f"behind-{number}" for number in range(20) if number % 2]
    for name in canceled:
        assert scene.gator.cancel(name) is not None
    until(lambda: scene.counts == Counts(waiting=10, running=1), "the others are given back")
    scene.latergator()
    scene.finished("behind-18")
    scene.open("long")
    until(lambda: scene.counts == Counts(), "nothing is left to do")

    assert not set(canceled) & set(scene.journal.names("start"))
    assert {outcome(scene.gator, name) for name in canceled} == {"canceled"}
    until(lambda: not stops.listed(scene.gator.backend), "nothing is asked any more")


def heeded_late(gator: Gator, patch: pytest.MonkeyPatch) -> None:
    """Let another worker come between the moment a task is given back, and the one in which that is heeded."""
    heed = stops.heed

    def late(*args: Any) -> None:
        patch.setattr(stops, "heed", heed)
        work_off(gator)
        heed(*args)

    patch.setattr(stops, "heed", late)


leaving: list[QuietWorker] = []


def cancel_and_leave(gator_of: str, task_id: str) -> None:
    """Cancel a task that this worker holds, and tell it to leave."""
    done.append(gators_by_name[gator_of].cancel(task_id))
    leaving.pop().stop()


def cancel_yourself_and_leave(gator_of: str) -> None:
    """Be canceled, and meet that the worker leaves before anyone could tell."""
    for item in track(range(10)):
        done.append(item)
        if item == 2:
            cancel_and_leave(gator_of, current_task().task_id)


gators_by_name: dict[str, Gator] = {}


def test_one_held_by_a_worker_that_leaves_is_not_run_however_soon_another_takes_it(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gators_by_name, "gator", gator)
    gator.map(do, range(100))  # by then, it takes many at a time
    gator.task(cancel_and_leave, "gator", "behind")
    with gator.options(task_id="behind") as opts:
        opts.task(do, "behind")
    gator.task(do, "other")
    worker = QuietWorker(gator)
    leaving.append(worker)
    heeded_late(gator, monkeypatch)

    worker.run_forever()

    [canceled] = [one for one in done if isinstance(one, Task)]
    assert canceled.status == RUNNING  # it was held
    assert "behind" not in done
    assert done.count("other") == 1
    assert outcome(gator, "behind") == "canceled"
    assert gator.backend.count("all") == Counts()
    until(lambda: not stops.listed(gator.backend), "nothing is asked any more")


def test_one_that_is_resumed_elsewhere_is_not_however_soon_another_takes_it(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gators_by_name, "gator", gator)
    with gator.options(task_id="t1", retries=3) as opts:
        opts.task(cancel_yourself_and_leave, "gator")
    worker = QuietWorker(gator)
    leaving.append(worker)
    heeded_late(gator, monkeypatch)

    worker.run_forever()
    work_off(gator)

    assert [one for one in done if isinstance(one, int)] == [0, 1, 2]
    assert outcome(gator, "t1") == "canceled"
    assert gator.backend.count("all") == Counts()
    until(lambda: not stops.listed(gator.backend), "nothing is asked any more")


def test_one_held_by_a_process_that_dies_is_not_run_however_soon_another_takes_it(
    scene: Scene,
) -> None:
    """Here its parent would never heed that it was canceled."""
    scene.push_many(*(f"short-{number}" for number in range(300)))
    scene.push_gated("long")
    scene.push_many("behind-0", "behind-1")
    scene.python("-m", "tests.features.heedless_parent", scene.dsn)
    first = scene.started("long")
    assert scene.gator.cancel("behind-0") is not None

    kill(first.pid)
    scene.open("long")
    until(lambda: scene.counts == Counts(), "nothing is left to do")

    assert scene.journal.names("finish").count("behind-1") == 1
    assert "behind-0" not in scene.journal.names("start")
    assert outcome(scene.gator, "behind-0") == "canceled"


@pytest.mark.parametrize("how", ["leaves", "process dies", "host dies"])
def test_one_that_its_worker_holds_when_it_ends_is_not_run_elsewhere(
    how: str, scene: Scene
) -> None:
    scene.push_many(*(f"short-{number}" for number in range(300)))
    scene.push_gated("long", jobs.wait_to_leave)
    scene.push_many("behind-0", "behind-1")
    program = scene.latergator("--lease", "2")
    first = scene.started("long")
    assert scene.gator.cancel("behind-0") is not None

    if how == "leaves":
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    elif how == "process dies":
        kill(first.pid)
    else:
        program.kill_all()
    scene.open("long")
    scene.latergator("--lease", "2")
    until(lambda: scene.counts == Counts(), "nothing is left to do")

    assert scene.journal.names("finish").count("behind-1") == 1
    assert "behind-0" not in scene.journal.names("start")
    assert outcome(scene.gator, "behind-0") == "canceled"


# Under latergator.


@pytest.mark.parametrize("settings", [[], ["--threads", "2"]], ids=["alone", "in threads"])
def test_a_task_of_another_process_is_told(settings: list[str], scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("t1", jobs.track_on, gate, retries=2)
    program = scene.latergator(*settings)
    scene.started("t1")

    canceled = scene.gator.cancel("t1")
    asked_at = time.monotonic()

    assert canceled is not None
    assert canceled.status == RUNNING
    until(lambda: scene.counts == Counts(), "it has ended")
    took = time.monotonic() - asked_at
    print(f"ended {took:.2f} s after it was canceled")
    assert took < BEFORE_LEASE
    assert scene.journal.names("start") == ["t1"]
    assert scene.journal.names("finish") == []
    assert outcome(scene.gator, "t1") == "canceled"
    until(lambda: not stops.listed(scene.gator.backend), "nothing is asked any more")
    scene.push("next", jobs.take, 0.0)
    assert scene.finished("next").pid in program.children


@pytest.mark.parametrize("scene", ["sqlite"], indirect=True)  # here, a hand-out is of many queues
def test_one_of_the_same_id_in_another_queue_goes_on(scene: Scene) -> None:
    other = Gator(scene.dsn, "by name")
    scene.push("user-7", jobs.heed_cancel)
    with other.options(task_id="user-7") as opts:
        opts.task(jobs.track_to_gate, scene.journal.path, "other", str(scene.folder / "gate-other"))
    scene.latergator("--threads", "2", "--queue", "all", "--queue", "by name")
    scene.started("user-7")
    scene.started("other")
    found = [gator.backend.find(gator.queue_name, "user-7") for gator in (scene.gator, other)]
    assert len({held.token for held in found if held}) == 1

    scene.gator.cancel("user-7")
    until(lambda: scene.journal.names("heard"), "it is told")
    scene.open("other")
    until(lambda: other.backend.count("by name") == Counts(), "the other one has ended")

    assert scene.journal.names("finish") == ["other"]


@pytest.mark.parametrize("func", [jobs.spin, jobs.hold_the_lock])
def test_one_that_does_not_hear_is_ended_after_the_grace(
    func: Callable[..., Any], scene: Scene
) -> None:
    scene.push("deaf", func, retries=3)
    program = scene.latergator("--grace", "1")
    first = scene.started("deaf")

    scene.gator.cancel("deaf")
    asked_at = time.monotonic()
    until(lambda: scene.counts == Counts(), "it is over")
    took = time.monotonic() - asked_at

    print(f"over {took:.2f} s after it was canceled")
    assert took < BEFORE_LEASE
    assert first.pid not in program.members
    assert "does not end" in program.stderr
    assert scene.journal.names("start") == ["deaf"]
    assert outcome(scene.gator, "deaf") == "canceled"
    until(lambda: not stops.listed(scene.gator.backend), "nothing is asked any more")
    scene.push("next", jobs.take, 0.0)
    scene.finished("next")


def test_others_in_the_process_of_a_deaf_task_are_neither_lost_nor_counted(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("other", jobs.wait_at_gate, gate)
    scene.latergator("--threads", "2", "--grace", "1")
    scene.started("other")
    scene.push("deaf", jobs.hold_the_lock)
    scene.started("deaf")

    scene.gator.cancel("deaf")
    scene.started("other", 2)
    Path(gate).touch()

    until(lambda: scene.counts == Counts(), "nothing is left to do")
    assert scene.journal.names("delivery-1") == ["other", "other"]
    assert scene.journal.names("start").count("deaf") == 1
    assert outcome(scene.gator, "deaf") == "canceled"


def test_one_with_a_timeout_that_was_canceled_is_not_tried_again(scene: Scene) -> None:
    scene.push("deaf", jobs.hold_the_lock, timeout=1, retries=3)
    scene.latergator("--grace", "60")
    scene.started("deaf")

    scene.gator.cancel("deaf")

    until(lambda: scene.counts == Counts(), "it is over")
    assert scene.journal.names("start") == ["deaf"]
    assert outcome(scene.gator, "deaf") == "canceled"


def test_it_stays_canceled_if_its_whole_host_is_lost(scene: Scene) -> None:
    scene.push("deaf", jobs.spin, retries=3)
    lost = scene.latergator("--lease", "1")
    scene.started("deaf")
    scene.gator.cancel("deaf")
    lost.kill_all()

    scene.latergator("--lease", "1")

    until(lambda: scene.counts == Counts(), "it is over")
    assert scene.journal.names("start") == ["deaf"]
    assert outcome(scene.gator, "deaf") == "canceled"


# At the same moment.


def test_one_that_ends_at_the_same_moment_is_done_or_canceled_never_both(gator: Gator) -> None:
    """And none is stuck, tried again, or leaves anything behind that could meet a later one."""
    rounds = 60
    with working(gator):
        for number in range(rounds):
            name = f"t{number}"
            with gator.options(task_id=name, keep_result=60) as opts:
                task = opts.task(do, name)
            time.sleep(random.uniform(0.0, 0.002))
            canceled = gator.cancel(name)
            until(lambda: gator.backend.count("all") == Counts(), "it is over")
            was_run, state = name in done, outcome(gator, name)
            if canceled is not None and canceled.status == CANCELED:
                assert (was_run, state) == (False, "canceled")
                with pytest.raises(TaskCanceled):
                    task.wait(0)
            else:
                # Asked in its last moment, or not at all.
                assert (was_run, state) == (True, "success")
                assert task.wait(0) == name

    assert Counter(done).most_common(1)[0][1] == 1 if done else True
    print(f"{len(done)} of {rounds} were done")


def test_of_many_that_run_and_end_while_they_are_canceled_each_has_one_end(scene: Scene) -> None:
    names = [f"t{number}" for number in range(40)]
    for name in names:
        scene.push(name, jobs.track_for, random.uniform(1.0, 2.5), retries=2, keep_result=600)
    scene.latergator("--threads", "20", "--workers", "2")
    for name in names:
        scene.started(name)

    def cancel(number: int) -> list[str]:
        gator = Gator(scene.dsn)
        mine = names[number::2]
        told: list[str] = []
        for name in random.sample(mine, len(mine)):
            time.sleep(random.uniform(0.0, 0.1))
            if gator.cancel(name) is not None:
                told.append(name)
        gator.backend.close()
        return told

    told = [name for part in in_processes(2, cancel) for name in part]
    until(lambda: scene.counts == Counts(), "all are over", within=40)
    ends = {name: outcome(scene.gator, name) for name in names}
    finished = Counter(scene.journal.names("finish"))

    print(f"{len(told)} told, {Counter(ends.values())}")
    assert set(ends.values()) <= {"success", "canceled"}
    assert {name for name, end in ends.items() if end == "success"} == set(finished)
    assert set(finished.values()) <= {1}
    assert Counter(scene.journal.names("start")) == dict.fromkeys(names, 1)
