"""Waking those who wait in this process, from other threads and from signal handlers."""

import os
import select
from enum import Enum


class Woken(Enum):
    """What ended a wait."""

    IN_TIME = "in time"
    BY_FILE = "by a file"
    BY_RING = "by a ring"
    BY_INTERRUPT = "by an interrupt"


class Bell:
    """A pipe to wait on. Unlike a Condition, it may be rung from a signal handler that interrupts its wait."""

    def __init__(self) -> None:
        self._pid = 0
        self._ends = (-1, -1)
        self._is_interrupted = False
        self._open()  # now, for two threads that did so at first use would each have a pipe of their own

    def __del__(self) -> None:
        self.close()

    def ring(self) -> None:
        """Wake up one who waits; without one, the next wait ends at once."""
        try:
            os.write(self._open()[1], b"r")
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
        reader = self._open()[0]
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
        return self._open()[0]

    def close(self) -> None:
        """Close the pipe; the next use opens another."""
        if self._pid == os.getpid():
            for end in self._ends:
                os.close(end)
        self._pid = 0

    def _open(self) -> tuple[int, int]:
        if self._pid != os.getpid():  # never opened, or by the process that forked this one
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            os.set_blocking(writer, False)
            self._ends, self._pid = (reader, writer), os.getpid()
        return self._ends
