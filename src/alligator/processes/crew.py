"""Threads that run what a worker holds."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from alligator.bell import Bell
from alligator.processes.holdings import Held, Holdings
from alligator.raised import log_raised

log = logging.getLogger("alligator.worker")

LOOK = 0.05
"""Seconds after which the worker's thread looks up, to settle what is finished, though nobody is idle."""
END_WITHIN = 1.0
"""Seconds for coroutines that are broken off to tidy up."""


class Crew:
    """Some threads; a context manager, whose end does not wait for what they still run.

    Args:
        size: How many.
        holdings: What they take tasks from.
        run: What runs a task.
        ran: Told how many tasks took how many seconds.
    """

    def __init__(
        self,
        size: int,
        holdings: Holdings,
        run: Callable[[Held], None],
        ran: Callable[[int, float], None],
    ) -> None:
        self._size = size
        self._holdings = holdings
        self._run = run
        self._ran = ran
        self._bell = Bell()
        self._changed = threading.Condition()
        self._running = 0
        self._is_closed = False

    def __enter__(self) -> Self:
        for number in range(self._size):
            # A daemon: a task that runs longer than the worker may wait must not keep the process.
            threading.Thread(target=self._serve, name=f"alligator-{number}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_running(self) -> bool:
        """Whether any thread runs a task."""
        return self._running > 0

    def work(self) -> None:
        """Let the threads run what is held, until one may be idle soon or there is something to settle."""
        with self._changed:
            self._changed.notify_all()
        if self._holdings.todo >= self._size or self._running:
            self._bell.wait(LOOK)

    def _serve(self) -> None:
        thread = threading.get_ident()
        while (held := self._next(thread)) is not None:
            began = time.monotonic()
            try:
                self._run(held)
            except BaseException as err:
                left_to_its_lease(held, self._holdings, err)
            with self._changed:
                self._running -= 1
                self._ran(1, (time.monotonic() - began) / self._size)
            self._bell.ring()

    def _next(self, thread: int) -> Held | None:
        """Wait for a task; None when it is time to end."""
        with self._changed:
            while not self._is_closed:
                held = self._holdings.start(thread)
                if held is not None:
                    self._running += 1
                    return held
                self._changed.wait()
        return None


def left_to_its_lease(held: Held, holdings: Holdings, err: BaseException) -> None:
    """Forget a task of which nothing came but an exception, as a Task class of the user's own may raise one.

    In a thread it would end that thread, and nothing else. So let it be as if it had ended the process: the
    lease lapses, and the task is handed out again, up to three times.
    """
    log_raised(log, "Task %r is left to its lease", held.reservation.task_id, err=err)
    holdings.drop(held)
