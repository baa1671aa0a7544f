"""Waiting for a result: in threads and event loops, and with processes and servers that die meanwhile."""

import asyncio
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, results
from alligator.backends.base import worker_of
from alligator.exceptions import (
    BackendUnavailable,
    NotFinished,
    TaskCanceled,
    TaskFailed,
    UnknownTask,
)
from alligator.results import waiting
from alligator.testing.running import Child, in_a_thread, in_processes, in_threads, later
from alligator.testing.stores import LONG, SOON, at_rest, soon_but_after, until
from tests.features.results_work import (
    Ask,
    ask_in_loop,
    ask_in_thread,
    once_waited_for,
    return_pid,
)
from tests.features.test_results import KEPT, kept_in, push
from tests.features.work import do, fail, work_off
from tests.integration.scenes import played
from tests.support.kinds import STORES, empty_store
from tests.support.servers import Server

A_WHILE = 0.3


@pytest.fixture(params=[ask_in_thread, ask_in_loop], ids=["thread", "loop"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each way to ask."""
    way: Ask = request.param
    return way


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store."""
    name: str = request.param
    return name


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait ask sooner whether there is anything to wait for."""
    monkeypatch.setattr(waiting, "ASK_EVERY", 0.05)
    monkeypatch.setattr(waiting, "GAP", 0.2)


def waiting_threads() -> set[threading.Thread]:
    """Return the threads that wait for coroutines."""
    return {thread for thread in threading.enumerate() if thread.name == "alligator-results"}


def run_soon(gator: Gator) -> Callable[[], None]:
    """Return what runs what is queued, as another client of the store."""
    return lambda: work_off(gator)


# Until when:


def test_who_waits_is_told_as_soon_as_the_task_is_over(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7)

    with once_waited_for(run_soon(gator)), soon_but_after(0.0):
        assert ask(gator, task.task_id, None) == 7


def test_who_waits_is_told_as_soon_as_the_task_has_failed(gator: Gator, ask: Ask) -> None:
    task = push(gator, fail, "badly")

    with (
        once_waited_for(run_soon(gator)),
        soon_but_after(0.0),
        pytest.raises(TaskFailed, match="badly"),
    ):
        ask(gator, task.task_id, None)


def test_who_waits_is_told_as_soon_as_the_task_is_canceled(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7)

    with (
        once_waited_for(lambda: gator.cancel(task.task_id)),
        soon_but_after(0.0),
        pytest.raises(TaskCanceled),
    ):
        ask(gator, task.task_id, None)


def test_a_wait_takes_as_long_as_it_may(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7, delay_by=LONG)

    with (
        soon_but_after(A_WHILE),
        at_rest(),
        pytest.raises(NotFinished, match=r"has not finished within 0\.3 s"),
    ):
        ask(gator, task.task_id, A_WHILE)


def test_a_wait_of_no_time_is_a_look(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7)

    with soon_but_after(0.0), pytest.raises(NotFinished, match=r"has not finished\."):
        ask(gator, task.task_id, 0)
    work_off(gator)

    assert ask(gator, task.task_id, 0) == 7


def test_what_is_written_in_the_last_moment_counts(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = push(gator, do, 7)
    records = kept_in(gator)

    def wait(keys: list[str], timeout: float, bell: object = None) -> None:
        time.sleep(timeout)
        work_off(gator)

    monkeypatch.setattr(records, "wait", wait)

    assert gator.result(task.task_id, 0.05) == 7


def test_a_wait_for_a_task_whose_id_was_used_before_is_a_wait(gator: Gator, ask: Ask) -> None:
    push(gator, do, 7, task_id="t1")
    work_off(gator)
    push(gator, do, 7, task_id="t1", delay_by=LONG)
    computed = time.process_time()

    with soon_but_after(A_WHILE), pytest.raises(NotFinished):
        ask(gator, "t1", A_WHILE)

    assert time.process_time() - computed < A_WHILE / 2


@pytest.mark.usefixtures("impatient")
def test_nobody_waits_for_a_task_that_was_dropped(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7)

    with (
        once_waited_for(lambda: gator.backend.drop_all("all")),
        soon_but_after(0.0),
        pytest.raises(UnknownTask),
    ):
        ask(gator, task.task_id, None)


@pytest.mark.usefixtures("impatient")
def test_a_dead_letter_of_a_former_task_is_not_told_of_one_that_was_dropped(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(gator, fail, 1, task_id="t1")
    work_off(gator)
    [letter] = gator.backend.dead("all")
    # Long ago, as far as who waits can tell.
    monkeypatch.setattr(gator.backend, "now", lambda: letter.buried_at + 60)
    push(gator, do, 7, task_id="t1")

    with once_waited_for(lambda: gator.backend.drop_all("all")), pytest.raises(UnknownTask):
        gator.result("t1")


@pytest.mark.usefixtures("impatient")
def test_a_task_is_waited_for_while_it_is_queued(gator: Gator, ask: Ask) -> None:
    task = push(gator, do, 7)

    with later(run_soon(gator), after=3 * waiting.ASK_EVERY + 1.2):
        assert ask(gator, task.task_id, None) == 7


@pytest.mark.usefixtures("impatient")
def test_a_task_that_left_its_queue_a_moment_ago_may_still_be_noted(
    gator: Gator, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "GAP", LONG)
    task = push(gator, do, 7)

    def cancel_slowly() -> None:
        gator.backend.cancel("all", task.task_id)
        time.sleep(1.2)  # those who wait look in between
        results.keep_canceled(kept_in(gator), "all", task.task_id, KEPT)

    with once_waited_for(cancel_slowly), soon_but_after(1.2), pytest.raises(TaskCanceled):
        ask(gator, task.task_id, None)


# Who waits:


def test_many_threads_may_wait_for_one_result(gator: Gator) -> None:
    task = push(gator, do, 7)

    with once_waited_for(run_soon(gator), by=50):
        assert in_threads(50, lambda _: gator.result(task.task_id, LONG)) == [7] * 50


def test_many_coroutines_may_wait_for_one_result(gator: Gator) -> None:
    task = push(gator, do, 7)

    async def wait() -> list[Any]:
        return await asyncio.gather(*[task.wait_async(LONG) for _ in range(50)])

    with once_waited_for(run_soon(gator), by=50):
        assert asyncio.run(wait()) == [7] * 50


def test_many_processes_may_wait_for_one_result(shared_gator: Gator) -> None:
    gator = shared_gator
    task = push(gator, do, 7)

    with later(run_soon(gator)):
        assert in_processes(8, lambda _: gator.result(task.task_id, LONG)) == [7] * 8


def test_a_thousand_coroutines_wait_in_one_thread_for_results_of_their_own(gator: Gator) -> None:
    until(lambda: not waiting_threads(), "nobody waits of the tests before")
    with gator.batch(keep_result=KEPT) as batch:
        tasks = [batch.task(do, number) for number in range(1000)]

    async def wait() -> list[Any]:
        waits = [asyncio.create_task(task.wait_async(LONG)) for task in tasks]
        await asyncio.sleep(0.1)
        assert len(waiting_threads()) == 1
        with in_a_thread(run_soon(gator)):
            return await asyncio.gather(*waits)

    assert asyncio.run(wait()) == list(range(1000))


def test_a_loop_goes_on_while_its_coroutines_wait(gator: Gator) -> None:
    task = push(gator, do, 7)

    async def wait() -> Any:
        waits = asyncio.create_task(task.wait_async(LONG))
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not waits.done()
        await asyncio.to_thread(work_off, gator)  # comes to this only if the loop goes on
        return await waits

    assert asyncio.run(wait()) == 7


def test_several_loops_may_wait_at_once(gator: Gator) -> None:
    tasks = [push(gator, do, number) for number in range(8)]

    def wait(number: int) -> list[Any]:
        async def both() -> list[Any]:
            first, second = tasks[number], tasks[(number + 1) % 8]
            waits = [task.wait_async(LONG) for task in (first, second)]
            return await asyncio.gather(*waits)

        return asyncio.run(both())

    with once_waited_for(run_soon(gator), by=16):
        assert in_threads(8, wait) == [[number, (number + 1) % 8] for number in range(8)]


def test_coroutines_of_one_loop_may_wait_for_different_things(gator: Gator) -> None:
    good, bad, dull = push(gator, do, 7), push(gator, fail, "badly"), gator.task(do, 1)

    async def wait() -> list[Any]:
        return await asyncio.gather(
            *[task.wait_async(LONG) for task in (good, bad, dull)],
            gator.result_async("t1"),
            push(gator, do, 8, delay_by=LONG).wait_async(A_WHILE),
            return_exceptions=True,
        )

    with once_waited_for(run_soon(gator), by=4):
        found = asyncio.run(wait())

    assert found[0] == 7
    assert [type(err).__name__ for err in found[1:]] == [
        "TaskFailed",
        "ResultNotKept",
        "UnknownTask",
        "NotFinished",
    ]


def test_a_coroutine_that_is_canceled_leaves_nothing_behind(gator: Gator) -> None:
    task = push(gator, do, 7)

    async def give_up() -> None:
        waits = asyncio.create_task(task.wait_async())
        await asyncio.sleep(0.1)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert waits.cancelled()

    asyncio.run(give_up())

    until(lambda: not waiting_threads(), "the thread ends, for nobody waits")
    work_off(gator)
    assert gator.result(task.task_id, LONG) == 7


def test_a_loop_that_ends_takes_those_along_who_wait_in_it(gator: Gator) -> None:
    task = push(gator, do, 7)
    loop = asyncio.new_event_loop()
    waits = loop.create_task(task.wait_async())
    loop.run_until_complete(asyncio.sleep(0.1))
    waits.cancel()
    loop.close()  # without letting it tidy up

    work_off(gator)

    until(lambda: not waiting_threads(), "the thread ends")
    assert ask_in_loop(gator, task.task_id) == 7
    del waits
    gc.collect()


def test_records_that_were_waited_on_are_forgotten(
    kind: str, request: pytest.FixtureRequest
) -> None:
    gator = Gator(empty_store(kind, request))
    task = push(gator, do, 7)
    work_off(gator)
    assert ask_in_loop(gator, task.task_id) == 7
    records = weakref.ref(kept_in(gator))
    del gator, task

    def is_gone() -> bool:
        gc.collect()
        return records() is None

    until(is_gone, "nothing holds the records any more")


def test_a_forked_child_waits_for_itself(shared_gator: Gator) -> None:
    gator = shared_gator
    mine, childs = push(gator, do, 1), push(gator, do, 2)

    async def wait() -> list[Any]:
        waits = asyncio.create_task(mine.wait_async(LONG))
        await asyncio.sleep(0.1)
        child = partial(ask_in_loop, gator, childs.task_id)
        with Child(child) as other, in_a_thread(run_soon(gator)):
            return [await waits, await asyncio.to_thread(other.result)]

    assert asyncio.run(wait()) == [1, 2]


# Other processes:


def test_the_result_of_another_process_comes(shared_gator: Gator, ask: Ask) -> None:
    gator = shared_gator
    task = push(gator, return_pid)

    with Child(run_soon(gator), after=0.1) as child:
        assert ask(gator, task.task_id) == child.pid
        child.result()


def test_the_result_of_a_worker_program_comes(dsn: str, tmp_path: Path, ask: Ask) -> None:
    with played(dsn, tmp_path) as scene:
        good, bad = push(scene.gator, return_pid), push(scene.gator, fail, "badly")
        program = scene.latergator()

        assert ask(scene.gator, good.task_id) in program.members
        with pytest.raises(TaskFailed, match="ValueError: badly") as caught:
            ask(scene.gator, bad.task_id)
        assert "in fail\n" in caught.value.traceback


def test_one_who_waits_may_be_killed(shared_gator: Gator, tmp_path: Path) -> None:
    gator = shared_gator
    task = push(gator, do, 7)
    is_about_to = tmp_path / "is_about_to"

    def wait() -> None:
        is_about_to.touch()
        gator.result(task.task_id)

    for _ in range(3):
        with Child(wait) as child:
            until(is_about_to.exists, "it waits")
            child.kill()
        is_about_to.unlink()
    with once_waited_for(run_soon(gator)):
        assert gator.result(task.task_id, LONG) == 7


def test_a_worker_may_be_killed_between_a_result_and_its_acknowledgement(
    shared_gator: Gator, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    gator = shared_gator
    push(gator, return_pid, task_id="t1")
    keep = results.keep_success

    def keep_and_die(*args: Any, **kwargs: Any) -> None:
        keep(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        monkeypatch.setattr(results, "keep_success", keep_and_die)
        work_off(gator)

    with Child(work) as child:
        # It is told, though it will be run again: that it succeeded is true.
        assert ask(gator, "t1") == child.pid
        with pytest.raises(AssertionError):
            child.result()
    assert ask(gator, "t1", 0) == child.pid
    found = gator.backend.find("all", "t1")
    assert found is not None
    gator.backend.recover(["all"], worker_of(found.token), ["t1"])

    with pytest.raises(NotFinished):
        ask(gator, "t1", 0)
    work_off(gator)

    assert ask(gator, "t1") == os.getpid()


def test_a_worker_may_be_killed_between_the_parts_of_a_result(
    shared_gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gator = shared_gator
    push(gator, return_pid, task_id="t1")
    records = kept_in(gator)

    def write_half_and_die(values: dict[str, bytes], ttl: Any = None) -> None:
        [(key, value), _] = values.items()
        records.set(key, value, KEPT)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        monkeypatch.setattr(records, "set_many", write_half_and_die)
        work_off(gator)

    with Child(work) as child, pytest.raises(AssertionError):
        child.result()
    with pytest.raises(NotFinished):
        gator.result("t1", 0)
    found = gator.backend.find("all", "t1")
    assert found is not None
    gator.backend.recover(["all"], worker_of(found.token), ["t1"])
    work_off(gator)

    assert gator.result("t1", 0) == os.getpid()


# A store that is away:


def test_a_store_that_is_away_is_waited_for(own_server: Server, ask: Ask) -> None:
    gator = Gator(own_server.dsn)
    task = push(gator, do, 7)
    ask_in_a_moment = partial(ask, gator, task.task_id, None)

    def restart() -> None:
        own_server.kill()
        time.sleep(A_WHILE)  # who waits tries meanwhile, in vain
        own_server.start()
        work_off(Gator(own_server.dsn))

    with once_waited_for(restart):
        assert ask_in_a_moment() == 7


def test_a_store_that_does_not_come_back_is_named(own_server: Server, ask: Ask) -> None:
    gator = Gator(own_server.dsn)
    task = push(gator, do, 7)
    own_server.kill()

    for timeout in (0, A_WHILE):
        with (
            soon_but_after(timeout),
            pytest.raises(NotFinished, match=r"is not known: .* does not answer") as caught,
        ):
            ask(gator, task.task_id, timeout)
        assert isinstance(caught.value.__cause__, BackendUnavailable)


def test_a_store_that_went_away_while_it_was_waited_on_is_named(
    own_server: Server, ask: Ask
) -> None:
    gator = Gator(own_server.dsn)
    task = push(gator, do, 7)

    with (
        once_waited_for(own_server.kill),
        soon_but_after(1.0),
        pytest.raises(NotFinished) as caught,
    ):
        ask(gator, task.task_id, 1.0)
    assert isinstance(caught.value.__cause__, BackendUnavailable)


def test_a_store_that_has_forgotten_everything_is_not_waited_for(
    own_server: Server, ask: Ask, impatient: None
) -> None:
    gator = Gator(own_server.dsn)
    task = push(gator, do, 7)

    with once_waited_for(lambda: own_server.command("FLUSHALL")), pytest.raises(UnknownTask):
        ask(gator, task.task_id, None)


def test_a_store_that_hangs_makes_no_coroutine_wait_longer(own_server: Server) -> None:
    gator = Gator(own_server.dsn)
    task = push(gator, do, 7)
    own_server.command("CLIENT PAUSE 3000 ALL")

    with soon_but_after(A_WHILE, late=SOON / 2), pytest.raises(NotFinished):
        ask_in_loop(gator, task.task_id, A_WHILE)


def test_an_error_that_nobody_thought_of_is_told_to_those_who_wait(
    gator: Gator, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    task = push(gator, do, 7)

    def break_down(*args: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(kept_in(gator), "wait", break_down)

    with pytest.raises(RuntimeError, match="no such luck"):
        ask(gator, task.task_id)


def test_the_thread_stays_for_the_next_one_and_ends_when_nobody_waits(gator: Gator) -> None:
    task = push(gator, do, 7)
    work_off(gator)
    until(lambda: not waiting_threads(), "nobody waits of the tests before")
    seen: set[threading.Thread] = set()

    for _ in range(20):
        assert ask_in_loop(gator, task.task_id) == 7
        seen |= waiting_threads()

    assert len(seen) == 1
    until(lambda: not waiting_threads(), "the thread ends")
    assert ask_in_loop(gator, task.task_id) == 7
