"""What is queued again and again: each time once, whoever looks after it, and whoever dies meanwhile."""

import json
import logging
import os
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from alligator import Gator, Task, schedules
from alligator.backends.base import Ack, Backend, Message
from alligator.commands import schedule_reports
from alligator.exceptions import BackendMissing, BackendUnavailable, InvalidOption
from alligator.schedules import Schedule, Scheduler
from alligator.schedules.moments import Every
from alligator.testing.running import Child, in_processes, in_threads
from alligator.testing.stores import ODD_IDS, records_of, take, take_ready, until
from tests.features import work
from tests.features.schedules_work import START, OddTask, Scene, iso, names, note_id, run
from tests.features.work import do, done, work_off
from tests.support.kinds import DURABLE, STORES, empty_store

HOUR = 3600.0
TEN_YEARS = 3653 * 24 * HOUR


@pytest.fixture(params=STORES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """An empty store of each kind, with a clock that is turned."""
    with Scene(empty_store(request.param, request)) as scene:
        yield scene


@pytest.fixture(params=DURABLE)
def shared(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """An empty store, of each kind that processes can share."""
    with Scene(empty_store(request.param, request)) as scene:
        yield scene


def ticked(scene: Scene, scheduler: Scheduler, seconds: float) -> list[str]:
    """Turn the clock, let the scheduler look, and return what it has queued."""
    scene.clock.turn(seconds)
    scheduler.tick()
    return scene.queued()


# Adding, listing, removing.


def test_a_schedule_is_listed(scene: Scene) -> None:
    gator = scene.gator()
    with gator.options(retries=2) as opts:
        every = opts.every(90, do, "this", name="often")
        cron = opts.cron("30 2 * * *", do, "that", timezone="Europe/Berlin", name="nightly")

    assert every == Schedule(
        "often", "all", every=90.0, callable="tests.features.work.do", next_at=START + 90
    )
    assert cron == Schedule(
        "nightly",
        "all",
        cron="30 2 * * *",
        timezone="Europe/Berlin",
        callable="tests.features.work.do",
        next_at=START + 13.5 * HOUR,
    )
    assert gator.schedules() == [cron, every]
    assert scene.gator("another").schedules() == []
    assert gator.len() == 0


def test_it_is_listed_when_it_came_last(scene: Scene) -> None:
    gator = scene.gator()
    gator.every(60, do, "this")

    assert ticked(scene, scene.scheduler(), 61.5) != []

    [schedule] = gator.schedules()
    assert (schedule.last_at, schedule.next_at) == (START + 61.5, START + 120)


def test_by_default_its_name_is_that_of_the_function_and_tells_no_argument() -> None:
    gator = Gator("locmem://")

    names = [gator.every(60, do, what).name for what in ("s3cret", "weekly", "s3cret")]

    assert gator.every(60, work.fail).name == "tests.features.work.fail"
    assert names[0] == names[2] != names[1]
    assert all(re.fullmatch(r"tests\.features\.work\.do-[0-9a-f]{8}", name) for name in names)
    assert gator.every(60, do, kwargs={"what": "weekly"}).name not in names
    either = [
        schedules.name_of(do, (1,), kwargs) for kwargs in ({"b": 2, "a": 3}, {"a": 3, "b": 2})
    ]
    assert either[0] == either[1]


def test_a_name_that_cannot_be_is_refused() -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match="The name of a schedule"):
        gator.every(60, do, "x", name="ž" * 101)
    with pytest.raises(InvalidOption, match="The name of a schedule '' takes 0 bytes"):
        gator.every(60, do, "x", name="")
    with pytest.raises(InvalidOption, match="control characters"):
        gator.every(60, do, "x", name="two\nlines")

    gator.every(60, do, "x" * 200, name="ž" * 100)


@pytest.mark.parametrize(
    "seconds", [0, 0.999, -5, None, True, "60", float("nan"), float("inf"), 10**11]
)
def test_seconds_that_make_no_sense_are_refused(seconds: Any) -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match="number of seconds"):
        gator.every(seconds, do, "x")
    assert gator.schedules() == []


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "* * 0 * *",
        "* * 31 2 *",
        "* * 30 2,2 *",
        "one * * * *",
        "@reboot",
        "9" * 5000 + " * * * *",
        "\ud800 * * * *",
        b"* * * * *",
        None,
        5,
    ],
)
def test_an_expression_that_makes_no_sense_is_refused(expression: Any) -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match="cron expression"):
        gator.cron(expression, do, "x")
    assert gator.schedules() == []


@pytest.mark.parametrize(
    "timezone",
    ["Mars/Base", "Europe", "", "../etc/passwd", "/etc/passwd", "\0", "x" * 5000, 1, None],
)
def test_a_timezone_that_is_none_is_refused(timezone: Any) -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match=r"No timezone .* is known here.*Europe/Berlin"):
        gator.cron("* * * * *", do, "x", timezone=timezone)
    assert gator.schedules() == []


def test_an_expression_that_never_comes_is_refused() -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match="means no time within the next 50 years"):
        gator.cron("0 0 */31 * MON#5", do, "x")  # the first of a month is no fifth Monday


def test_without_cronsim_an_expression_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gator = Gator("locmem://")
    monkeypatch.setitem(sys.modules, "cronsim", None)

    with pytest.raises(BackendMissing, match=r"pip install 'alligator\[cron\]'"):
        gator.cron("* * * * *", do, "x")

    gator.every(60, do, "x")


def test_a_schedule_is_for_workers_even_where_tasks_run_at_once() -> None:
    gator = Gator("locmem://", options={"is_async": "off"})
    gator.every(60, do, "x")

    assert done == []
    assert len(gator.schedules()) == 1


def test_a_call_that_cannot_be_queued_is_refused() -> None:
    gator = Gator("locmem://")
    with pytest.raises(InvalidOption, match="depends_on, delay_by"):
        gator.options(delay_by=5).every(60, do, "x")
    with pytest.raises(InvalidOption, match='if_exists="raise"'):
        gator.options(task_id="one", if_exists="raise").every(60, do, "x")
    with pytest.raises(TypeError):
        gator.every(60, do, "x", "y")
    with pytest.raises(TypeError):
        gator.every(60, do, object())
    assert gator.schedules() == []


class FiveMethods:
    """A store of the five documented methods."""

    def __init__(self, conn_string: str) -> None:
        pass

    def push(self, queue_name: str, task_id: str, data: str) -> str:
        return task_id

    def pop(self, queue_name: str) -> str | None:
        return None

    def get(self, queue_name: str, task_id: str) -> str | None:
        return None

    def len(self, queue_name: str) -> int:
        return 0

    def drop_all(self, queue_name: str) -> None:
        pass


def test_a_store_that_keeps_no_records_keeps_no_schedules() -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    with pytest.raises(InvalidOption, match=r"what every\(\) and cron\(\) needs: use"):
        gator.every(60, do, "x")

    assert gator.schedules() == []
    assert not gator.unschedule("x")
    assert schedules.queues(gator.backend) == []
    Scheduler(gator.backend, ["all"], Task).tick()


def test_names_may_be_odd(scene: Scene) -> None:
    odd = sorted(["a%2Fb", *(name for name in ODD_IDS if len(name.encode()) <= 200)])
    for queue_name in odd:
        for name in odd:
            scene.gator(queue_name).every(60, do, "x", name=name)
    scene.clock.turn(60)

    scene.scheduler(*odd).tick()

    assert schedules.queues(scene.backend) == odd
    for queue_name in odd:
        gator = scene.gator(queue_name)
        assert names(gator.schedules()) == odd
        assert sorted(scene.queued(queue_name)) == sorted(run(name, 60)[0] for name in odd)
        assert gator.unschedule(odd[0])
        assert not gator.unschedule(odd[0])
        assert names(gator.schedules()) == odd[1:]


def test_dropping_all_tasks_leaves_schedules(scene: Scene) -> None:
    gator = scene.gator()
    gator.every(60, do, "x", name="s")
    scheduler = scene.scheduler()
    scene.clock.turn(60)
    scheduler.tick()

    scene.backend.drop_all("all")

    assert names(gator.schedules()) == ["s"]
    assert ticked(scene, scheduler, 60) == run("s", 120)


def test_a_removed_schedule_queues_nothing_more(scene: Scene) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    gator.every(60, do, "x", name="s")
    assert ticked(scene, scheduler, 60) == run("s", 60)

    assert gator.unschedule("s")

    assert ticked(scene, scheduler, 600) == []
    assert gator.schedules() == []


def test_one_that_is_added_anew_starts_afresh(scene: Scene) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    gator.every(60, do, "x", name="s")
    scene.clock.turn(150)  # it is due
    gator.unschedule("s")

    gator.every(60, do, "x", name="s")

    assert ticked(scene, scheduler, 0) == []
    assert ticked(scene, scheduler, 59) == []
    assert ticked(scene, scheduler, 1) == run("s", 210)
    [schedule] = gator.schedules()
    assert schedule.last_at == START + 210


# Adding again what is there.


def test_to_add_the_same_again_changes_nothing(scene: Scene) -> None:
    def add() -> None:
        with scene.gator().options(retries=3, expires=60) as opts:
            opts.every(60, do, "x", kwargs={})
            opts.cron("*/5 * * * *", do, "y", timezone="Europe/Berlin")

    add()
    before = records_of(scene.backend).list("schedules:all")
    for _ in range(5):
        scene.clock.turn(7)
        add()
    assert records_of(scene.backend).list("schedules:all") == before

    scene.clock.turn_to(START + 60)
    add()  # what is due by now stays so
    scheduler = scene.scheduler()
    assert len(ticked(scene, scheduler, 0)) == 1
    add()
    assert ticked(scene, scheduler, 1) == []


def test_another_time_takes_over_from_now_on(scene: Scene) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    gator.every(60, do, "x", name="s")
    assert ticked(scene, scheduler, 60) == run("s", 60)
    scene.clock.turn(30)

    assert gator.every(100, do, "x", name="s").next_at == START + 190
    assert ticked(scene, scheduler, 99) == []
    assert ticked(scene, scheduler, 1) == run("s", 190)

    changed = gator.cron("*/5 * * * *", do, "x", name="s")
    assert (changed.every, changed.last_at) == (None, START + 190)
    assert ticked(scene, scheduler, 109) == []
    assert ticked(scene, scheduler, 1) == run("s", 300)

    gator.cron("30 12 * * *", do, "x", name="s", timezone="Asia/Tokyo")
    assert gator.schedules()[0].next_at == START + 15.5 * HOUR


def test_another_call_keeps_the_time(scene: Scene) -> None:
    gator = scene.gator()
    gator.every(60, do, "before", name="s")
    scene.clock.turn(61)  # it is due

    gator.every(60, do, "after", name="s")
    scene.scheduler().tick()
    work_off(gator)

    assert work.done == ["after"]
    assert gator.schedules()[0].next_at == START + 120


def test_what_was_queued_does_not_come_again_by_a_change(scene: Scene) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    gator.cron("*/5 * * * *", do, "x", name="s")
    assert ticked(scene, scheduler, 300) == run("s", 300)
    scene.clock.turn(-1)  # the time as another process takes it to be

    gator.cron("*/10,5 * * * *", do, "x", name="s")

    assert ticked(scene, scheduler, 2) == []
    assert ticked(scene, scheduler, 300) == run("s", 600)


def test_processes_may_add_at_the_same_time(shared: Scene) -> None:
    def work_in(number: int) -> None:
        with shared.forked() as backend:
            gator = Gator(shared.dsn, backend_class=lambda _: backend)
            scheduler = Scheduler(backend, ["all"], Task)
            for _ in range(20):
                gator.every(10, do, "x", name="s")
                gator.cron("* * * * *", do, "y", name="c")
                if number == 0:
                    shared.clock.turn(5)
                scheduler.tick()

    in_processes(4, work_in)
    shared.scheduler().tick()

    queued = shared.queued()
    assert sorted(queued) == sorted(set(queued))
    assert shared.gator().schedules()[1].next_at == START + 110


# Queueing what is due.


def test_each_time_comes_once(scene: Scene) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    gator.every(60, do, "x", name="s")
    gator.cron("*/2 * * * *", do, "y", name="c")

    assert ticked(scene, scheduler, 0) == []
    assert ticked(scene, scheduler, 59) == []
    assert ticked(scene, scheduler, 1) == run("s", 60)
    assert ticked(scene, scheduler, 0) == []
    assert ticked(scene, scheduler, 0.5) == []
    assert ticked(scene, scheduler, 59) == []
    assert ticked(scene, scheduler, 0.5) == [*run("c", 120), *run("s", 120)]
    assert ticked(scene, scheduler, 1) == []


def test_it_does_not_drift(scene: Scene) -> None:
    scene.gator().every(7.3, do, "x", name="s")
    scheduler = scene.scheduler()
    chance = random.Random(1)
    queued: list[str] = []

    while scene.clock() < START + 730:
        queued += ticked(scene, scheduler, chance.uniform(0.1, 7.0))

    assert len(queued) == int((scene.clock() - START) / 7.3)
    assert queued[9::10] == run("s", *range(73, 731, 73))
    assert queued[0] == "s@2026-11-22T12:00:07.300Z"


def test_what_is_due_between_two_looks_is_not_late(scene: Scene) -> None:
    # A second between two looks, and another between two runs: none may fall through.
    scene.gator().every(1, do, "x", name="s")
    scheduler = scene.scheduler()
    queued: list[str] = []
    for _ in range(100):
        queued += ticked(scene, scheduler, 0.253)

    assert queued == run("s", *range(1, 26))


def test_what_others_add_is_seen_within_a_second(scene: Scene) -> None:
    scheduler = scene.scheduler()
    assert ticked(scene, scheduler, 0) == []
    scene.gator().every(1, do, "x", name="s")

    assert ticked(scene, scheduler, 1) == run("s", 1)


@pytest.mark.parametrize("how", ["every", "cron"])
def test_of_those_that_were_missed_the_last_one_comes(scene: Scene, how: str) -> None:
    if how == "every":
        scene.gator().every(60, do, "x", name="s")
    else:
        scene.gator().cron("* * * * *", do, "x", name="s")
    scheduler = scene.scheduler()

    assert ticked(scene, scheduler, 60) == run("s", 60)
    assert ticked(scene, scheduler, 5 * HOUR + 17) == run("s", 5 * HOUR + 60)
    assert ticked(scene, scheduler, 42) == []
    assert ticked(scene, scheduler, 1) == run("s", 5 * HOUR + 120)

    assert ticked(scene, scene.scheduler(), TEN_YEARS) == run("s", 5 * HOUR + 120 + TEN_YEARS)


def test_after_years_a_rare_time_that_was_missed_comes_once(scene: Scene) -> None:
    scene.gator().cron("0 0 29 2 *", do, "x", name="s")
    scheduler = scene.scheduler()

    scene.clock.turn(10 * 365.25 * 24 * HOUR)

    assert ticked(scene, scheduler, 0) == ["s@2036-02-29T00:00:00Z"]
    assert ticked(scene, scheduler, 24 * HOUR) == []


def test_a_clock_that_is_set_back_lets_nothing_come_twice(scene: Scene) -> None:
    scene.gator().every(60, do, "x", name="s")
    scene.gator().cron("* * * * *", do, "x", name="c")
    scheduler = scene.scheduler()
    queued: list[str] = []
    for _ in range(30):
        queued += ticked(scene, scheduler, 25)
        queued += ticked(scene, scheduler, 25)
        queued += ticked(scene, scheduler, -40)
        queued += ticked(scene, scene.scheduler(), 0)

    assert queued == [one for at in range(60, 301, 60) for one in (*run("c", at), *run("s", at))]


def add_ten_minutes(scene: Scene, how: str) -> None:
    """Add a schedule "s" that is due every ten minutes."""
    if how == "every":
        scene.gator().every(600, do, "x", name="s")
    else:
        scene.gator().cron("*/10 * * * *", do, "x", name="s")


@pytest.mark.parametrize("how", ["every", "cron"])
@pytest.mark.parametrize("ahead", [2 * HOUR, TEN_YEARS])
def test_after_a_clock_was_far_ahead_nothing_waits_for_that_moment(
    scene: Scene, how: str, ahead: float
) -> None:
    add_ten_minutes(scene, how)
    scheduler = scene.scheduler()
    assert ticked(scene, scheduler, 600) == run("s", 600)

    assert ticked(scene, scheduler, ahead) == run("s", 600 + ahead)  # of all, the last one
    assert ticked(scene, scheduler, 600) == run("s", 1200 + ahead)

    assert ticked(scene, scheduler, -ahead) == []  # not for a time that had passed before
    [schedule] = scene.gator().schedules()
    assert (schedule.next_at, schedule.last_at) == (START + 1800, START + 1200)
    for at in (1800, 2400, 3000):
        assert ticked(scene, scheduler, 599) == []
        assert ticked(scene, scene.scheduler(), 1) == run("s", at)


@pytest.mark.parametrize("how", ["every", "cron"])
def test_what_came_while_the_clock_was_ahead_does_not_come_again(scene: Scene, how: str) -> None:
    add_ten_minutes(scene, how)
    scheduler = scene.scheduler()
    scene.clock.turn(HOUR)
    ahead = [one for _ in range(4) for one in ticked(scene, scheduler, 600)]
    assert ahead == run("s", 4200, 4800, 5400, 6000)
    scene.clock.turn_to(START)

    queued = [one for _ in range(140) for one in ticked(scene, scheduler, 60)]

    assert queued == run("s", *range(600, 4200, 600), 6600, 7200, 7800, 8400)


@pytest.mark.parametrize("how", ["every", "cron"])
def test_what_was_added_while_the_clock_was_ahead_does_not_wait_for_that_moment(
    scene: Scene, how: str
) -> None:
    scene.clock.turn(TEN_YEARS)
    add_ten_minutes(scene, how)
    scene.clock.turn_to(START + 3)
    scheduler = scene.scheduler()

    assert ticked(scene, scheduler, 0) == []
    assert ticked(scene, scheduler, 596) == []
    assert ticked(scene, scheduler, 1) == run("s", 600)
    assert ticked(scene, scheduler, 600) == run("s", 1200)


@pytest.mark.parametrize("how", ["every", "cron"])
def test_another_time_given_after_the_clock_was_ahead_begins_now(scene: Scene, how: str) -> None:
    add_ten_minutes(scene, how)
    scheduler = scene.scheduler()
    assert ticked(scene, scheduler, TEN_YEARS) == run("s", TEN_YEARS)
    scene.clock.turn_to(START)

    scene.gator().every(100, do, "x", name="s")

    assert ticked(scene, scheduler, 100) == run("s", 100)


@pytest.mark.parametrize("seed", range(20))
def test_however_a_clock_is_set_nothing_comes_twice_or_waits_for_long(seed: int) -> None:
    with Scene("locmem://") as scene:
        add_ten_minutes(scene, "every")
        chance = random.Random(seed)
        queued: list[str] = []
        for _ in range(6):
            queued += ticked(scene, scene.scheduler(), chance.choice([-1e6, -1200, -400, 7, 5e4]))
            scheduler = scene.scheduler()
            for _ in range(10):
                queued += ticked(scene, scheduler, 61)
                following = scene.clock() - scene.clock() % 600 + 600
                [schedule] = scene.gator().schedules()
                assert schedule.next_at == following or f"s@{iso(following)}" in queued

        assert len(queued) == len(set(queued))


def test_of_several_schedulers_one_minds_that_the_clock_was_set_back(scene: Scene) -> None:
    add_ten_minutes(scene, "cron")
    scene.clock.turn(TEN_YEARS)
    scene.scheduler().tick()
    scene.queued()
    scene.clock.turn_to(START + 1)
    schedulers = [scene.scheduler() for _ in range(8)]

    in_threads(8, lambda number: schedulers[number].tick())
    assert scene.queued() == []
    scene.clock.turn(599)
    in_threads(8, lambda number: schedulers[number].tick())

    assert scene.queued() == run("s", 600)


def test_after_a_clock_was_set_back_what_others_add_is_seen(scene: Scene) -> None:
    scheduler = scene.scheduler()
    assert ticked(scene, scheduler, 2 * HOUR) == []
    scene.clock.turn_to(START)
    scene.gator().every(1, do, "x", name="s")

    assert ticked(scene, scheduler, 1) == run("s", 1)


def test_what_is_changed_in_the_very_moment_in_which_it_is_due_comes_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gator, backend = scene.gator(), scene.client()
    gator.every(60, do, "before", name="s")
    scene.clock.turn(60)
    scheduler = Scheduler(backend, ["all"], Task)
    push_if = backend.push_if

    def too_late(*args: Any) -> bool:
        monkeypatch.setattr(backend, "push_if", push_if)
        gator.every(60, do, "after", name="s")
        return push_if(*args)

    monkeypatch.setattr(backend, "push_if", too_late)
    scheduler.tick()
    assert gator.len() == 0
    scheduler.tick()
    work_off(gator)

    assert work.done == ["after"]


def test_a_run_is_a_task_like_any_other(scene: Scene) -> None:
    with scene.gator().options(retries=1, on_success=note_id, priority=7) as opts:
        opts.every(60, do, name="s", kwargs={"what": ["ž", 1.5, None]})
    scene.gator().every(60, do, "second", name="r")
    scene.clock.turn(60)
    scene.scheduler().tick()

    [first, second] = take_ready(scene.backend)  # by its priority, for "r" was queued first
    assert [first.task_id, second.task_id] == [*run("s", 60), *run("r", 60)]
    task = Task.deserialize(first.body)
    assert (task.retries, task.priority, task.task_id) == (1, 7, first.task_id)

    scene.backend.settle([Ack(first), Ack(second)])
    scene.clock.turn(60)
    scene.scheduler().tick()
    work_off(scene.gator())
    assert work.done == [["ž", 1.5, None], *run("s", 120), "second"]


def test_a_run_expires_so_long_after_it_was_due(scene: Scene) -> None:
    with scene.gator().options(expires=30) as opts:
        opts.every(60, do, "x", name="s")
    scene.clock.turn(65)
    scene.scheduler().tick()

    held = take(scene.backend)
    assert Task.deserialize(held.body).expires == (0.0, START + 90)

    scene.backend.settle([Ack(held)])
    scene.clock.turn(60)
    scene.scheduler().tick()
    scene.clock.turn(26)
    work_off(scene.gator())
    assert work.done == []
    [letter] = scene.backend.dead("all")
    assert letter.task_id == run("s", 120)[0]


def test_a_moment_after_which_all_runs_expire_stays_one(scene: Scene) -> None:
    until_then = START + 5000
    task = Task()
    task.expires = 0.0, until_then
    task.to_call(do, "x")
    body = task.serialize()
    assert isinstance(body, str)
    schedules.add(scene.backend, "all", "s", body.encode(), every=60)
    scene.clock.turn(60)
    scene.scheduler().tick()

    assert Task.deserialize(take(scene.backend).body).expires == (0.0, until_then)


def test_with_an_id_of_ones_own_no_run_joins_another(scene: Scene) -> None:
    scheduler = scene.scheduler()
    with scene.gator().options(task_id="the one", if_exists="skip") as opts:
        opts.every(60, do, "x", name="s")

    scene.clock.turn(60)
    scheduler.tick()
    scene.clock.turn(60)
    scheduler.tick()  # the first waits
    held = take(scene.backend, lease=HOUR)
    scene.clock.turn(60)
    scheduler.tick()  # the first runs
    assert (held.task_id, take_ready(scene.backend)) == ("the one", [])

    scene.backend.settle([Ack(held)])
    assert ticked(scene, scheduler, 60) == ["the one"]


def test_with_an_id_of_ones_own_a_run_may_replace_the_one_before(scene: Scene) -> None:
    scheduler = scene.scheduler()
    with scene.gator().options(task_id="the one", if_exists="replace") as opts:
        opts.every(60, do, "before", name="s")
        scene.clock.turn(60)
        scheduler.tick()
        opts.every(60, do, "after", name="s")
    scene.clock.turn(60)
    scheduler.tick()

    work_off(scene.gator())
    assert work.done == ["after"]


def test_tasks_may_have_a_form_of_their_own(scene: Scene) -> None:
    gator = scene.gator(task_class=OddTask)
    with gator.options(priority=3, expires=30) as opts:
        opts.every(60, do, "x", name="s")
        opts.every(60, do, "x", name="s")
    scheduler = scene.scheduler(task_class=OddTask)
    scene.clock.turn(60)
    scheduler.tick()

    assert gator.schedules()[0].callable == ""
    [held] = take_ready(scene.backend)
    task = OddTask.deserialize(held.body)
    assert (held.task_id, task.task_id, task.expires) == (*run("s", 60) * 2, (0.0, START + 90))
    scene.backend.settle([Ack(held)])

    scene.clock.turn(60)
    scheduler.tick()
    work_off(gator)
    assert work.done == ["x"]


def test_what_cannot_be_read_any_more_is_told_once_and_others_go_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    gator, scheduler = scene.gator(), scene.scheduler()
    records = records_of(scene.backend)
    for name in ("a", "bad cron", "bad zone", "no task", "no record", "z"):
        gator.every(60, do, "x", name=name)

    def change(name: str, **parts: Any) -> None:
        [key] = [key for key in records.list("schedules:all") if key.endswith(f"/{name}")]
        records.set(key, json.dumps({**json.loads(records.get(key) or b""), **parts}).encode())

    change("bad cron", every=None, cron="0 99 * * *", timezone="UTC")
    change("bad zone", every=None, cron="* * * * *", timezone="Mars/Base")
    change("no task", body="{}")
    change("no record", due_at="soon")

    with caplog.at_level(logging.ERROR, "alligator.schedules"):
        assert ticked(scene, scheduler, 60) == [*run("a", 60), *run("z", 60)]
        assert ticked(scene, scheduler, 60) == [*run("a", 120), *run("z", 120)]
    told = sorted(record.getMessage() for record in caplog.records)
    assert len(told) == 4
    assert told[0].startswith("Schedule 'bad cron' of queue 'all' queues nothing: InvalidOption")
    assert "due_at" in told[2]

    assert names(gator.schedules()) == ["a", "bad cron", "bad zone", "no task", "z"]
    gator.every(60, do, "x", name="no record")
    gator.cron("* * * * *", do, "x", name="bad cron")
    assert ticked(scene, scheduler, 60) == [
        one for name in ("a", "bad cron", "no record", "z") for one in run(name, 180)
    ]
    for name in ("bad zone", "no task"):
        assert gator.unschedule(name)


def test_without_cronsim_a_scheduler_says_so_and_keeps_the_others(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.gator().cron("* * * * *", do, "x", name="c")
    scene.gator().every(60, do, "x", name="s")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "cronsim", None)
        assert ticked(scene, scene.scheduler(), 60) == run("s", 60)
    assert "pip install 'alligator[cron]'" in caplog.text

    assert ticked(scene, scene.scheduler(), 0) == run("c", 60)


def test_what_another_version_has_written_stays(scene: Scene) -> None:
    scene.gator().every(60, do, "x", name="s")
    records = records_of(scene.backend)
    [(key, value)] = records.list("schedules:all").items()
    records.set(key, json.dumps({**json.loads(value), "more": ["ž"]}).encode())

    assert ticked(scene, scene.scheduler(), 60) == run("s", 60)
    scene.gator().every(60, do, "y", name="s")
    scene.gator().every(30, do, "y", name="s")

    assert json.loads(records.get(key) or b"")["more"] == ["ž"]


def test_the_moments_of_an_interval_are_one_series() -> None:
    for seconds in (1.0, 1.1, 7.3, 59.999, 1e9 / 3, 86400.0):
        every = Every(seconds, START)
        moments = [START + number * seconds for number in range(1, 2000)]
        for before, after in pairwise(moments):
            assert every.next_after(before) == after
            assert every.next_after((before + after) / 2) == after
            assert every.latest(moments[0], before) == before
            assert every.latest(moments[0], (before + after) / 2) == before


# A store that is away.


class LostAnswers:
    """Lets what a client does to a store happen, or not, and says that nobody knows."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        self._push_if = backend.push_if
        self.lost = 0
        monkeypatch.setattr(backend, "push_if", self.push_if)

    def push_if(self, queue_name: str, message: Message, key: str, old: bytes, new: bytes) -> bool:
        self.lost += 1
        if self.lost % 3 == 1:
            raise BackendUnavailable("before")
        done = self._push_if(queue_name, message, key, old, new)
        if self.lost % 3 == 2:
            raise BackendUnavailable("after")
        return done


def test_where_an_answer_is_lost_the_next_look_makes_up_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        scene.gator().every(60, do, "x", name=name)
    backend = scene.client()
    lost = LostAnswers(backend, monkeypatch)
    scheduler = Scheduler(backend, ["all"], Task)

    for turn in range(1, 8):
        scene.clock.turn(60)
        for _ in range(6):
            try:
                scheduler.tick()
            except BackendUnavailable:
                pass
        assert sorted(scene.queued()) == [*run("a", 60 * turn), *run("b", 60 * turn)]
    assert lost.lost > 14


# Several at the same time, and deaths.


def test_of_eight_schedulers_one_queues_each_run(scene: Scene) -> None:
    for number in range(3):
        scene.gator().every(60, do, "x", name=f"s{number}")
    schedulers = [scene.scheduler() for _ in range(8)]

    for turn in range(1, 16):
        scene.clock.turn(60)
        in_threads(8, lambda number: schedulers[number].tick())
        expected = [one for number in range(3) for one in run(f"s{number}", 60 * turn)]
        assert sorted(scene.queued()) == expected


def test_of_several_processes_one_queues_each_run(shared: Scene) -> None:
    shared.gator().every(1, do, "x", name="s")
    shared.gator().cron("* * * * *", do, "x", name="c")

    def work_in(number: int) -> None:
        with shared.forked() as backend:
            scheduler = Scheduler(backend, ["all"], Task)
            while (now := shared.clock()) < START + 180:
                scheduler.tick()
                if number == 0:
                    shared.clock.turn_to(now + 0.5)

    in_processes(4, work_in)
    shared.scheduler().tick()

    queued = shared.queued()
    assert sorted(queued) == sorted([*run("s", *range(1, 181)), *run("c", 60, 120, 180)])


class Deadly:
    """Kills its process in the step that queues a run, before or after the store has made it."""

    def __init__(self, backend: Backend) -> None:
        self._chance = random.Random()
        self._push_if = backend.push_if

    def push_if(self, *args: Any) -> bool:
        if self._chance.random() < 0.15:
            os.kill(os.getpid(), signal.SIGKILL)
        done = self._push_if(*args)
        if self._chance.random() < 0.15:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


@pytest.mark.parametrize("how", ["from outside", "at the step"])
def test_schedulers_that_are_killed_leave_no_run_out_and_queue_none_twice(
    shared: Scene, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.gator().every(1, do, "x", name="s")
    chance = random.Random()

    def turn_on() -> None:
        with shared.forked() as backend:
            scheduler = Scheduler(backend, ["all"], Task)
            if how == "at the step":
                monkeypatch.setattr(backend, "push_if", Deadly(backend).push_if)
            while True:
                scheduler.tick()
                shared.clock.turn(1)

    for _ in range(20):
        enough = shared.clock() + chance.randrange(1, 15)
        with Child(turn_on) as child:
            if how == "at the step":
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            else:
                until(partial(shared.is_past, enough), "some turns of the child")
            child.kill()

    shared.scheduler().tick()
    last = int(shared.clock() - START)
    assert shared.queued() == run("s", *range(1, last + 1))
    assert last > 20


def test_schedules_come_and_go_while_schedulers_work(scene: Scene) -> None:
    stop = threading.Event()

    def look(_: int) -> None:
        scheduler = scene.scheduler()
        while not stop.is_set():
            scene.clock.turn(1)
            scheduler.tick()

    def change(number: int) -> int:
        gator, runs = scene.gator(), 0
        for _ in range(15):
            gator.every(1, do, "x", name=f"s{number}")
            until(lambda: gator.schedules()[0].last_at is not None, "a run")
            gator.unschedule(f"s{number}")
            done = scene.queued()
            runs += len(done)
            assert len(set(done)) == len(done)
            assert gator.schedules() == []
            until(partial(scene.is_past, scene.clock() + 5), "some looks")
            assert gator.len() == 0
        return runs

    def work_in(number: int) -> int:
        if number:
            look(number)
            return 0
        try:
            return change(number)
        finally:
            stop.set()

    assert in_threads(3, work_in)[0] >= 15


# What the command says.


def test_schedules_are_told_as_text_and_json(scene: Scene) -> None:
    gator = scene.gator("mail")
    gator.every(90, do, "x", name="often\u202e")
    gator.every(7200, do, "x", name="two hours")
    gator.cron("30 2 * * 1-5", do, "x", timezone="Europe/Berlin", name="nightly")
    scene.clock.turn(95)
    scene.scheduler("mail").tick()
    scene.clock.turn(60)
    found = gator.schedules()

    lines = schedule_reports.schedules_text(found, scene.clock(), None).splitlines()
    assert lines[0].split() == ["name", "queue", "when", "next", "last", "callable"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "nightly",
        "often\\u202e",
        "two hours",
    ]
    assert "30 2 * * 1-5  Europe/Berlin  in 13 h  never" in lines[1]
    assert "mail   every 90 s" in lines[2]
    assert "in 25 s  1 min ago  tests.features.work.do" in lines[2]
    assert "every 2 h" in lines[3]

    told = schedule_reports.schedules_json(found)
    assert json.loads(json.dumps(told)) == told
    assert told[1] == {
        "name": "often\u202e",
        "queue": "mail",
        "every": 90.0,
        "cron": None,
        "timezone": None,
        "callable": "tests.features.work.do",
        "next_at": "2026-11-22T12:03:00.000+00:00",
        "last_at": "2026-11-22T12:01:35.000+00:00",
    }


@pytest.mark.parametrize(
    ("every", "told"),
    [
        (60.0, "every 1 min"),
        (86400.0, "every 1 d"),
        (1.5, "every 1.5 s"),
        (1_234_567.0, "every 1234567 s"),
        (100.0, "every 100 s"),
    ],
)
def test_an_interval_is_told_in_its_largest_whole_unit(every: float, told: str) -> None:
    assert schedule_reports.when(Schedule("s", "all", every=every)) == told


def test_a_moment_is_told_in_an_id_that_sorts() -> None:
    every: Callable[[float], str] = iso
    assert every(START) == "2026-11-22T12:00:00Z"
