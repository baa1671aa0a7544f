"""Cron expressions where clocks are changed: what is skipped is made up for, what is repeated comes once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator import Task
from alligator.schedules import Scheduler
from alligator.schedules.cron import Cron
from alligator.testing.running import Child, in_threads
from alligator.testing.stores import until
from tests.features.schedules_work import Clock, Scene, iso
from tests.features.work import do
from tests.support.kinds import DURABLE, empty_store

MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Change:
    """A night in which clocks are changed, and what is due in it: after ``start``, up to ``end``."""

    name: str
    timezone: str
    start: str
    end: str
    due: dict[str, str]
    """By expression: what clocks show then, and how far they are ahead of UTC."""

    @property
    def span(self) -> tuple[int, int]:
        return timestamp(self.start), timestamp(self.end)

    def shown(self, moment: float) -> str:
        return datetime.fromtimestamp(moment, ZoneInfo(self.timezone)).strftime("%H:%M%z")


def timestamp(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def series(cron: Cron, start: float, end: float) -> Iterator[int]:
    """All moments of an expression after ``start``, up to ``end``."""
    while (moment := cron.next_after(start)) <= end:
        yield moment
        start = moment


CHANGES = [
    Change(
        "Berlin, forward from 2:00 to 3:00",
        "Europe/Berlin",
        "2026-03-29T00:30+01:00",
        "2026-03-29T04:30+02:00",
        {
            "*/20 * * * *": "00:40+0100 01:00+0100 01:20+0100 01:40+0100 "
            "03:00+0200 03:20+0200 03:40+0200 04:00+0200 04:20+0200",
            "30 * * * *": "01:30+0100 03:30+0200 04:30+0200",
            "30 2 * * *": "03:00+0200",
            "0 */2 * * *": "03:00+0200 04:00+0200",
            "*/30 2 * * *": "03:00+0200",
            "0 2,3 * * 0": "03:00+0200",
            "30 2 29 3 *": "03:00+0200",
            "30 2 * * 1": "",
        },
    ),
    Change(
        "Berlin, back from 3:00 to 2:00",
        "Europe/Berlin",
        "2026-10-25T00:30+02:00",
        "2026-10-25T04:30+01:00",
        {
            "*/20 * * * *": "00:40+0200 01:00+0200 01:20+0200 01:40+0200 02:00+0200 02:20+0200 02:40+0200 "
            "02:00+0100 02:20+0100 02:40+0100 03:00+0100 03:20+0100 03:40+0100 04:00+0100 04:20+0100",
            "30 * * * *": "01:30+0200 02:30+0200 02:30+0100 03:30+0100 04:30+0100",
            "30 2 * * *": "02:30+0200",
            "0 */2 * * *": "02:00+0200 04:00+0100",
            "*/30 2 * * *": "02:00+0200 02:30+0200",
            "0 2,3 * * 0": "02:00+0200 03:00+0100",
            "30 0-23 25 10 *": "01:30+0200 02:30+0200 02:30+0100 03:30+0100 04:30+0100",
        },
    ),
    Change(
        "New York, forward from 2:00 to 3:00",
        "America/New_York",
        "2026-03-08T00:30-05:00",
        "2026-03-08T04:30-04:00",
        {
            "*/20 * * * *": "00:40-0500 01:00-0500 01:20-0500 01:40-0500 "
            "03:00-0400 03:20-0400 03:40-0400 04:00-0400 04:20-0400",
            "30 * * * *": "01:30-0500 03:30-0400 04:30-0400",
            "30 2 * * *": "03:00-0400",
            "0 */2 * * *": "03:00-0400 04:00-0400",
            "*/30 2 * * *": "03:00-0400",
            "0 2,3 * * 0": "03:00-0400",
        },
    ),
    Change(
        "New York, back from 2:00 to 1:00",
        "America/New_York",
        "2026-11-01T00:30-04:00",
        "2026-11-01T04:30-05:00",
        {
            "*/20 * * * *": "00:40-0400 01:00-0400 01:20-0400 01:40-0400 01:00-0500 01:20-0500 01:40-0500 "
            "02:00-0500 02:20-0500 02:40-0500 03:00-0500 03:20-0500 03:40-0500 04:00-0500 04:20-0500",
            "30 * * * *": "01:30-0400 01:30-0500 02:30-0500 03:30-0500 04:30-0500",
            "30 1 * * *": "01:30-0400",
            "0 */2 * * *": "02:00-0500 04:00-0500",
            "*/30 1 * * *": "01:00-0400 01:30-0400",
            "0 1,2 * * 0": "01:00-0400 02:00-0500",
        },
    ),
    Change(
        "Lord Howe, forward from 2:00 to 2:30",
        "Australia/Lord_Howe",
        "2026-10-04T00:45+10:30",
        "2026-10-04T04:00+11:00",
        {
            "*/20 * * * *": "01:00+1030 01:20+1030 01:40+1030 "
            "02:40+1100 03:00+1100 03:20+1100 03:40+1100 04:00+1100",
            "0 * * * *": "01:00+1030 02:30+1100 03:00+1100 04:00+1100",
            "30 * * * *": "01:30+1030 02:30+1100 03:30+1100",
            "15 2 * * *": "02:30+1100",
            "0 */2 * * *": "02:30+1100 04:00+1100",
            "*/15 2 * * *": "02:30+1100 02:45+1100",
        },
    ),
    Change(
        "Lord Howe, back from 2:00 to 1:30",
        "Australia/Lord_Howe",
        "2026-04-05T00:45+11:00",
        "2026-04-05T03:15+10:30",
        {
            "*/20 * * * *": "01:00+1100 01:20+1100 01:40+1100 "
            "01:40+1030 02:00+1030 02:20+1030 02:40+1030 03:00+1030",
            "0 * * * *": "01:00+1100 02:00+1030 03:00+1030",
            "30 * * * *": "01:30+1100 02:30+1030",
            "45 1 * * *": "01:45+1100",
            "0 */2 * * *": "02:00+1030",
            "*/15 2 * * *": "02:00+1030 02:15+1030 02:30+1030 02:45+1030",
        },
    ),
    Change(
        "Sao Paulo, forward from midnight to 1:00",
        "America/Sao_Paulo",
        "2018-11-03T23:00-03:00",
        "2018-11-04T02:00-02:00",
        {
            "@daily": "01:00-0200",
            "30 0 * * *": "01:00-0200",
            "0 0 * * 0": "01:00-0200",
            "0 0 4 * *": "01:00-0200",
            "15 * * * *": "23:15-0300 01:15-0200",
            "0 */2 * * *": "01:00-0200 02:00-0200",
        },
    ),
    Change(
        "Sao Paulo, back from midnight to 23:00",
        "America/Sao_Paulo",
        "2018-02-17T22:30-02:00",
        "2018-02-18T01:00-03:00",
        {
            "@daily": "00:00-0300",
            "30 23 * * *": "23:30-0200",
            "0 23 * * 6": "23:00-0200",
            "0 0 18 2 *": "00:00-0300",
            "0 * * * *": "23:00-0200 23:00-0300 00:00-0300 01:00-0300",
            "*/20 23 * * *": "23:00-0200 23:20-0200 23:40-0200",
        },
    ),
    Change(
        "Apia, which leaves out a day",
        "Pacific/Apia",
        "2011-12-29T21:30-10:00",
        "2011-12-31T02:00+14:00",
        {
            "*/40 * * * *": "21:40-1000 22:00-1000 22:40-1000 23:00-1000 23:40-1000 "
            "00:00+1400 00:40+1400 01:00+1400 01:40+1400 02:00+1400",
            "0 * * * *": "22:00-1000 23:00-1000 00:00+1400 01:00+1400 02:00+1400",
            "0 */2 * * *": "22:00-1000 00:00+1400 02:00+1400",
            "30 12 * * *": "00:00+1400",
            "30 12 30 12 *": "00:00+1400",
            "0 0 * * *": "00:00+1400",
        },
    ),
]

CASES = [
    pytest.param(change, expression, id=f"{change.name}: {expression}")
    for change in CHANGES
    for expression in change.due
]


@pytest.mark.parametrize(("change", "expression"), CASES)
def test_what_is_due_when_clocks_are_changed(change: Change, expression: str) -> None:
    cron = Cron(expression, change.timezone)

    due = [change.shown(moment) for moment in series(cron, *change.span)]

    assert due == change.due[expression].split()


@pytest.mark.parametrize(("change", "expression"), CASES)
def test_each_look_finds_the_same_moments(change: Change, expression: str) -> None:
    cron = Cron(expression, change.timezone)
    start, end = change.span
    moments = list(series(cron, start, end + 2 * DAY))

    for moment in range(start, end, 7 * MINUTE + 1):
        later = [one for one in moments if one > moment]
        assert cron.next_after(moment) == cron.next_after(moment + 0.5)
        if later:
            assert cron.next_after(moment) == later[0]
            assert cron.latest(later[0], later[-1] + 0.5) == later[-1]
        before = [one for one in moments if one <= moment]
        if before:
            assert cron.latest(before[0], moment) == before[-1]


# Against the plain meaning of the rules, minute by minute.

FIELDS = {
    "*/20 * * * *": (range(0, 60, 20), range(24)),
    "*/7 * * * *": (range(0, 60, 7), range(24)),
    "30 * * * *": ([30], range(24)),
    "0 0-23 * * *": ([0], range(24)),
    "30 0 * * *": ([30], [0]),
    "30 2 * * *": ([30], [2]),
    "5,55 1-3 * * *": ([5, 55], [1, 2, 3]),
    "0 */2 * * *": ([0], range(0, 24, 2)),
    "*/15 1,2 * * *": (range(0, 60, 15), [1, 2]),
    "* 23 * * *": (range(60), [23]),
}
ZONES = [
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Havana", "America/Santiago",
    "America/St_Johns", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Asia/Gaza", "Asia/Kolkata",
    "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Antarctica/Troll",
]  # fmt: skip


def plainly(expression: str, timezone: str, start: int, end: int) -> list[int]:
    """What is due after ``start`` up to ``end``, whole minutes, by looking at each minute of two clocks."""
    zone = ZoneInfo(timezone)
    minutes, hours = FIELDS[expression]
    shown: dict[datetime, list[int]] = {}
    # From some time before, so that a time is known to be repeated, until some time after.
    for moment in range(start - 3 * HOUR, end + 3 * HOUR, MINUTE):
        at = datetime.fromtimestamp(moment, zone).replace(tzinfo=None)
        shown.setdefault(at, []).append(moment)
    due: set[int] = set()
    at, last = min(shown), max(shown)
    skipped = False
    while at <= last:
        matches = at.minute in minutes and at.hour in hours
        moments = shown.get(at, [])
        on = goes_on(expression, zone, at)
        if moments and skipped:
            due.add(moments[0])
        if moments:
            skipped = False
            due.update(moments if matches and on else moments[:matches])
        elif matches and not on:
            skipped = True
        at += timedelta(minutes=1)
    return sorted(moment for moment in due if start < moment <= end)


def goes_on(expression: str, zone: ZoneInfo, at: datetime) -> bool:
    """Whether the rule for skipped and repeated times leaves this one alone."""
    first, second = (at.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    _, hours = FIELDS[expression]
    whole = (second - first) % timedelta(hours=1) == timedelta(0)
    return len(hours) == 24 and (whole or expression.startswith("*"))


def changes(timezone: str) -> list[int]:
    """The hours of some years in which clocks are changed."""
    zone = ZoneInfo(timezone)

    def changed(moments: range) -> Iterator[int]:
        offsets = ((moment, datetime.fromtimestamp(moment, zone).utcoffset()) for moment in moments)
        return (moment for (moment, old), (_, new) in pairwise(offsets) if old != new)

    days = changed(range(timestamp("2009-01-01T00:00Z"), timestamp("2028-01-01T00:00Z"), DAY))
    return [hour for day in days for hour in changed(range(day, day + DAY + HOUR, HOUR))]


@pytest.mark.parametrize("timezone", ZONES)
def test_at_each_change_of_a_zone_all_is_as_the_rules_say(timezone: str) -> None:
    found = changes(timezone)
    # All of the latest, and some of those before: to look at each minute of them all takes long.
    for change in [*found[-4:], *found[:-4:5]]:
        start, end = change - 3 * HOUR, change + 4 * HOUR
        for expression in FIELDS:
            cron = Cron(expression, timezone)
            assert list(series(cron, start, end)) == plainly(expression, timezone, start, end), (
                f"{expression} in {timezone} at {iso(change)}"
            )


@given(
    moment=st.integers(timestamp("2000-01-01T00:00Z"), timestamp("2036-01-01T00:00Z")),
    expression=st.sampled_from([*FIELDS, "0 0 1 * *", "15 4 29 2 *", "0 3 * * 1-5", "@weekly"]),
    timezone=st.sampled_from(ZONES),
    back=st.floats(0, 3 * HOUR),
)
def test_a_moment_is_the_next_one_for_all_before_it(
    moment: int, expression: str, timezone: str, back: float
) -> None:
    cron = Cron(expression, timezone)
    found = cron.next_after(moment)
    assert found > moment
    assert cron.next_after(max(moment, found - back - 1)) == found
    following = cron.next_after(found)
    assert following > found
    assert cron.latest(found, found) == found
    assert cron.latest(found, following - 0.5) == found
    assert cron.latest(found, following) == following


# Three schedulers through two changes, under a clock that is turned.

STEP = 2.5 * MINUTE
TWO_CHANGES = CHANGES[:2]


def prepare(scene: Scene, change: Change) -> None:
    scene.clock.turn_to(change.span[0])
    for expression in change.due:
        scene.gator().cron(expression, do, "x", timezone=change.timezone, name=expression)


def assert_once_each(scene: Scene, change: Change) -> None:
    """Exactly the due times were queued, each once; print them."""
    counts = Counter(scene.queued())
    print(f"\n{change.name}")
    for expression, due in change.due.items():
        ids = sorted(task_id for task_id in counts if task_id.startswith(f"{expression}@"))
        moments = [task_id.rpartition("@")[2] for task_id in ids]
        shown = [change.shown(timestamp(moment)) for moment in moments]
        for task_id, moment, local in zip(ids, moments, shown, strict=True):
            print(f"  {expression:16} {local} = {moment}  queued {counts[task_id]} x")
        assert shown == due.split()
        scene.gator().unschedule(expression)
    assert set(counts.values()) == {1}


@pytest.fixture(params=DURABLE)
def shared(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with Scene(empty_store(request.param, request)) as scene:
        yield scene


def all_have_seen(clocks: Sequence[Clock], moment: float) -> bool:
    return all(clock() == moment for clock in clocks)


def test_three_processes_queue_each_time_once(shared: Scene) -> None:
    seen = [Clock(0) for _ in range(3)]  # by each process, to be waited for by this one

    def look(number: int, end: int) -> None:
        with shared.forked() as backend:
            scheduler = Scheduler(backend, ["all"], Task)
            while (now := shared.clock()) <= end:
                scheduler.tick()
                seen[number].turn_to(now)

    for change in TWO_CHANGES:
        prepare(shared, change)
        _, end = change.span
        children = [Child(partial(look, number, end)) for number in range(3)]
        try:
            while (now := shared.clock()) <= end:
                until(partial(all_have_seen, seen, now), "a look of each")
                shared.clock.turn(STEP)
            for child in children:
                child.result()
        finally:
            for child in children:
                child.__exit__(None, None, None)
        assert_once_each(shared, change)


def test_three_threads_queue_each_time_once() -> None:
    with Scene("locmem://") as scene:
        schedulers = [scene.scheduler() for _ in range(3)]
        for change in TWO_CHANGES:
            prepare(scene, change)
            while scene.clock() <= change.span[1]:
                in_threads(3, lambda number: schedulers[number].tick())
                scene.clock.turn(STEP)
            assert_once_each(scene, change)
