"""When a schedule is due: decided from its record and the store's time alone.

The store's clock may be wrong for a while: far ahead, and then set back. What was queued meanwhile is not
queued again when its moment really comes, and what lies before it is not left out. So a record tells which
moments have had their run, as *rows*: the first and the last of those that came one after the other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from alligator.schedules.cron import Cron

SLACK = 1.0
"""Seconds by which two may differ about the time, without a clock having been set."""
ROWS = 8
"""Rows to remember: each time that a clock is set, or a run is left out, another begins."""
_SAME = 0.0005
"""Seconds: ids of runs tell milliseconds."""


class Timing(Protocol):
    """A series of moments."""

    def next_after(self, moment: float) -> float:
        """Return the first of them after a moment."""
        ...

    def latest(self, first: float, until: float) -> float:
        """Return the last of them up to a certain one, from the ``first`` on, which is one of them."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Moments that are so many seconds apart, counted from the start each time: so they do not drift.

    Example:
        >>> Every(10.0, start_at=3.0).next_after(25.0)
        33.0
    """

    seconds: float
    start_at: float

    def next_after(self, moment: float) -> float:
        """Return the first of them after a moment."""
        return self._at(self._number_after(moment))

    def latest(self, first: float, until: float) -> float:
        """Return the last of them up to a certain one, from the ``first`` on, which is one of them."""
        return max(first, self._at(self._number_after(until) - 1))

    def _number_after(self, moment: float) -> int:
        number = max(1, math.ceil((moment - self.start_at) / self.seconds))
        # The quotient may be rounded to either side of a whole number, and a moment is not after itself.
        return number + (self._at(number) <= moment)

    def _at(self, number: int) -> float:
        return self.start_at + number * self.seconds


def first_due(told: Mapping[str, Any], after: float) -> float:
    """Return the first moment of a schedule after some moment, but for those that have had their run."""
    timing = _timing(told)
    found = timing.next_after(after)
    while (done := _done_until(told, found)) is not None:
        found = timing.next_after(done)
    return found


def is_to_wait(told: Mapping[str, Any], now: float) -> bool:
    """Whether there is nothing to do about a schedule before its next moment."""
    return bool(told["due_at"] > now) and not _is_ahead(told, now)


def step(told: Mapping[str, Any], now: float) -> tuple[float | None, dict[str, Any]]:
    """Return the moment whose run is to be queued now, if any, and the record from then on.

    Of several moments that have passed, only the last one counts.
    """
    if told["due_at"] > now:  # it was written when the clock was ahead
        back = {**told, "start_at": _start(told, now), "last_at": _not_after(now, told["last_at"])}
        return None, {**back, "due_at": first_due(back, now)}
    timing = _timing(told)
    due_at = timing.latest(told["due_at"], now)
    if _done_until(told, due_at) is not None:
        return None, {**told, "due_at": first_due(told, now)}
    new = {**told, "last_due_at": due_at, "last_at": now, "rows": _noted(told, timing, due_at)}
    return due_at, {**new, "due_at": first_due(new, now)}


def _timing(told: Mapping[str, Any]) -> Timing:
    if told["cron"] is None:
        return Every(told["every"], told["start_at"])
    return Cron(told["cron"], told["timezone"])


def _is_ahead(told: Mapping[str, Any], now: float) -> bool:
    """Whether a record is of a time that is to come: the clock was set back since."""
    return bool(max(told["start_at"], told["last_at"] or 0.0) > now + SLACK)


def _start(told: Mapping[str, Any], now: float) -> float:
    """Return a start that is not ahead, of the same series."""
    start_at: float = told["start_at"]
    every: float | None = told["every"]
    if start_at <= now or every is None:
        return min(start_at, now)
    return start_at - math.ceil((start_at - now) / every) * every


def _not_after(now: float, moment: float | None) -> float | None:
    return None if moment is None else min(moment, now)


def _rows(told: Mapping[str, Any]) -> list[list[float]]:
    rows: list[list[float]] | None = told.get("rows")
    if rows is None:  # written before there were any
        return [] if told["last_due_at"] is None else [[told["last_due_at"]] * 2]
    return rows


def _done_until(told: Mapping[str, Any], moment: float) -> float | None:
    """Return until when there is nothing to do, if a moment has had its run; None: it has not."""
    for first, last in _rows(told):
        if first - _SAME < moment < last + _SAME:
            return max(last, moment)
    return None


def _noted(told: Mapping[str, Any], timing: Timing, due_at: float) -> list[list[float]]:
    """Return the rows of a record, with one moment more."""
    rows = list(_rows(told))
    if rows:
        first, last = rows[-1]
        if last < due_at < timing.next_after(last) + _SAME:
            return [*rows[:-1], [first, due_at]]
    if len(rows) == ROWS:
        rows.remove(
            min(rows, key=lambda row: row[1])
        )  # the clock is least likely to come back to that
    return [*rows, [due_at, due_at]]
