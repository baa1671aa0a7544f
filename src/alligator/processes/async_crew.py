"""An event loop and some threads that run what a worker holds: many coroutines at once, functions beside them.

A task is begun by one of a few *dispatchers*: read, checked, its ``on_start`` called. If its function is a
coroutine function, the loop runs it, and a dispatcher sees to its end; any other function waits for one of the
threads, which it keeps for as long as it runs. So neither a function nor a hook that blocks can stop the loop.
"""

import inspect
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from alligator.bell import Bell
from alligator.dependencies import OurTask
from alligator.processes.crew import END_WITHIN, LOOK, left_to_its_lease
from alligator.processes.executor import Executor
from alligator.processes.holdings import Held, Holdings
from alligator.processes.loop import Loop
from alligator.running import CURRENT, RunningTask
from alligator.runs import Run
from alligator.settling import Attempt
from alligator.tasks import GivenBack, Task
from alligator.timeouts import limited, time_limit

if TYPE_CHECKING:
    import asyncio

DISPATCHERS = 4
"""Threads that begin and end tasks, which takes little time unless a hook blocks."""
MAX_SUBMITTED = 64
"""Coroutines that wait for the loop to take them. If it takes none, for one of them blocks it, then no more are
begun: what is held beyond that goes to other workers."""

Job = Callable[[], bool]
"""Returns whether the task that it is about is over by that, or waits for a thread."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call of a coroutine function."""

    held: Held
    run: Run
    context: Context
    began_at: float
    coroutine: Any = None
    result: Any = None
    error: BaseException | None = None
    task: "asyncio.Task[Any] | None" = None
    """While it runs. The loop itself does not keep it from being collected."""

    def outcome(self) -> Attempt:
        """Return what becomes of the task."""
        try:
            if self.error is None:
                return self.run.succeeded(self.result)
            if not isinstance(self.error, GivenBack):
                return self.run.failed(self.error)
        except GivenBack:  # by a hook
            pass
        return self.run.given_back()


class AsyncCrew:
    """A context manager, whose end breaks off what the loop still runs, and does not wait for threads.

    Args:
        threads: How many tasks may run in threads at a time.
        concurrency: How many tasks may run at a time in all.
        holdings: What they take tasks from.
        executor: Sees to what comes before a task, and after it.
        ran: Told how many tasks took how many seconds.
    """

    def __init__(
        self,
        threads: int,
        concurrency: int,
        holdings: Holdings,
        executor: Executor,
        ran: Callable[[int, float], None],
    ) -> None:
        self._threads = threads
        self._concurrency = concurrency
        self._holdings = holdings
        self._executor = executor
        self._ran = ran
        self._loop = Loop()
        self._bell = Bell()
        self._lock = threading.Lock()
        self._for_dispatchers = threading.Condition(self._lock)
        self._for_threads = threading.Condition(self._lock)
        self._running = 0
        self._in_threads = 0
        self._submitted: list[_Call] = []
        self._in_loop: set[_Call] = set()
        self._ended: deque[_Call] = deque()
        self._is_closed = False
        self._is_over = False

    def __enter__(self) -> Self:
        self._loop.start()
        jobs = [self._dispatch] * DISPATCHERS + [self._run_functions] * self._threads
        for number, job in enumerate(jobs):
            # A daemon: a task that runs longer than the worker may wait must not keep the process.
            threading.Thread(target=job, name=f"alligator-{number}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        ends_at = time.monotonic() + END_WITHIN
        with self._lock:
            self._is_closed = True
            waiting, self._submitted = self._submitted, []
            self._for_threads.notify_all()
        for call in waiting:
            self._give_back(call)
        self._loop.end(ends_at)
        # What was broken off, dispatchers give back: with what it may have said of where it can be resumed.
        while self._running > self._in_threads and (left := ends_at - time.monotonic()) > 0:
            self._bell.wait(left)
        with self._lock:
            self._is_over = True
            self._for_dispatchers.notify_all()

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
            self._for_dispatchers.notify(self._holdings.todo)
        if self._holdings.todo or self.is_running:
            self._bell.wait(LOOK)
        self._spare_those_blocked()

    def _spare_those_blocked(self) -> None:
        """Put off the deadlines of coroutines that cannot hear of them, while another one blocks the loop.

        If that one has a deadline, it is to be ended with the process when that is over, and no other. If it
        has none, it takes the time it takes: the others hear of theirs when the loop goes on.
        """
        if not self._holdings.board.has_deadlines:
            return
        calls = list(self._in_loop)
        blocking = _task_of(self._loop.blocked_by(), calls)
        # What a task has left behind, nobody could end but with the process.
        if blocking is None or not any(call.run.running is blocking for call in calls):
            return
        for call in calls:
            if call.run.running is not blocking:
                self._holdings.put_off_deadline(call.held)

    # Dispatchers:

    def _dispatch(self) -> None:
        """Begin and end tasks."""
        while (found := self._next_job()) is not None:
            held, job = found
            is_over = True
            try:
                is_over = job()
            except BaseException as err:
                left_to_its_lease(held, self._holdings, err)
            if is_over:
                with self._lock:
                    self._running -= 1
            self._bell.ring()

    def _next_job(self) -> tuple[Held, Job] | None:
        """Wait for something to do; None when it is time to end."""
        with self._lock:
            while not self._is_over:
                if self._ended:
                    call = self._ended.popleft()
                    return call.held, partial(self._settle, call)
                may_begin = self._may_begin()
                held = self._holdings.start(threading.get_ident()) if may_begin else None
                if held is not None:
                    self._running += 1
                    return held, partial(self._begin, held)
                self._for_dispatchers.wait()
        return None

    def _may_begin(self) -> bool:
        has_room = self._running < self._concurrency and len(self._submitted) < MAX_SUBMITTED
        return has_room and not self._is_closed

    def _begin(self, held: Held) -> bool:
        run = self._executor.read(held)
        if run is None:
            return True
        if isinstance(run.task, OurTask):  # others wait for it: it is not to wait for a thread
            self._run_function(held, run)
            return True
        if not _is_for_the_loop(run.task):
            # Not started, as far as others can see: what waits long for a thread goes to another worker.
            with self._lock:
                self._holdings.postpone(held, partial(self._run_function, held, run))
                self._for_threads.notify()
            return True
        return not self._executor.may_start(held, run) or self._submit(held, run)

    def _submit(self, held: Held, run: Run) -> bool:
        """Call a coroutine function, and leave it to the loop to run the coroutine."""
        call = _Call(held, run, run.context(), time.monotonic())
        try:
            with time_limit(run.task.timeout if run.task.on_start else None):
                call.coroutine = call.context.run(run.task.begin)
        except BaseException as err:
            call.error = err
            return self._settle(call)
        with self._lock:
            is_too_late = self._is_closed
            if not is_too_late:
                # The loop may be blocked: to wait for it is no part of the task's own time.
                run.running.pause()
                self._holdings.submit(held)
                self._submitted.append(call)
                if len(self._submitted) == 1:
                    self._loop.call(self._start_submitted)
        if is_too_late:
            self._give_back(call)
        return False

    def _settle(self, call: _Call) -> bool:
        # Its hooks are called in its context; in a copy, for what it has left behind may be in it just now.
        context = call.context.copy()
        self._executor.end(call.held, lambda: context.run(call.outcome))
        self._ran(1, (time.monotonic() - call.began_at) / self._concurrency)
        return True

    def _give_back(self, call: _Call) -> None:
        """Give back a task whose coroutine has not run at all."""
        if inspect.iscoroutine(call.coroutine):
            call.coroutine.close()
        self._note_end(call, None, GivenBack())

    def _note_end(self, call: _Call, result: Any, error: BaseException | None) -> None:
        """Let a dispatcher see to the end of a task."""
        call.run.running.end()  # its time counts no more, however long it waits for a dispatcher
        call.result, call.error, call.task = result, error, None
        with self._lock:
            self._in_loop.discard(call)
            self._ended.append(call)
            self._for_dispatchers.notify()

    # Threads for functions:

    def _run_functions(self) -> None:
        """Run functions that are no coroutine functions, one at a time."""
        while (held := self._next_function()) is not None:
            began = time.monotonic()
            try:
                if held.call is not None:
                    held.call()
            except BaseException as err:
                left_to_its_lease(held, self._holdings, err)
            self._ran(1, (time.monotonic() - began) / self._threads)
            with self._lock:
                self._running -= 1
                self._in_threads -= 1
                self._for_dispatchers.notify()
            self._bell.ring()

    def _next_function(self) -> Held | None:
        with self._lock:
            while not self._is_closed:
                held = self._holdings.resume(threading.get_ident())
                if held is not None:
                    self._running += 1
                    self._in_threads += 1
                    return held
                self._for_threads.wait()
        return None

    def _run_function(self, held: Held, run: Run) -> None:
        if self._executor.may_start(held, run):
            self._executor.end(held, run.complete)

    # In the thread of the loop:

    def _start_submitted(self) -> None:
        with self._lock:
            calls, self._submitted = self._submitted, []
            self._in_loop.update(calls)
            if len(calls) >= MAX_SUBMITTED:
                self._for_dispatchers.notify_all()
        for call in calls:
            if call.run.running.canceled:
                self._give_back(call)
                continue
            call.task = self._loop.run(self._awaited(call), call.context)
            call.task.add_done_callback(partial(self._on_done, call))

    def _on_done(self, call: _Call, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():  # before its first step
            self._give_back(call)
            return
        result, error = task.result()
        if error is not None and self._is_closed:  # it was broken off
            error = GivenBack()
        self._note_end(call, result, error)

    async def _awaited(self, call: _Call) -> tuple[Any, BaseException | None]:
        running = call.run.running
        self._holdings.go_on(call.held, running.go_on())
        # Also SystemExit and the like: whatever a task raises is its own failure.
        try:
            coroutine = limited(call.coroutine, call.run.task.timeout, running.time_left)
            return await running.awaited(coroutine), None
        except BaseException as err:
            return None, err


def _task_of(task: "asyncio.Task[Any] | None", calls: Sequence[_Call]) -> RunningTask | None:
    """Return whose task of asyncio's this is; None: nobody's, or nobody can tell."""
    if task is None:
        return None
    if sys.version_info >= (3, 12):
        found = task.get_context().get(CURRENT)
    else:  # what a coroutine has started cannot be told
        found = next((call.run.running for call in calls if call.task is task), None)
    return found


def _is_for_the_loop(task: Task) -> bool:
    if type(task).run is not Task.run or task.func is None:
        return False
    # A decorator may be a class, and what it makes an object that is called.
    return any(map(inspect.iscoroutinefunction, (task.func, type(task.func).__call__)))
