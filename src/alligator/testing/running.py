"""Functions run elsewhere: in threads, in another process, a moment later, in a signal handler."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

A_MOMENT = 0.1
"""Seconds after which the other side acts, so that who is to wait does wait by then."""


def in_threads(count: int, function: Callable[[int], T]) -> list[T]:
    """Call a function with 0, 1, 2 ..., in as many threads at once; return the results in order."""
    start = threading.Barrier(count)

    def run(number: int) -> T:
        start.wait()
        return function(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they get in each other's way as often as they can
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def in_a_thread(function: Callable[[], T]) -> Generator[Future[T]]:
    """Call a function in a thread while the block runs."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function)


@contextmanager
def later(function: Callable[[], Any], after: float = A_MOMENT) -> Generator[None]:
    """Call a function in a thread after a moment, while the block runs."""
    timer = threading.Timer(after, function)
    timer.start()
    try:
        yield
    finally:
        timer.join()


class Child:
    """A forked process that calls a function. It is killed at the end of the block if it still runs.

    Args:
        function: Its result is sent back as JSON. It must not use the parent's pytest.
        after: Seconds before it is called.
    """

    def __init__(self, function: Callable[[], Any], after: float = 0.0) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_child(function, after, writing)
        os.close(writing)
        self._status: int | None = None

    def result(self) -> Any:
        """Wait for the end, and return what the function returned."""
        with os.fdopen(os.dup(self._reading), "rb") as answer:
            text = answer.read()
        code = os.waitstatus_to_exitcode(self._wait())
        assert code == 0, f"The child ended with {code}; its traceback is on standard error."
        return json.loads(text)

    def kill(self) -> None:
        """End it as the OOM killer does."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        os.close(self._reading)

    def _wait(self) -> int:
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return self._status


def in_processes(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call a function with 0, 1, 2 ..., each in a process of its own; return the results in order."""
    children = [Child(partial(function, number)) for number in range(count)]
    try:
        return [child.result() for child in children]
    finally:
        for child in children:
            child.__exit__(None, None, None)


@contextmanager
def alarm(
    handler: Callable[[], Any], after: float = A_MOMENT, every: float = 0.0
) -> Generator[None]:
    """Call a function in a signal handler after a moment; once, or again and again."""

    def handle(number: int, frame: FrameType | None) -> None:
        handler()

    handled = signal.signal(signal.SIGALRM, handle)
    left, _ = signal.setitimer(signal.ITIMER_REAL, after, every)  # pytest-timeout's timer, too
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handled)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 0.1))


def _be_the_child(function: Callable[[], Any], after: float, writing: int) -> None:
    # Whatever happens, this copy of pytest must not go on.
    code = 1
    try:
        time.sleep(after)
        with os.fdopen(writing, "wb") as answer:
            answer.write(json.dumps(function()).encode())
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(code)
