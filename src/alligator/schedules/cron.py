"""Cron expressions: what comes next by the clocks of a timezone, also when they are changed.

cronsim says which times of day an expression means. Which moments those are is decided here:

- A time that is skipped, when clocks are set forward, comes at the moment of the change.
- A time that is repeated, when they are set back, comes once: the first time.
- Expressions for every hour, such as ``*/5 * * * *`` or ``30 * * * *``, go on at their pace: they come in each
  hour that passes. (Where clocks are changed by half an hour, that needs a minute that begins with ``*``.)

So the moments of an expression are one series, and a look at any time finds the same ones.
"""

import math
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

from alligator.exceptions import BackendMissing, InvalidOption

if TYPE_CHECKING:
    from cronsim import CronSim

HOUR, DAY = 3600, 86400
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Cron:
    """The moments that a cron expression means in a timezone.

    Args:
        expression: Minute, hour, day of the month, month and day of the week; or one of ``@hourly``,
            ``@daily``, ``@midnight``, ``@weekly``, ``@monthly``, ``@yearly``, ``@annually``.
        timezone: Its name, such as "Europe/Berlin".

    Raises:
        InvalidOption: One of them cannot be understood.
        BackendMissing: cronsim is not installed.

    Example:
        >>> night = 1774740000  # 29 March 2026, 00:20 in Berlin: that night has no 2:30
        >>> Cron("30 2 * * *", "Europe/Berlin").next_after(night) - night
        6000
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self._fields = _fields(expression)
        self.expression = expression
        self._zone = _zone(timezone)
        meant = self._matching(0)
        self._is_hourly = len(meant.hours) == 24
        self._goes_by_minutes = self._fields.startswith("*")

    def next_after(self, moment: float) -> int:
        """Return the first of its moments after this one.

        Raises:
            InvalidOption: There is none, as with the 30th of February.
        """
        second = math.floor(moment)
        offset = self._offset(second)
        local = second + offset  # what the clocks show, as if they were those of UTC
        while True:
            match = self._next_match(local)
            due_at = match - offset
            change = self._change(local - offset, due_at, offset)
            if change is None:
                if not self._is_repeated(due_at):
                    return due_at
                local = match
                continue
            offset, before = self._offset(change), offset
            if match < change + offset and not self._goes_on(offset - before):
                return change  # the match is among the times that are skipped
            local = change + offset - 1  # so that the change itself may match

    def latest(self, first: float, until: float) -> float:
        """Return the last of its moments up to a certain one, from the ``first`` on, which is one of them."""
        span = HOUR
        while True:
            start = max(first, until - span)
            latest, found = None, self.next_after(math.ceil(start) - 1)
            while found <= until:
                latest, found = found, self.next_after(found)
            if latest is not None:
                return latest
            if start == first:  # by what is known of the timezone today, it is none of them
                return first
            span *= 8

    def _next_match(self, local: int) -> int:
        match = next(self._matching(local), None)
        if match is None:
            raise InvalidOption(
                f"The cron expression {self.expression!r} means no time within the next 50 years."
            )
        return round(match.timestamp())

    def _matching(self, local: int) -> "CronSim":
        # To cronsim all times are those of UTC, where no clock is ever changed: by its own way of stepping over
        # a change it leaves out times that there are, where clocks are changed by half an hour.
        return _parsed(self.expression, self._fields, datetime.fromtimestamp(local, UTC))

    def _offset(self, second: int) -> int:
        """Return how far the clocks are ahead of UTC."""
        return _seconds_ahead(datetime.fromtimestamp(second, self._zone))

    def _change(self, after: int, until: int, offset: int) -> int | None:
        """Return the first second after ``after``, up to ``until``, in which clocks have another offset."""
        while after < until:
            # By days: no two changes are nearer to each other than that.
            later = min(after + DAY, until)
            if self._offset(later) == offset:
                after = later
                continue
            while later - after > 1:
                middle = (after + later) // 2
                if self._offset(middle) == offset:
                    after = middle
                else:
                    later = middle
            return later
        return None

    def _is_repeated(self, due_at: int) -> bool:
        shown = datetime.fromtimestamp(due_at, self._zone)
        if not shown.fold:
            return False
        before = _seconds_ahead(shown.replace(fold=0))
        return not self._goes_on(_seconds_ahead(shown) - before)

    def _goes_on(self, shift: int) -> bool:
        """Whether it keeps its pace when clocks are shifted so far."""
        return self._is_hourly and (self._goes_by_minutes or shift % HOUR == 0)


def _fields(expression: object) -> str:
    fields = " ".join(expression.split()) if isinstance(expression, str) else ""
    fields = _NAMED.get(fields.lower(), fields)
    if fields.count(" ") != 4:
        raise _senseless(expression, "it has to have five fields")
    return fields


def _parsed(expression: str, fields: str, start: datetime) -> "CronSim":
    try:
        from cronsim import CronSim, CronSimError  # here, for not everybody has it, or needs it
    except ModuleNotFoundError:
        raise BackendMissing(
            "cron() needs the package 'cronsim', which is not installed: pip install 'alligator[cron]'"
        ) from None
    try:
        return CronSim(fields, start)
    except (CronSimError, ValueError) as err:  # a ValueError from a number of thousands of digits
        raise _senseless(expression, str(err)) from None


def _senseless(expression: object, why: str) -> InvalidOption:
    return InvalidOption(
        f"{expression!r:.200} is no cron expression: {why}. Expected are minute, hour, day of the month, month "
        'and day of the week, such as "*/5 * * * *", or one of ' + ", ".join(_NAMED) + "."
    )


def _zone(name: object) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # here, for few need it

    try:
        if isinstance(name, str):
            return ZoneInfo(name)
    # No such name; one that cannot be one; a folder of names, or what may not be read.
    except (KeyError, ValueError, OSError):
        pass
    raise InvalidOption(
        f'No timezone {name!r:.100} is known here. Expected is a name such as "Europe/Berlin" or "UTC". If '
        "this machine has no list of timezones: pip install 'alligator[cron]' brings one."
    )


def _seconds_ahead(shown: datetime) -> int:
    ahead = shown.utcoffset()
    return 0 if ahead is None else round(ahead.total_seconds())
