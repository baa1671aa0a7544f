"""Many coroutines at a time in one process, and functions beside them."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from alligator import Gator, Task
from alligator.backends.base import Message
from alligator.backends.locmem_backend import Client
from alligator.exceptions import InvalidOption, TaskFailed
from alligator.processes.board import Board, State
from alligator.testing.running import in_a_thread, in_processes, in_threads
from alligator.testing.stores import until
from tests.features import coroutine_work as jobs
from tests.features.coroutine_work import done, together
from tests.features.work import QuietWorker, work_off


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    jobs.forget()


def test_as_many_run_at_a_time_as_there_is_concurrency(gator: Gator) -> None:
    gator.map(jobs.meet, [100] * 250)

    work_off(gator, concurrency=100)

    assert jobs.together["most"] == 100
    assert gator.len() == 0


@pytest.mark.parametrize("concurrency", [1, 2, 50])
def test_each_is_done_once_whatever_the_concurrency(gator: Gator, concurrency: int) -> None:
    gator.map(jobs.note, range(300))

    work_off(gator, concurrency=concurrency)

    assert sorted(done) == list(range(300))


def test_results_failures_and_retries_are_as_of_any_task(gator: Gator) -> None:
    with gator.options(keep_result=60, retries=1) as opts:
        good = opts.task(jobs.note, {"a": [1]})
        bad = opts.task(jobs.fail, "broken")

    work_off(gator, concurrency=10)

    assert good.wait(0) == {"a": [1]}
    with pytest.raises(TaskFailed, match="broken") as caught:
        bad.wait(0)
    assert caught.value.error_type == "ValueError"
    assert sorted(str(what) for what in done) == ["1", "2", "{'a': [1]}"]


def test_a_function_does_not_keep_the_loop(gator: Gator) -> None:
    gator.task(jobs.block_until_released)
    gator.task(jobs.release_from_the_loop)
    gator.map(jobs.note, range(20))

    work_off(gator, concurrency=10)

    assert done[-1] == "blocked" or "blocked" in done
    assert len(done) == 22


def test_what_the_loop_has_not_run_yet_is_not_to_blame_for_a_death(gator: Gator) -> None:
    board = Board()
    loop = gator.task(jobs.keep_the_loop)
    others = gator.map(jobs.note, range(5))
    worker = QuietWorker(gator, burst=True, concurrency=10, board=board)

    def states() -> dict[str, State]:
        return {task.reservation.task_id: task.state for task in board.read()}

    with in_a_thread(worker.run_forever):
        try:
            waiting = dict.fromkeys([task.task_id for task in others], State.SUBMITTED)
            expected = {loop.task_id: State.STARTED, **waiting}
            until(lambda: states() == expected, "all but the first wait for the loop")
        finally:
            jobs.released.set()

    assert done[0] == "loop"
    assert sorted(done[1:]) == list(range(5))  # whichever of the dispatchers was faster


def test_coroutines_do_not_keep_a_function(gator: Gator) -> None:
    for _ in range(5):
        gator.task(jobs.wait_for_release)
    gator.task(jobs.release)

    work_off(gator, concurrency=10)

    assert done == ["function", *["coroutine"] * 5]


def test_what_waits_for_others_does_not_wait_for_a_thread_too(gator: Gator) -> None:
    gator.task(jobs.block_until_released)
    first = gator.task(jobs.note, 1)
    with gator.options(depends_on=[first]) as opts:
        opts.task(jobs.release_from_the_loop)

    work_off(gator, concurrency=10)

    assert done == [1, "released", "blocked"]


def test_functions_that_wait_for_a_thread_keep_nothing_else(gator: Gator) -> None:
    # The first keeps the only thread, the others wait for it; what ends the first is behind them all.
    for _ in range(15):
        gator.task(jobs.block_until_released)
    gator.task(jobs.release_from_the_loop)

    work_off(gator, concurrency=10)

    assert sorted(done) == [*["blocked"] * 15, "released"]


def test_a_coroutine_that_runs_too_long_is_ended(gator: Gator) -> None:
    with gator.options(timeout=0.05) as opts:
        task = opts.task(jobs.too_long)
    gator.map(jobs.note, range(5))

    work_off(gator, concurrency=10)

    status = gator.status(task.task_id)
    assert (status.state, status.reason) == ("failed", "timeout")
    assert sorted(map(str, done)) == ["0", "1", "2", "3", "4", "tidied up"]


def test_a_canceled_coroutine_is_canceled_where_it_waits(gator: Gator) -> None:
    with gator.options(retries=3) as opts:
        task = opts.task(jobs.cancel_yourself)

    work_off(gator, concurrency=10)

    assert gator.status(task.task_id).state == "canceled"
    assert gator.backend.count("all").dead == 0


def test_what_was_canceled_inside_without_being_asked_has_failed(gator: Gator) -> None:
    task = gator.task(jobs.cancelled_inside)
    gator.task(jobs.note, 1)

    work_off(gator, concurrency=10)

    assert gator.status(task.task_id).state == "failed"
    assert done == [1]


def test_retry_snooze_and_track_work_in_coroutines(gator: Gator) -> None:
    with gator.options(retries=1, keep_result=60) as opts:
        opts.task(jobs.ask_again)
        resumed = opts.task(jobs.go_through, 6)

    work_off(gator, concurrency=10)

    assert done == [1, 2, 2]
    assert resumed.wait(0) == [3, 4, 5]


def test_hooks_of_coroutines_are_not_called_in_the_loop(gator: Gator) -> None:
    with gator.options(
        on_start=jobs.note_thread, on_success=jobs.note_thread, keep_result=60
    ) as opts:
        task = opts.task(jobs.loop_thread)

    work_off(gator, concurrency=10)

    loop = task.wait(0)
    assert len(done) == 2
    assert loop not in {thread for _, thread in done}


def test_a_worker_with_an_event_loop_leaves_after_max_tasks(gator: Gator) -> None:
    gator.map(jobs.note, range(50))

    worker = QuietWorker(gator, max_tasks=20, concurrency=8)
    worker.run_forever()

    assert (worker.tasks_complete, len(done)) == (20, 20)
    assert gator.len() == 30
    assert gator.backend.count("all").running == 0


def test_an_object_that_is_called_as_coroutine_functions_are_is_run_as_they_are(
    gator: Gator,
) -> None:
    gator.map(jobs.counted_meeting, [10] * 20)

    work_off(gator, concurrency=10)

    assert done == ["counted_meeting"] * 20
    assert together["most"] == 10


# Producers in an event loop.


class SlowClient(Client):
    """A store that takes a push only when it is let."""

    let = threading.Event()

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        assert self.let.wait(10)
        return super().push_many(queue_name, messages, max_length=max_length)


@pytest.fixture
def slow_gator() -> Gator:
    """A Gator on a store that takes a push only when it is let."""
    SlowClient.let.clear()
    return Gator("locmem://", backend_class=SlowClient)


def test_a_loop_goes_on_while_a_store_takes_its_time(slow_gator: Gator) -> None:
    async def produce() -> Task:
        pushing = asyncio.create_task(slow_gator.task_async(jobs.note, 1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not pushing.done()
        SlowClient.let.set()
        return await pushing

    before = set(threading.enumerate())
    task = asyncio.run(produce())

    assert slow_gator.get(task.task_id) is not None
    assert set(threading.enumerate()) - before == set()


def test_a_producer_that_is_canceled_waits_no_longer(slow_gator: Gator) -> None:
    async def produce() -> None:
        pushing = asyncio.create_task(slow_gator.task_async(jobs.note, 1))
        await asyncio.sleep(0.01)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        assert not SlowClient.let.is_set()
        SlowClient.let.set()  # it may be queued all the same

    asyncio.run(produce())


def test_what_is_to_run_at_once_does_not_block_the_loop_either(gator: Gator) -> None:
    async def produce() -> Task:
        with gator.options(is_async=False) as opts:
            running = asyncio.create_task(opts.task_async(jobs.block_until_released))
            await asyncio.sleep(0.01)
            jobs.released.set()
            return await running

    asyncio.run(produce())

    assert done == ["blocked"]


def test_many_loops_may_produce_at_once_and_in_forked_copies_too(shared_gator: Gator) -> None:
    def produce(number: int) -> list[str]:
        async def push() -> list[Task]:
            return await asyncio.gather(
                *(shared_gator.task_async(jobs.note, number) for _ in range(10))
            )

        return [task.task_id for task in asyncio.run(push())]

    names = [*in_threads(4, produce), *in_processes(2, produce)]

    assert len({name for some in names for name in some}) == shared_gator.len() == 60


@pytest.mark.parametrize("concurrency", [0, 1.5, True, "many", 1001])
def test_a_concurrency_that_makes_no_sense_is_refused(concurrency: object) -> None:
    with pytest.raises(InvalidOption, match="concurrency"):
        QuietWorker(Gator("locmem://"), concurrency=concurrency)  # type: ignore[arg-type]
