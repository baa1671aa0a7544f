"""The states of a task, and the name of the default queue."""

from typing import Final

WAITING: Final = 0
SUCCESS: Final = 1
FAILED: Final = 2
DELAYED: Final = 3
"""Its time has not come."""
RETRYING: Final = 4
CANCELED: Final = 5
RUNNING: Final = 6

ALL: Final = "all"
"""The queue of a Gator that names none; to a Worker, the queue of its own Gator."""
