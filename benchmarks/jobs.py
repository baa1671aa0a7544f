"""What the benchmark's tasks do."""

import os
import time


def noop(number: int) -> None:
    """Do nothing: what is left is what the queue costs."""


def stamp(journal: str, pushed_at: float) -> None:
    """Write down how long ago a task was pushed."""
    line = f"{time.time() - pushed_at}\n".encode()
    file = os.open(journal, os.O_WRONLY | os.O_APPEND)
    os.write(file, line)
    os.close(file)
