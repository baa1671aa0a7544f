"""A settlement whose answer gets lost, and one that comes too late: what is kept of the task, and for whom."""

import logging
from collections.abc import Callable, Sequence

import pytest

from alligator import ALL, Gator, Worker, deaths, stops
from alligator.backends.base import Ack, Counts, Reservation, Settlement
from alligator.backends.locmem_backend import Client
from alligator.deaths import Death
from alligator.exceptions import BackendUnavailable, Snooze
from alligator.testing.stores import records_of
from tests.unit import jobs
from tests.unit.conftest import Clock

KEY = "k" * 32
FAMILIES = ("deaths", "progress", "stops")


class Deaf(Client):
    """Does what it is asked, or not, and the first time does not say so."""

    is_lost = True
    """Whether it is the answer that is lost; else it was the call."""
    meanwhile: Callable[[], None] | None = None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        if not settlements or self.meanwhile is None:
            return super().settle(settlements)
        meanwhile, self.meanwhile = self.meanwhile, None
        if self.is_lost:
            super().settle(settlements)
        meanwhile()
        raise BackendUnavailable("No answer.")


def nothing() -> None:
    pass


def put_off() -> None:
    raise Snooze(60)


@pytest.fixture(params=[False, True], ids=["unsigned", "signed"])
def gator(clock: Clock, request: pytest.FixtureRequest) -> Gator:
    """A queue in memory, by the tests' clock; its client is ``client``."""
    keys = [KEY] if request.param else None
    return Gator("locmem://", backend_class=lambda conn_string: Deaf(conn_string, clock), keys=keys)


def client(gator: Gator) -> Deaf:
    store = getattr(gator.backend, "store", gator.backend)
    assert isinstance(store, Deaf)
    return store


def push(gator: Gator, func: Callable[[], None], retries: int = 0) -> None:
    with gator.options(task_id="nightly", timeout=60, retries=retries, backoff=1) as opts:
        opts.task(func)


def die(gator: Gator, clock: Clock, stop: str = "", *, is_seen: bool = True) -> Reservation:
    """Take the task, and end, as the parent of the process tells."""
    clock.turn(1)
    [held] = gator.backend.reserve([ALL], "dying").reservations
    if stop:
        stops.ask(gator.backend, ALL, "nightly", held.token, stop)
    if is_seen:
        death = Death(signal="SIGKILL", reason=stop, token=held.token)
        deaths.keep(gator.backend, gator.results, {held: death})
    gator.backend.recover([ALL], "dying", ["nightly"])
    clock.turn(1)
    return held


def work(gator: Gator) -> None:
    Worker(gator, max_tasks=1, burst=True).run_forever()


def left(gator: Gator, clock: Clock) -> list[str]:
    """Return the records that are left when what was forgotten is gone."""
    clock.turn(2)
    records = records_of(gator.backend)
    return [key for family in FAMILIES for key in records.list(family)]


@pytest.mark.parametrize("stop", ["", stops.TIMEOUT, stops.CANCELED])
@pytest.mark.parametrize("func", [jobs.look, jobs.look_and_fail])
def test_what_was_settled_by_a_call_without_an_answer_leaves_nothing_behind(
    gator: Gator, clock: Clock, stop: str, func: Callable[[], None]
) -> None:
    push(gator, func)
    die(gator, clock, stop)
    client(gator).meanwhile = nothing

    work(gator)

    is_dead = stop == stops.TIMEOUT or (not stop and func is jobs.look_and_fail)
    assert gator.backend.count(ALL) == Counts(dead=int(is_dead))
    assert left(gator, clock) == []


@pytest.mark.parametrize(("func", "retries"), [(jobs.look_and_fail, 1), (put_off, 0)])
def test_what_goes_back_by_a_call_without_an_answer_leaves_nothing_behind(
    gator: Gator, clock: Clock, func: Callable[[], None], retries: int
) -> None:
    push(gator, func, retries)
    die(gator, clock)
    client(gator).meanwhile = nothing

    work(gator)

    assert gator.backend.count(ALL).dead == 0
    assert left(gator, clock) == []


def test_what_a_lost_answer_leaves_is_nothing_to_a_task_that_was_pushed_meanwhile(
    gator: Gator, clock: Clock
) -> None:
    push(gator, jobs.look)
    die(gator, clock, stops.TIMEOUT)
    client(gator).meanwhile = lambda: push(gator, jobs.look)
    jobs.watched.append(lambda: "ran")
    work(gator)

    die(gator, clock, is_seen=False)
    work(gator)

    assert jobs.seen == ["ran"]
    assert gator.backend.count(ALL) == Counts(dead=1)
    assert left(gator, clock) == []


def test_an_answer_that_got_lost_is_told_as_what_it_may_have_been(
    gator: Gator, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    push(gator, jobs.look)
    die(gator, clock)
    client(gator).meanwhile = nothing

    work(gator)

    assert caplog.text.count("'nightly' was settled just before the store went away, or") == 1
    assert "void" not in caplog.text


@pytest.mark.parametrize("stop", [stops.TIMEOUT, stops.CANCELED])
@pytest.mark.parametrize("is_held", [False, True])
def test_what_went_to_another_while_the_store_was_away_keeps_what_is_kept_of_it(
    gator: Gator, clock: Clock, caplog: pytest.LogCaptureFixture, stop: str, is_held: bool
) -> None:
    push(gator, jobs.look)
    dead = die(gator, clock, stop)
    client(gator).is_lost = False

    def lose_it() -> None:
        clock.turn(3600)
        gator.backend.reserve([ALL], "another")
        if not is_held:
            gator.backend.recover([ALL], "another")

    client(gator).meanwhile = lose_it

    Worker(gator, max_tasks=1).run_forever()

    assert stops.asked(gator.backend, ALL, "nightly") == stops.Stop(dead.token, stop)
    assert any(key.startswith("deaths/") for key in left(gator, clock))
    assert caplog.text.count("'nightly' went to another worker while it ran here") == 1


@pytest.mark.parametrize("by", [Gator.pop, work])
def test_who_settles_too_late_says_so_once(
    gator: Gator,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    by: Callable[[Gator], object],
) -> None:
    push(gator, jobs.look)
    die(gator, clock)

    def lose_it() -> None:
        clock.turn(3600)
        [held] = gator.backend.reserve([ALL], "another", lease=60).reservations
        gator.backend.settle([Ack(held)])

    jobs.watched.append(lose_it)
    with caplog.at_level(logging.WARNING):
        by(gator)

    assert caplog.text.count("'nightly' went to another worker while it ran here") == 1
    assert left(gator, clock) == []
