"""Whose turn it is: that of tasks which may have killed a worker, or that of all others.

Such a *suspect* is to be held alone: whatever dies with it counts a delivery, too, and would in the end be
buried in its company. So a worker that runs several tasks at a time lets them all end before it takes one, and
takes nothing else until that has ended. That must not keep the others for ever, nor may they keep the suspects.
So they take turns, and the others have as long as the suspects had.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence

from alligator.backends.base import Release, Reservation

log = logging.getLogger("alligator.worker")

TURN = 1.0
"""Seconds after which the others are to have their turn, once a suspect has run; and for which, at first, what
runs may take to end."""
LONGEST_WAIT = 600.0
"""Seconds for what runs to end, at the most: it is waited for twice as long each time."""
AWAY = 5.0
"""Seconds, at the most, for which a suspect is sent away: another worker may have nothing else to do."""


class Turns:
    """Says how many tasks to take, and which of them to keep.

    Args:
        share: Whether they take turns; else suspects come first, which suits a worker that runs one task at a
            time, and one that leaves when nothing is left.
        clock: A monotonic clock.
    """

    def __init__(self, share: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._is_alone = False
        self._began_at = math.inf  # the suspects' turn, perhaps to come; infinity: none was met
        self._has_run_one = False
        self._not_before = -math.inf
        self._wait = TURN
        self._asked = 0

    def limit(self, limit: int, held: int) -> int:
        """Return how many tasks to take, of as many as there is room for, while so many are held."""
        self._asked = self._limit(limit, held)
        return self._asked

    def parted(
        self, reservations: Sequence[Reservation], held: int
    ) -> tuple[Sequence[Reservation], list[Release]]:
        """Return which of the tasks just taken to keep, while so many are held, and which to give back."""
        suspects = [one for one in reservations if one.deliveries > 1]
        now = self._clock()
        if not suspects:
            if self._began_at <= now and not held:  # it was their turn, and none is left
                self._let_others(now)
                self._wait = TURN
            return reservations, []
        if self._began_at == math.inf:
            self._began_at = max(now, self._not_before)
            self._has_run_one = False
            log.info("Task %r may have killed a worker: it is to run alone", suspects[0].task_id)
        others = [one for one in reservations if one.deliveries == 1]
        if not others and not held and len(suspects) < self._asked:
            self._began_at = min(now, self._began_at)  # there is nobody else
        # Sent away until it is their turn, for they come first, and others may be behind them.
        away = min(AWAY, max(0.0, self._began_at - now))
        if others or held:
            return others, [Release(one, away) for one in suspects]
        alone, *rest = suspects
        self._began_at = min(now, self._began_at)
        self._is_alone = self._has_run_one = True
        self._wait = TURN
        return [alone], [Release(one, away) for one in rest]

    def _limit(self, limit: int, held: int) -> int:
        self._is_alone = self._is_alone and held > 0
        if self._is_alone:
            return 0
        now = self._clock()
        took = now - self._began_at
        if took < 0:
            return limit
        if held:
            if took < self._wait or not self._share:
                return 0
            self._wait = min(2 * self._wait, LONGEST_WAIT)
        elif took < TURN or not self._has_run_one or not self._share:
            return min(limit, 1)
        self._let_others(now + took)
        return limit

    def _let_others(self, until: float) -> None:
        """Let others have their turn, at least until then."""
        self._began_at, self._not_before = math.inf, until
