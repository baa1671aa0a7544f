"""Alligator: simple offline task queues. For Python."""

from alligator.constants import ALL
from alligator.exceptions import Canceled, LeaseLost, Retry, Snooze
from alligator.gator import Gator
from alligator.limits import Concurrency, Rate
from alligator.queueing import Options
from alligator.running import RunningTask, current_task, track
from alligator.tasks import Task
from alligator.workers import Worker

__all__ = [
    "ALL",
    "Canceled",
    "Concurrency",
    "Gator",
    "LeaseLost",
    "Options",
    "Rate",
    "Retry",
    "RunningTask",
    "Snooze",
    "Task",
    "Worker",
    "current_task",
    "track",
    "version",
]

__version__ = "0.11.0.dev0"


def version() -> str:
    """Return the version of Alligator, such as "0.11.0"."""
    return __version__
