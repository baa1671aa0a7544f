"""A task waits for its time, by the store's clock, and starts no sooner and hardly later."""

import time
from collections.abc import Callable

import pytest

from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    SOON,
    TICK,
    drain,
    ids,
    let_pass,
    push,
    skip_unless_it_delays,
    skip_unless_it_finds,
    skip_unless_it_keeps_order,
    skip_unless_it_knows_fractions,
    skip_unless_it_picks,
    skip_unless_what_is_due_joins_the_end,
    take,
    take_ready,
)

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_delay(abilities: Backend) -> None:
    skip_unless_it_delays(abilities)


def test_a_delayed_task_is_not_ready(backend: Backend) -> None:
    push(backend, "t1", delay=FAR_OFF)

    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1)


def test_a_delayed_task_comes_at_its_time(backend: Backend) -> None:
    started = time.monotonic()
    push(backend, "t1", delay=SHORT)

    held = take(backend)

    assert (held.task_id, held.deliveries) == ("t1", 1)
    assert SHORT - TICK <= time.monotonic() - started < SHORT + SOON
    assert backend.count(QUEUE) == Counts(running=1)


def test_a_task_comes_at_the_moment_it_is_due(backend: Backend) -> None:
    due_at = time.time() + SHORT
    backend.push_many(QUEUE, [Message("t1", b"", due_at=due_at)])

    take(backend)

    assert due_at - TICK <= time.time() < due_at + SOON


def test_a_task_due_in_the_past_is_ready_at_once(backend: Backend) -> None:
    an_hour_ago = time.time() - 3600
    backend.push_many(QUEUE, [Message("t1", b"", due_at=an_hour_ago), Message("t2", b"", due_at=1)])

    assert ids(take_ready(backend)) == ["t1", "t2"]


def test_a_task_with_a_delay_and_a_moment_waits_for_both(backend: Backend) -> None:
    now = time.time()
    messages = [
        Message("long delay", b"", delay=FAR_OFF, due_at=now),
        Message("far moment", b"", delay=0.05, due_at=now + FAR_OFF),
        Message("both near", b"", delay=SHORT, due_at=now + 0.05),
    ]
    backend.push_many(QUEUE, messages)

    assert take(backend).task_id == "both near"
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=2, running=1)


def test_tasks_come_in_the_order_of_their_times(backend: Backend) -> None:
    skip_unless_it_knows_fractions(backend)
    skip_unless_it_keeps_order(backend)
    push(backend, "later", delay=0.4)
    push(backend, "sooner", delay=0.1)

    assert [take(backend).task_id, take(backend).task_id] == ["sooner", "later"]


def test_a_delay_may_last_for_years(backend: Backend) -> None:
    ten_years = 10 * 365 * 86400.0
    push(backend, "t1", delay=ten_years)
    backend.push_many(QUEUE, [Message("t2", b"", due_at=time.time() + ten_years)])

    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=2)


def test_a_delayed_task_does_not_hold_up_those_behind_it(backend: Backend) -> None:
    push(backend, "t1", delay=FAR_OFF)
    push(backend, "t2", "t3")

    assert drain(backend) == ["t2", "t3"]


def test_one_push_may_mix_delayed_and_ready_tasks(backend: Backend) -> None:
    messages = [
        Message("t1", b""),
        Message("t2", b"", delay=FAR_OFF),
        Message("t3", b""),
        Message("t4", b"", delay=FAR_OFF),
    ]

    assert backend.push_many(QUEUE, messages) == [True] * 4

    assert backend.count(QUEUE) == Counts(waiting=2, delayed=2)
    assert ids(take_ready(backend)) == ["t1", "t3"]


def test_hundreds_of_tasks_fall_due_at_once(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    names = [f"t{number}" for number in range(2500)]
    push(backend, *names, delay=0.05)
    let_pass(backend, 0.1)

    assert sorted(drain(backend, limit=100)) == sorted(names)
    assert backend.count(QUEUE) == Counts()


def test_a_task_released_with_a_delay_waits_for_it(backend: Backend) -> None:
    push(backend, "t1", "t2")
    one, two = take_ready(backend)

    backend.settle([Release(one, delay=FAR_OFF), Release(two, delay=SHORT, body=b"new")])

    assert take(backend).body == b"new"
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1, running=1)


def test_a_release_with_a_delay_keeps_body_and_deliveries_as_told(backend: Backend) -> None:
    push(backend, "t1")

    backend.settle([Release(take(backend), delay=0.05, lapsed=True)])
    held = take(backend)
    assert (held.body, held.deliveries) == (b"t1", 2)

    backend.settle([Release(held, delay=0.05)])
    held = take(backend)
    assert (held.body, held.deliveries) == (b"t1", 2)

    backend.settle([Release(held, delay=0.05, body=b"new")])
    held = take(backend)
    assert (held.body, held.deliveries) == (b"new", 1)


def test_a_task_released_with_a_delay_returns_to_its_place(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2", "t3")
    one, two = take_ready(backend, 2)
    push(backend, "t4")

    backend.settle([Release(two, delay=0.05), Release(one, delay=SHORT, lapsed=True)])
    let_pass(backend, 2 * SHORT)

    assert drain(backend) == ["t1", "t2", "t3", "t4"]


def test_a_new_attempt_with_a_delay_has_no_place(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2")
    backend.settle([Release(take(backend), delay=0.05)])
    let_pass(backend, SHORT)

    backend.settle([Release(take(backend), delay=0.05, body=b"new")])  # it had kept it till now
    let_pass(backend, SHORT)

    assert drain(backend) == ["t2", "t1"]


def test_an_id_pushed_again_has_no_place_of_its_predecessor(backend: Backend) -> None:
    skip_unless_it_finds(backend)
    again = Message("t1", b"", delay=SHORT, replaces=True)
    ends: list[Callable[[], object]] = [
        lambda: backend.cancel(QUEUE, "t1"),
        lambda: backend.drop_all(QUEUE),
        lambda: backend.get(QUEUE, "t1"),
        lambda: None,
    ]
    for end in ends:
        push(backend, "t1")
        backend.settle([Release(take(backend), delay=FAR_OFF)])
        end()
        push(backend, "t2")
        backend.push_many(QUEUE, [again])
        push(backend, "t3")
        let_pass(backend, 2 * SHORT)

        assert drain(backend) == ["t2", "t3", "t1"]


def test_a_delay_counts_from_the_release_and_not_from_the_push(backend: Backend) -> None:
    push(backend, "t1", delay=SHORT)
    held = take(backend)
    started = time.monotonic()

    backend.settle([Release(held, delay=SHORT)])
    take(backend)

    assert time.monotonic() - started >= SHORT - TICK


# A task that has left its state early is not led back there by its old time.


def test_a_canceled_task_pushed_again_with_a_delay_does_not_start_early(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")
    backend.cancel(QUEUE, "t1")
    push(backend, "t1", delay=FAR_OFF)

    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1)


def test_a_canceled_delay_does_not_start_the_tasks_next_one(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", delay=0.05)
    backend.cancel(QUEUE, "t1")
    push(backend, "t1", delay=FAR_OFF)
    push(backend, "after the first time", delay=0.1)

    assert take(backend).task_id == "after the first time"
    assert take_ready(backend) == []


def test_a_canceled_delay_does_not_start_a_task_twice(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", delay=0.05)
    backend.cancel(QUEUE, "t1")
    push(backend, "t1")
    push(backend, "after the first time", delay=0.1)

    assert take(backend).task_id == "t1"
    assert take(backend).task_id == "after the first time"
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(running=2)


def test_a_task_reserved_before_its_time_is_not_handed_out_again_at_it(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", delay=0.05)
    early = backend.reserve_task(QUEUE, "t1", "early")
    push(backend, "after its time", delay=0.1)

    assert take(backend).task_id == "after its time"
    assert take_ready(backend) == []
    assert early is not None
    assert backend.settle([Ack(early)]) == []


def test_a_task_dropped_and_pushed_with_a_delay_does_not_start_early(backend: Backend) -> None:
    push(backend, "t1")
    push(backend, "t2", delay=0.05)
    backend.drop_all(QUEUE)
    push(backend, "t1", "t2", delay=FAR_OFF)
    push(backend, "after the first time", delay=0.1)

    assert take(backend).task_id == "after the first time"
    assert take_ready(backend) == []


def test_a_dead_letter_of_a_delayed_task_is_retried_at_once(backend: Backend) -> None:
    push(backend, "t1", delay=0.05)
    backend.settle([Bury(take(backend), "note")])

    backend.retry_dead(QUEUE, [letter.letter_id for letter in backend.dead(QUEUE)])

    assert ids(take_ready(backend)) == ["t1"]


def test_a_task_whose_time_has_come_joins_the_end(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    skip_unless_it_keeps_order(backend)
    push(backend, "later", delay=SHORT)
    push(backend, "first", "second")
    let_pass(backend, 2 * SHORT)

    assert drain(backend) == ["first", "second", "later"]
