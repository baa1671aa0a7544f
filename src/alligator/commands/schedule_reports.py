"""What the command ``alligator`` says of schedules: as text for people, and as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from alligator.commands.tables import (
    Column,
    ago,
    counted,
    duration,
    iso,
    table,
)
from alligator.printable import printable
from alligator.schedules import Schedule

LATE = 10.0
"""Seconds after which what is due should have been queued: schedulers look every second."""
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def schedules_text(schedules: Sequence[Schedule], now: float, width: int | None) -> str:
    """Return schedules, a line each, to fit a terminal of that width, if any."""
    columns = [
        Column("name", keep="start"),
        Column("queue", keep="start"),
        Column("when"),
        Column("next"),
        Column("last"),
        Column("callable", keep="end"),
    ]
    rows = [
        [
            one.name,
            one.queue_name,
            when(one),
            _due(one.next_at - now),
            "never" if one.last_at is None else ago(now - one.last_at),
            one.callable or "?",
        ]
        for one in schedules
    ]
    return table(columns, rows, width)


def schedules_json(schedules: Sequence[Schedule]) -> list[dict[str, Any]]:
    """Return schedules; durations are seconds."""
    return [
        {
            "name": one.name,
            "queue": one.queue_name,
            "every": one.every,
            "cron": one.cron,
            "timezone": one.timezone,
            "callable": one.callable or None,
            "next_at": iso(one.next_at),
            "last_at": None if one.last_at is None else iso(one.last_at),
        }
        for one in schedules
    ]


def unreadable_json(unreadable: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Return why schedules cannot be read, by queue and name."""
    return [
        {"name": name, "queue": queue, "problem": why}
        for queue, problems in unreadable.items()
        for name, why in problems.items()
    ]


def late_text(schedules: Sequence[Schedule], now: float) -> str:
    """Return what to say of schedules that are due and that nobody looks after; empty: there are none."""
    late = [one for one in schedules if one.next_at < now - LATE]
    if not late:
        return ""
    queues = ", ".join(dict.fromkeys(f"'{printable(one.queue_name)}'" for one in late))
    are = "is" if len(late) == 1 else "are"
    return (
        f"{counted(len(late), 'schedule')} {are} overdue: no worker with --schedule seems to be at work on "
        f"{queues}."
    )


def when(schedule: Schedule) -> str:
    """Return the times of a schedule.

    Example:
        >>> when(Schedule("cleanup", "all", every=5400.0))
        'every 90 min'
    """
    if schedule.every is None:
        return f"{schedule.cron}  {schedule.timezone}"
    for size, unit in _UNITS:
        if schedule.every % size == 0:
            return f"every {schedule.every / size:.0f} {unit}"
    return f"every {schedule.every:.3f}".rstrip("0").rstrip(".") + " s"


def _due(left: float) -> str:
    if left > 0:
        return f"in {duration(left)}"
    return "now" if left >= -LATE else f"overdue, {duration(-left)}"
