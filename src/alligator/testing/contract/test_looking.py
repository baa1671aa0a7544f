"""A store tells what it holds, and looking changes nothing."""

from alligator.backends.base import Ack, Backend, Bury, Counts, Release
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    buried,
    drain,
    push,
    skip_unless_it_delays,
    skip_unless_it_makes_queues,
    skip_unless_it_picks,
    skip_unless_others_settle,
    take,
    take_ready,
)


def test_tasks_are_counted_by_state(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    push(backend, "t1", "t2", "t3", "t4", "t5", "t6")
    push(backend, "t7", "t8", delay=FAR_OFF)
    one, two, _ = take_ready(backend, 3)
    backend.settle([Bury(one, ""), Release(two, delay=FAR_OFF)])

    assert backend.count(QUEUE) == Counts(waiting=3, delayed=3, running=1, dead=1)


def test_an_unknown_queue_counts_nothing(backend: Backend) -> None:
    assert backend.count("never-used") == Counts()


def test_a_count_returns_to_nothing_when_all_is_done(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2", "t3")
    one, two, three = take_ready(backend)
    backend.settle([Ack(one), Release(two), Bury(three, "")])
    backend.cancel(QUEUE, "t2")
    backend.purge_dead(QUEUE, [letter.letter_id for letter in backend.dead(QUEUE)])

    assert backend.count(QUEUE) == Counts()


def test_queues_are_listed_whatever_state_their_tasks_are_in(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    push(backend, "t1", to="waiting")
    push(backend, "t1", to="a running one")
    take(backend, of="a running one")
    buried(backend, "t1", of="one of the dead")
    if backend.can_delay:
        push(backend, "t1", to="delayed", delay=FAR_OFF)

    names = backend.queues()

    assert names == sorted(names)
    assert {"waiting", "a running one", "one of the dead"} <= set(names)
    assert ("delayed" in names) == backend.can_delay


def test_a_queue_only_looked_at_is_not_listed(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    backend.count("never-used")
    backend.len("never-used")
    backend.dead("never-used")
    backend.reserve(["never-used"], "w")
    backend.cancel("never-used", "t1")
    backend.drop_all("never-used")
    backend.recover(["never-used"], "w")

    assert backend.queues() == []


def test_length_counts_what_has_not_been_handed_out(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    buried(backend, "dead")
    push(backend, "t1", "t2")
    push(backend, "t3", delay=FAR_OFF)
    assert backend.len(QUEUE) == 3

    held = take(backend)
    assert backend.len(QUEUE) == 2

    backend.settle([Release(held)])
    assert backend.len(QUEUE) == 3
    assert backend.len("never-used") == 0


def test_a_client_that_was_closed_opens_again(backend: Backend) -> None:
    skip_unless_others_settle(backend)
    skip_unless_it_makes_queues(backend)
    push(backend, "t1", "t2")
    held = take(backend)

    backend.close()
    backend.close()

    assert backend.settle([Ack(held)]) == []
    assert take(backend).task_id == "t2"
    assert backend.queues() == [QUEUE]


def test_a_queue_that_is_forgotten_is_not_listed_and_can_be_used_again(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    push(backend, "t1", "t2")
    backend.forget(QUEUE)  # it is not empty
    assert drain(backend) == ["t1", "t2"]

    backend.forget(QUEUE)

    assert QUEUE not in backend.queues()
    push(backend, "t3")
    assert QUEUE in backend.queues()
    assert drain(backend) == ["t3"]


def test_a_store_that_is_set_up_well_warns_of_nothing(backend: Backend) -> None:
    assert backend.warnings() == []
