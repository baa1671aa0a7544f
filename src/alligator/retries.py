"""Whether a task is tried again, and after how long: pure functions, and nothing else."""

MAX_DELIVERIES = 3
"""Hand-outs with no outcome before a task is buried as poison: what Sidekiq Pro allows (sidekiq#4633)."""


def backoff(attempt: int, *, base: float, cap: float = 3600.0) -> float:
    """Return the wait before retry number ``attempt`` (1, 2, 3, ...), in seconds: ``base``, doubling.

    Example:
        >>> backoff(3, base=10.0)
        40.0
    """
    # Cap the power as well as the result: 2.0 ** 1024 overflows before min() can help.
    return min(cap, base * 2.0 ** min(attempt - 1, 63))


def is_poison(deliveries: int, limit: int = MAX_DELIVERIES) -> bool:
    """Return whether a task was handed out ``limit`` times before and nobody lived to tell its outcome."""
    return deliveries > limit


def wait_for_code(deliveries: int, *, base: float, limit: int = MAX_DELIVERIES) -> float | None:
    """Return how long to wait for a deploy to bring the code that a task needs; None: do not wait on.

    A task that cannot be read or imported may have met a worker of the version before, or the one after.
    """
    return backoff(deliveries, base=base) if deliveries < limit else None
