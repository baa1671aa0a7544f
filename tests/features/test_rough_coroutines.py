"""Coroutines that behave as none should, and workers that leave in the midst of them."""

import asyncio
import gc
import logging
import threading
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.backends.base import Counts
from alligator.exceptions import TaskFailed, UnknownCallableError
from alligator.processes.board import Board, State
from alligator.testing.running import in_a_thread
from alligator.testing.stores import until
from tests.features import coroutine_work as jobs
from tests.features.coroutine_work import done
from tests.features.work import QuietWorker, work_off


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    jobs.forget()


@pytest.fixture(autouse=True)
def threads() -> set[threading.Thread]:
    """The threads that are there before a test."""
    return set(threading.enumerate())


@pytest.fixture(autouse=True)
def nothing_left(
    threads: set[threading.Thread], caplog: pytest.LogCaptureFixture
) -> Generator[None]:
    """No threads are left behind, and nothing that asyncio would complain of; pytest does so for Python."""
    yield
    jobs.released.set()
    all_ended(threads)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def all_ended(threads: set[threading.Thread]) -> None:
    """Wait for the end of all other threads, and of what they knew."""
    until(lambda: set(threading.enumerate()) <= threads, "all threads end")
    gc.collect()


@pytest.fixture
def gator() -> Gator:
    """A queue in memory: no store has a part in this."""
    return Gator("locmem://")


def state_of(gator: Gator, task: Task) -> str:
    return gator.status(task.task_id).state


# What they do to the loop.


@pytest.mark.parametrize("how", ["itself", "task", "loop"])
@pytest.mark.parametrize("kind", ["exit", "interrupt"])
def test_a_coroutine_that_ends_programs_has_failed_and_nothing_else(
    gator: Gator, kind: str, how: str
) -> None:
    gator.map(jobs.note, range(50))
    with gator.options(keep_result=60) as opts:
        task = opts.task(jobs.leave, kind, how)
    gator.map(jobs.note, range(50, 100))

    work_off(gator, concurrency=20)

    assert sorted(done) == list(range(100))
    with pytest.raises(TaskFailed) as caught:
        task.wait(0)
    assert caught.value.error_type == {"exit": "SystemExit", "interrupt": "KeyboardInterrupt"}[kind]


def test_a_coroutine_that_stops_the_loop_stops_nothing(gator: Gator) -> None:
    gator.map(jobs.note, range(50))
    with gator.options(keep_result=60) as opts:
        task = opts.task(jobs.stop_the_loop)
    gator.map(jobs.note, range(50, 100))

    work_off(gator, concurrency=20)

    assert task.wait(0) == "went on"
    assert sorted(done) == list(range(100))


def test_a_coroutine_that_closes_the_loop_has_failed(gator: Gator) -> None:
    task = gator.task(jobs.close_the_loop)
    gator.map(jobs.note, range(50))

    work_off(gator, concurrency=20)

    assert state_of(gator, task) == "failed"
    assert sorted(done) == list(range(50))


def test_a_worker_that_has_lost_its_loop_does_not_go_on(
    gator: Gator, threads: set[threading.Thread], caplog: pytest.LogCaptureFixture
) -> None:
    gator.task(jobs.lose_the_loop)

    with pytest.raises(RuntimeError, match="closed the event loop"):
        work_off(gator, concurrency=20)

    all_ended(threads)
    caplog.clear()  # asyncio complains, and rightly so


def test_a_coroutine_that_cancels_all_others_keeps_none_for_ever(gator: Gator) -> None:
    for number in range(5):
        gator.map(jobs.note, range(10 * number, 10 * number + 10))
        gator.task(jobs.cancel_all)

    work_off(gator, concurrency=20)

    assert gator.backend.count("all").running == 0
    assert gator.len() == 0


def test_what_a_coroutine_leaves_behind_ends_with_the_worker(gator: Gator) -> None:
    gator.task(jobs.leave_one_behind)

    work_off(gator, concurrency=20)

    assert done == ["tidied up"]


def test_a_coroutine_that_blocks_the_loop_keeps_no_others_from_other_workers(gator: Gator) -> None:
    gator.task(jobs.block_the_loop)
    with working(gator, concurrency=500) as worker:
        until(lambda: done == ["began"], "it blocks")
        gator.map(jobs.note, range(400))
        with working(gator, concurrency=500):
            # Some were begun before the worker could know.
            until(lambda: len(done) > 400 - 100, "others run")
            assert "blocked" not in done
            jobs.released.set()
            until(lambda: len(done) == 402, "all are done")
            worker.stop()


def test_what_the_loop_has_not_run_yet_has_no_deadline(gator: Gator) -> None:
    board = Board()
    gator.task(jobs.block_the_loop)
    worker = QuietWorker(gator, burst=True, concurrency=10, board=board)

    def deadlines() -> list[float]:
        return [task.deadline for task in board.read() if task.state == State.SUBMITTED]

    with in_a_thread(worker.run_forever):
        try:
            until(lambda: done == ["began"], "it is blocked")
            with gator.options(timeout=60) as opts:
                for number in range(3):
                    opts.task(jobs.note, number)
            until(lambda: len(deadlines()) == 3, "they wait for the loop")
            found = deadlines()
        finally:
            jobs.released.set()

    assert found == [0.0] * 3


def test_what_is_blocked_is_not_overdue_whether_or_not_the_blocking_one_has_a_timeout(
    gator: Gator,
) -> None:
    board = Board()
    blocking = gator.task(jobs.block_when_told)
    worker = QuietWorker(gator, burst=True, concurrency=10, board=board)

    def deadline() -> float:
        return max((task.deadline for task in board.read()), default=0.0)

    with in_a_thread(worker.run_forever):
        try:
            until(lambda: jobs.meeting, "it can be told")
            with gator.options(timeout=0.1) as opts:
                blocked = opts.task(jobs.let_it_block)
            until(lambda: done == ["began"], "it blocks the loop")
            first = deadline()
            until(lambda: deadline() > first, "the deadline is put off")
        finally:
            jobs.released.set()

    assert first > 0.0
    assert done == ["began", "blocked"]
    assert gator.status(blocking.task_id).state == "unknown"  # a success leaves no trace
    assert gator.status(blocked.task_id).reason == "timeout"  # when it could hear


# What ends before its time.


def test_a_coroutine_that_is_canceled_before_it_runs_does_not_run(
    gator: Gator,
) -> None:
    with gator.options(on_start=jobs.cancel_at_start) as opts:
        tasks = [opts.task(jobs.note, number) for number in range(20)]

    work_off(gator, concurrency=20)

    assert done == []
    assert {state_of(gator, task) for task in tasks} == {"canceled"}


@contextmanager
def working(gator: Gator, **settings: Any) -> Generator[QuietWorker]:
    """A worker in a thread, which is told to leave at the end."""
    worker = QuietWorker(gator, **settings)
    with in_a_thread(worker.run_forever) as end:
        try:
            yield worker
        finally:
            worker.stop()
            end.result(30)


@pytest.mark.parametrize(
    "func",
    [jobs.run_until_broken_off, jobs.fail_when_broken_off, jobs.block_the_loop, jobs.never_end],
)
def test_what_runs_too_long_for_a_worker_that_leaves_is_given_back_unscathed(
    gator: Gator, func: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with gator.options(retries=1, on_error=jobs.hook_soon) as opts:
        for _ in range(5):
            opts.task(func)
    with working(gator, concurrency=20, grace=0.0):
        until(lambda: "began" in done, "they run")
    jobs.released.set()

    batch = gator.backend.reserve(["all"], "inspector", limit=10)
    assert len(batch.reservations) == 5
    assert {held.deliveries for held in batch.reservations} == {1}
    bodies = [Task.deserialize(held.body) for held in batch.reservations]
    assert {(task.retries, task.attempt) for task in bodies} == {(1, 1)}
    assert not any(isinstance(what, tuple) for what in done)  # no hook was called
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


def test_what_is_broken_off_tidies_up_before_it_is_given_back(gator: Gator) -> None:
    for _ in range(5):
        gator.task(jobs.run_until_broken_off)
    with working(gator, concurrency=20, grace=0.0):
        until(lambda: done.count("began") == 5, "they run")

    assert done == ["began"] * 5 + ["tidied up"] * 5
    assert gator.backend.count("all") == Counts(waiting=5)


def test_what_finishes_when_it_is_broken_off_is_done(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        tasks = [opts.task(jobs.finish_when_broken_off) for _ in range(5)]
    with working(gator, concurrency=20, grace=0.0):
        until(lambda: done.count("began") == 5, "they run")

    assert [task.wait(0) for task in tasks] == ["finished"] * 5
    assert gator.backend.count("all") == Counts()


def test_what_is_broken_off_is_resumed_where_it_was(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        task = opts.task(jobs.resume_at_three)
    with working(gator, concurrency=20, grace=0.0):
        until(lambda: done == ["began"], "it runs")

    work_off(gator, concurrency=20)

    assert task.wait(0) == [3, 4, 5]


def test_what_runs_is_finished_within_the_grace_and_the_rest_given_back(gator: Gator) -> None:
    jobs.begun.clear()
    for _ in range(30):
        gator.task(jobs.wait_for_release)
    with working(gator, concurrency=10, grace=30.0) as worker:
        until(lambda: len(jobs.begun) == 10, "as many run as can")
        worker.stop()
        until(lambda: gator.backend.count("all").running == 10, "the rest is given back")
        jobs.released.set()

    assert done == ["coroutine"] * 10
    assert gator.backend.count("all") == Counts(waiting=20)


def test_functions_that_wait_for_a_thread_are_given_back_too(gator: Gator) -> None:
    for _ in range(15):
        gator.task(jobs.block_until_released)
    with working(gator, concurrency=10, grace=30.0) as worker:
        until(jobs.blocking.is_set, "one runs")
        until(lambda: gator.backend.count("all").running > 1, "others wait for it")
        worker.stop()
        until(lambda: gator.backend.count("all").running == 1, "the rest is given back")
        jobs.released.set()

    assert done == ["blocked"]
    assert set(deliveries(gator)) == {1}
    assert len(deliveries(gator)) in (0, 14)


def deliveries(gator: Gator) -> list[int]:
    """Take all that waits; return how often each was handed out."""
    batch = gator.backend.reserve(["all"], "inspector", limit=100)
    return [held.deliveries for held in batch.reservations]


def test_a_hook_that_is_told_to_end_gives_its_task_back(gator: Gator) -> None:
    with gator.options(on_success=jobs.go_through_in_hook) as opts:
        opts.task(jobs.note, 1)
    with working(gator, concurrency=10) as worker:
        until(lambda: "hook" in done, "the hook is called")
        worker.stop()
        jobs.released.set()

    assert gator.backend.count("all") == Counts(waiting=1)
    assert deliveries(gator) == [1]


class Quarrelsome(Task):
    """A class of tasks that cannot take a success."""

    def succeed(self, result: Any) -> None:
        done.append("succeeded")
        raise RuntimeError("no taste for that")


@pytest.mark.parametrize("settings", [{"concurrency": 10}, {"threads": 3}])
def test_a_task_class_that_raises_ends_no_thread(settings: dict[str, int]) -> None:
    gator = Gator("locmem://", task_class=Quarrelsome)
    for _ in range(20):
        gator.task(jobs.nothing)
    with working(gator, **settings):
        until(lambda: done == ["succeeded"] * 20, "all are run")

    assert gator.backend.count("all") == Counts(running=20)  # until their leases lapse


# What they and their hooks know.


def test_all_that_a_coroutine_starts_knows_whose_task_it_is(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        tasks = [opts.task(jobs.ask_around) for _ in range(20)]

    work_off(gator, concurrency=20)

    for task in tasks:
        assert task.wait(0) == [task.task_id] * 6 + [""]


def test_a_coroutine_and_its_hooks_share_a_context_with_nobody_else(gator: Gator) -> None:
    with gator.options(on_start=jobs.claim, on_success=jobs.see_claims) as opts:
        tasks = [opts.task(jobs.claim_more) for _ in range(20)]

    work_off(gator, concurrency=20)

    for task in tasks:
        name = task.task_id
        assert [entry for entry in done if entry[1] == name] == [
            ("start", name, "nobody's"),
            ("function", name, name),
            ("end", name, f"{name}'s own"),
        ]
    assert len(done) == 60


@pytest.mark.parametrize("settings", [{}, {"threads": 2}, {"concurrency": 10}])
@pytest.mark.parametrize("func", [jobs.nothing, jobs.nothing_at_once])
def test_hooks_may_be_coroutine_functions(
    gator: Gator, func: Callable[..., Any], settings: dict[str, int]
) -> None:
    hooks = {"on_start": jobs.hook_soon, "on_success": jobs.hook_soon}
    with gator.options(task_id="t1", **hooks) as opts:
        opts.task(func)

    work_off(gator, **settings)

    assert done == [("hook", "t1"), ("hook", "t1", "None")]


@pytest.mark.parametrize("settings", [{}, {"threads": 2}, {"concurrency": 10}])
def test_coroutine_functions_see_failures_as_hooks(gator: Gator, settings: dict[str, int]) -> None:
    with gator.options(task_id="t1", on_error=jobs.hook_soon) as opts:
        opts.task(jobs.fail)

    work_off(gator, **settings)

    assert done == [1, ("hook", "t1", "broken")]


@pytest.mark.parametrize("settings", [{}, {"concurrency": 10}])
def test_a_coroutine_function_that_fails_as_a_hook_does_as_any_other(
    gator: Gator, settings: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with gator.options(on_start=jobs.broken_hook) as opts:
        start = opts.task(jobs.note, 1)
    with gator.options(on_success=jobs.broken_hook) as opts:
        end = opts.task(jobs.note, 2)

    work_off(gator, **settings)

    assert done == [2]
    assert (state_of(gator, start), state_of(gator, end)) == ("failed", "unknown")
    assert "its hook" in caplog.text


def test_a_hook_may_be_a_coroutine_function_where_a_task_is_run_at_once(gator: Gator) -> None:
    async def view() -> None:
        with gator.options(is_async=False, on_success=jobs.hook_soon) as opts:
            opts.task(jobs.nothing)

    asyncio.run(view())
    with gator.options(is_async=False, on_success=jobs.hook_soon) as opts:
        opts.task(jobs.nothing_at_once)

    assert len(done) == 2


@pytest.mark.parametrize("func", [jobs.some, jobs.some_soon])
def test_a_generator_function_is_refused_for_none_of_it_would_be_run(
    gator: Gator, func: Callable[..., Any]
) -> None:
    with pytest.raises(UnknownCallableError, match="generator function"):
        gator.task(func)
    with (
        pytest.raises(UnknownCallableError, match="generator function"),
        gator.options(on_success=func) as opts,
    ):
        opts.task(jobs.note, 1)

    assert gator.len() == 0


def test_a_function_that_returns_a_coroutine_is_run_to_its_end(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        tasks = [opts.task(jobs.note_later, number) for number in range(5)]

    work_off(gator, concurrency=10)

    assert [task.wait(0) for task in tasks] == list(range(5))


# Many.


@pytest.mark.parametrize("thread_count", [1, 4])
@pytest.mark.parametrize("func", [jobs.note, jobs.note_at_once])
def test_as_many_are_run_as_is_asked_for_and_no_more(
    gator: Gator, func: Callable[..., Any], thread_count: int
) -> None:
    gator.map(func, range(300))
    for count in range(30, 300, 90):
        worker = QuietWorker(gator, max_tasks=30, concurrency=40, threads=thread_count)
        worker.run_forever()
        other = QuietWorker(gator, max_tasks=60, concurrency=7, threads=thread_count)
        other.run_forever()

        assert (worker.tasks_complete, other.tasks_complete) == (30, 60)
        assert len(done) == count + 60
    assert gator.backend.count("all") == Counts(waiting=30)


def test_a_burst_waits_for_what_puts_itself_off(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        tasks = [opts.task(jobs.put_off, number) for number in range(20)]

    work_off(gator, concurrency=10)

    assert [task.wait(0) for task in tasks] == list(range(20))


def test_memory_does_not_grow_with_the_number_of_coroutines(
    gator: Gator, threads: set[threading.Thread]
) -> None:
    def taken() -> int:
        all_ended(threads)
        return tracemalloc.get_traced_memory()[0]

    def run(count: int) -> None:
        with gator.batch() as batch:
            for number in range(count):
                batch.task((jobs.nothing, jobs.nothing_at_once, jobs.put_off_for_long)[number % 3])
        work_off(gator, concurrency=100, threads=2)
        gator.backend.drop_all("all")

    run(500)
    tracemalloc.start()
    try:
        run(500)
        before = taken()
        run(5000)
        after = taken()
    finally:
        tracemalloc.stop()

    assert after - before < 200_000
