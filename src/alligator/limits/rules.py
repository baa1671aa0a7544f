"""The rules of the two kinds of limits: who may start, and when the next one. No store is asked here."""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

from alligator.limits.record import SAFETY, Call, Starts, State

MOST_CALLED = 100
"""Tasks that were called and have not come yet, beyond which no more are called."""
GROUPS = 200
"""Parts of a span of time. The starts within one count as one moment, the last of them: so their number is no
matter, and at most one part in so many is lost."""
MARGIN = 0.01
"""Seconds added to a span of time, for the store's clock as we know it is right to some milliseconds."""
SHORTEST = 0.001
"""Seconds: spans below this are as good as none, and not to be divided."""
REMEMBERED = 32
"""Starts whose hand-outs are remembered, to know one who asks again for want of an answer."""


class Rule(Protocol):
    """When tasks may start. Whoever may, was called from the line before, if only a moment ago."""

    @property
    def most_called(self) -> int:
        """How many tasks may have been called, and not have come yet."""
        ...

    @property
    def counts_inside(self) -> bool:
        """Whether those who are in take up room; if so, they leave."""
        ...

    def opening(self, state: State) -> float | None:
        """Return when one more may start, beside those who are in and were called; None: nobody knows."""
        ...

    def may_start(self, state: State, ref: str) -> bool:
        """Return whether there is room now for this task, called or in before."""
        ...

    def admit(self, state: State, ref: str, token: str) -> None:
        """Note that a task starts."""
        ...

    def deny(self, state: State, ref: str) -> Call:
        """Note that a task was called, and found no room; return the call as it now is."""
        ...

    def is_late(self, counted_at: float, now: float) -> bool:
        """Return whether a task starts so long after the moment that was counted that it matters."""
        ...

    def recount(self, state: State, counted_at: float, number: int) -> bool:
        """Count starts again, and later; return False if there is no room for them any more."""
        ...

    def kept_for(self, state: State) -> float | None:
        """Return how long to keep the record of a limit for which nobody waits; None: for ever."""
        ...


class AtATime:
    """At most ``n`` are in."""

    counts_inside = True

    def __init__(self, n: int) -> None:
        self._n = n
        self.most_called = n + MOST_CALLED

    def opening(self, state: State) -> float | None:
        """Return now, if there is room."""
        expected = sum(map(state.expects, state.called.values()))
        return state.now if len(state.inside) + expected < self._n else None

    def may_start(self, state: State, ref: str) -> bool:
        """Return whether there is room for this one."""
        # If it is in, then under another hand-out, which came to nothing: this one takes its place.
        return ref in state.inside or (ref in state.called and len(state.inside) < self._n)

    def admit(self, state: State, ref: str, token: str) -> None:
        """Note that it is in."""
        state.called.pop(ref, None)
        state.inside[ref] = token
        state.moved_at = state.now

    def deny(self, state: State, ref: str) -> Call:
        """Keep the call of one for which there is no room."""
        # Whoever leaves next will tell it.
        state.called[ref] = Call(state.now, state.now + SAFETY, was_denied=True)
        return state.called[ref]

    def is_late(self, counted_at: float, now: float) -> bool:
        """Return False: it does not matter when they start."""
        return False

    def recount(self, state: State, counted_at: float, number: int) -> bool:
        """Return True: starts are not counted."""
        return True

    def kept_for(self, state: State) -> float | None:
        """Keep a record that says who is in."""
        return None if state.inside else 60.0


class PerSpan:
    """At most ``n`` start within any ``per`` seconds."""

    counts_inside = False
    most_called = MOST_CALLED

    def __init__(self, n: int, per: float) -> None:
        self._n = n
        per = max(per, SHORTEST)
        self._part = per / GROUPS
        self._margin = min(MARGIN, per / 10)
        self._span = per + self._margin

    def opening(self, state: State) -> float | None:
        """Return when one more may start."""
        due_at = self._opening(state, [*state.starts, *self._to_come(state)])
        # So that many may be told, and come, together.
        return due_at if due_at <= state.now else math.ceil(due_at / self._margin) * self._margin

    def may_start(self, state: State, ref: str) -> bool:
        """Return whether this one may start now."""
        # A little early is all right: by the store's own clock, which let it be due, it is not.
        soon = state.now + self._margin / 2
        call = state.called.get(ref)
        return (
            call is not None and call.due_at <= soon and self._opening(state, state.starts) <= soon
        )

    def admit(self, state: State, ref: str, token: str) -> None:
        """Count a start."""
        del state.called[ref]
        state.inside = dict([*state.inside.items(), (ref, token)][-REMEMBERED:])
        state.moved_at = state.now
        self._count(state)

    def deny(self, state: State, ref: str) -> Call:
        """Call one again for the next opening."""
        due_at = state.called[ref].due_at
        if due_at <= state.now + self._margin / 2:
            before = self._to_come(state, until=ref)
            due_at = self._opening(state, [*state.starts, *before])
        state.called[ref] = Call(due_at, due_at, was_denied=True)
        return state.called[ref]

    def is_late(self, counted_at: float, now: float) -> bool:
        """Return whether it starts later than the margin allows for."""
        return now > counted_at + self._margin / 2

    def recount(self, state: State, counted_at: float, number: int) -> bool:
        """Count starts again, if there is room for them."""
        # After a whole span they count no more, and what is counted are others.
        left = number if counted_at > state.now - self._span else 0
        starts: list[Starts] = []
        for moment, count in state.starts:
            # These, or the group that they are in.
            gone = min(left, count) if moment >= counted_at else 0
            left -= gone
            if count > gone:
                starts.append(Starts(moment, count - gone))
        if self._opening(state, starts, number) > state.now + self._margin / 2:
            return False
        state.starts = starts
        for _ in range(number):
            self._count(state)
        return True

    def kept_for(self, state: State) -> float | None:
        """Keep a record for as long as its starts count."""
        return self._span + 60.0

    def _opening(self, state: State, starts: Sequence[Starts], number: int = 1) -> float:
        """Return when so many of these starts will be a whole span ago that there is room for some more."""
        count = number
        for moment, many in sorted(starts, reverse=True):
            count += many
            if count > self._n:
                return max(state.now, moment + self._span)
        return state.now

    def _count(self, state: State) -> None:
        """Count a start: at the moment when it will be written, for it comes only then."""
        moment = state.counted_at = state.now + state.took
        starts = [one for one in state.starts if one.moment > state.now - self._span]
        last = starts[-1] if starts else Starts(-math.inf, 0)
        if self._n > GROUPS and last.moment // self._part == moment // self._part:
            starts[-1] = Starts(max(last.moment, moment), last.number + 1)
        else:
            starts.append(Starts(moment))
        state.starts = starts

    def _to_come(self, state: State, until: str = "") -> list[Starts]:
        """Return the starts of those who were called, or were before another one, as far as can be foreseen."""
        calls = itertools.takewhile(lambda called: called[0] != until, state.called.items())
        return [
            # It takes them a moment to come.
            Starts(max(call.due_at, state.now) + self._margin)
            for _, call in calls
            if state.expects(call)
        ]
