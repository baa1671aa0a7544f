"""What a task knows of itself; progress, and checkpoints that a new attempt resumes from."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from alligator import Gator, Retry, RunningTask, checkpoints, current_task, track
from alligator.backends.base import Message, Release, reserved_at, worker_of
from alligator.exceptions import BackendUnavailable, Canceled, InvalidArguments, TaskTimeout
from alligator.keys import PROGRESS, ref
from alligator.payloads import mark_of
from tests.features.work import QuietWorker, done, work_off


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each progress, however soon after the last."""
    monkeypatch.setattr(checkpoints, "SAVE_EVERY", -1.0)


def progress_of(gator: Gator, task_id: str) -> dict[str, Any] | None:
    assert gator.backend.records is not None
    value = gator.backend.records.get(f"{PROGRESS}/{ref(gator.queue_name, task_id)}")
    return json.loads(value) if value else None


def introduce_yourself() -> None:
    """Note what the task knows of itself."""
    task = current_task()
    done.append(task)
    done.append((task.task_id, task.queue_name, task.attempt, task.retries, task.token))
    done.append((task.deadline, task.time_left, task.canceled, task.leaving, task.deliveries))


def note_fence() -> None:
    done.append(current_task().fence)
    raise Retry(delay=0.05)


def test_a_later_hand_out_has_a_greater_fence(gator: Gator) -> None:
    with gator.options(retries=2) as opts:
        opts.task(note_fence)
    while gator.backend.count("all").dead == 0:
        work_off(gator)

    assert 0 < done[0] < done[1] < done[2]


def test_a_task_knows_itself(gator: Gator) -> None:
    with gator.options(task_id="me", retries=2, timeout=60) as opts:
        opts.task(introduce_yourself)
    before = time.time()

    worker = QuietWorker(gator, burst=True)
    worker.run_forever()

    task_id, queue_name, attempt, retries, token = done[1]
    assert (task_id, queue_name, attempt, retries) == ("me", "all", 1, 2)
    assert worker_of(token) == worker.worker_id
    assert reserved_at(token) == pytest.approx(gator.backend.now(), abs=60)
    deadline, left, *flags = done[2]
    assert deadline == pytest.approx(before + 60, abs=10)
    assert 50 < left <= 60
    assert flags == [False, False, 1]


def test_nobody_is_the_current_task_outside_of_one() -> None:
    task = current_task()

    task.progress(1, 2, "no one sees this")

    assert (task.task_id, task.token, task.attempt, task.deadline) == ("", "", 1, None)
    assert task.fence == 0
    assert not task.canceled
    assert list(track("abc")) == ["a", "b", "c"]
    assert list(track(iter([1, 2]))) == [1, 2]


def test_the_current_task_ends_with_the_task(gator: Gator) -> None:
    gator.task(introduce_yourself)
    work_off(gator)

    assert current_task().task_id == ""


def test_a_task_that_runs_at_once_knows_itself_too(gator: Gator) -> None:
    with gator.options(is_async=False, task_id="here") as opts:
        opts.task(introduce_yourself)

    assert done[1] == ("here", "", 1, 0, "")


async def look_around() -> None:
    """Note the current task before and after a wait."""
    done.append(current_task().task_id)
    await asyncio.sleep(0)
    done.append(current_task().task_id)


@pytest.mark.parametrize("concurrency", [1, 10])
def test_each_coroutine_has_a_current_task_of_its_own(gator: Gator, concurrency: int) -> None:
    tasks = [gator.task(look_around) for _ in range(20)]

    work_off(gator, concurrency=concurrency)

    assert sorted(done) == sorted([task.task_id for task in tasks] * 2)


def _gator() -> Gator:
    """Return the test's Gator."""
    raise NotImplementedError("replaced by the test")


def tell_progress() -> None:
    """Say how far it is, and note what others see."""
    current_task().progress(3, 10, "resizing")
    done.append(seen())


def seen() -> Any:
    """Return what a producer sees of the task that runs now."""
    status = _gator().status(current_task().task_id)
    return status.state, status.progress


def test_progress_is_seen_while_the_task_runs_and_not_after(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "_gator", lambda: gator)
    task = gator.task(tell_progress)

    work_off(gator)

    [(state, progress)] = done
    assert state == "running"
    assert (progress.done, progress.total, progress.note) == (3, 10, "resizing")
    assert progress_of(gator, task.task_id) is None


def fail_at(number: int) -> int:
    """Go through ten items; fail at one of them in the first attempt."""
    for item in track(range(10)):
        if item == number and current_task().attempt == 1:
            raise ValueError(f"item {item}")
        done.append(item)
    return len(done)


def test_a_new_attempt_begins_where_the_last_one_failed(gator: Gator) -> None:
    with gator.options(retries=1, keep_result=60) as opts:
        task = opts.task(fail_at, 7)

    work_off(gator)

    assert done == list(range(10))  # the checkpoint is exact, however soon the failure came
    assert task.wait(0) == 10
    assert progress_of(gator, task.task_id) is None


def two_loops() -> None:
    """Two loops, one after the other, and one inside the second."""
    for item in track(range(3)):
        done.append(("first", item))
    for item in track(range(3)):
        for part in track("ab"):
            done.append(("second", item, part))
        if item == 1 and current_task().attempt == 1:
            raise ValueError(item)


def test_loops_resume_one_by_one_and_those_inside_run_whole(gator: Gator) -> None:
    with gator.options(retries=1) as opts:
        opts.task(two_loops)

    work_off(gator)

    outer = [("first", item) for item in range(3)]
    again = [("second", item, part) for item in (0, 1, 1, 2) for part in "ab"]
    assert done == outer + again


def leave_early() -> None:
    """Leave the first loop by break; fail in the second."""
    for item in track(range(10)):
        done.append(item)
        if item >= 2:
            break
    for letter in track("xyz"):
        done.append(letter)
        if letter == "y" and current_task().attempt == 1:
            raise ValueError(letter)


def test_a_loop_that_is_left_is_left_behind(gator: Gator) -> None:
    with gator.options(retries=1) as opts:
        opts.task(leave_early)

    work_off(gator)

    # The item at which a loop is left was not passed, and so comes again.
    assert done == [0, 1, 2, "x", "y", 2, "y", "z"]


def generated() -> Iterator[int]:
    """Yield numbers, and note each."""
    for number in range(5):
        done.append(f"made {number}")
        yield number


def over_a_generator() -> None:
    """Go through what has no length, and cannot be begun in the middle."""
    for number in track(generated(), total=5, note="numbers"):
        if number == 3 and current_task().attempt == 1:
            raise ValueError(number)
        done.append(number)


def test_what_has_no_length_is_gone_through_again_to_the_place(gator: Gator) -> None:
    with gator.options(retries=1) as opts:
        opts.task(over_a_generator)

    work_off(gator)

    assert [item for item in done if isinstance(item, int)] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("always_saved")
def test_a_former_task_of_the_same_id_leaves_no_checkpoint_behind(gator: Gator) -> None:
    assert gator.backend.records is not None
    key = f"{PROGRESS}/{ref('all', 'daily')}"
    gator.backend.records.set(key, json.dumps({"done": 5, "at": 0, "passed": [5]}).encode())
    with gator.options(task_id="daily") as opts:
        opts.task(fail_at, -1)

    work_off(gator)

    assert done == list(range(10))


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("is_same", [True, False])
def test_after_a_worker_died_only_the_same_task_resumes(is_same: bool, gator: Gator) -> None:
    with gator.options(task_id="daily") as opts:
        opts.task(fail_at, -1)
    held = gator.backend.reserve_task("all", "daily", "me")
    assert held is not None
    assert gator.backend.records is not None
    mark = mark_of(held.body if is_same else b"of another push")
    told = {"done": 5, "at": 0, "passed": [5], "token": "t", "body": mark}
    gator.backend.records.set(checkpoints.key_of("all", "daily"), json.dumps(told).encode())
    gator.backend.settle([Release(held, lapsed=True)])

    work_off(gator)

    assert done == list(range(5 if is_same else 0, 10))


def test_what_cannot_be_told_where_to_resume_goes_back_as_it_is(gator: Gator) -> None:
    records = gator.backend.records
    assert records is not None
    body = b'{"task_id":"t1","retries":0,"async":true,"module":"m","callable":"f","args":[NaN]}'
    for name, data in (("odd", body), ("text", b"no JSON")):
        gator.backend.push_many("all", [Message(name, data)])
        held = gator.backend.reserve_task("all", name, "me")
        assert held is not None
        records.set(checkpoints.key_of("all", name), json.dumps({"token": held.token}).encode())
        for one in (held, held._replace(body=b"")):  # as a worker knows it, and as its parent does
            assert checkpoints.resuming(gator.backend, [Release(one)]) == [Release(one)]


def test_amid_looking_up_many_that_resume_others_are_looked_after(gator: Gator) -> None:
    records = gator.backend.records
    assert records is not None
    with gator.batch() as batch:
        for _ in range(3):
            batch.task(fail_at, -1)
    held = gator.backend.reserve(["all"], "me", limit=3).reservations
    for one in held[:2]:
        key = checkpoints.key_of("all", one.task_id)
        records.set(key, json.dumps({"token": one.token}).encode())
    releases = [Release(one._replace(body=b"")) for one in held]

    looks: list[int] = []
    back = checkpoints.resuming(gator.backend, releases, meanwhile=lambda: looks.append(1))

    assert [bool(release.body) for release in back] == [True, True, False]
    assert len(looks) == 2


def test_a_suspect_goes_back_with_its_deliveries(gator: Gator) -> None:
    gator.task(fail_at, -1)
    [held] = gator.backend.reserve(["all"], "me").reservations
    gator.backend.settle([Release(held, lapsed=True)])
    [held] = gator.backend.reserve(["all"], "me").reservations
    assert gator.backend.records is not None
    key = checkpoints.key_of("all", held.task_id)
    gator.backend.records.set(key, json.dumps({"token": held.token}).encode())
    on_board = held._replace(body=b"", deliveries=1)

    assert checkpoints.resuming(gator.backend, [Release(on_board)]) == [Release(on_board)]


@pytest.mark.parametrize("passed", [["x"], [-1], [1e300], [10**30], [None], 5, "abc", None])
def test_a_checkpoint_that_makes_no_sense_is_none(passed: Any, gator: Gator) -> None:
    assert gator.backend.records is not None
    with gator.options(retries=1, task_id="odd", backoff=1000) as opts:
        opts.task(fail_at, 5)
    work_off(gator)
    told = progress_of(gator, "odd")
    assert told is not None
    odd = json.dumps({**told, "passed": passed}).encode()
    gator.backend.records.set(f"{PROGRESS}/{ref('all', 'odd')}", odd)
    gator.backend.reschedule("all", ["odd"])

    work_off(gator)

    assert done == [*range(5), *range(10)]


less: list[int] = []


def go_through_less() -> str:
    """Go through items of which there are fewer in the second attempt."""
    for item in track(less):
        done.append(item)
    if current_task().attempt == 1:
        less.clear()
        raise ValueError
    return "done"


def test_fewer_items_than_were_passed_before_are_none(gator: Gator) -> None:
    less[:] = range(5)
    with gator.options(retries=1, keep_result=60) as opts:
        task = opts.task(go_through_less)

    work_off(gator)

    assert task.wait(0) == "done"
    assert done == list(range(5))


def go_through_odd_ones() -> None:
    """Go through nothing, and through what has no end."""
    done.extend(track([]))
    for item in track(itertools.count()):
        done.append(item)
        if item == 1000:
            break
    done.append([*track({"a": 1, "b": 2})])


def test_items_may_be_none_or_have_no_end(gator: Gator) -> None:
    task = gator.task(go_through_odd_ones)

    work_off(gator)

    assert done == [*range(1001), ["a", "b"]]
    assert gator.status(task.task_id).state != "failed"


def go_through_in_threads() -> None:
    """Track in threads of its own: in a copy of its context, and outside of it."""
    inside = copy_context()
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(inside.run, through_some), pool.submit(through_some)]
        done.extend(one.result() for one in told)


def through_some() -> tuple[str, list[int]]:
    """Go through some items; return whose they were, and the items."""
    return current_task().task_id, list(track(range(5)))


def test_a_thread_of_its_own_is_in_the_task_with_its_context(gator: Gator) -> None:
    task = gator.task(go_through_in_threads)

    work_off(gator)

    assert done == [(task.task_id, [0, 1, 2, 3, 4]), ("", [0, 1, 2, 3, 4])]


def test_what_goes_through_items_outside_of_a_task_leaves_nothing_behind() -> None:
    """However often it does so in a long life; and two may do so at once, each through all of its items."""
    for one, other in zip(track(range(10)), track(range(10)), strict=True):
        assert one == other

    assert not current_task().has_checkpoint


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        current_task().progress(1, 2, "\ud800")
    with pytest.raises(InvalidArguments):
        list(track("ab", note="\ud800"))


def stop_yourself() -> None:
    """Be canceled at the third item."""
    for item in track(range(10)):
        done.append(item)
        if item == 2:
            current_task().cancel()


def test_a_canceled_task_ends_at_the_next_item(gator: Gator) -> None:
    task = gator.task(stop_yourself)

    work_off(gator)

    assert done == [0, 1, 2]
    assert gator.status(task.task_id).state == "canceled"
    assert gator.len() == 0


def raise_canceled() -> None:
    """Say that it is canceled."""
    raise Canceled


def test_a_task_may_say_itself_that_it_is_canceled(gator: Gator) -> None:
    with gator.options(retries=3) as opts:
        task = opts.task(raise_canceled)

    work_off(gator)

    assert gator.status(task.task_id).state == "canceled"
    assert gator.backend.count("all").dead == 0


def test_a_running_task_says_what_it_is() -> None:
    assert "attempt 1" in repr(RunningTask())


# How often it is written.


@pytest.fixture
def writes(gator: Gator, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is written of how far tasks are."""
    assert gator.backend.records is not None
    written: list[dict[str, Any]] = []
    write = gator.backend.records.set

    def note(key: str, value: bytes, ttl: float | None = None) -> None:
        if key.startswith(PROGRESS):
            written.append(json.loads(value))
        write(key, value, ttl)

    monkeypatch.setattr(gator.backend.records, "set", note)
    return written


def tell_again_and_again(count: int, notes: int) -> None:
    """Say how far it is, as often as that, with so many notes in turn."""
    for number in range(count):
        current_task().progress(number, count, f"part {number % notes}")
    done.append(time.monotonic())


def seldom(began_at: float) -> float:
    """How often it may be written since then, if parts do not count."""
    return 2 + (time.monotonic() - began_at) / checkpoints.SAVE_EVERY


@pytest.mark.parametrize("notes", [1, 2])
def test_who_tells_it_often_writes_it_seldom(
    notes: int, gator: Gator, writes: list[dict[str, Any]]
) -> None:
    began_at = time.monotonic()
    gator.task(tell_again_and_again, 10_000, notes)

    work_off(gator)

    most = seldom(began_at) if notes == 1 else checkpoints.AT_ONCE + 2 * seldom(began_at)
    assert 1 <= len(writes) <= most


def begin_parts() -> None:
    """Begin one part soon after the other."""
    for number, part in enumerate(["download", "convert", "upload"]):
        current_task().progress(number, 3, part)
    done.append("uploading")


def test_who_looks_sees_the_part_that_was_begun_last(
    gator: Gator, writes: list[dict[str, Any]]
) -> None:
    gator.task(begin_parts)

    work_off(gator)

    assert [one["note"] for one in writes] == ["download", "convert", "upload"]


def go_through_quickly() -> None:
    """Go through items, after which something else may take long."""
    for _ in track(range(100)):
        for _ in track("ab"):
            pass
    done.append("all")


def test_who_looks_sees_that_all_items_are_done(gator: Gator, writes: list[dict[str, Any]]) -> None:
    began_at = time.monotonic()
    gator.task(go_through_quickly)

    work_off(gator)

    assert (writes[-1]["done"], writes[-1]["total"]) == (100, 100)
    assert len(writes) <= 1 + seldom(began_at)


def test_what_ends_a_task_ends_it_also_while_it_says_how_far_it_is(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the store's failure, which is borne, and the end of its time would be taken for one another."""

    def interrupted(key: str, value: bytes, ttl: float | None = None) -> None:
        raise TaskTimeout

    assert gator.backend.records is not None
    monkeypatch.setattr(gator.backend.records, "set", interrupted)
    gator.task(tell_again_and_again, 1, 1)

    work_off(gator)

    [letter] = gator.backend.dead("all")
    assert json.loads(letter.note)["reason"] == "timeout"
    assert done == []


def test_a_store_that_is_away_does_not_end_it(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str, value: bytes, ttl: float | None = None) -> None:
        raise BackendUnavailable("away")

    assert gator.backend.records is not None
    monkeypatch.setattr(gator.backend.records, "set", away)
    gator.task(tell_again_and_again, 1, 1)

    work_off(gator)

    assert len(done) == 1
    assert gator.backend.count("all").dead == 0


def leave_a_thread_behind() -> None:
    """Let a thread go on after the task has ended."""
    task = current_task()
    task.progress(1, 3)
    done.append(lambda: task.progress(2, 3, "too late"))


def test_what_is_told_after_the_end_is_not_written(gator: Gator) -> None:
    task = gator.task(leave_a_thread_behind)
    work_off(gator)

    done[0]()

    assert progress_of(gator, task.task_id) is None
