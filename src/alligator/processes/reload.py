"""Seeing that code has changed: for development, where workers are to run what was just written."""

import os
import time
from collections.abc import Callable, Generator
from pathlib import Path

LOOK_EVERY = 1.0
"""Seconds between two looks."""
SHARE = 0.1
"""Of the time, that looking may take: where there is a lot to look at, it is done less often."""

_SKIPPED = {"__pycache__", "node_modules"}
_Stamp = tuple[int, int, int]
"""Of a file: what changes when it is written, or another takes its place."""


class Reloader:
    """Looks after the Python files below a folder, but for those that are hidden, or belong to other programs.

    Args:
        folder: Where they are.
        clock: A monotonic clock.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._stamps: dict[str, _Stamp] = {}
        self._next_look = 0.0
        self._look()

    def changed(self) -> list[str]:
        """Return which files have changed, come or gone since the last look; nothing if that was just now.

        May be called again and again, every fraction of a second.
        """
        if self._clock() < self._next_look:
            return []
        before = self._stamps
        self._look()
        paths = before.keys() | self._stamps.keys()
        return sorted(path for path in paths if before.get(path) != self._stamps.get(path))

    def _look(self) -> None:
        began_at = self._clock()
        self._stamps = dict(_stamps(str(self._folder), ""))
        took = self._clock() - began_at
        self._next_look = began_at + max(LOOK_EVERY, took / SHARE)


def _stamps(folder: str, shown: str) -> Generator[tuple[str, _Stamp]]:
    """Give each Python file below a folder: its path, and its stamp."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # it has just gone, or is not ours to read
        return
    if shown and any(entry.name == "pyvenv.cfg" for entry in entries):  # a virtual environment
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):  # a link may lead round in a circle
                yield from _stamps(entry.path, f"{shown}{entry.name}/")
            elif entry.name.endswith(".py"):
                status = entry.stat()
                yield shown + entry.name, (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            continue
