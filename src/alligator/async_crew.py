"""An event loop and some threads that run what a worker holds: many coroutines at once, and functions.

A task is prepared by one of a few *hands*: read, checked, its hooks called. If its function is a coroutine
function, the loop runs it, and a hand sees to its end; any other function waits for one of the threads, which
it keeps for as long as it runs. So neither a function nor a hook that blocks can stop the loop.
"""

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from alligator.attempts import Attempt, Run
from alligator.bell import Bell
from alligator.crew import LOOK
from alligator.exceptions import Canceled, TaskTimeout
from alligator.holdings import Held, Holdings
from alligator.tasks import GivenBack, Task

HANDS = 4
"""Threads that begin and end tasks, which takes little time unless a hook blocks."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A task whose coroutine runs, or has ended."""

    held: Held
    run: Run
    began_at: float
    result: Any = None
    error: BaseException | None = None


class AsyncCrew:
    """A context manager, whose end cancels what the loop still runs, and does not wait for threads.

    Args:
        threads: How many tasks may run in threads at a time.
        concurrency: How many tasks may run at a time in all.
        holdings: What they take tasks from.
        prepare: Reads and checks a task; returns None when nothing is to be run.
        end: Sees to what comes of a task, which is what the function returns that it is given.
        ran: Told how many tasks took how many seconds.
    """

    def __init__(
        self,
        threads: int,
        concurrency: int,
        holdings: Holdings,
        prepare: Callable[[Held], Run | None],
        end: Callable[[Held, Callable[[], Attempt]], None],
        ran: Callable[[int, float], None],
    ) -> None:
        import asyncio  # here, for it takes longer to import than all of Alligator

        self._asyncio = asyncio
        self._threads = threads
        self._concurrency = concurrency
        self._holdings = holdings
        self._prepare = prepare
        self._end = end
        self._ran = ran
        self._bell = Bell()
        self._changed = threading.Condition()
        self._in_hand = 0
        self._in_threads = 0
        self._flying: set[asyncio.Task[Any]] = set()
        self._flights = 0
        self._landed: deque[_Flight] = deque()
        self._for_threads: dict[int, Run] = {}
        self._runs_suspect = False
        self._is_closed = False
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        jobs = [self._run_loop, *[self._serve] * HANDS, *[self._serve_functions] * self._threads]
        for number, job in enumerate(jobs):
            threading.Thread(target=job, name=f"alligator-{number}", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._loop.call_soon_threadsafe(self._end_loop)

    @property
    def is_running(self) -> bool:
        """Whether any task runs."""
        return bool(self._in_hand or self._in_threads or self._flights)

    def work(self) -> None:
        """Let them work, until one may be idle soon or there is something to settle."""
        with self._changed:
            self._changed.notify_all()
        if self._holdings.todo or self.is_running:
            self._bell.wait(LOOK)

    def _serve(self) -> None:
        """Begin and end tasks."""
        while (job := self._next_job()) is not None:
            try:
                job()
            finally:
                with self._changed:
                    self._in_hand -= 1
                    self._runs_suspect = self._runs_suspect and self.is_running
                    self._changed.notify_all()
                self._bell.ring()

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._is_closed or self._landed:
                if self._landed:
                    flight = self._landed.popleft()
                    self._in_hand += 1
                    self._flights -= 1
                    return lambda: self._land(flight)
                held = None if self._must_wait() else self._holdings.start()
                if held is not None:
                    self._in_hand += 1
                    self._runs_suspect = held.reservation.deliveries > 1
                    return lambda: self._begin(held)
                self._changed.wait()
        return None

    def _must_wait(self) -> bool:
        running = self._in_hand + self._in_threads + self._flights
        if self._is_closed or running >= self._concurrency:
            return True
        # One that may have killed a worker runs alone: nobody is to die with it.
        return self._runs_suspect or (running > 0 and self._holdings.next_is_suspect)

    def _begin(self, held: Held) -> None:
        run = self._prepare(held)
        if run is None:
            return
        if type(run.task).run is not Task.run or not inspect.iscoroutinefunction(run.task.func):
            # Not started, as far as others can see: what waits long for a thread goes to another worker.
            with self._changed:
                self._for_threads[id(held)] = run
                self._holdings.postpone(held)
                self._changed.notify_all()
            return
        context = run.context()
        flight = _Flight(held, run, time.monotonic())
        try:
            coroutine = context.run(run.task.begin)
        except BaseException as err:
            self._land(_Flight(held, run, flight.began_at, error=err))
            return
        with self._changed:
            self._flights += 1
        self._loop.call_soon_threadsafe(self._take_off, flight, coroutine, context)

    def _land(self, flight: _Flight) -> None:
        run, err = flight.run, flight.error

        def outcome() -> Attempt:
            if err is None:
                return run.succeeded(flight.result)
            return run.given_back() if isinstance(err, GivenBack) else run.failed(err)

        self._end(flight.held, outcome)
        self._ran(1, (time.monotonic() - flight.began_at) / self._concurrency)

    def _serve_functions(self) -> None:
        """Run functions that are no coroutine functions, one at a time."""
        while (found := self._next_function()) is not None:
            held, run = found
            began = time.monotonic()
            try:
                self._end(held, run.complete)
            finally:
                with self._changed:
                    self._in_threads -= 1
                    self._runs_suspect = self._runs_suspect and self.is_running
                    self._ran(1, (time.monotonic() - began) / self._threads)
                    self._changed.notify_all()
                self._bell.ring()

    def _next_function(self) -> tuple[Held, Run] | None:
        with self._changed:
            while not self._is_closed:
                held = self._holdings.resume()
                if held is not None:
                    self._in_threads += 1
                    return held, self._for_threads.pop(id(held))
                self._for_threads.clear()  # of what was given back
                self._changed.wait()
        return None

    # In the thread of the loop:

    def _run_loop(self) -> None:
        self._asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _take_off(
        self, flight: _Flight, coroutine: Coroutine[Any, Any, Any], context: Context
    ) -> None:
        task = self._loop.create_task(self._fly(flight, coroutine), context=context)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        flight.run.running.on_cancel = lambda: self._loop.call_soon_threadsafe(task.cancel)
        if flight.run.running.canceled:
            task.cancel()

    async def _fly(self, flight: _Flight, coroutine: Coroutine[Any, Any, Any]) -> None:
        run = flight.run
        result: Any = None
        error: BaseException | None = None
        limit = self._asyncio.timeout(run.task.timeout)
        try:
            async with limit:
                result = await coroutine
        except self._asyncio.CancelledError as err:
            error = Canceled() if run.running.canceled else err
        except TimeoutError as err:
            error = (
                TaskTimeout(f"It ran for more than {run.task.timeout:g} s")
                if limit.expired()
                else err
            )
        except BaseException as err:
            error = err
        run.running.end()  # its time counts no more, however long it waits for a hand
        with self._changed:
            self._landed.append(
                _Flight(flight.held, run, flight.began_at, result=result, error=error)
            )
            self._changed.notify()

    def _end_loop(self) -> None:
        """Cancel what still runs, and stop when that has ended, or has been told to."""
        for task in self._flying:
            task.cancel()
        self._loop.call_soon(self._loop.call_soon, self._loop.stop)
