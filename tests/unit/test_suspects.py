"""Whose turn it is: that of tasks which may have killed a worker, or that of the others."""

from collections.abc import Iterable

import pytest

from alligator.backends.base import Release, Reservation
from alligator.processes.suspects import AWAY, LONGEST_WAIT, TURN, Turns
from alligator.retries import MAX_DELIVERIES
from tests.unit.conftest import Clock

ROOM = 100


@pytest.fixture
def turns(clock: Clock) -> Turns:
    """The turns of a worker that runs many tasks at a time."""
    return Turns(share=True, clock=clock)


def innocent(name: str) -> Reservation:
    return Reservation("all", name, b"", f"token-{name}")


def suspect(name: str) -> Reservation:
    return Reservation("all", name, b"", f"token-{name}", deliveries=MAX_DELIVERIES)


def given_back(releases: Iterable[Release]) -> dict[str, float]:
    """Return which tasks are given back, and for how long."""
    assert not any(release.lapsed or release.body for release in releases)
    return {release.reservation.task_id: release.delay for release in releases}


def run_alone(turns: Turns, clock: Clock, name: str, seconds: float) -> None:
    """Take a suspect, with nothing else held, and let it run for so long."""
    kept, _ = turns.parted([suspect(name)], 0)
    assert [one.task_id for one in kept] == [name]
    assert turns.limit(ROOM, 1) == 0
    clock.turn(seconds)


def test_without_suspects_all_is_taken_that_there_is_room_for(turns: Turns) -> None:
    # What was near one death is not under suspicion: it may be one of hundreds.
    tasks = [innocent("a"), innocent("b")._replace(deliveries=MAX_DELIVERIES - 1)]

    assert turns.limit(ROOM, 0) == ROOM
    assert turns.parted(tasks, 0) == (tasks, [])
    assert turns.limit(ROOM, 2) == ROOM


def test_a_suspect_is_kept_alone_and_nothing_is_taken_while_it_runs(
    turns: Turns, clock: Clock
) -> None:
    tasks = [suspect("s1"), suspect("s2")]

    kept, back = turns.parted(tasks, 0)

    assert kept == tasks[:1]
    assert given_back(back) == {"s2": 0.0}
    for _ in range(3):
        assert turns.limit(ROOM, 1) == 0
        clock.turn(LONGEST_WAIT / 4)


def test_a_suspect_that_does_not_end_keeps_nobody_for_ever(turns: Turns, clock: Clock) -> None:
    run_alone(turns, clock, "s1", LONGEST_WAIT)

    assert turns.limit(ROOM, 1) == ROOM
    kept, back = turns.parted([innocent("a"), suspect("s2")], 1)
    assert [one.task_id for one in kept] == ["a"]
    assert given_back(back) == {"s2": AWAY}
    assert turns.limit(ROOM, 2) == ROOM


def test_suspects_among_others_go_back_and_come_next_alone(turns: Turns) -> None:
    kept, back = turns.parted([innocent("a"), suspect("s"), innocent("b")], 0)
    assert [one.task_id for one in kept] == ["a", "b"]
    assert given_back(back) == {"s": 0.0}

    assert turns.limit(ROOM, 2) == 0
    assert turns.limit(ROOM, 1) == 0
    assert turns.limit(ROOM, 0) == 1
    kept, back = turns.parted([suspect("s")], 0)

    assert [one.task_id for one in kept] == ["s"]
    assert back == []


def test_a_suspect_does_not_join_what_runs(turns: Turns) -> None:
    kept, back = turns.parted([suspect("s")], 1)

    assert list(kept) == []
    assert given_back(back) == {"s": 0.0}


def test_short_suspects_come_one_after_the_other_until_none_is_left(
    turns: Turns, clock: Clock
) -> None:
    for number in range(5):
        run_alone(turns, clock, f"s{number}", TURN / 10)
        assert turns.limit(ROOM, 0) == 1

    assert turns.parted([innocent("a")], 0) == ([innocent("a")], [])
    assert turns.limit(ROOM, 1) == ROOM


def test_that_nothing_is_left_ends_their_turn_too(turns: Turns, clock: Clock) -> None:
    run_alone(turns, clock, "s", TURN / 10)
    assert turns.limit(ROOM, 0) == 1

    turns.parted([], 0)

    assert turns.limit(ROOM, 0) == ROOM


def test_after_long_suspects_the_others_have_as_long(turns: Turns, clock: Clock) -> None:
    run_alone(turns, clock, "s1", 60.0)

    for _ in range(6):
        assert turns.limit(ROOM, 0) == ROOM
        kept, back = turns.parted([suspect("s2"), innocent("a")], 0)
        assert [one.task_id for one in kept] == ["a"]
        assert given_back(back) == {"s2": AWAY}  # out of the way of what is behind it
        assert turns.limit(ROOM, 1) == ROOM
        clock.turn(9.9)
    clock.turn(0.6)

    assert turns.parted([suspect("s2")], 1)[0] == []
    assert turns.limit(ROOM, 1) == 0
    assert turns.limit(ROOM, 0) == 1


def test_in_the_turn_of_the_others_a_suspect_is_run_if_there_are_none(
    turns: Turns, clock: Clock
) -> None:
    run_alone(turns, clock, "s1", 60.0)
    assert turns.limit(ROOM, 0) == ROOM

    kept, back = turns.parted([suspect("s2"), suspect("s3")], 0)

    assert [one.task_id for one in kept] == ["s2"]
    assert given_back(back) == {"s3": 0.0}
    clock.turn(60.0)
    assert turns.limit(ROOM, 0) == ROOM


def test_in_the_turn_of_the_others_they_may_be_behind_as_many_suspects_as_there_is_room_for(
    turns: Turns, clock: Clock
) -> None:
    run_alone(turns, clock, "s1", 3.0)
    assert turns.limit(2, 0) == 2

    kept, back = turns.parted([suspect("s2"), suspect("s3")], 0)

    assert list(kept) == []
    assert given_back(back) == {"s2": 3.0, "s3": 3.0}
    assert turns.limit(2, 0) == 2


def test_suspects_that_come_because_there_are_no_others_have_a_turn_as_any(
    turns: Turns, clock: Clock
) -> None:
    run_alone(turns, clock, "s1", 60.0)
    assert turns.limit(ROOM, 0) == ROOM

    for number in range(5):
        run_alone(turns, clock, f"s{number}", TURN / 10)
        assert turns.limit(ROOM, 0) == 1


def test_what_takes_too_long_to_end_is_waited_for_twice_as_long_each_time(
    turns: Turns, clock: Clock
) -> None:
    waits: list[float] = []
    for _ in range(12):
        began_at = clock()
        turns.parted([suspect("s")], 1)
        while turns.limit(ROOM, 1) == 0:
            clock.turn(0.5)
        waits.append(clock() - began_at)
        began_at = clock()
        while turns.limit(ROOM, 1) == ROOM:  # it is turned away all the time
            clock.turn(0.5)
            turns.parted([suspect("s")], 1)
        assert clock() - began_at == waits[-1]

    assert waits[0] == TURN
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


def test_once_what_runs_has_ended_a_suspect_is_taken_however_long_that_took(
    turns: Turns, clock: Clock
) -> None:
    turns.parted([suspect("s")], 1)
    clock.turn(TURN)
    assert turns.limit(ROOM, 1) == ROOM
    clock.turn(TURN)
    turns.parted([suspect("s")], 1)
    clock.turn(1.5 * TURN)
    assert turns.limit(ROOM, 1) == 0

    assert turns.limit(ROOM, 0) == 1


def test_a_suspect_that_was_run_has_the_next_one_wait_as_at_first(
    turns: Turns, clock: Clock
) -> None:
    turns.parted([suspect("s")], 1)
    clock.turn(TURN)
    assert turns.limit(ROOM, 1) == ROOM
    clock.turn(TURN)
    run_alone(turns, clock, "s", 0.0)
    assert turns.limit(ROOM, 0) == 1
    turns.parted([], 0)

    turns.parted([suspect("s2")], 1)
    clock.turn(0.9 * TURN)
    assert turns.limit(ROOM, 1) == 0
    clock.turn(0.1 * TURN)
    assert turns.limit(ROOM, 1) == ROOM


def test_where_one_task_runs_at_a_time_suspects_come_first_however_long_they_take(
    clock: Clock,
) -> None:
    turns = Turns(share=False, clock=clock)

    for number in range(5):
        run_alone(turns, clock, f"s{number}", 60.0)
        assert turns.limit(ROOM, 0) == 1
    kept, back = turns.parted([innocent("a")], 0)

    assert ([one.task_id for one in kept], back) == (["a"], [])
    assert turns.limit(ROOM, 0) == ROOM


def test_who_leaves_when_nothing_is_left_sends_no_suspect_away(clock: Clock) -> None:
    turns = Turns(share=False, clock=clock)
    turns.parted([suspect("s"), innocent("a")], 0)
    clock.turn(100 * TURN)

    assert turns.limit(ROOM, 1) == 0  # what runs is waited for, however long that takes
    assert turns.limit(ROOM, 0) == 1
    run_alone(turns, clock, "s", 2 * LONGEST_WAIT)
    assert turns.limit(ROOM, 1) == 0
    assert turns.limit(ROOM, 0) == 1


def test_no_more_is_taken_than_there_is_room_for(turns: Turns) -> None:
    turns.parted([suspect("s")], 1)

    assert turns.limit(0, 0) == 0
    assert turns.limit(0, 5) == 0
