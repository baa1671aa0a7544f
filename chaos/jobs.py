"""Functions for workers to run, some of which die. Others are in ``tests.integration.jobs``."""

import ctypes
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from alligator.verify.journal import Journal

WAYS: dict[str, Callable[[], object]] = {
    "ends": lambda: os._exit(1),
    "ends in peace": lambda: os._exit(0),
    "reads nowhere": lambda: ctypes.string_at(0),
    "aborts": os.abort,
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
"""How a process may die of its task."""


def die(journal: str, name: str, way: str) -> NoReturn:
    """End the process that this runs in."""
    Journal(journal).note("start", name)
    Journal(journal).note("kill")
    WAYS[way]()
    raise AssertionError(f"not dead of {way!r}")


def carry(journal: str, name: str, load: str) -> int:
    """Return how much it was."""
    Journal(journal).note("start", name)
    Journal(journal).note("finish", name)
    return len(load)
