"""A reserve hands out what is ready, first in, first out, and hides it."""

from uuid import uuid4

from alligator.backends.base import (
    MAX_TOKEN_BYTES,
    Ack,
    Backend,
    Bury,
    Counts,
    Message,
    Release,
    Reservation,
)
from alligator.testing.running import in_a_thread
from alligator.testing.stores import (
    FAR_OFF,
    LONG,
    PATIENCE,
    QUEUE,
    WORKER,
    drain,
    ids,
    push,
    skip_unless_it_delays,
    skip_unless_it_keeps_order,
    skip_unless_it_picks,
    take,
    take_ready,
    until,
)


def test_tasks_come_in_the_order_they_were_pushed(backend: Backend) -> None:
    for name in ["t3", "t1", "t2"]:
        push(backend, name)
    push(backend, "t9", "t0")

    assert [take(backend).task_id for _ in range(5)] == ["t3", "t1", "t2", "t9", "t0"]


def test_a_reservation_says_what_was_handed_out(backend: Backend) -> None:
    backend.push_many("mail", [Message("t1", b'{"a": 1}')])

    held = take(backend, of="mail")

    assert (held.queue_name, held.task_id, held.body) == ("mail", "t1", b'{"a": 1}')
    assert held.deliveries == 1
    assert held.token


def test_what_is_held_is_handed_out_to_nobody_else(backend: Backend) -> None:
    push(backend, "t1")
    take(backend, worker="one")

    assert backend.reserve([QUEUE], "one").reservations == []
    assert backend.reserve([QUEUE], "two").reservations == []
    assert backend.count(QUEUE) == Counts(running=1)


def test_an_empty_queue_hands_out_nothing_at_once(backend: Backend) -> None:
    batch = backend.reserve(["other"], WORKER)

    assert (batch.reservations, batch.late) == ([], [])


def test_a_batch_is_no_larger_than_its_limit(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3", "t4", "t5")

    assert ids(take_ready(backend, 2)) == ["t1", "t2"]
    assert ids(take_ready(backend, 1)) == ["t3"]
    assert ids(take_ready(backend, 100)) == ["t4", "t5"]
    assert take_ready(backend, 100) == []


def test_one_task_is_the_default_limit(backend: Backend) -> None:
    push(backend, "t1", "t2")

    assert ids(backend.reserve([QUEUE], WORKER).reservations) == ["t1"]


def test_a_queue_comes_only_when_those_before_it_are_empty(backend: Backend) -> None:
    push(backend, "l1", "l2", to="low")
    push(backend, "h1", "h2", to="high")
    push(backend, "m1", to="middle")
    order = ["high", "middle", "low"]

    def next_id() -> str:
        [held] = backend.reserve(order, WORKER).reservations
        return held.task_id

    assert [next_id(), next_id(), next_id(), next_id()] == ["h1", "h2", "m1", "l1"]
    push(backend, "h3", to="high")
    assert [next_id(), next_id()] == ["h3", "l2"]


def test_a_batch_may_span_queues_in_their_order(backend: Backend) -> None:
    push(backend, "l1", "l2", "l3", to="low")
    push(backend, "h1", "h2", to="high")

    batch = backend.reserve(["high", "low"], WORKER, limit=4).reservations

    assert [(held.queue_name, held.task_id) for held in batch] == [
        ("high", "h1"),
        ("high", "h2"),
        ("low", "l1"),
        ("low", "l2"),
    ]
    assert backend.settle([Ack(held) for held in batch]) == []
    assert drain(backend, of="low") == ["l3"]


def test_a_queue_not_named_is_left_alone(backend: Backend) -> None:
    push(backend, "t1", to="other")

    assert backend.reserve(["high", "low"], WORKER, limit=10).reservations == []
    assert backend.count("other") == Counts(waiting=1)


def test_a_thousand_tasks_are_held_and_settled_at_once(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1500)]
    push(backend, *names)

    held = take_ready(backend, 1000)

    assert ids(held) == names[:1000]
    assert backend.count(QUEUE) == Counts(waiting=500, running=1000)
    assert backend.extend(held, 60.0) == []
    assert backend.settle([Ack(one) for one in held]) == []
    assert backend.count(QUEUE) == Counts(waiting=500)


def test_a_limit_beyond_all_bounds_loses_nothing(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    names = [f"t{number}" for number in range(9000)]
    push(backend, *names)

    # A store may hand out fewer than it could.
    done: list[str] = []
    while held := take_ready(backend, 100_000):
        done += ids(held)
        assert backend.settle([Ack(one) for one in held]) == []

    assert done == names
    assert backend.count(QUEUE) == Counts()


def test_each_hand_out_has_a_token_of_its_own(backend: Backend) -> None:
    tokens: set[str] = set()
    for _ in range(10):
        push(backend, "t1")
        held = take(backend)
        tokens.add(held.token)
        backend.settle([Ack(held)])

    assert len(tokens) == 10


def test_a_token_fits_on_a_workers_board(backend: Backend) -> None:
    push(backend, "t1", "t2")

    for held in take_ready(backend):
        assert held.token.isprintable()
        assert len(held.token.encode()) <= MAX_TOKEN_BYTES


# Settling and reserving in one call.


def test_finished_tasks_are_settled_although_nothing_is_ready(backend: Backend) -> None:
    push(backend, "t1", "t2")
    done, failed = take_ready(backend)

    batch = backend.reserve([QUEUE], WORKER, settlements=[Ack(done), Bury(failed, "note")])

    assert (batch.reservations, batch.late) == ([], [])
    assert backend.count(QUEUE) == Counts(dead=1)


def test_finished_tasks_are_settled_where_their_queue_is_not_looked_at(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)
    push(backend, "t2", to="other")

    batch = backend.reserve(["other"], WORKER, settlements=[Ack(held)])

    assert (ids(batch.reservations), batch.late) == (["t2"], [])
    assert backend.count(QUEUE) == Counts()


def test_finished_tasks_are_settled_although_no_more_are_wanted(backend: Backend) -> None:
    push(backend, "t1", "t2")
    held = take(backend)

    batch = backend.reserve([QUEUE], WORKER, limit=0, settlements=[Ack(held)])

    assert (batch.reservations, batch.late) == ([], [])
    assert backend.count(QUEUE) == Counts(waiting=1)


def test_what_is_released_can_be_handed_out_by_the_same_call(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)

    batch = backend.reserve([QUEUE], WORKER, settlements=[Release(held, body=b"again")])

    assert [(again.task_id, again.body) for again in batch.reservations] == [("t1", b"again")]
    assert batch.late == []


def test_a_reserve_reports_what_it_settled_too_late(backend: Backend) -> None:
    push(backend, "t1", "t2")
    first, second = take_ready(backend)
    backend.settle([Ack(first)])
    too_late, in_time = Ack(first), Ack(second)
    push(backend, "t3")

    batch = backend.reserve([QUEUE], WORKER, settlements=[too_late, in_time])

    assert ids(batch.reservations) == ["t3"]
    assert len(batch.late) == 1
    assert batch.late[0] is too_late


def test_a_reserve_that_waits_settles_first_and_once(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)

    with in_a_thread(
        lambda: backend.reserve([QUEUE], WORKER, wait=LONG, settlements=[Ack(held)])
    ) as waiting:
        until(lambda: backend.count(QUEUE) == Counts(), "the ack of one who waits")
        push(backend, "t2")
        batch = waiting.result(PATIENCE)

    assert (ids(batch.reservations), batch.late) == (["t2"], [])


# One task by its id.


def test_a_task_can_be_reserved_by_its_id_out_of_turn(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2", "t3")

    held = backend.reserve_task(QUEUE, "t2", WORKER)

    assert held is not None
    assert (held.queue_name, held.task_id, held.body) == (QUEUE, "t2", b"t2")
    assert held.deliveries == 1
    assert backend.count(QUEUE) == Counts(waiting=2, running=1)
    assert drain(backend) == ["t1", "t3"]
    assert backend.settle([Ack(held)]) == []


def test_a_delayed_task_can_be_reserved_by_its_id(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    skip_unless_it_delays(backend)
    push(backend, "t1", delay=FAR_OFF)

    held = backend.reserve_task(QUEUE, "t1", WORKER)

    assert held is not None
    assert backend.count(QUEUE) == Counts(running=1)
    assert backend.settle([Release(held)]) == []
    assert drain(backend) == ["t1"]


def test_no_task_is_reserved_by_an_id_that_is_unknown_held_or_done(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", to="other")
    push(backend, "t1")
    held = take(backend)

    assert backend.reserve_task(QUEUE, "t1", WORKER) is None
    assert backend.reserve_task(QUEUE, "t2", WORKER) is None
    backend.settle([Ack(held)])
    assert backend.reserve_task(QUEUE, "t1", WORKER) is None
    assert backend.count("other") == Counts(waiting=1)


def test_a_task_reserved_by_its_id_comes_back_when_its_lease_lapses(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")
    slow = backend.reserve_task(QUEUE, "t1", str(uuid4()), lease=0.05)

    fresh = take(backend)

    assert isinstance(slow, Reservation)
    assert (fresh.task_id, fresh.deliveries) == ("t1", 2)
    assert backend.settle([Ack(slow)]) == [Ack(slow)]
    assert backend.settle([Ack(fresh)]) == []
