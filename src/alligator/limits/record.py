"""The record of a limit: what it says, how it is read, and how it is swapped as a whole."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from alligator import keys, payloads
from alligator.backends.base import Records
from alligator.limits.lines import Line, checked
from alligator.retries import backoff, with_jitter

SAFETY = 30.0
"""Seconds after which a guard looks after a line; and for which a place is kept for a task that was called.
While nothing moves, the guard takes its time: up to ten times as long."""


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


class Record:
    """The record of one limit.

    Args:
        records: Where it is.
        now: Returns the store's time.
        name: What is limited: the kind of limit, and its key, escaped.
    """

    def __init__(self, records: Records, now: Callable[[], float], name: str) -> None:
        self._records = records
        self._now = now
        self._key = f"{keys.LIMITS}/{name}"
        self._family = f"{keys.PARKED}:{name}"
        self._failures = 0

    def read(self) -> State:
        """Return what it says."""
        began = time.monotonic()
        value = self._records.get(self._key)
        took, now = time.monotonic() - began, self._now()
        try:
            state = self._state(value, payloads.object_in(value or b""), now)
        except (ValueError, TypeError, AttributeError):
            # Not ours. Those who wait will notice, and join a new line.
            state = self._state(value, {}, now)
        state.took = took
        return state

    def swap(self, state: State, ttl: float | None) -> bool:
        """Write it if it still is as it was read; return whether it was.

        If somebody else was faster, that takes a moment, so that all get their turn.
        """
        state.line.shorten()
        value = payloads.encode(state.to_json()).encode()
        if value == state.read:
            return True
        state.line.before_swap()
        if self._records.swap(self._key, state.read, value, ttl):
            state.line.after_swap()
            return True
        self._failures += 1
        if self._failures > 2:
            # Others swap it, one of them with success: apart, all of them soon do.
            time.sleep(with_jitter(backoff(self._failures, base=0.0005, cap=0.05)))
        return False

    def _state(self, value: bytes | None, told: Mapping[str, Any], now: float) -> State:
        """Read what is told.

        Raises:
            ValueError, TypeError, AttributeError: That makes no sense.
        """
        guard, guard_due_at = told.get("guard") or ("", 0.0)
        calls: Mapping[str, Any] = told.get("called", {})
        return State(
            value,
            now,
            Line(self._records, self._family, told, now * 1e6),
            checked(guard) if guard else "",
            _number(guard_due_at),
            {
                checked(ref): Call(_number(due_at), _number(until), bool(denied))
                for ref, (due_at, until, denied) in calls.items()
            },
            {checked(ref): str(token) for ref, token in told.get("inside", {}).items()},
            # What lies further ahead is from before the clock was set back.
            [
                Starts(min(_number(moment), now + 1.0), int(_number(number)))
                for moment, number in told.get("starts", [])
            ],
            _number(told.get("moved_at", 0.0)),
            _number(told.get("looked_at", 0.0)),
        )


def _number(told: Any) -> float:
    if (found := payloads.number(told)) is None:
        raise ValueError(f"{told!r:.100} is no number to reckon with")
    return found
