"""File descriptors that are closed when nobody uses them any more, and not while another thread is about to.

The number of a file that was closed is soon another file's: who then closes it once more closes that one, and
who writes to it writes there. A thread may be held up anywhere, and a task's timeout be raised at any step.
"""

import os
import sys
from collections.abc import Callable


class Descriptors:
    """Open files, by their numbers, for as long as there is a reference to this.

    Args:
        files: Closed at the end, but by the process alone that it was made in.
    """

    def __init__(self, *files: int) -> None:
        self.files = files
        self._pid = os.getpid()

    def __del__(self) -> None:
        if self._pid == os.getpid():
            for file in self.files:
                os.close(file)


class Opened:
    """What each process opens at its first use: a fork opens its own.

    Args:
        open_files: Opens them.
    """

    def __init__(self, open_files: Callable[[], Descriptors]) -> None:
        self._open = open_files
        self._by_pid: dict[int, Descriptors] = {}

    def get(self) -> Descriptors:
        """Return them, open. Who keeps what is returned may use it, even if another thread closes it.

        Raises:
            OSError: They could not be opened.
        """
        pid = os.getpid()
        # One step, and no lock: a process that is forked while another thread held that would wait for ever.
        return self._by_pid.get(pid) or self._by_pid.setdefault(pid, self._open())

    def close(self) -> None:
        """Close them, when nobody uses them any more; the next use opens others."""
        self._by_pid = {}


def memory_file(size: int = 0) -> int:
    """Return the descriptor of a file in memory that has no name and goes when nobody uses it."""
    if sys.platform == "linux":
        file = os.memfd_create("alligator")
    else:
        import tempfile  # here, for few need it

        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.truncate(file, size)
    return file
