"""Tasks are taken out before they start: one by its id, or all of a queue."""

from alligator.backends.base import Ack, Backend, Counts, Message, Release
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    buried,
    drain,
    ids,
    push,
    skip_if_it_names_tasks,
    skip_unless_dropping_spares_what_runs,
    skip_unless_it_delays,
    skip_unless_it_picks,
    take,
    take_ready,
)


def test_a_waiting_task_is_canceled(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2", "t3")

    assert backend.cancel(QUEUE, "t2") == b"t2"

    assert backend.count(QUEUE) == Counts(waiting=2)
    assert drain(backend) == ["t1", "t3"]


def test_a_delayed_task_is_canceled(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    skip_unless_it_delays(backend)
    push(backend, "t1", delay=FAR_OFF)

    assert backend.cancel(QUEUE, "t1") == b"t1"
    assert backend.count(QUEUE) == Counts()


def test_a_task_is_canceled_once(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")
    backend.cancel(QUEUE, "t1")

    assert backend.cancel(QUEUE, "t1") is None


def test_a_task_that_is_held_is_not_canceled(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")
    held = take(backend)

    assert backend.cancel(QUEUE, "t1") is None

    assert backend.settle([Release(held)]) == []
    assert backend.cancel(QUEUE, "t1") == b"t1"


def test_what_is_unknown_or_elsewhere_is_not_canceled(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", to="other")

    assert backend.cancel(QUEUE, "t1") is None
    assert backend.cancel("never-used", "t1") is None
    assert backend.count("other") == Counts(waiting=1)


def test_a_canceled_task_may_be_pushed_again_and_joins_the_end(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2")
    backend.cancel(QUEUE, "t1")

    assert backend.push_many(QUEUE, [Message("t1", b"new")]) == [True]

    assert [held.body for held in take_ready(backend)] == [b"t2", b"new"]


def test_canceling_all_one_by_one_leaves_an_empty_queue(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    names = [f"t{number}" for number in range(200)]
    push(backend, *names)

    assert [backend.cancel(QUEUE, name) for name in names] == [name.encode() for name in names]

    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts()
    push(backend, "next")
    assert drain(backend) == ["next"]


def test_dropping_all_takes_out_what_waits_and_what_is_delayed(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    skip_unless_it_delays(backend)
    push(backend, "t1", "t2")
    push(backend, "t3", delay=FAR_OFF)

    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts()
    assert take_ready(backend) == []
    assert backend.cancel(QUEUE, "t3") is None


def test_dropping_all_leaves_what_runs_and_dead_letters(backend: Backend) -> None:
    skip_unless_dropping_spares_what_runs(backend)
    buried(backend, "dead")
    push(backend, "held", "released", "waiting")
    held, released = take_ready(backend, 2)

    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts(running=2, dead=1)
    assert backend.settle([Ack(held), Release(released)]) == []
    assert drain(backend) == ["released"]
    assert backend.count(QUEUE) == Counts(dead=1)


def test_dropping_all_leaves_other_queues_alone(backend: Backend) -> None:
    push(backend, "t1")
    push(backend, "t1", to="other")

    backend.drop_all(QUEUE)
    backend.drop_all("never-used")

    assert drain(backend, of="other") == ["t1"]


def test_what_was_dropped_may_be_pushed_again(backend: Backend) -> None:
    push(backend, "t1", "t2")
    backend.drop_all(QUEUE)

    assert push(backend, "t2", "t1") == [True, True]
    assert drain(backend) == ["t2", "t1"]


def test_dropping_ten_thousand_tasks_drops_them_all(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    skip_unless_dropping_spares_what_runs(backend)
    push(backend, *(f"t{number}" for number in range(10_000)))
    held = take(backend)

    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts(running=1)
    assert push(backend, "t5", "t0") == [True, False]
    assert backend.settle([Release(held)]) == []
    assert ids(take_ready(backend)) == ["t0", "t5"]
