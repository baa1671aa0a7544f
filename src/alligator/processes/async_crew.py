"""An event loop and some threads that run what a worker holds: many coroutines at once, functions beside them.

A task is begun by one of a few *hands*: read, checked, its ``on_start`` called. If its function is a coroutine
function, the loop runs it, and a hand sees to its end; any other function waits for one of the threads, which
it keeps for as long as it runs. So neither a function nor a hook that blocks can stop the loop.
"""

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alligator.attempts import Attempt, Run
from alligator.bell import Bell
from alligator.exceptions import Canceled
from alligator.processes.crew import LOOK, left_to_its_lease
from alligator.processes.holdings import Held, Holdings
from alligator.processes.loop import Loop
from alligator.tasks import GivenBack, Task
from alligator.timeouts import limited, time_limit

if TYPE_CHECKING:
    import asyncio

HANDS = 4
"""Threads that begin and end tasks, which takes little time unless a hook blocks."""
MAX_BOARDING = 64
"""Coroutines that wait for the loop to take them. If it takes none, for one of them blocks it, then no more are
begun: what is held beyond that goes to other workers."""
END_WITHIN = 1.0
"""Seconds for coroutines that are broken off to tidy up."""

Job = Callable[[], bool]
"""Returns whether the task that it is about is over by that, or waits for a thread."""


@dataclass(slots=True, eq=False)
class _Flight:
    """A task whose coroutine is to run, runs, or has ended."""

    held: Held
    run: Run
    context: Context
    began_at: float
    coroutine: Any = None
    result: Any = None
    error: BaseException | None = None
    is_broken_off: bool = False
    """It ended when the worker could wait for it no longer."""

    def outcome(self) -> Attempt:
        """Return what becomes of the task."""
        try:
            if self.error is None:
                return self.run.succeeded(self.result)
            if self.is_broken_off or isinstance(self.error, GivenBack):
                return self.run.given_back()
            return self.run.failed(self.error)
        except GivenBack:  # by a hook
            return self.run.given_back()


class AsyncCrew:
    """A context manager, whose end breaks off what the loop still runs, and does not wait for threads.

    Args:
        threads: How many tasks may run in threads at a time.
        concurrency: How many tasks may run at a time in all.
        holdings: What they take tasks from.
        read: Reads a task; returns None when there is nothing to run.
        may_start: Whether a task that was read may start now; if not, it sees to what becomes of that.
        end: Sees to what comes of a task, which is what the function returns that it is given.
        ran: Told how many tasks took how many seconds.
    """

    def __init__(
        self,
        threads: int,
        concurrency: int,
        holdings: Holdings,
        read: Callable[[Held], Run | None],
        may_start: Callable[[Held, Run], bool],
        end: Callable[[Held, Callable[[], Attempt]], None],
        ran: Callable[[int, float], None],
    ) -> None:
        self._threads = threads
        self._concurrency = concurrency
        self._holdings = holdings
        self._read = read
        self._may_start = may_start
        self._end = end
        self._ran = ran
        self._bell = Bell()
        self._lock = threading.Lock()
        self._for_hands = threading.Condition(self._lock)
        self._for_threads = threading.Condition(self._lock)
        self._has_landed_all = threading.Condition(self._lock)
        self._running = 0
        self._in_threads = 0
        self._boarding: list[_Flight] = []
        self._landed: deque[_Flight] = deque()
        self._is_closed = False
        self._is_over = False
        self._loop = Loop()

    def __enter__(self) -> Self:
        self._loop.start()
        jobs = [self._serve] * HANDS + [self._serve_functions] * self._threads
        for number, job in enumerate(jobs):
            # A daemon: a task that runs longer than the worker may wait must not keep the process.
            threading.Thread(target=job, name=f"alligator-{number}", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ends_at = time.monotonic() + END_WITHIN
        with self._lock:
            self._is_closed = True
            waiting, self._boarding = self._boarding, []
            self._for_threads.notify_all()
        for flight in waiting:
            self._turn_back(flight)
        self._loop.end(ends_at)
        with self._lock:
            # What was broken off, hands give back: with what it may have said of where it can be resumed.
            left = ends_at - time.monotonic()
            self._has_landed_all.wait_for(lambda: self._running == self._in_threads, left)
            self._is_over = True
            self._for_hands.notify_all()

    @property
    def is_running(self) -> bool:
        """Whether any task runs."""
        return self._running > 0

    def work(self) -> None:
        """Let them work, until one may be idle soon or there is something to settle.

        Raises:
            RuntimeError: A task has closed the event loop.
        """
        self._loop.check()
        with self._lock:
            self._for_hands.notify(self._holdings.todo)
        if self._holdings.todo or self.is_running:
            self._bell.wait(LOOK)

    # The hands:

    def _serve(self) -> None:
        """Begin and end tasks."""
        while (found := self._next_job()) is not None:
            held, job = found
            is_over = True
            try:
                is_over = job()
            except BaseException:
                left_to_its_lease(held, self._holdings)
            if is_over:
                with self._lock:
                    self._running -= 1
                    self._has_landed_all.notify()
            self._bell.ring()

    def _next_job(self) -> tuple[Held, Job] | None:
        """Wait for something to do; None when it is time to end."""
        with self._lock:
            while not self._is_over:
                if self._landed:
                    flight = self._landed.popleft()
                    return flight.held, partial(self._land, flight)
                held = None if self._must_wait() else self._holdings.start()
                if held is not None:
                    self._running += 1
                    return held, partial(self._begin, held)
                self._for_hands.wait()
        return None

    def _must_wait(self) -> bool:
        is_full = self._running >= self._concurrency or len(self._boarding) >= MAX_BOARDING
        return is_full or self._is_closed

    def _begin(self, held: Held) -> bool:
        run = self._read(held)
        if run is None:
            return True
        if not _is_for_the_loop(run.task):
            # Not started, as far as others can see: what waits long for a thread goes to another worker.
            with self._lock:
                self._holdings.postpone(held, partial(self._call, held, run))
                self._for_threads.notify()
            return True
        return not self._may_start(held, run) or self._board(held, run)

    def _board(self, held: Held, run: Run) -> bool:
        """Call a coroutine function, and leave it to the loop to run the coroutine."""
        flight = _Flight(held, run, run.context(), time.monotonic())
        try:
            with time_limit(run.task.timeout if run.task.on_start else None):
                flight.coroutine = flight.context.run(run.task.begin)
        except BaseException as err:
            flight.error = err
            return self._land(flight)
        with self._lock:
            is_too_late = self._is_closed
            if not is_too_late:
                self._boarding.append(flight)
                if len(self._boarding) == 1:
                    self._loop.call(self._take_off)
        if is_too_late:
            self._turn_back(flight)
        return False

    def _land(self, flight: _Flight) -> bool:
        # Its hooks are called in its context; in a copy, for what it has left behind may be in it just now.
        context = flight.context.copy()
        self._end(flight.held, lambda: context.run(flight.outcome))
        self._ran(1, (time.monotonic() - flight.began_at) / self._concurrency)
        return True

    def _landing(self, flight: _Flight) -> None:
        """Let a hand see to the end of a task."""
        flight.run.running.end()  # its time counts no more, however long it waits for a hand
        with self._lock:
            self._landed.append(flight)
            self._for_hands.notify()

    def _turn_back(self, flight: _Flight) -> None:
        """Give back a task whose coroutine has not run at all."""
        if inspect.iscoroutine(flight.coroutine):
            flight.coroutine.close()
        flight.error = Canceled() if flight.run.running.canceled else GivenBack()
        self._landing(flight)

    # The threads for functions:

    def _serve_functions(self) -> None:
        """Run functions that are no coroutine functions, one at a time."""
        while (found := self._next_function()) is not None:
            held, call = found
            began = time.monotonic()
            try:
                call()
            except BaseException:
                left_to_its_lease(held, self._holdings)
            self._ran(1, (time.monotonic() - began) / self._threads)
            with self._lock:
                self._running -= 1
                self._in_threads -= 1
                self._for_hands.notify()
            self._bell.ring()

    def _next_function(self) -> tuple[Held, Callable[[], None]] | None:
        with self._lock:
            while not self._is_closed:
                found = self._holdings.resume()
                if found is not None:
                    self._running += 1
                    self._in_threads += 1
                    return found
                self._for_threads.wait()
        return None

    def _call(self, held: Held, run: Run) -> None:
        if self._may_start(held, run):
            self._end(held, run.complete)

    # In the thread of the loop:

    def _take_off(self) -> None:
        with self._lock:
            flights, self._boarding = self._boarding, []
            if len(flights) >= MAX_BOARDING:
                self._for_hands.notify_all()
        for flight in flights:
            if flight.run.running.canceled:
                self._turn_back(flight)
                continue
            task = self._loop.run(_fly(flight), flight.context)
            task.add_done_callback(partial(self._touch_down, flight))

    def _touch_down(self, flight: _Flight, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():  # before its first step
            self._turn_back(flight)
            return
        flight.result, flight.error = task.result()
        flight.is_broken_off = self._is_closed
        self._landing(flight)


async def _fly(flight: _Flight) -> tuple[Any, BaseException | None]:
    # Also SystemExit and the like: whatever a task raises is its own failure.
    try:
        coroutine = limited(flight.coroutine, flight.run.task.timeout)
        return await flight.run.running.awaited(coroutine), None
    except BaseException as err:
        return None, err


def _is_for_the_loop(task: Task) -> bool:
    return type(task).run is Task.run and inspect.iscoroutinefunction(task.func)
