"""What was asked of a task that runs, and whom it concerns: on a store in memory, by a clock that stands."""

import json
from typing import Any

import pytest

from alligator import Gator, results, stops
from alligator.backends.base import Ack, Backend, Message, Release, Reservation
from alligator.stops import CANCELED, TIMEOUT, Stop
from alligator.testing.stores import QUEUE, ids, push, records_of, take, take_ready
from tests.unit.conftest import Clock


@pytest.fixture
def held(gator: Gator) -> Reservation:
    """A task that runs."""
    push(gator.backend, "t1")
    return take(gator.backend)


def again(gator: Gator, held: Reservation, clock: Clock) -> Reservation:
    """Hand a task out anew, a moment later."""
    clock.turn(0.1)
    gator.backend.settle([Release(held, lapsed=True)])
    return take(gator.backend)


def entry(held: Reservation) -> dict[str, str]:
    """What a failed attempt leaves in the task's history."""
    return {"token": held.token}


def test_nothing_is_found_where_nothing_was_asked(gator: Gator, held: Reservation) -> None:
    assert stops.found(gator.backend, held) is None
    assert stops.asked(gator.backend, QUEUE, "t1") is None
    assert stops.listed(gator.backend) == {}


@pytest.mark.parametrize("reason", [CANCELED, TIMEOUT])
def test_who_takes_the_task_next_knows_what_was_asked(
    reason: str, gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, reason)

    assert stops.found(gator.backend, again(gator, held, clock)) == Stop(held.token, reason)
    assert stops.listed(gator.backend) == {(QUEUE, "t1"): Stop(held.token, reason)}


def test_names_may_be_odd(gator: Gator) -> None:
    gator.backend.push_many("a/b:c", [Message("%2F/ž:", b"")])
    held = take(gator.backend, of="a/b:c")
    stops.ask(gator.backend, "a/b:c", "%2F/ž:", held.token, CANCELED)

    assert stops.found(gator.backend, held) == Stop(held.token, CANCELED)
    assert list(stops.listed(gator.backend)) == [("a/b:c", "%2F/ž:")]


def test_a_timeout_concerns_one_attempt(gator: Gator, held: Reservation, clock: Clock) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)

    assert stops.found(gator.backend, again(gator, held, clock), [entry(held)]) is None


def test_canceling_concerns_the_attempts_that_would_follow_too(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)

    found = stops.found(gator.backend, again(gator, held, clock), [entry(held)])

    assert found == Stop(held.token, CANCELED)


@pytest.mark.parametrize("reason", [CANCELED, TIMEOUT])
def test_what_was_asked_of_a_former_task_does_not_concern_a_later_one(
    reason: str, gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, reason)
    gator.backend.settle([Ack(held)])
    clock.turn(0.1)
    push(gator.backend, "t1")
    first = take(gator.backend)

    assert stops.found(gator.backend, again(gator, first, clock), [entry(first)]) is None


def test_a_history_without_tokens_says_nothing(gator: Gator, held: Reservation) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)

    assert stops.found(gator.backend, held, [{"attempt": 1}]) == Stop(held.token, CANCELED)
    assert stops.found(gator.backend, held, [{"token": "no token"}]) == Stop(held.token, CANCELED)


@pytest.mark.parametrize(
    "value",
    [b"", b"no JSON", b"[]", b"1", b"null", b"{}", b'{"token": 1, "reason": "canceled"}',
     b'{"token": "no token", "reason": "canceled"}'],
)  # fmt: skip
def test_a_record_with_no_sense_in_it_is_none(
    value: bytes, gator: Gator, held: Reservation
) -> None:
    records_of(gator.backend).set("stops/all:t1", value)

    assert stops.found(gator.backend, held) is None
    assert stops.listed(gator.backend) == {}
    assert not stops.keep(gator.backend, QUEUE, "t1", Stop(held.token, CANCELED))
    stops.forget(gator.backend, QUEUE, "t1", held.token)
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)
    assert stops.found(gator.backend, held) == Stop(held.token, CANCELED)


def test_another_versions_record_may_tell_more(gator: Gator, held: Reservation) -> None:
    value = json.dumps({"token": held.token, "reason": CANCELED, "at": 1, "by": "someone"})
    records_of(gator.backend).set("stops/all:t1", value.encode())

    assert stops.found(gator.backend, held) == Stop(held.token, CANCELED)


def test_one_that_was_canceled_stays_so_when_its_time_is_over(
    gator: Gator, held: Reservation
) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)

    assert stops.asked(gator.backend, QUEUE, "t1") == Stop(held.token, CANCELED)


def test_one_whose_time_is_over_can_be_canceled(gator: Gator, held: Reservation) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)

    assert stops.asked(gator.backend, QUEUE, "t1") == Stop(held.token, CANCELED)


def test_what_is_forgotten_is_gone_even_from_the_store(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, CANCELED)
    stops.forget(gator.backend, QUEUE, "t1", held.token)

    assert stops.asked(gator.backend, QUEUE, "t1") is None
    clock.turn(1.1)
    assert records_of(gator.backend).list("stops") == {}


def test_what_was_asked_of_a_later_hand_out_is_not_forgotten(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    later = again(gator, held, clock)
    stops.ask(gator.backend, QUEUE, "t1", later.token, CANCELED)

    stops.forget(gator.backend, QUEUE, "t1", held.token)

    assert stops.asked(gator.backend, QUEUE, "t1") == Stop(later.token, CANCELED)


def test_what_nobody_has_seen_is_forgotten_soon_and_what_was_kept_later(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.cancel(gator.backend, None, QUEUE, "t1")
    clock.turn(60 + 300 - 1)  # the lease, and what may be beyond it
    assert stops.keep(gator.backend, QUEUE, "t1", Stop(held.token, CANCELED))
    clock.turn(80_000)
    assert stops.asked(gator.backend, QUEUE, "t1") is not None
    clock.turn(10_000)

    assert stops.asked(gator.backend, QUEUE, "t1") is None


def test_only_what_is_still_asked_can_be_kept(gator: Gator, held: Reservation) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)

    assert not stops.keep(gator.backend, QUEUE, "t1", Stop(held.token, CANCELED))
    assert not stops.keep(gator.backend, QUEUE, "t2", Stop(held.token, CANCELED))


# Canceling.


def test_a_task_that_waits_is_taken_out(gator: Gator) -> None:
    push(gator.backend, "t1")

    canceled = stops.cancel(gator.backend, None, QUEUE, "t1")

    assert canceled == stops.Canceling(b"t1", runs=False)
    assert take_ready(gator.backend) == []
    assert stops.listed(gator.backend) == {}


def test_a_task_that_runs_is_asked_to_end(gator: Gator, held: Reservation) -> None:
    assert stops.cancel(gator.backend, None, QUEUE, "t1") == stops.Canceling(b"t1", runs=True)
    assert stops.asked(gator.backend, QUEUE, "t1") == Stop(held.token, CANCELED)


def test_a_task_that_is_not_there_is_not_canceled(gator: Gator) -> None:
    assert stops.cancel(gator.backend, None, QUEUE, "t1") is None
    assert stops.listed(gator.backend) == {}


class Meddling:
    """Lets something happen just before a task is asked to end: a hand-out comes to its end."""

    def __init__(self, gator: Gator, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._backend = gator.backend

    def by(self, *settlements: Ack | Release) -> None:
        ask = stops.ask
        left = list(settlements)

        def meddling_ask(*args: Any) -> None:
            if left:
                self._backend.settle([left.pop(0)])
            ask(*args)

        self._patch.setattr(stops, "ask", meddling_ask)


@pytest.fixture
def meddling(gator: Gator, monkeypatch: pytest.MonkeyPatch) -> Meddling:
    return Meddling(gator, monkeypatch)


def test_a_task_that_is_given_back_meanwhile_is_taken_out(
    gator: Gator, held: Reservation, meddling: Meddling
) -> None:
    meddling.by(Release(held))

    canceled = stops.cancel(gator.backend, None, QUEUE, "t1")

    assert canceled == stops.Canceling(b"t1", runs=False)
    assert take_ready(gator.backend) == []
    assert stops.listed(gator.backend) == {}


def test_a_task_that_ends_meanwhile_is_not_canceled(
    gator: Gator, held: Reservation, meddling: Meddling
) -> None:
    meddling.by(Ack(held))

    assert stops.cancel(gator.backend, None, QUEUE, "t1") is None
    assert stops.listed(gator.backend) == {}


# Giving back what was asked to end, and heeding it in the end.


def test_who_takes_it_before_it_is_heeded_knows_what_was_asked(
    gator: Gator, held: Reservation
) -> None:
    push(gator.backend, "t2")
    other = take(gator.backend)
    stops.cancel(gator.backend, None, QUEUE, "t1")

    releases = stops.warned(gator.backend, [Release(held), Release(other)])
    gator.backend.settle(releases)

    asked, plain = take_ready(gator.backend)
    assert (asked.deliveries, plain.deliveries) == (2, 1)  # more than one: it is looked for
    assert stops.found(gator.backend, asked) == Stop(held.token, CANCELED)


def test_what_counts_anyway_still_does(gator: Gator, held: Reservation) -> None:
    assert stops.warned(gator.backend, [Release(held, lapsed=True)]) == [Release(held, lapsed=True)]


def test_what_has_run_too_long_is_not_taken_to_be_canceled(gator: Gator, held: Reservation) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)

    assert stops.warned(gator.backend, [Release(held)]) == [Release(held)]


def test_the_store_is_not_asked_about_nothing(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(backend: Backend) -> None:
        pytest.fail("It was asked.")

    monkeypatch.setattr(stops, "listed", refuse)

    assert stops.warned(gator.backend, []) == []
    stops.heed(gator.backend, None, [])


def test_a_task_that_was_asked_to_end_is_taken_out_when_it_is_given_back(
    gator: Gator, held: Reservation
) -> None:
    push(gator.backend, "t2")
    other = take(gator.backend)
    stops.cancel(gator.backend, None, QUEUE, "t1")
    gator.backend.settle([Release(held), Release(other)])

    stops.heed(gator.backend, None, [held, other])

    assert ids(take_ready(gator.backend)) == ["t2"]
    assert stops.listed(gator.backend) == {}


def test_how_it_ended_is_known_though_who_takes_it_out_is_killed_right_after(
    gator: Gator, held: Reservation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops.cancel(gator.backend, None, QUEUE, "t1")
    gator.backend.settle([Release(held)])
    cancel = gator.backend.cancel

    def cancel_and_die(queue_name: str, task_id: str) -> None:
        assert cancel(queue_name, task_id) is not None
        raise SystemExit

    monkeypatch.setattr(gator.backend, "cancel", cancel_and_die)
    with pytest.raises(SystemExit):
        stops.heed(gator.backend, None, [held])

    outcome = results.outcome_of(records_of(gator.backend), QUEUE, "t1")
    assert outcome is not None
    assert outcome.state == results.CANCELED


def test_a_task_that_another_holds_by_then_is_asked_again(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.cancel(gator.backend, None, QUEUE, "t1")
    later = again(gator, held, clock)

    stops.heed(gator.backend, None, [held])

    assert stops.asked(gator.backend, QUEUE, "t1") == Stop(later.token, CANCELED)


def test_a_timeout_is_not_heeded_by_taking_the_task_out(gator: Gator, held: Reservation) -> None:
    stops.ask(gator.backend, QUEUE, "t1", held.token, TIMEOUT)
    gator.backend.settle([Release(held)])

    stops.heed(gator.backend, None, [held])

    assert ids(take_ready(gator.backend)) == ["t1"]


def test_a_later_task_of_that_id_is_not_taken_out(
    gator: Gator, held: Reservation, clock: Clock
) -> None:
    stops.cancel(gator.backend, None, QUEUE, "t1")
    clock.turn(0.1)
    gator.backend.settle([Ack(held)])
    push(gator.backend, "t1")
    later = take(gator.backend)
    gator.backend.settle([Release(later)])

    stops.heed(gator.backend, None, [later])

    assert ids(take_ready(gator.backend)) == ["t1"]
