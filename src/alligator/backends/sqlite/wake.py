"""Waking other processes that wait on a SQLite file: by a named pipe beside it.

SQLite itself can only be asked again and again whether anything has changed: often, which costs, or seldom,
which is late. Who pushes writes a byte into the pipe, and who waits is woken by the kernel. Where a filesystem
has no named pipes, asking remains.
"""

import os
from pathlib import Path

SHORTEST_LOOK, LONGEST_LOOK = 0.001, 0.05
"""Seconds between two looks for what other processes wrote, though nobody rang: the ring may have woken another
who waits. 20 looks a second cost about half a percent of a processor."""


class Wake:
    """A named pipe, for those who wait for the same kind of thing: each ring may wake but one of them.

    Args:
        path: Where it is; it is made at the first use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pipe = -1
        self._opened: dict[None, int] = {}
        self._is_possible = hasattr(os, "mkfifo")

    def __del__(self) -> None:
        self.close()

    def ring(self) -> None:
        """Wake up whoever waits; without anyone, the next to wait."""
        if self.files():
            try:
                os.write(self._pipe, b"r")
            except BlockingIOError:  # full of rings nobody waited for: whoever waits next is woken
                pass

    def files(self) -> tuple[int, ...]:
        """Return the descriptor to wait on; none where there are no named pipes."""
        if self._pipe < 0 and self._is_possible:
            self._open()
        return (self._pipe,) if self._pipe >= 0 else ()

    def clear(self) -> None:
        """Take out what rang. To be called before a look: what rings after it, the next wait meets."""
        if self.files():
            try:
                os.read(self._pipe, 65536)
            except BlockingIOError:
                pass

    def _open(self) -> None:
        try:
            os.mkfifo(self._path, 0o666)
        except FileExistsError:
            pass
        except OSError:
            self._is_possible = False
            return
        try:
            # For reading too, though a writer only writes: else opening needs somebody at the other end.
            pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:  # of another user, perhaps
            self._is_possible = False
            return
        # One step, and no lock: a process that is forked while another thread held that would wait for ever.
        self._pipe = self._opened.setdefault(None, pipe)
        if self._pipe != pipe:  # another thread was faster
            os.close(pipe)

    def close(self) -> None:
        """Close the pipe; the next use opens it again."""
        opened, self._opened = self._opened, {}
        self._pipe = -1
        for pipe in opened.values():
            os.close(pipe)
