"""The program for Huey, set up as its documentation advises for production.

Interrupted tasks are queued again by a handler of SIGNAL_INTERRUPTED, and one that fails is tried again.
"""

import os
from importlib import import_module
from typing import Any

from chaos.controls import work as tasks

_library: Any = import_module("huey")  # it has no types, and is not installed where this is checked

huey: Any = _library.RedisHuey("chaos", url=os.environ["CONTROL_DSN"])


@huey.task(retries=3)  # type: ignore[untyped-decorator]
def work(journal: str, name: str, seconds: float = 0.0) -> str:
    """Take so long."""
    return tasks.work(journal, name, seconds)


@huey.signal(_library.signals.SIGNAL_INTERRUPTED)  # type: ignore[untyped-decorator]
def queue_again(signal: str, task: Any) -> None:
    """Do what its documentation says to do with a task whose worker is told to end."""
    huey.enqueue(task)


def push(journal: str, name: str, seconds: float) -> None:
    """Queue a task."""
    work(journal, name, seconds)
