"""Waking those who wait in this process, from other threads and from signal handlers."""

import os
import select
from enum import Enum

from alligator.descriptors import Descriptors, Opened


class Woken(Enum):
    """What ended a wait."""

    IN_TIME = "in time"
    BY_FILE = "by a file"
    BY_RING = "by a ring"
    BY_INTERRUPT = "by an interrupt"


class Bell:
    """A pipe to wait on. Unlike a Condition, it may be rung from a signal handler that interrupts its wait."""

    def __init__(self) -> None:
        self._pipe = Opened(_pipe)
        self._is_interrupted = False

    def ring(self) -> None:
        """Wake up one who waits; without one, the next wait ends at once."""
        pipe = self._pipe.get()
        try:
            os.write(pipe.files[1], b"r")
        except BlockingIOError:  # full of rings nobody waited for: the next wait ends anyway
            pass

    def interrupt(self) -> None:
        """Make one who waits, or the next to wait, give up waiting."""
        self._is_interrupted = True
        self.ring()

    @property
    def is_interrupted(self) -> bool:
        """Whether the next wait is interrupted, for nobody has waited since."""
        return self._is_interrupted

    def wait(self, timeout: float, *others: int) -> Woken:
        """Wait for a ring, an interruption or something to read on ``others`` (file descriptors)."""
        pipe = self._pipe.get()
        reader = pipe.files[0]
        poll = select.poll()
        for file in (reader, *others):
            poll.register(file, select.POLLIN)
        ready = poll.poll(max(0.0, timeout) * 1000)
        rang = any(file == reader for file, _ in ready)
        if rang:
            try:
                os.read(reader, 65536)
            except BlockingIOError:  # another thread was faster
                pass
        interrupted, self._is_interrupted = self._is_interrupted, False
        if interrupted:
            return Woken.BY_INTERRUPT
        if rang:
            return Woken.BY_RING
        return Woken.BY_FILE if ready else Woken.IN_TIME

    def fileno(self) -> int:
        """Return the descriptor that is readable when it has been rung: for others to wait on, too."""
        return self._pipe.get().files[0]

    def close(self) -> None:
        """Close the pipe; the next use opens another."""
        self._pipe.close()


def _pipe() -> Descriptors:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return Descriptors(reader, writer)
