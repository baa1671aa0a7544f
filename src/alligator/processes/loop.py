"""An event loop in a thread of its own, which goes on whatever the coroutines in it do."""

import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from alligator.raised import log_raised

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("alligator.worker")

SLACK = 0.1
"""Seconds after its time for the loop's thread to end, before it is left behind."""

BLOCKED = 0.5
"""Seconds for which the loop has run nothing that it was asked to, when it counts as blocked."""

T = TypeVar("T")


class Loop:
    """An event loop, and its thread."""

    def __init__(self) -> None:
        import asyncio  # here, for it takes longer to import than all of Alligator

        self._asyncio = asyncio
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="alligator-loop", daemon=True)
        self._ends_at: float | None = None
        self._asked_at: float | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def check(self) -> None:
        """Check that it can still run anything.

        Raises:
            RuntimeError: It was closed, by what ran in it.
        """
        if self._loop.is_closed():
            raise RuntimeError("A task has closed the event loop that it shared with others")

    def call(self, what: Callable[[], Any]) -> None:
        """Call something in the loop's thread, or nothing if the loop has ended; from any thread."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(what)

    def run(self, coroutine: Coroutine[Any, Any, T], context: Context) -> "asyncio.Task[T]":
        """Run a coroutine; to be called in the loop's thread."""
        return self._loop.create_task(coroutine, context=context)

    def blocked_by(self) -> "asyncio.Task[Any] | None":
        """Return the task of asyncio's that blocks the loop; None: none does, or nobody can tell.

        To be called every fraction of a second, from one thread.
        """
        asked_at = self._asked_at
        if asked_at is None:
            self._asked_at = time.monotonic()
            self.call(self._answer)
            return None
        is_blocked = time.monotonic() - asked_at > BLOCKED
        return self._asyncio.current_task(self._loop) if is_blocked else None

    def _answer(self) -> None:
        self._asked_at = None

    def end(self, at: float) -> None:
        """Cancel what runs, wait for its end until a moment of the monotonic clock, and close the loop.

        One that blocks the loop by then is left behind, and the loop ends as soon as that lets it.
        """
        self._ends_at = at
        self.call(self._loop.stop)
        self._thread.join(at + SLACK - time.monotonic())

    def _serve(self) -> None:
        self._asyncio.set_event_loop(self._loop)
        _here.loop = self._loop
        # Whoever stops it, or raises SystemExit in a task of its own, would do so for all: it goes on.
        while self._ends_at is None and not self._loop.is_closed():
            self._try(self._loop.run_forever)
        if not self._loop.is_closed():
            last = self._loop.create_task(self._wind_up(self._ends_at or 0.0))
            while not (last.done() or self._loop.is_closed()):
                self._try(lambda: self._loop.run_until_complete(last))
            self._loop.close()

    def _try(self, run: Callable[[], Any]) -> None:
        try:
            run()
        except BaseException as err:
            log_raised(log, "A coroutine has broken off the event loop, which goes on", err=err)

    async def _wind_up(self, ends_at: float) -> None:
        this = self._asyncio.current_task()
        while others := self._asyncio.all_tasks() - {this}:
            left = ends_at - time.monotonic()
            for task in others:
                task.cancel()
            _, pending = await self._asyncio.wait(others, timeout=max(0.0, left))
            if pending and left <= 0:
                log.warning("Left behind %s coroutines that take no notice of it", len(pending))
                self._loop.set_exception_handler(_say_no_more)
                return
        with suppress(TimeoutError):
            async with self._asyncio.timeout(ends_at - time.monotonic()):
                await self._loop.shutdown_asyncgens()


_here = threading.local()


def _end_copy() -> None:
    """In a process that a coroutine has forked: do not go on with the loop, and so with all that runs in it."""
    loop = getattr(_here, "loop", None)
    if loop is not None:
        loop.call_soon(os._exit, 1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_copy)


def _say_no_more(loop: "asyncio.AbstractEventLoop", context: dict[str, Any]) -> None:
    """In place of a message for each task that is left pending."""
