"""Whose turn it is: that of tasks which may have killed workers, or that of all others.

A *suspect* has been handed out to no avail so often that this is its last time. It is to be held alone:
whatever dies with it counts a delivery, too, and would in the end be buried in its company. So a worker that
runs several tasks at a time lets them all end before it takes one, and takes nothing else until that has ended.
That must not keep the others for ever, nor may they keep the suspects. So they take turns, and the others have
as long as the suspects had.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from alligator.backends.base import Release, Reservation
from alligator.retries import is_suspect

log = logging.getLogger("alligator.worker")

TURN = 1.0
"""Seconds after which no further suspect is taken in a turn of theirs; and for which, at first, what runs may
take to end."""
LONGEST_WAIT = 600.0
"""Seconds for what runs to end, at the most: it is waited for twice as long each time. A suspect that has run
alone for so long does not end soon, and has killed nothing so far: others are taken beside it."""
AWAY = 5.0
"""Seconds, at the most, for which a suspect is sent away: another worker may have nothing else to do."""


class _Phase(Enum):
    ALL = auto()
    """As many are taken as there is room for."""
    DRAINING = auto()
    """What is held is to end. Then one is taken: it may be a suspect."""
    ALONE = auto()
    """A suspect is held. Then one is taken: it may be another."""


class Turns:
    """Says how many tasks to take, and which of them to keep.

    Args:
        share: Whether they take turns; else suspects come first, which suits a worker that runs one task at a
            time, and one that leaves when nothing is left.
        clock: A monotonic clock.
    """

    def __init__(self, share: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._turn = self._wait = TURN if share else math.inf
        self._longest = LONGEST_WAIT if share else math.inf
        self._clock = clock
        self._phase = _Phase.ALL
        self._began_at = 0.0
        """When the last turn of suspects began."""
        self._others_until = -math.inf
        """Until when the others have theirs."""
        self._asked_for = 0

    def limit(self, limit: int, held: int) -> int:
        """Return how many tasks to take, of as many as there is room for, while so many are held."""
        if not held:
            self._wait = self._turn
        if self._phase is not _Phase.ALL:
            self._end_turn(held)
        if self._phase is not _Phase.ALL:
            limit = 0 if held else min(limit, 1)
        self._asked_for = limit
        return limit

    def parted(
        self,
        reservations: Sequence[Reservation],
        held: int,
        harmless: Collection[Reservation] = (),
    ) -> tuple[Sequence[Reservation], list[Release]]:
        """Return which of the tasks just taken to keep, and which to give back.

        Args:
            reservations: Those just taken.
            held: How many are held beside them.
            harmless: Those of them that will not run, whatever they have done.
        """
        suspects = [
            one for one in reservations if is_suspect(one.deliveries) and one not in harmless
        ]
        others = [one for one in reservations if one not in suspects]
        if not suspects:  # none is left
            self._phase = _Phase.ALL
            return others, []
        left = self._others_until - self._clock()
        is_full = len(reservations) == self._asked_for  # behind them there may be others
        if not others and not held and (left <= 0 or not is_full):
            self._begin(_Phase.ALONE, suspects[0])
            return suspects[:1], [Release(one) for one in suspects[1:]]
        if left <= 0:
            self._begin(_Phase.DRAINING, suspects[0])
        # In the turn of the others, suspects are sent away: they may be in front of them.
        return others, [Release(one, min(AWAY, max(0.0, left))) for one in suspects]

    def _end_turn(self, held: int) -> None:
        """Let the others have their turn, if it is time for that."""
        took = self._clock() - self._began_at
        if held:
            if took < (self._longest if self._phase is _Phase.ALONE else self._wait):
                return
            self._wait = min(2 * self._wait, LONGEST_WAIT)
        elif self._phase is _Phase.DRAINING or took < self._turn:
            return
        self._phase, self._others_until = _Phase.ALL, self._clock() + took

    def _begin(self, phase: _Phase, suspect: Reservation) -> None:
        if self._phase is _Phase.ALL:
            self._began_at = self._others_until = self._clock()
            log.info("Task %r may have killed workers: it is to run alone", suspect.task_id)
        self._phase = phase
