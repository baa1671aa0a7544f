"""What a task can know of itself while it runs, how far it is, and where a new attempt resumes."""

import logging
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from typing import Any, TypeVar, cast

from alligator import payloads
from alligator.backends.base import Backend, Reservation, reserved_at
from alligator.checkpoints import Checkpoint
from alligator.exceptions import Canceled
from alligator.tasks import GivenBack, Task

log = logging.getLogger("alligator.task")

T = TypeVar("T")


class RunningTask:
    """The task that runs, as ``current_task()`` returns it.

    Outside of a task, in a plain call of the same function, it is one that has no id and no deadline, is never
    canceled, and whose progress nobody sees; so a function that uses it stays a plain function.
    """

    on_cancel: Callable[[], Any] | None = None
    """Called when it is canceled; set by what runs it."""
    on_end: Callable[[], None] | None = None
    """Called when a task that has a timeout has come to its end, before anything is done about that."""
    coroutine: Coroutine[Any, Any, Any] | None = None
    """While an event loop runs it: what its function returned."""
    is_completing = False
    """Whether it is inside a block of ``gator.completing``."""
    is_completed = False
    """Whether it was acknowledged by such a block, in a transaction that may not be committed yet, or ever."""
    _progress: Checkpoint | None = None
    _is_canceled = False
    _paused_at = 0.0

    def __init__(
        self,
        task: Task | None = None,
        reservation: Reservation | None = None,
        backend: Backend | None = None,
    ) -> None:
        self._task = task
        self._reservation = reservation
        self._backend = backend
        self._began_at = time.monotonic()
        self._is_leaving: Callable[[], bool] = _no

    def __repr__(self) -> str:
        return f"<RunningTask {self.task_id!r}, attempt {self.attempt}>"

    @property
    def task_id(self) -> str:
        """The task's id; empty outside of a task."""
        return self._task.task_id if self._task else ""

    @property
    def queue_name(self) -> str:
        """The queue it came from; empty for a task that did not come from one."""
        return self._reservation.queue_name if self._reservation else ""

    @property
    def reservation(self) -> Reservation | None:
        """The hand-out; None outside of a task, and for one that did not come from a queue."""
        return self._reservation

    @property
    def backend(self) -> Backend | None:
        """The store that it came from, for tasks of Alligator's own; None if it did not come from any."""
        return self._backend

    @property
    def token(self) -> str:
        """The name of this hand-out of the task, which no other has; empty outside of a task."""
        return self._reservation.token if self._reservation else ""

    @property
    def fence(self) -> int:
        """A fencing token: a number that is greater for each later hand-out of the task; 0 outside of one.

        Give it to what the task writes to. That can refuse a smaller one than it has seen: it comes from a
        worker that was away for longer than its lease, whose task has gone to another (Martin Kleppmann, "How
        to do distributed locking", 2016).
        """
        return round(reserved_at(self.token) * 1000) if self._reservation else 0

    @property
    def attempt(self) -> int:
        """Which attempt this is: 1, and one more after each failure."""
        return self._task.attempt if self._task else 1

    @property
    def retries(self) -> int:
        """How many more attempts may follow this one."""
        return self._task.retries if self._task else 0

    @property
    def deliveries(self) -> int:
        """How often this attempt was handed out; more than 1 if a worker died with it."""
        return self._reservation.deliveries if self._reservation else 1

    @property
    def history(self) -> Sequence[dict[str, Any]]:
        """What went before: for each of the last failed attempts its ``attempt``, ``error`` and ``at``."""
        return self._task.history if self._task else ()

    @property
    def deadline(self) -> float | None:
        """When its ``timeout`` is over, in seconds since 1970 by this machine's clock; None if it has none."""
        left = self.time_left
        return None if left is None else time.time() + left

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, below 0 when it is past; None if there is none."""
        timeout = self._task.timeout if self._task else None
        return None if timeout is None else self._began_at + timeout - time.monotonic()

    @property
    def canceled(self) -> bool:
        """Whether the task is asked to end, by ``gator.cancel``: it may tidy up, and should raise Canceled."""
        return self._is_canceled

    @property
    def leaving(self) -> bool:
        """Whether its worker is told to leave, and waits for the task to finish."""
        return self._is_leaving()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the task is; seen by ``gator.status`` and ``alligator show``.

        It may be said as often as one likes: it is written every half second, and at once where ``total`` or
        ``note`` is another than before.

        Args:
            done: How much is done, in whatever unit.
            total: How much there is to do, if that is known.
            note: What it is at.

        Example:
            >>> current_task().progress(3, 10, "resizing")
        """
        payloads.check_carriable([done, total, note], "What progress() is told")
        if self._backend is not None:
            self._told(self._backend).tell(done, total, note)

    def track(
        self, items: Iterable[T], total: int | None = None, note: str = ""
    ) -> Generator[T, None, None]:
        """Go through some items; see ``alligator.track``."""
        payloads.check_carriable([total, note], "What track() is told")
        if self._backend is None:  # nobody would see it, nor would it ever be resumed
            yield from items
            return
        if total is None and hasattr(items, "__len__"):
            total = len(cast(Sequence[T], items))
        told = self._told(self._backend)
        loop = told.enter()
        try:
            start = told.resumed(loop)
            for number, item in enumerate(islice(items, start, None), start + 1):
                self.check()
                yield item
                told.passed(loop, number, total, note)
            if loop is not None:
                told.save_soon()
            self.check()
        finally:
            told.leave(loop)

    def check(self) -> None:
        """Raise what ends the task, if it is canceled or its worker leaves.

        Raises:
            Canceled: It is canceled.
            BaseException: Its worker leaves: the task goes back to its queue, uncounted, and is run elsewhere.
        """
        if self._is_canceled:
            raise Canceled
        if self._is_leaving():
            raise GivenBack

    # What the worker does with it:

    def begin(self) -> float:
        """Let its time count from now on. Returns when that is over, by the monotonic clock; 0: never."""
        if self._task is None or self._task.timeout is None:
            return 0.0
        self._began_at = time.monotonic()
        return self._began_at + self._task.timeout

    def pause(self) -> None:
        """Let its time stand still, until it goes on."""
        self._paused_at = time.monotonic()

    def go_on(self) -> float:
        """Let its time count again. Returns when that is over, as ``begin`` does."""
        if self._task is None or self._task.timeout is None:
            return 0.0
        self._began_at += time.monotonic() - self._paused_at
        return self._began_at + self._task.timeout

    def end(self) -> None:
        """Let its time count no more."""
        if self.on_end is not None:
            self.on_end()

    def cancel(self) -> None:
        """Ask the task to end."""
        self._is_canceled = True
        on_cancel = self.on_cancel  # only once: it may end in this moment
        if on_cancel is not None:
            with suppress(RuntimeError):  # the loop that it ran in has just been closed
                on_cancel()

    async def awaited(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await what the task's function returned, and cancel it if the task is canceled.

        Raises:
            Canceled: It was.
        """
        import asyncio  # here, for it takes longer to import than all of Alligator

        loop = asyncio.get_running_loop()
        here = cast("asyncio.Task[Any]", asyncio.current_task())
        self.on_cancel = lambda: loop.call_soon_threadsafe(here.cancel)
        self.coroutine = coroutine
        if self._is_canceled:
            here.cancel()
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._is_canceled:
                raise Canceled from None
            raise
        finally:
            self.on_cancel = self.coroutine = None

    def leave_when(self, is_leaving: Callable[[], bool]) -> None:
        """Let the task know by this whether its worker leaves."""
        self._is_leaving = is_leaving

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything that a new attempt could resume."""
        return self._progress is not None

    def save(self) -> None:
        """Write how far it is, for the attempt that follows."""
        if self._progress is not None:
            self._progress.save()

    def forget(self) -> None:
        """Remove what was written of how far it is: the task is over."""
        if self._progress is not None:
            self._progress.forget()

    def _told(self, backend: Backend) -> Checkpoint:
        if self._progress is None:
            self._progress = Checkpoint(backend, self._reservation)
            resumes = self._task.resumes if self._task else None
            last = self.history[-1].get("token") if self.history else None
            has_died = self.deliveries > 1
            if resumes or last or has_died:
                self._progress.resume((resumes, last), has_died=has_died)
        return self._progress


def _no() -> bool:
    return False


_NOBODY = RunningTask()
CURRENT: ContextVar[RunningTask] = ContextVar("alligator_task", default=_NOBODY)
"""Set by what runs a task, around its code."""


def current_task() -> RunningTask:
    """Return the task that this code runs in; outside of any, one that has no id.

    A thread that a task starts by itself is outside of it, unless it runs in a copy of its context, as
    ``asyncio.to_thread`` does.

    Example:
        >>> current_task().attempt
        1
    """
    return CURRENT.get()


def track(items: Iterable[T], total: int | None = None, note: str = "") -> Iterator[T]:
    """Go through some items as the main loop of a task; outside of a task, just go through them.

    While it does, how far the task is can be seen (``gator.status``, ``alligator show``); an attempt that
    follows a failure or a crash begins where the last one was; a task that is canceled ends at the next item;
    and at a worker's shutdown the task goes back to its queue there, to be resumed elsewhere.

    A checkpoint is written every half second, and when an attempt fails: after a crash, some items come again.
    They must come in the same order in each attempt. Of loops inside one another, only the outermost resumes.

    Args:
        items: What to go through.
        total: How many there are; by default their ``len()``, if they have one.
        note: What to say beside the number.

    Example:
        >>> [number * 2 for number in track([1, 2, 3])]
        [2, 4, 6]
    """
    return current_task().track(items, total, note)
