"""Raising TaskTimeout in a task that runs too long.

In the main thread a timer of the system does it: its signal also ends a sleep, and a wait for a socket. In
another thread only the interpreter can, at its next step: a call that does not come back is not reached. What
nothing reaches is ended with its process, by its parent (supervisor.py).
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from alligator.exceptions import TaskTimeout

if TYPE_CHECKING:
    from queue import SimpleQueue

    from alligator.dumps import Lookout

KILL_AFTER = 2.0
"""Seconds for a task to end by itself, once its time is up; then its process is ended."""
_SOON = 1e-6
"""Seconds, the least that a timer can be set to."""
_LATE = 9e9
"""And the most, about: no number of nanoseconds is larger."""
_HOUR = 3600.0
_MOMENT = 0.001
"""Seconds after which another try is made, where nothing can be raised now."""
_LONG_MOMENT = 0.05
"""And after many: to look where a thread is takes a part of a millisecond, in which no other runs."""

T = TypeVar("T")

_NO_LIMIT = nullcontext()


def time_limit(seconds: float | None) -> AbstractContextManager[None]:
    """Raise TaskTimeout in the block, once, when it has run for so long; None: never.

    It is raised in the block or not at all, never after it.

    Example:
        >>> with time_limit(0.01):
        ...     time.sleep(60)
        Traceback (most recent call last):
        alligator.exceptions.TaskTimeout: It ran for more than 0.01 s
    """
    if seconds is None:
        return _NO_LIMIT
    is_main = threading.current_thread() is threading.main_thread()
    # A handler that was not set by Python could not be put back by it.
    if is_main and signal.getsignal(signal.SIGALRM) is not None:
        return _Alarm(seconds)
    return _Watched(seconds)


async def limited(
    coroutine: Coroutine[Any, Any, T], seconds: float | None, left: float | None = None
) -> T:
    """Await a coroutine; raise TaskTimeout where it waits, when that has taken so long.

    Args:
        coroutine: What to await.
        seconds: How long it may take, with what came before it. None: any time.
        left: What is left of that; by default all.
    """
    if seconds is None:
        return await coroutine
    import asyncio  # here, for it takes longer to import than all of Alligator

    scope = asyncio.timeout(seconds if left is None else left)
    try:
        async with scope:
            return await coroutine
    except TimeoutError as err:
        if scope.expired():
            raise _over(seconds) from err
        raise


def _over(seconds: float) -> TaskTimeout:
    return TaskTimeout(f"It ran for more than {seconds:g} s")


class _Alarm:
    """A limit in the main thread. The program's own timer stands still meanwhile, and is set again afterwards.

    Whoever is first, the end of the block or the alarm, puts all back; only the alarm that is first raises. If
    the interpreter ignored that, it is raised anew.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_over = False

    def __enter__(self) -> None:
        self._start(self._seconds)

    def _start(self, seconds: float) -> None:
        self._is_set = True
        self._pid = os.getpid()
        self._began_at = time.monotonic()
        # The other timer off first: an alarm of its own is to find its own handler.
        self._left, self._every = signal.setitimer(signal.ITIMER_REAL, 0)
        self._handler = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, _SOON), _LATE))

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        if self._is_set:
            self._put_back()
        _forget(self)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if not self._is_set:
            return
        if _is_final(frame):
            signal.setitimer(signal.ITIMER_REAL, _MOMENT)
            return
        self._put_back()
        _hear_of_ignored()
        _fired[threading.get_ident()] = self
        raise _over(self._seconds)

    def fire_again(self) -> None:
        """Raise once more, for nobody heard of it."""
        self._start(_MOMENT)

    def _put_back(self) -> None:
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        # This first runs handlers of signals that have come: if the alarm has, then ours, which is over.
        signal.signal(signal.SIGALRM, self._handler)
        if self._left and os.getpid() == self._pid:  # a fork has no timers
            left = self._left - (time.monotonic() - self._began_at)
            signal.setitimer(signal.ITIMER_REAL, max(left, _SOON), self._every)


class _Watched:
    """A limit in any thread, which the watcher raises in it.

    The interpreter raises at its next step in that thread, wherever that is. So the end of the block first says
    that it has come. If the watcher was about to raise by then, the end waits for it, and takes back what was
    raised and has not been met by then. Nothing is raised in a finalizer, which may catch it, or else the
    interpreter ignores it. If it came to one nevertheless and was ignored, it is raised anew.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_over = False
        self._is_firing = False
        self._again_after = _MOMENT
        self._has_fired = threading.Lock()  # a plain one: that is taken and held in one step

    def __enter__(self) -> None:
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._has_fired.acquire()
        self.due_at = time.monotonic() + self._seconds
        _WATCHER.watch(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_over = True
        if self._is_firing and os.getpid() == self._pid:  # a fork has no watcher
            self._has_fired.acquire()
            _raising_in(self._thread, None)()
        _forget(self)
        if isinstance(err, TaskTimeout) and self._is_firing:
            err.args = _over(self._seconds).args  # the interpreter makes it of its type alone

    def fire(self, lookout: "Lookout | None") -> None:
        """Raise, unless the block has ended; later, if its thread is in a finalizer. For the watcher.

        Args:
            lookout: Tells whether it is; None: nobody does.
        """
        self._is_firing = True
        if self.is_over or self._is_raised(lookout):
            self._has_fired.release()
            return
        self._is_firing = False
        # Read once more: its end may have seen that we were about to, and wait for us.
        if self._is_ended():
            self._has_fired.release()
        else:
            self._put_off()

    def fire_again(self) -> None:
        """Raise once more, for nobody heard of it. In its own thread."""
        self._is_firing = False
        self._has_fired.acquire()
        self._put_off()

    def _is_ended(self) -> bool:
        """Whether it is over, read anew: the block may have ended since the last look, in its own thread."""
        return self.is_over

    def _put_off(self) -> None:
        self.due_at = time.monotonic() + self._again_after
        self._again_after = min(2 * self._again_after, _LONG_MOMENT)
        _WATCHER.watch(self)

    def _is_raised(self, lookout: "Lookout | None") -> bool:
        _hear_of_ignored()
        note = partial(_fired.__setitem__, self._thread, self)
        fire = _raising_in(self._thread, TaskTimeout)
        if lookout is not None:
            return lookout.unless_final(self._thread, note, fire)
        note()
        fire()
        return True


_fired: dict[int, _Alarm | _Watched] = {}
"""What has been raised last, by threads."""


def _forget(limit: _Alarm | _Watched) -> None:
    """Forget that it was raised, in its own thread."""
    me = threading.get_ident()
    if _fired.get(me) is limit:
        del _fired[me]


class _Ignored:
    """Hears of exceptions that the interpreter ignores; what is none of ours goes to the hook before it.

    It is met by what is raised just before a finalizer begins, or in one that a look did not find: of more than
    a hundred threads, or deep down; or what the collector of garbage calls.
    """

    def __init__(self, former: "Callable[[sys.UnraisableHookArgs], object]") -> None:
        self._former = former

    def __call__(self, ignored: "sys.UnraisableHookArgs") -> None:
        limit = _fired.get(threading.get_ident())
        if limit is None or limit.is_over or not issubclass(ignored.exc_type, TaskTimeout):
            self._former(ignored)
        else:
            limit.fire_again()


def _hear_of_ignored() -> None:
    # Not yet; or the program has set its own since.
    if not isinstance(sys.unraisablehook, _Ignored):
        sys.unraisablehook = _Ignored(sys.unraisablehook)


def _is_final(frame: FrameType | None) -> bool:
    """Whether a frame of this thread is within a finalizer: what is raised there, the interpreter ignores."""
    while frame is not None:
        name, module = frame.f_code.co_name, frame.f_globals.get("__name__")
        if name == "__del__" or module in ("weakref", "_weakrefset"):
            return True
        frame = frame.f_back
    return False


def _raising_in(thread: int, kind: type[BaseException] | None) -> Callable[[], object]:
    """Return what raises an exception at a thread's next step; None: what takes back one not raised yet."""
    import ctypes  # here, for few need it

    raised = None if kind is None else ctypes.py_object(kind)
    return partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(thread), raised)


class _Watcher:
    """A thread that lets limits fire. It is started at the first use, in this process or a fork of it."""

    def __init__(self) -> None:
        self._pid = 0
        self._coming: SimpleQueue[_Watched] | None = None

    def watch(self, limit: _Watched) -> None:
        """Let a limit fire when it is due, unless it is over by then."""
        coming = self._coming
        if coming is None or self._pid != os.getpid():
            coming = self._start()
        # By nothing that could be left locked: a thread may be hit by an outer limit wherever it is.
        coming.put(limit)

    def _start(self) -> "SimpleQueue[_Watched]":
        # Should two threads come here at once, then there are two watchers, which is no harm.
        from queue import SimpleQueue  # here, for few need it

        coming: SimpleQueue[_Watched] = SimpleQueue()
        threading.Thread(target=_watch, args=[coming], name="alligator-limits", daemon=True).start()
        # Not before it runs: there may be too many threads, and whatever comes next would wait for nobody.
        self._coming, self._pid = coming, os.getpid()
        return coming


_WATCHER = _Watcher()


def _watch(coming: "SimpleQueue[_Watched]") -> None:
    from queue import Empty

    limits: list[_Watched] = []
    lookout: Lookout | None = None
    while True:
        next_at = min((limit.due_at for limit in limits), default=None)
        # No longer than an hour: a wait of centuries is refused.
        wait = None if next_at is None else min(max(0.0, next_at - time.monotonic()), _HOUR)
        try:
            limits.append(coming.get(timeout=wait))
        except Empty:
            pass
        now = time.monotonic()
        limits = [limit for limit in limits if not limit.is_over]
        for limit in [limit for limit in limits if limit.due_at <= now]:
            limits.remove(limit)
            if lookout is None or lookout.is_full:
                lookout = _lookout()
            limit.fire(lookout)


def _lookout() -> "Lookout | None":
    from alligator.dumps import Lookout  # here, for few need it

    try:
        return Lookout()
    except OSError:  # too many open files: the next limit tries again
        return None
