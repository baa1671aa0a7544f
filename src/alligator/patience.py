"""Calling a store until it answers: a worker has nothing to gain by giving up."""

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from alligator import retries
from alligator.exceptions import BackendRefused, BackendUnavailable

log = logging.getLogger("alligator.worker")

LONGEST_WAIT = 2.0
"""Seconds between two calls, at the most. Well within a lease, so that what is held is settled in time once the
store is back; and a store that refuses, until a person sees to that, has little trouble with it."""
SAY_EVERY = 60.0
"""Seconds after which it is said once more."""

T = TypeVar("T")


class Patience:
    """Calls a store until it answers.

    Args:
        wait: Waits for so many seconds, or less.
        is_over: Whether to wait no longer: then the error is raised.
        clock: A monotonic clock.
    """

    def __init__(
        self,
        wait: Callable[[float], object],
        is_over: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait = wait
        self._is_over = is_over
        self._clock = clock
        self.has_asked_again = False
        """Whether the last call had to be repeated: what it asked for may have been done before."""

    def __call__(self, call: Callable[[], T]) -> T:
        """Return what a call of the store returns, once it does.

        Raises:
            BackendUnavailable, BackendRefused: It does not, and it is time to wait no longer.
        """
        failures, said_at = 0, -math.inf
        while True:
            try:
                answer = call()
            except (BackendUnavailable, BackendRefused) as err:
                failures += 1
                if self._clock() - said_at >= SAY_EVERY:
                    log.warning("%s. Trying on.", str(err).rstrip(". "))
                    said_at = self._clock()
                if self._is_over():
                    raise
                self._wait(retries.backoff(failures, base=0.1, cap=LONGEST_WAIT))
            else:
                if failures:
                    log.warning("The store is back, after %s tries.", failures)
                self.has_asked_again = failures > 0
                return answer
