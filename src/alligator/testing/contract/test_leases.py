"""What a worker holds comes back when it does not settle it: by its lease, or by recover."""

import time

from alligator.backends.base import Ack, Backend, Bury, Counts, Release
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    SOON,
    TICK,
    drain,
    ids,
    lapsed,
    let_pass,
    push,
    skip_unless_it_picks,
    skip_unless_it_recovers,
    skip_unless_what_is_due_joins_the_end,
    take,
    take_ready,
)

LEASE = 0.05


# A lease that lapses.


def test_a_task_comes_back_when_its_lease_lapses(backend: Backend) -> None:
    push(backend, "t1")
    started = time.monotonic()
    take(backend, lease=0.15)

    again = take(backend)

    assert (again.task_id, again.body) == ("t1", b"t1")
    assert 0.15 - TICK <= time.monotonic() - started < 0.15 + SOON


def test_a_lapse_counts_a_delivery(backend: Backend) -> None:
    push(backend, "t1")

    assert [take(backend, lease=LEASE).deliveries for _ in range(4)] == [1, 2, 3, 4]


def test_an_outcome_ends_the_count_of_deliveries(backend: Backend) -> None:
    _, fresh = lapsed(backend, "t1")
    assert fresh.deliveries == 2
    backend.settle([Ack(fresh)])

    push(backend, "t1")
    assert take(backend).deliveries == 1


def test_lapsed_tasks_come_back_to_their_place_in_order(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3", "t4", "t5")
    take_ready(backend, 3, lease=LEASE)
    let_pass(backend, 2 * LEASE)

    came = [(held.task_id, held.deliveries) for held in take_ready(backend)]

    assert came == [("t1", 2), ("t2", 2), ("t3", 2), ("t4", 1), ("t5", 1)]


def test_of_a_batch_only_what_is_not_settled_lapses(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3", "t4", "t5")
    one, two, three, four, five = take_ready(backend)
    backend.settle([Ack(one), Bury(two, "note"), Release(four), Release(five, body=b"new")])
    backend.extend([three], LEASE)
    let_pass(backend, 2 * LEASE)

    came = [(held.task_id, held.deliveries) for held in take_ready(backend)]

    assert came == [("t3", 2), ("t4", 1), ("t5", 1)]


def test_each_hand_out_lapses_at_its_own_time(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2", "t3")
    for name, lease in [("t1", 60.0), ("t2", 2 * LEASE), ("t3", LEASE)]:
        assert backend.reserve_task(QUEUE, name, "died", lease) is not None
    let_pass(backend, 3 * LEASE)

    assert ids(take_ready(backend)) == ["t2", "t3"]
    assert backend.count(QUEUE) == Counts(running=3)


def test_hundreds_of_tasks_of_many_hand_outs_lapse_at_once(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1500)]
    push(backend, *names)
    held = take_ready(backend, 1000)
    for _ in range(20):
        held += take_ready(backend, 10)
    assert backend.extend(held, LEASE) == []
    let_pass(backend, 2 * LEASE)

    # A store may take them back bit by bit, so their order is not certain.
    assert sorted(drain(backend, limit=100)) == sorted(names)


def test_a_lapse_is_noticed_by_whoever_looks_at_the_queue(backend: Backend) -> None:
    push(backend, "t1", to="low")
    push(backend, "t2", to="high")
    take(backend, of="low", worker="died", lease=LEASE)
    take(backend, of="high", worker="died", lease=LEASE)

    batch = [take(backend, of="low"), take(backend, of="high")]

    assert [(held.task_id, held.deliveries) for held in batch] == [("t1", 2), ("t2", 2)]


# Extending.


def test_an_extended_lease_lasts_and_others_lapse(backend: Backend) -> None:
    push(backend, "kept", "left")
    kept = take(backend, worker="one", lease=0.5)
    take(backend, worker="one", lease=0.5)  # not named below

    assert backend.extend([kept], 60.0) == []

    again = take(backend)
    assert (again.task_id, again.deliveries) == ("left", 2)
    assert take_ready(backend) == []
    assert backend.settle([Ack(kept)]) == []


def test_naming_a_settled_task_extends_nothing(backend: Backend) -> None:
    push(backend, "done", "left")
    done, _ = backend.reserve([QUEUE], "one", limit=2, lease=LEASE).reservations
    backend.settle([Ack(done)])

    assert backend.extend([done], 60.0) == [done]
    assert take(backend).task_id == "left"


def test_no_limit_below_one_hands_anything_out(backend: Backend) -> None:
    push(backend, "t1")

    for limit in (0, -1):
        assert backend.reserve([QUEUE], "one", limit=limit).reservations == []
        assert backend.dead(QUEUE, limit=limit) == []


def test_an_extension_counts_from_now(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend, lease=60.0)

    backend.extend([held], LEASE)

    assert take(backend).deliveries == 2
    assert backend.extend([held], 60.0) == [held]


def test_a_late_extension_is_reported_and_takes_nothing_away(backend: Backend) -> None:
    slow, fresh = lapsed(backend, "t1")
    push(backend, "t2", "t3")
    two, done = take_ready(backend)
    backend.settle([Ack(done)])

    gone = backend.extend([slow, two, done], FAR_OFF)

    assert [id(held) for held in gone] == [id(slow), id(done)]
    assert backend.settle([Ack(fresh), Ack(two)]) == []


def test_a_late_extension_does_not_move_the_new_holders_lease(backend: Backend) -> None:
    push(backend, "t1")
    slow = take(backend, worker="slow", lease=LEASE)
    take(backend, worker="fresh", lease=0.15)

    assert backend.extend([slow], FAR_OFF) == [slow]

    assert take(backend, worker="third").deliveries == 3


def test_extending_what_is_settled_brings_nothing_back(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)
    backend.settle([Release(held)])

    assert backend.extend([held], 60.0) == [held]
    assert backend.count(QUEUE) == Counts(waiting=1)


# Recovering what a dead worker held.


def test_recovered_tasks_are_ready_at_once(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    push(backend, "t1", "t2", "t3")
    take(backend, worker="dead", lease=FAR_OFF)
    take(backend, worker="dead", lease=FAR_OFF)

    assert backend.recover([QUEUE], "dead") == 2

    assert backend.count(QUEUE) == Counts(waiting=3)
    assert ids(take_ready(backend)) == ["t1", "t2", "t3"]


def test_only_what_a_dead_worker_had_started_counts_a_delivery(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    skip_unless_it_recovers(backend)
    push(backend, "t1", "t2", "t3")
    assert len(backend.reserve([QUEUE], "dead", limit=3).reservations) == 3

    assert backend.recover([QUEUE], "dead", started={"t2", "unknown"}) == 3

    held = take_ready(backend)
    assert [(one.task_id, one.deliveries) for one in held] == [("t1", 1), ("t2", 2), ("t3", 1)]


def test_recovering_leaves_other_workers_their_tasks(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    push(backend, "t1", "t2", "t3")
    take(backend, worker="dead")
    alive = take(backend, worker="alive")
    longer_name = take(backend, worker="dead-or-alive")

    assert backend.recover([QUEUE], "dead", started=["t1", "t2", "t3"]) == 1

    assert backend.count(QUEUE) == Counts(waiting=1, running=2)
    assert backend.settle([Ack(alive), Ack(longer_name)]) == []


def test_recovering_looks_through_all_queues_named(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    for name in ["high", "low", "other"]:
        push(backend, "t1", to=name)
        take(backend, of=name, worker="dead")

    assert backend.recover(["high", "low"], "dead", started=["t1"]) == 2

    assert take(backend, of="high").deliveries == 2
    assert take(backend, of="low").deliveries == 2
    assert backend.count("other") == Counts(running=1)


def test_what_is_of_another_queue_can_be_recovered_afterwards(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    names = ["high", "low"]
    for name in names:
        push(backend, "t1", to=name)
    held = backend.reserve(names, "dead", limit=2, lease=FAR_OFF).reservations
    assert [one.queue_name for one in held] == names

    assert backend.recover(["low"], "dead", started=["t1"]) == 1
    assert backend.count("high") == Counts(running=1)
    assert backend.extend([held[0]], FAR_OFF) == []
    assert backend.recover(["high"], "dead") == 1

    assert take(backend, of="high").deliveries == 1
    assert take(backend, of="low").deliveries == 2


def test_recovering_a_worker_that_holds_nothing_does_nothing(backend: Backend) -> None:
    push(backend, "t1", "t2")
    backend.settle([Ack(take(backend, worker="dead"))])

    assert backend.recover([QUEUE, "never used"], "dead", started=["t1", "t2"]) == 0
    assert backend.recover([QUEUE], "unknown") == 0
    assert backend.recover([], "dead") == 0

    assert take(backend).deliveries == 1


def test_recovering_twice_counts_one_delivery(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    push(backend, "t1")
    take(backend, worker="dead")

    assert backend.recover([QUEUE], "dead", started=["t1"]) == 1
    assert backend.recover([QUEUE], "dead", started=["t1"]) == 0

    assert take(backend).deliveries == 2


def test_a_worker_declared_dead_too_soon_is_late(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    push(backend, "t1")
    slow = take(backend, worker="not dead")
    backend.recover([QUEUE], "not dead", started=["t1"])

    assert backend.settle([Ack(slow)]) == [Ack(slow)]
    assert backend.extend([slow], 60.0) == [slow]
    fresh = take(backend, worker="fresh")
    assert backend.settle([Bury(slow, "stale")]) == [Bury(slow, "stale")]
    assert backend.settle([Ack(fresh)]) == []
    assert drain(backend) == []


def test_recovering_gives_back_all_of_hundreds_of_tasks(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    names = [f"t{number}" for number in range(1500)]
    push(backend, *names)
    for limit in [1, 499, 1000]:
        assert len(backend.reserve([QUEUE], "dead", limit=limit).reservations) == limit

    assert backend.recover([QUEUE], "dead") == 1500

    assert drain(backend, limit=500) == names
