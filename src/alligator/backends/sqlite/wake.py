"""Waking other processes that wait on a SQLite file: by a named pipe beside it.

SQLite itself can only be asked again and again whether anything has changed: often, which costs, or seldom,
which is late. Who pushes writes a byte into the pipe, and who waits is woken by the kernel. Where a filesystem
has no named pipes, asking remains.
"""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from alligator.descriptors import Descriptors, Opened

SHORTEST_LOOK, LONGEST_LOOK = 0.001, 0.05
"""Seconds between two looks for what other processes wrote, though nobody rang: the ring may have woken another
who waits. 20 looks a second cost about half a percent of a processor."""


class Wake:
    """A named pipe, for those who wait for the same kind of thing: each ring may wake but one of them.

    Args:
        path: Where it is; it is made at the first use.
    """

    def __init__(self, path: Path) -> None:
        self._pipe = Opened(partial(_pipe_at, path))
        self._is_possible = hasattr(os, "mkfifo")

    def ring(self) -> None:
        """Wake up whoever waits; without anyone, the next to wait."""
        for pipe in self._opened():
            try:
                os.write(pipe.files[0], b"r")
            except BlockingIOError:  # full of rings nobody waited for: whoever waits next is woken
                pass

    def files(self) -> tuple[int, ...]:
        """Return the descriptor to wait on; none where there are no named pipes."""
        return tuple(file for pipe in self._opened() for file in pipe.files)

    def clear(self) -> None:
        """Take out what rang. To be called before a look: what rings after it, the next wait meets."""
        for pipe in self._opened():
            try:
                os.read(pipe.files[0], 65536)
            except BlockingIOError:
                pass

    def close(self) -> None:
        """Close the pipe; the next use opens it again."""
        self._pipe.close()

    def _opened(self) -> tuple[Descriptors, ...]:
        if not self._is_possible:
            return ()
        try:
            return (self._pipe.get(),)
        except OSError:  # no named pipes here; or it is of another user, perhaps
            self._is_possible = False
            return ()


def _pipe_at(path: Path) -> Descriptors:
    with suppress(FileExistsError):
        os.mkfifo(path, 0o666)
    # For reading too, though a writer only writes: else opening needs somebody at the other end.
    return Descriptors(os.open(path, os.O_RDWR | os.O_NONBLOCK))
