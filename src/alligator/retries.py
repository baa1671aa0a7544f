"""Whether a task is tried again, and after how long: pure functions, and nothing else."""

import os
from collections.abc import Callable

from alligator.exceptions import AGES, Retry

MAX_DELIVERIES = 3
"""Hand-outs with no outcome before a task is buried as poison: what Sidekiq Pro allows (sidekiq#4633)."""
MAX_BACKOFF = 3600.0
"""Seconds that a backoff grows to, unless said otherwise."""

Types = tuple[type[BaseException], ...]


def chance() -> float:
    """Return a random number from 0 up to, and not including, 1."""
    # To import random would take longer than all else here.
    return int.from_bytes(os.urandom(6)) / 2**48


def backoff(attempt: int, *, base: float, cap: float = MAX_BACKOFF) -> float:
    """Return the longest wait before retry number ``attempt`` (1, 2, 3, ...), in seconds: ``base``, doubling.

    Example:
        >>> backoff(3, base=10.0)
        40.0
    """
    # Cap the power as well as the result: 2.0 ** 1024 overflows before min() can help.
    return min(cap, base * 2.0 ** min(attempt - 1, 63))


def with_jitter(wait: float, rng: Callable[[], float] = chance) -> float:
    """Return a random part of a wait, so that what failed together does not come back together.

    This is "full jitter", which of the kinds compared costs the least work in all (Marc Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    return wait * rng()


def is_worth_retrying(
    err: BaseException, retry_on: Types | None = None, give_up_on: Types | None = None
) -> bool:
    """Return whether an error is of a kind that another attempt may mend.

    Example:
        >>> is_worth_retrying(KeyError("x"), retry_on=(OSError,))
        False
        >>> is_worth_retrying(TimeoutError(), retry_on=(OSError,), give_up_on=(PermissionError,))
        True
    """
    if isinstance(err, Retry):  # the task itself says so
        return True
    if give_up_on is not None and isinstance(err, give_up_on):
        return False
    return retry_on is None or isinstance(err, retry_on)


def wait_before(
    err: BaseException,
    retry: int,
    *,
    base: float | None = None,
    cap: float | None = None,
    rng: Callable[[], float] = chance,
) -> float:
    """Return the seconds before retry number ``retry`` (1, 2, 3, ...): what the error says, or the backoff.

    Example:
        >>> wait_before(Retry(delay=5), 1)
        5.0
        >>> wait_before(OSError(), 3, base=10.0, rng=lambda: 0.5)
        20.0
        >>> wait_before(OSError(), 3)
        0.0
    """
    if isinstance(err, Retry) and err.delay is not None:
        return err.delay
    if not base:
        return 0.0
    cap = MAX_BACKOFF if cap is None else min(cap, AGES)  # a payload of others may say any number
    return with_jitter(backoff(retry, base=base, cap=cap), rng)


def is_poison(deliveries: int, limit: int = MAX_DELIVERIES) -> bool:
    """Return whether a task was handed out ``limit`` times before and nobody lived to tell its outcome."""
    return deliveries > limit


def is_suspect(deliveries: int, limit: int = MAX_DELIVERIES) -> bool:
    """Return whether this is the last hand-out of a task that came to nothing each time before."""
    return 1 < deliveries >= limit


def wait_for_code(deliveries: int, *, base: float, limit: int = MAX_DELIVERIES) -> float | None:
    """Return how long to wait for a deploy to bring the code that a task needs; None: do not wait on.

    A task that cannot be read or imported may have met a worker of the version before, or the one after.
    """
    return backoff(deliveries, base=base) if deliveries < limit else None
