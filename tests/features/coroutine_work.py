"""Coroutine functions, and functions beside them, for the tests of a worker's event loop."""

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import update_wrapper
from pathlib import Path
from typing import Any

from alligator import Retry, Snooze, Task, current_task, track
from alligator.verify.journal import Journal

done: list[Any] = []
together = {"now": 0, "most": 0}
meeting: list[asyncio.Event] = []
released = threading.Event()
blocking = threading.Event()


def forget() -> None:
    """Begin anew."""
    done.clear()
    meeting.clear()
    together.update(now=0, most=0)
    released.clear()
    blocking.clear()


async def meet(number: int) -> int:
    """Wait until so many are here at the same time."""
    together["now"] += 1
    together["most"] = max(together["most"], together["now"])
    async with asyncio.timeout(30):
        while together["most"] < number:  # noqa: ASYNC110 -- an Event belongs to one loop
            await asyncio.sleep(0.001)
    together["now"] -= 1
    return number


async def note(what: Any) -> Any:
    """Note it, after a turn of the loop."""
    await asyncio.sleep(0)
    done.append(what)
    return what


async def fail(what: str = "broken") -> None:
    """Fail after a turn of the loop."""
    await asyncio.sleep(0)
    done.append(current_task().attempt)
    raise ValueError(what)


begun: list[str] = []
"""Who waits to be released, or has."""


async def wait_for_release() -> None:
    """Wait, without keeping the loop, until a function beside it has been run."""
    begun.append("coroutine")
    async with asyncio.timeout(30):
        while not released.is_set():  # noqa: ASYNC110 -- another thread sets it
            await asyncio.sleep(0.001)
    done.append("coroutine")


async def keep_the_loop() -> None:
    """Let no other coroutine run until released."""
    begun.append("loop")
    assert released.wait(30)
    done.append("loop")


def release() -> None:
    """Let them go."""
    released.set()
    done.append("function")


def block_until_released() -> None:
    """Keep a thread."""
    blocking.set()
    assert released.wait(30)
    done.append("blocked")


async def release_from_the_loop() -> None:
    """Let the function go that keeps a thread."""
    released.set()
    done.append("released")


async def too_long() -> None:
    """Run for longer than any test."""
    try:
        await asyncio.sleep(3600)
    finally:
        done.append("tidied up")


async def deaf(seconds: float) -> None:
    """Take no notice of being canceled, for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            done.append("did not hear")


async def ask_again() -> None:
    """Ask for another attempt at first; then put it off; then return."""
    done.append(current_task().attempt)
    if current_task().attempt == 1:
        raise Retry
    if len(done) == 2:
        raise Snooze(0)


async def go_through(count: int) -> list[int]:
    """Go through some items, with a turn of the loop at each."""
    went: list[int] = []
    for item in track(range(count)):
        await asyncio.sleep(0)
        went.append(item)
        if item == 3 and current_task().attempt == 1:
            raise ValueError(item)
    return went


async def cancel_yourself() -> None:
    """Be canceled while waiting."""
    current_task().cancel()
    await asyncio.sleep(3600)


async def cancelled_inside() -> None:
    """Have a task of one's own canceled, which nobody asked of this one."""
    inner = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    inner.cancel()
    await inner


def note_thread(task: Task, *news: object) -> None:
    """A hook: note on which thread it is called, and block that."""
    time.sleep(0)
    done.append(("hook", threading.current_thread().name))


class Counted:
    """A decorator that makes objects, which are called as coroutine functions are."""

    def __init__(self, func: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        update_wrapper(self, func)
        self._func = func

    async def __call__(self, *args: Any) -> Any:
        done.append(self._func.__name__)
        return await self._func(*args)


@Counted
async def counted_meeting(number: int) -> int:
    """Wait until so many are here at the same time."""
    return await meet(number)


async def loop_thread() -> str:
    """Return the name of the loop's thread."""
    await asyncio.sleep(0)
    return threading.current_thread().name


def current() -> str:
    """Return the id of the current task."""
    return current_task().task_id


async def current_soon() -> str:
    """Return the id of the current task, after a turn of the loop."""
    await asyncio.sleep(0)
    return current()


async def ask_around() -> list[str]:
    """Return the id of the current task, as all that this one starts sees it."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        member = group.create_task(current_soon())
    context = contextvars.copy_context()
    return [
        await asyncio.create_task(current_soon()),
        *await asyncio.gather(current_soon(), current_soon()),
        member.result(),
        await asyncio.to_thread(current),
        await loop.run_in_executor(None, context.run, current),
        await loop.run_in_executor(None, current),  # Python takes no context there
    ]


mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="nobody's")


def cancel_at_start(task: Task) -> None:
    """A hook: cancel the task."""
    current_task().cancel()


def claim(task: Task) -> None:
    """A hook: set a variable of the context."""
    done.append(("start", current(), mine.get()))
    mine.set(task.task_id)


async def claim_more() -> None:
    """See what the hook has set, and set more."""
    await asyncio.sleep(0)
    done.append(("function", current(), mine.get()))
    mine.set(f"{mine.get()}'s own")


def see_claims(task: Task, news: object) -> None:
    """A hook: see what was set."""
    done.append(("end", current(), mine.get()))


async def hook_soon(task: Task, *news: object) -> None:
    """A hook, after a turn of a loop."""
    await asyncio.sleep(0)
    done.append(("hook", current(), *map(str, news)))


async def broken_hook(task: Task, *news: object) -> None:
    """A hook that fails."""
    await asyncio.sleep(0)
    raise LookupError("the hook broke")


async def stop_the_loop() -> str:
    """Stop the event loop, as a program of its own would."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "went on"


async def close_the_loop() -> None:
    """Close the event loop while it runs."""
    asyncio.get_running_loop().close()


async def lose_the_loop() -> None:
    """Have the event loop closed as soon as it has stopped."""
    loop = asyncio.get_running_loop()

    def lose() -> None:
        loop.stop()
        setattr(loop, "run_forever", loop.close)  # noqa: B010 -- it is a method

    loop.call_soon(lose)
    await asyncio.sleep(3600)


async def leave(kind: str, how: str) -> None:
    """Raise what ends a program; in this coroutine, in one that it waits for, or in one that it does not."""
    errors: dict[str, BaseException] = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}

    async def inner() -> None:
        await asyncio.sleep(0)
        raise errors[kind]

    if how == "itself":
        await inner()
    elif how == "task":
        await asyncio.create_task(inner())
    else:
        asyncio.get_running_loop().call_soon(_raise, errors[kind])
        await asyncio.sleep(0.01)
        raise errors[kind]


def _raise(err: BaseException) -> None:
    raise err


async def cancel_all() -> None:
    """Cancel all that runs in the loop, as a program of its own would at its end."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


async def leave_one_behind() -> None:
    """Start something, and return without waiting for it."""
    left_behind.add(asyncio.create_task(too_long()))
    await asyncio.sleep(0)


left_behind: set[asyncio.Task[Any]] = set()


async def run_until_broken_off() -> None:
    """Run for longer than any test, and tidy up."""
    done.append("began")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        done.append("tidied up")


async def finish_when_broken_off() -> str:
    """Run for longer than any test, and finish all the same."""
    done.append("began")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "finished"
    return "never"


async def fail_when_broken_off() -> None:
    """Run for longer than any test, and fail in tidying up."""
    done.append("began")
    try:
        await asyncio.sleep(3600)
    finally:
        raise ValueError("failed to tidy up")


async def never_end() -> None:
    """Take no notice of being cancelled."""
    done.append("began")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            done.append("did not hear")


async def block_the_loop() -> None:
    """Keep the loop until released, as no coroutine should."""
    done.append("began")
    assert released.wait(30)
    done.append("blocked")


async def block_when_told() -> None:
    """Keep the loop, from when another coroutine says so."""
    told = asyncio.Event()
    meeting.append(told)
    await told.wait()
    await block_the_loop()


async def let_it_block() -> None:
    """Let that one keep the loop, before this one can hear of anything."""
    meeting[0].set()
    await asyncio.sleep(3600)


async def resume_at_three() -> list[int]:
    """Go through some items; wait at the third one in the first attempt."""
    went: list[int] = []
    for item in track(range(6)):
        went.append(item)
        if item == 3 and not done:
            done.append("began")
            await asyncio.sleep(3600)
    return went


async def nothing() -> None:
    """Do nothing."""


def nothing_at_once() -> None:
    """Do nothing, and be no coroutine function."""


def go_through_in_hook(task: Task, news: object) -> None:
    """A hook that goes through some items, and so can be told to end."""
    done.append("hook")
    released.wait(30)
    for _ in track(range(3)):
        pass


def some() -> Iterator[int]:
    """Yield something."""
    yield 1


async def some_soon() -> AsyncIterator[int]:
    """Yield something, after a turn of the loop."""
    await asyncio.sleep(0)
    yield 1


def note_later(what: Any) -> Coroutine[Any, Any, Any]:
    """Return a coroutine, and be no coroutine function."""
    return note(what)


def note_at_once(what: Any) -> Any:
    """Note it."""
    done.append(what)
    return what


async def put_off(number: int) -> int:
    """Be put off once, for no time."""
    if current_task().task_id not in done:
        done.append(current_task().task_id)
        raise Snooze(0)
    return number


async def put_off_for_long() -> None:
    """Be put off for longer than any test."""
    raise Snooze(3600)


# For programs: each notes in a journal that it starts, and that it finishes.


@asynccontextmanager
async def noted(journal: str, name: str) -> AsyncGenerator[None]:
    """Note the start of a block, and its finish unless it raises."""
    Journal(journal).note("start", name)
    yield
    Journal(journal).note("finish", name)


async def work(journal: str, name: str, seconds: float = 0.0) -> str:
    """Take so long, and let others run meanwhile."""
    async with noted(journal, name):
        await asyncio.sleep(seconds)
    return name


def work_at_once(journal: str, name: str, seconds: float = 0.0) -> str:
    """Take so long, and be no coroutine function."""
    Journal(journal).note("start", name)
    time.sleep(seconds)
    Journal(journal).note("finish", name)
    return name


async def wait_at_gate(journal: str, name: str, gate: str) -> None:
    """Run until a file is there; note it if that is not waited for."""
    try:
        async with noted(journal, name):
            while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 -- another process makes it
                await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        Journal(journal).note("cancelled", name)
        raise


async def block(journal: str, name: str, seconds: float) -> None:
    """Let nothing else run in the loop for so long."""
    async with noted(journal, name):
        time.sleep(seconds)  # noqa: ASYNC251 -- that is the point


async def block_inside(journal: str, name: str, seconds: float) -> None:
    """As ``block``, in a task of its own."""
    await asyncio.create_task(block(journal, name, seconds))


async def tidy_up(journal: str, name: str) -> None:
    """Run for longer than any test, and take a while to tidy up."""
    async with noted(journal, name):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.2)
            Journal(journal).note("tidied", name)


async def leave_a_thread(journal: str, name: str, gate: str) -> None:
    """Leave a thread to itself that runs until a file is there."""
    async with noted(journal, name):
        task = asyncio.create_task(asyncio.to_thread(wait_for_file, gate))
        left_behind.add(task)
        await asyncio.sleep(0)


def wait_for_file(path: str) -> None:
    """Block until a file is there."""
    while not Path(path).exists():
        time.sleep(0.02)


async def fork(journal: str, name: str, then: str) -> None:
    """Fork, and go on in both processes."""
    async with noted(journal, name):
        is_copy = os.fork() == 0
        if is_copy and then == "waits":
            await asyncio.sleep(3600)


async def hear_nothing(journal: str, name: str) -> None:
    """Run for longer than any test, whoever asks for the end."""
    async with noted(journal, name):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                Journal(journal).note("cancelled", name)


async def grow(journal: str, name: str, mib: int) -> None:
    """Take memory, for good."""
    async with noted(journal, name):
        taken.append(b"x" * (mib << 20))
        await asyncio.sleep(0.01)


taken: list[bytes] = []


async def leave_program(journal: str, name: str, how: str) -> None:
    """Raise SystemExit."""
    Journal(journal).note("start", name)
    await leave("exit", how)
