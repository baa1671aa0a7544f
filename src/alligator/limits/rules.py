"""The rules of the two kinds of limits: who may start, and when the next one. No store is asked here."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from alligator.limits.lines import Line

SAFETY = 30.0
"""Seconds after which a guard looks after a line; and for which a place is kept for a task that was called.
While nothing moves, the guard takes its time: up to ten times as long."""
MOST_CALLED = 100
"""Tasks that were called and have not come yet, beyond which no more are called."""
GROUPS = 200
"""Parts of a span of time. The starts within one count as one moment, the last of them: so their number is no
matter, and at most one part in so many is lost."""
MARGIN = 0.01
"""Seconds added to a span of time, for the store's clock as we know it is right to some milliseconds."""
REMEMBERED = 32
"""Starts whose hand-outs are remembered, to know one who asks again for want of an answer."""


class Call(NamedTuple):
    """That a task was called from the line."""

    due_at: float
    """When it may start."""
    parked_until: float
    """Until when it is delayed, if it was not told yet."""
    was_denied: bool = False
    """It came, and found no room after all: it is to be told again."""


class Starts(NamedTuple):
    """That so many tasks have started, the last one at this moment."""

    moment: float
    number: int = 1


@dataclass(slots=True)
class State:
    """What the record of a limit says, at the moment ``now``, and what is to become of it."""

    read: bytes | None
    now: float
    line: Line
    guard: str = ""
    guard_due_at: float = 0.0
    called: dict[str, Call] = field(default_factory=dict[str, Call])
    inside: dict[str, str] = field(default_factory=dict[str, str])
    """Who runs, and under which hand-out; of a rate: who were the last to start."""
    starts: list[Starts] = field(default_factory=list[Starts])
    moved_at: float = 0.0
    looked_at: float = 0.0
    news: dict[str, float] = field(default_factory=dict[str, float])
    """Who is to be told, once this is written, when it is due."""
    has_more: bool = False
    """Whether there may be room for more of the line than were looked at."""
    took: float = 0.0
    """Seconds that it took to read this; to write it will take about as long."""
    counted_at: float = 0.0
    """When the task starts, as it was counted, for which this was read."""

    def expects(self, call: Call) -> bool:
        """Return whether a place is kept for one who was called. If not, it still may get one that is free."""
        return call.due_at > self.now - SAFETY

    @property
    def overdue(self) -> list[str]:
        """Those who were called, and could be here by now."""
        return [ref for ref, call in self.called.items() if call.due_at <= self.now]

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self.line and not self.called

    def to_json(self) -> dict[str, Any]:
        """Return the record's value."""
        told = {
            "inside": self.inside,
            "starts": self.starts,
            "called": self.called,
            "guard": [self.guard, self.guard_due_at] if self.guard else [],
            **self.line.to_json(),
            "moved_at": self.moved_at,
            "looked_at": self.looked_at,
        }
        return {name: value for name, value in told.items() if value}


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

    def is_late(self, state: State, now: float) -> bool:
        """Return whether a task starts so long after it was let in that it matters."""
        ...

    def recount(self, state: State, counted_at: float) -> None:
        """Count a start again, and later."""
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

    def is_late(self, state: State, now: float) -> bool:
        """Return False: it does not matter when they start."""
        return False

    def recount(self, state: State, counted_at: float) -> None:
        """Starts are not counted."""

    def kept_for(self, state: State) -> float | None:
        """Keep a record that says who is in."""
        return None if state.inside else 60.0


class PerSpan:
    """At most ``n`` start within any ``per`` seconds."""

    counts_inside = False
    most_called = MOST_CALLED

    def __init__(self, n: int, per: float) -> None:
        self._n = n
        self._part = per / GROUPS
        self._margin = min(MARGIN, per / 10)
        self._span = per + self._margin

    def opening(self, state: State) -> float | None:
        """Return when one more may start."""
        return self._opening(state, [*state.starts, *self._to_come(state)])

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

    def is_late(self, state: State, now: float) -> bool:
        """Return whether it starts later than the margin allows for."""
        return now > state.counted_at + self._margin / 2

    def recount(self, state: State, counted_at: float) -> None:
        """Count a start again."""
        for at, (moment, count) in enumerate(state.starts):
            if moment >= counted_at:  # this one, or the group that it is in
                state.starts[at : at + 1] = [Starts(moment, count - 1)] if count > 1 else []
                break
        self._count(state)

    def kept_for(self, state: State) -> float | None:
        """Keep a record for as long as its starts count."""
        return self._span + 60.0

    def _opening(self, state: State, starts: Sequence[Starts]) -> float:
        """Return when the n-th of these starts, counted from the last one, will be a whole span ago."""
        count = 0
        for moment, many in sorted(starts, reverse=True):
            count += many
            if count >= self._n:
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
