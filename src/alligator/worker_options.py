"""What a worker can be told: checking it."""

import math
from collections.abc import Mapping, Sequence

from alligator.backends.base import MAX_NAME_BYTES, check_name
from alligator.exceptions import InvalidOption

GRACE = 30.0
"""Seconds that a running task has to finish when the worker is told to leave."""
SHORTEST_LEASE = 0.1
"""Seconds. Even this is for tests: on a busy machine a beat may come later."""
MAX_CONCURRENCY = 1000
"""Coroutines of one process: the board has to hold them, and the batch that is to come."""


def queue_names(to_consume: str | Sequence[str] | Mapping[str, int]) -> list[str]:
    """Return the names of the queues to take from."""
    try:
        names = [to_consume] if isinstance(to_consume, str) else list(to_consume)
    except TypeError:
        names = []
    if not names:
        raise InvalidOption(f"to_consume names a queue, or lists some; not {to_consume!r}.")
    return [check_name("to_consume", name, MAX_NAME_BYTES) for name in names]


def weights(to_consume: str | Sequence[str] | Mapping[str, int]) -> dict[str, int]:
    """Return how often each queue is to come first; empty: they come in strict order."""
    if not isinstance(to_consume, Mapping):
        return {}
    return {name: whole(1, f"The weight of {name!r}", to_consume[name]) for name in to_consume}


def whole(least: int, what: str, value: object, most: int | None = None) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(f"{what} is a whole number from {least}; not {value!r}.")
    if most is not None and value > most:
        raise InvalidOption(
            f"{what} is at most {most} a process, not {value}: start more processes."
        )
    return value


def seconds(what: str, value: object, least: float = 0.0) -> float:
    """Return a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        value = math.nan
    if not least <= value < math.inf:
        raise InvalidOption(f"{what} is a number of seconds from {least:g}; not {value!r}.")
    return float(value)
