"""What the tasks of the tests of results call, how those ask for results, and tasks of a class of their own."""

import asyncio
import json
import os
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol
from unittest import mock

from alligator import Gator, Task, current_task
from alligator.results.waiting import Waiting
from alligator.testing.running import in_a_thread
from alligator.testing.stores import LONG


class NoSuchFeed(Exception):
    """An error of a user's own."""


class Mute(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


ERRORS: dict[str, Exception] = {
    "built-in": ValueError("no number: 'x'"),
    "own": NoSuchFeed("feed 7 is gone"),
    "of several lines": KeyError("one\ntwo\n\nthree"),
    "without a text": OSError(),
    "long": ValueError("x" * 100_000),
    "odd": ValueError("ž🐊\ud800\x00"),
    "mute": Mute(),
}


def raise_error(name: str) -> None:
    """Fail with one of the errors."""
    raise ERRORS[name]


def succeed_at(attempt: int) -> int:
    """Fail before that attempt; return which one it is."""
    if current_task().attempt < attempt:
        raise ValueError(f"not at attempt {current_task().attempt}")
    return current_task().attempt


class Strange(dict[str, Any]):
    """A dict that JSON meets trouble with."""

    def items(self) -> Any:
        raise RuntimeError("no items today")


UNCARRIABLE: dict[str, Any] = {
    "set": {1, 2},
    "bytes": b"x",
    "NoSuchFeed": NoSuchFeed(),
    "NaN": float("nan"),
    "key": {1: "one"},
    "nested": [{"deep": [object()]}],
    "strange": Strange(one=1),
}


def return_uncarriable(name: str) -> Any:
    """Return something that JSON cannot carry."""
    return UNCARRIABLE[name]


def return_pid() -> int:
    """Return the process that it runs in."""
    return os.getpid()


class ZippedTask(Task):
    """A task whose form in the queue only its own class can read."""

    def serialize(self) -> bytes:
        text = super().serialize()
        assert isinstance(text, str)
        return zlib.compress(text.encode())

    @classmethod
    def deserialize(cls, data: str | bytes) -> "ZippedTask":
        assert isinstance(data, bytes)
        return super().deserialize(zlib.decompress(data))


class BareTask(Task):
    """A task whose form in the queue has room for one option."""

    def serialize(self) -> bytes:
        told = json.loads(super().serialize())
        told["options"] = {"keep_result": told["options"]["keep_result"]}
        return json.dumps(told).encode()


class Ask(Protocol):
    """A way to ask for a result."""

    def __call__(self, gator: Gator, task_id: str, timeout: float | None = LONG) -> Any:
        """Wait for it."""
        ...


def ask_in_thread(gator: Gator, task_id: str, timeout: float | None = LONG) -> Any:
    """Ask in this thread."""
    return gator.result(task_id, timeout)


def ask_in_loop(gator: Gator, task_id: str, timeout: float | None = LONG) -> Any:
    """Ask in an event loop."""
    return asyncio.run(gator.result_async(task_id, timeout))


class Wait(Protocol):
    """A way to wait for a task."""

    def __call__(self, task: Task, timeout: float | None = LONG) -> Any:
        """Wait for it."""
        ...


def wait_in_thread(task: Task, timeout: float | None = LONG) -> Any:
    """Wait in this thread."""
    return task.wait(timeout)


def wait_in_loop(task: Task, timeout: float | None = LONG) -> Any:
    """Wait in an event loop."""
    return asyncio.run(task.wait_async(timeout))


@contextmanager
def once_waited_for(function: Callable[[], Any], by: int = 1) -> Generator[None]:
    """Call a function in a thread when so many of this process have looked, and begin to wait, in the block."""
    enough = threading.Event()
    have_looked: set[Waiting] = set()
    look = Waiting.look

    def watched_look(waiting: Waiting, value: bytes | None) -> Any:
        try:
            return look(waiting, value)
        finally:
            have_looked.add(waiting)
            if len(have_looked) >= by:
                enough.set()

    def wait() -> None:
        assert enough.wait(LONG), "nobody waits"
        function()

    with mock.patch.object(Waiting, "look", watched_look), in_a_thread(wait) as called:
        yield
    called.result()
