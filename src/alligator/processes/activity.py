"""What the threads of another process do, as Linux tells it."""

import os
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Activity(NamedTuple):
    """What they did at a look."""

    is_asleep: bool
    """Whether each of them waits for something; to be stopped is not to sleep."""
    seconds: float
    """Of a processor's time, that they have used so far."""


def activity_of(pid: int) -> Activity | None:
    """Return what the threads of a process do; None where that is not told, or it has ended.

    Example:
        >>> activity_of(os.getpid()).is_asleep  # we run
        False
    """
    folder = f"/proc/{pid}/task"
    try:
        threads = [_fields_of(f"{folder}/{thread}/stat") for thread in os.listdir(folder)]  # noqa: PTH208 -- as below
    except OSError:
        return None
    # proc(5): the state, and as the 12th and 13th field after the name the ticks used by it and for it.
    is_asleep = all(fields[0] == "S" for fields in threads)
    return Activity(
        is_asleep, sum(int(fields[11]) + int(fields[12]) for fields in threads) / _TICKS
    )


def _fields_of(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 -- to import pathlib takes long
        return file.read().rpartition(")")[2].split()
