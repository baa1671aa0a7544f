"""A hand-out is settled once, by who holds it, and by nobody else."""

from collections.abc import Callable

import pytest

from alligator.backends.base import (
    Ack,
    Backend,
    Bury,
    Counts,
    Message,
    Release,
    Reservation,
    Settlement,
)
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    drain,
    ids,
    lapsed,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_keeps_order,
    skip_unless_it_picks,
    take,
    take_ready,
)


def test_a_task_that_is_acknowledged_is_gone(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")

    assert backend.settle([Ack(take(backend))]) == []

    assert backend.count(QUEUE) == Counts()
    assert take_ready(backend) == []
    assert backend.cancel(QUEUE, "t1") is None


def test_nothing_to_settle_is_fine(backend: Backend) -> None:
    assert backend.settle([]) == []
    assert backend.extend([], 60.0) == []


def test_a_batch_is_settled_each_task_in_its_own_way(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2", "t3", "t4", "t5")
    one, two, three, four, five = take_ready(backend)

    late = backend.settle(
        [
            Bury(four, "note"),
            Ack(one),
            Release(two),
            Release(five, body=b"new"),
            Release(three),
        ]
    )

    assert late == []
    assert backend.count(QUEUE) == Counts(waiting=3, dead=1)
    assert [held.body for held in take_ready(backend)] == [b"t2", b"t3", b"new"]


def test_a_part_of_a_batch_can_be_settled_and_the_rest_later(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")
    one, two, three = take_ready(backend)

    assert backend.settle([Ack(two)]) == []
    assert backend.count(QUEUE) == Counts(running=2)
    assert backend.settle([Ack(three), Ack(one)]) == []
    assert backend.count(QUEUE) == Counts()


# What a release means for the task's place, body and deliveries.


def test_a_task_released_as_it_was_returns_to_its_place(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2", "t3", "t4")
    one, two, three = take_ready(backend, 3)

    backend.settle([Release(three)])
    backend.settle([Release(one), Release(two)])

    assert drain(backend) == ["t1", "t2", "t3", "t4"]


def test_a_task_released_as_it_was_counts_no_delivery(backend: Backend) -> None:
    push(backend, "t1")
    for _ in range(3):
        backend.settle([Release(take(backend))])

    held = take(backend)

    assert (held.deliveries, held.body) == (1, b"t1")


def test_a_task_released_as_lapsed_counts_a_delivery(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2")
    backend.settle([Release(take(backend), lapsed=True)])
    held = take(backend)
    assert (held.task_id, held.deliveries) == ("t1", 2)

    backend.settle([Release(held, lapsed=True)])
    held = take(backend)
    assert (held.task_id, held.deliveries) == ("t1", 3)

    backend.settle([Release(held)])
    assert take(backend).deliveries == 3


def test_a_new_attempt_joins_the_end_with_its_new_body_and_no_deliveries(backend: Backend) -> None:
    push(backend, "t1", "t2")
    backend.settle([Release(take(backend), lapsed=True)])
    held = take(backend)
    assert (held.task_id, held.deliveries) == ("t1", 2)

    backend.settle([Release(held, body=b"one retry fewer")])

    second, first = take_ready(backend)
    assert (second.task_id, first.task_id) == ("t2", "t1")
    assert (first.body, first.deliveries) == (b"one retry fewer", 1)


def test_a_new_attempt_keeps_its_place_at_the_end_when_released_again(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    push(backend, "t1", "t2")
    backend.settle([Release(take(backend), body=b"new")])
    push(backend, "t3")
    held = take_ready(backend)
    assert ids(held) == ["t2", "t1", "t3"]

    backend.settle([Release(one) for one in reversed(held)])

    assert drain(backend) == ["t2", "t1", "t3"]


def test_an_empty_body_is_a_new_body(backend: Backend) -> None:
    push(backend, "t1", "t2")

    backend.settle([Release(take(backend), body=b"")])

    assert [(held.task_id, held.body) for held in take_ready(backend)] == [
        ("t2", b"t2"),
        ("t1", b""),
    ]


# Who is late changes nothing.

SettleAs = Callable[[Reservation], Settlement]

LATE: dict[str, SettleAs] = {
    "ack": Ack,
    "release": Release,
    "release as lapsed": lambda held: Release(held, lapsed=True),
    "release with a delay": lambda held: Release(held, delay=FAR_OFF),
    "release with a body": lambda held: Release(held, body=b"stale"),
    "bury": lambda held: Bury(held, "stale"),
}


@pytest.fixture(params=LATE.values(), ids=[*LATE])
def settle_as(request: pytest.FixtureRequest) -> SettleAs:
    """Each way to settle a reservation."""
    kind: SettleAs = request.param
    return kind


def test_who_settles_late_leaves_the_new_holder_its_task(
    backend: Backend, settle_as: SettleAs
) -> None:
    slow, fresh = lapsed(backend, "t1")
    settlement = settle_as(slow)

    late = backend.settle([settlement])

    assert len(late) == 1
    assert late[0] is settlement
    assert backend.count(QUEUE) == Counts(running=1)
    assert backend.extend([fresh], 60.0) == []
    assert backend.settle([Release(fresh)]) == []
    again = take(backend)
    assert (again.body, again.deliveries) == (b"t1", 2)


def test_who_settles_twice_is_late_the_second_time(backend: Backend, settle_as: SettleAs) -> None:
    push(backend, "t1")
    held = take(backend)
    assert backend.settle([Ack(held)]) == []

    settlement = settle_as(held)

    assert backend.settle([settlement]) == [settlement]
    assert backend.count(QUEUE) == Counts()


def test_of_two_settlements_in_one_call_the_first_counts(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)

    assert backend.settle([Bury(held, "note"), Ack(held)]) == [Ack(held)]
    assert backend.count(QUEUE) == Counts(dead=1)


def test_an_id_pushed_anew_is_safe_from_its_predecessors_worker(
    backend: Backend, settle_as: SettleAs
) -> None:
    push(backend, "t1")
    old = take(backend, worker="one")
    backend.settle([Ack(old)])
    push(backend, "t1")

    assert backend.settle([settle_as(old)]) == [settle_as(old)]
    new = take(backend, worker="one")
    assert backend.settle([settle_as(old)]) == [settle_as(old)]
    assert backend.settle([Ack(new)]) == []


def test_a_worker_is_late_also_when_it_got_the_task_anew_itself(backend: Backend) -> None:
    push(backend, "t1")
    old = take(backend, worker="one", lease=0.05)
    new = take(backend, worker="one")

    assert backend.settle([Ack(old)]) == [Ack(old)]
    assert backend.settle([Ack(new)]) == []


def test_late_and_timely_settlements_of_one_call_do_not_hinder_each_other(
    backend: Backend,
) -> None:
    slow, fresh = lapsed(backend, "t1")
    push(backend, "t2", "t3")
    two, three = take_ready(backend)
    settlements: list[Settlement] = [Ack(two), Ack(slow), Release(three, body=b"x"), Bury(slow, "")]

    late = backend.settle(settlements)

    assert [id(settlement) for settlement in late] == [id(settlements[1]), id(settlements[3])]
    assert backend.count(QUEUE) == Counts(waiting=1, running=1)
    assert backend.settle([Ack(fresh)]) == []


def test_a_settlement_of_what_was_never_handed_out_so_is_late(
    backend: Backend, settle_as: SettleAs
) -> None:
    skip_if_it_names_tasks(backend)
    push(backend, "t1")
    push(backend, "t1", to="other")
    held = take(backend)

    for unheld in [
        held._replace(token="nobody.1"),
        held._replace(token=""),
        held._replace(task_id="t2"),
        held._replace(queue_name="other"),
        held._replace(queue_name="unknown"),
    ]:
        assert backend.settle([settle_as(unheld)]) == [settle_as(unheld)]
        assert backend.extend([unheld], 60.0) == [unheld]

    assert backend.settle([Ack(held)]) == []
    assert drain(backend, of="other") == ["t1"]


def test_queue_id_and_token_are_all_that_settling_needs(backend: Backend) -> None:
    # A keeper knows no more of what its worker holds.
    backend.push_many(
        QUEUE, [Message("t1", b"one"), Message("t2", b"two"), Message("t3", b"three")]
    )
    one, two, three = (
        Reservation(QUEUE, held.task_id, b"", held.token) for held in take_ready(backend)
    )

    assert backend.extend([one, two, three], 60.0) == []
    assert backend.settle([Ack(one), Release(two), Bury(three, "note")]) == []

    assert take(backend).body == b"two"
    assert [letter.body for letter in backend.dead(QUEUE)] == [b"three"]
