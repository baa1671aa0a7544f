"""``async def`` functions are tasks like any other, wherever they are run."""

import asyncio
import threading

import pytest

from alligator import Gator
from alligator.constants import SUCCESS
from alligator.utils import run_coroutine
from tests.unit import jobs
from tests.unit.steps import popped


def test_an_async_function_runs_to_its_end(gator: Gator) -> None:
    gator.task(jobs.add_soon, 1, 2)

    task = popped(gator)

    assert (task.status, task.result) == (SUCCESS, 3)


def test_an_async_function_can_fail(gator: Gator) -> None:
    gator.task(jobs.fail_soon)

    with pytest.raises(LookupError, match="soon"):
        gator.pop()


def test_an_async_function_runs_at_once_where_asked(gator: Gator) -> None:
    with gator.options(is_async=False) as opts:
        assert opts.task(jobs.add_soon, 1, 2).result == 3


def test_an_async_function_runs_at_once_inside_a_running_loop(gator: Gator) -> None:
    async def view() -> int:
        with gator.options(is_async=False) as opts:
            result: int = opts.task(jobs.add_soon, 1, 2).result
        await asyncio.sleep(0)  # the loop is as it was
        return result

    assert asyncio.run(view()) == 3


def test_an_async_function_that_fails_inside_a_running_loop_raises_there(gator: Gator) -> None:
    async def view() -> None:
        with gator.options(is_async=False) as opts, pytest.raises(LookupError, match="soon"):
            opts.task(jobs.fail_soon)

    asyncio.run(view())


def test_an_async_function_can_be_popped_inside_a_running_loop(gator: Gator) -> None:
    gator.task(jobs.add_soon, 1, 2)

    async def view() -> int:
        result: int = popped(gator).result
        return result

    assert asyncio.run(view()) == 3


def test_an_async_function_in_a_local_coroutine_runs_in_any_thread(gator: Gator) -> None:
    gator.task(jobs.add_soon, 1, 2)
    results: list[int] = []

    thread = threading.Thread(target=lambda: results.append(popped(gator).result))
    thread.start()
    thread.join()

    assert results == [3]


@pytest.mark.parametrize(
    "value", [None, 3, "text", [1], iter([1])], ids=lambda value: type(value).__name__
)
def test_what_is_no_coroutine_is_returned_as_it_is(value: object) -> None:
    assert run_coroutine(value) is value


def test_a_generator_is_no_coroutine(gator: Gator) -> None:
    with gator.options(is_async=False) as opts:
        assert list(opts.task(lambda: (number for number in (1, 2))).result) == [1, 2]
