"""A push may say how many tasks its queue shall have at the most."""

from collections.abc import Callable

import pytest

from alligator.backends.base import NEVER, Ack, Backend, Counts, Follow, Message
from alligator.exceptions import BackendRefused, QueueFull
from alligator.testing.running import in_processes, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    buried,
    drain,
    ids,
    opened,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_delays,
    skip_unless_it_finds,
    skip_unless_it_limits_exactly,
    skip_unless_it_makes_queues,
    skip_unless_it_picks,
    take,
    take_ready,
)


def push_up_to(backend: Backend, max_length: int, *task_ids: str, to: str = QUEUE) -> list[bool]:
    """Push tasks where there is room for them."""
    return backend.push_many(to, [Message(name, b"") for name in task_ids], max_length=max_length)


def fits(backend: Backend, max_length: int, *task_ids: str) -> bool:
    """Push tasks; return whether there was room."""
    try:
        assert push_up_to(backend, max_length, *task_ids) == [True] * len(task_ids)
    except QueueFull:
        return False
    return True


def test_a_queue_takes_as_many_as_it_may_have(backend: Backend) -> None:
    assert push_up_to(backend, 3, "t1", "t2") == [True, True]
    assert push_up_to(backend, 3, "t3") == [True]

    with pytest.raises(QueueFull):
        push_up_to(backend, 3, "t4")

    assert backend.count(QUEUE) == Counts(waiting=3)
    assert drain(backend) == ["t1", "t2", "t3"]


def test_a_full_queue_is_refused_with_its_name(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    push(backend, "t1", to="my mail")

    with pytest.raises(BackendRefused, match="my mail"):
        push_up_to(backend, 1, "t2", to="my mail")


def test_of_messages_without_room_for_all_none_is_queued(backend: Backend) -> None:
    push(backend, "t1")

    with pytest.raises(QueueFull):
        push_up_to(backend, 3, "t2", "t3", "t4")

    assert backend.count(QUEUE) == Counts(waiting=1)
    assert push_up_to(backend, 3, "t2", "t3") == [True, True]
    assert drain(backend) == ["t1", "t2", "t3"]


def test_no_room_at_all_is_refused(backend: Backend) -> None:
    with pytest.raises(QueueFull):
        push_up_to(backend, 0, "t1")

    assert backend.count(QUEUE) == Counts()


def test_nothing_fits_everywhere(backend: Backend) -> None:
    push(backend, "t1")

    assert push_up_to(backend, 1) == []


def test_a_push_that_says_nothing_is_not_limited(backend: Backend) -> None:
    push_up_to(backend, 1, "t1")

    assert push(backend, "t2", "t3") == [True, True]
    with pytest.raises(QueueFull):
        push_up_to(backend, 3, "t4")
    assert push_up_to(backend, 4, "t4") == [True]


def test_what_is_queued_already_may_be_pushed_again_however_full_it_is(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    push(backend, "t1", "t2", "t3")

    assert push_up_to(backend, 2, "t1", "t2") == [False, False]


def test_what_is_delayed_counts(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    push(backend, "t1", delay=FAR_OFF)
    backend.push_many(QUEUE, [Message("t2", b"", due_at=NEVER)])
    push(backend, "t3")

    with pytest.raises(QueueFull):
        push_up_to(backend, 3, "t4")
    with pytest.raises(QueueFull):
        backend.push_many(QUEUE, [Message("t4", b"", delay=FAR_OFF)], max_length=3)

    assert backend.count(QUEUE) == Counts(waiting=1, delayed=2)


def test_what_is_held_or_dead_does_not_count(backend: Backend) -> None:
    buried(backend, "dead")
    push(backend, "t1", "t2")
    held = take_ready(backend)

    assert push_up_to(backend, 2, "t3", "t4") == [True, True]
    with pytest.raises(QueueFull):
        push_up_to(backend, 2, "t5")

    assert backend.count(QUEUE) == Counts(waiting=2, running=2, dead=1)
    assert backend.settle([Ack(one) for one in held]) == []


def test_other_queues_do_not_count(backend: Backend) -> None:
    push(backend, "t1", "t2", to="other")

    assert push_up_to(backend, 1, "t1") == [True]


def test_a_queue_with_room_again_takes_tasks_again(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push_up_to(backend, 2, "t1", "t2")
    frees: list[Callable[[], object]] = [
        lambda: take(backend),
        lambda: backend.cancel(QUEUE, "t2"),
        lambda: backend.drop_all(QUEUE),
    ]
    for number, free in enumerate(frees):
        assert not fits(backend, 2, "new")
        free()
        while fits(backend, 2, f"t{number}-{backend.len(QUEUE)}"):
            pass
        assert backend.len(QUEUE) == 2


def test_a_task_that_is_queued_already_is_not_queued_twice(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    push_up_to(backend, 3, "t1", "t2")

    assert push_up_to(backend, 3, "t2") == [False]

    assert drain(backend) == ["t1", "t2"]


def test_what_follows_a_task_needs_no_room(backend: Backend) -> None:
    skip_unless_it_finds(backend)
    message = Message("t1", b"", follow=Follow("after", b"well", b"badly"))
    backend.push_many(QUEUE, [message], max_length=1)
    held = take(backend)
    push_up_to(backend, 1, "t2")

    assert backend.settle([Ack(held)]) == []

    assert backend.count(QUEUE) == Counts(waiting=2)
    assert not fits(backend, 2, "t3")


def test_of_thousands_without_room_for_all_no_more_are_queued_than_fit(backend: Backend) -> None:
    push(backend, *(f"before {number}" for number in range(500)))

    with pytest.raises(QueueFull):
        push_up_to(backend, 2200, *(f"t{number}" for number in range(2500)))

    count = backend.len(QUEUE)
    assert count in (500, 1500)  # a store may do it a thousand at a time
    assert ids(take_ready(backend, 1500))[500:] == [f"t{number}" for number in range(count - 500)]


def test_thousands_fit_where_there_is_just_room(backend: Backend) -> None:
    skip_unless_it_limits_exactly(backend)
    push(backend, "before")
    names = [f"t{number}" for number in range(2500)]

    assert push_up_to(backend, 2501, *names) == [True] * 2500

    assert not fits(backend, 2501, "more")
    assert drain(backend, limit=500) == ["before", *names]


def test_many_threads_queue_no_more_than_fit(backend: Backend) -> None:
    skip_unless_it_limits_exactly(backend)

    def work(number: int) -> int:
        return sum(fits(backend, 100, f"{number}-{turn}") for turn in range(30))

    assert sum(in_threads(8, work)) == 100
    assert backend.count(QUEUE) == Counts(waiting=100)


def test_many_processes_queue_no_more_than_fit(dsn: str, connect: Callable[[], Backend]) -> None:
    backend = connect()
    skip_unless_it_limits_exactly(backend)

    def work(number: int) -> int:
        with opened(dsn) as backend:
            names = [[f"{number}-{turn}", f"{number}-{turn} too"] for turn in range(20)]
            return 2 * sum(fits(backend, 101, *two) for two in names)

    assert sum(in_processes(4, work)) == 100
    assert backend.count(QUEUE) == Counts(waiting=100)
    assert fits(backend, 101, "last")
