"""Coroutine functions, and functions beside them, for the tests of a worker's event loop."""

import asyncio
import threading
import time
from typing import Any

from alligator import Retry, Snooze, Task, current_task, track

done: list[Any] = []
together = {"now": 0, "most": 0}
meeting: list[asyncio.Event] = []
released = threading.Event()


def forget() -> None:
    """Begin anew."""
    done.clear()
    meeting.clear()
    together.update(now=0, most=0)
    released.clear()


async def meet(number: int) -> int:
    """Wait until so many are here at the same time."""
    together["now"] += 1
    together["most"] = max(together["most"], together["now"])
    async with asyncio.timeout(30):
        while together["most"] < number:
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


async def wait_for_release() -> None:
    """Wait, without keeping the loop, until a function beside it has been run."""
    async with asyncio.timeout(30):
        while not released.is_set():
            await asyncio.sleep(0.001)
    done.append("coroutine")


def release() -> None:
    """Let them go."""
    released.set()
    done.append("function")


def block_until_released() -> None:
    """Keep a thread."""
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


async def loop_thread() -> str:
    """Return the name of the loop's thread."""
    await asyncio.sleep(0)
    return threading.current_thread().name
