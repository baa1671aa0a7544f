"""Alligator: simple offline task queues. For Python."""

from alligator.constants import ALL
from alligator.gator import Gator, Options
from alligator.tasks import Task
from alligator.workers import Worker

__all__ = ["ALL", "Gator", "Options", "Task", "Worker", "version"]

__version__ = "0.11.0.dev0"


def version() -> str:
    """Return the version of Alligator, such as "0.11.0"."""
    return __version__
