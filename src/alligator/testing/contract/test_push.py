"""A push queues a task once, whatever becomes of the answer."""

from collections.abc import Callable

from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release
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
    skip_unless_it_keeps_order,
    take,
    take_ready,
)


def test_a_push_tells_for_each_task_that_it_was_queued(backend: Backend) -> None:
    assert push(backend, "t1", "t2", "t3") == [True, True, True]
    assert backend.count(QUEUE) == Counts(waiting=3)


def test_a_push_of_nothing_is_fine(backend: Backend) -> None:
    assert backend.push_many(QUEUE, []) == []
    assert backend.count(QUEUE) == Counts()


def test_a_push_repeated_while_the_task_waits_changes_nothing(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    backend.push_many(QUEUE, [Message("t1", b"first")])

    assert backend.push_many(QUEUE, [Message("t1", b"second")]) == [False]

    assert backend.count(QUEUE) == Counts(waiting=1)
    assert take(backend).body == b"first"


def test_a_push_repeated_while_the_task_is_delayed_starts_nothing_early(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    skip_unless_it_delays(backend)
    backend.push_many(QUEUE, [Message("t1", b"first", delay=FAR_OFF)])

    assert backend.push_many(QUEUE, [Message("t1", b"second")]) == [False]

    assert backend.count(QUEUE) == Counts(delayed=1)
    assert take_ready(backend) == []
    assert backend.cancel(QUEUE, "t1") == b"first"


def test_a_push_repeated_while_the_task_is_held_does_not_queue_it_again(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    backend.push_many(QUEUE, [Message("t1", b"first")])
    held = take(backend)

    assert backend.push_many(QUEUE, [Message("t1", b"second")]) == [False]

    assert take_ready(backend) == []
    assert backend.settle([Release(held)]) == []
    assert take(backend).body == b"first"


def test_a_task_that_is_done_may_be_pushed_again(backend: Backend) -> None:
    push(backend, "t1")
    backend.settle([Ack(take(backend))])

    assert push(backend, "t1") == [True]
    assert drain(backend) == ["t1"]


def test_a_dead_letter_is_no_obstacle_to_its_task(backend: Backend) -> None:
    buried(backend, "t1")

    assert push(backend, "t1") == [True]
    assert backend.count(QUEUE) == Counts(waiting=1, dead=1)
    assert drain(backend) == ["t1"]
    assert backend.count(QUEUE) == Counts(dead=1)


def test_of_two_messages_with_one_id_in_one_push_the_first_counts(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    messages = [Message("t1", b"first"), Message("t2", b"other"), Message("t1", b"second")]

    assert backend.push_many(QUEUE, messages) == [True, True, False]
    assert [held.body for held in take_ready(backend)] == [b"first", b"other"]


def test_a_push_tells_apart_what_is_new_and_what_is_queued(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    push(backend, "t2", "t4")

    assert push(backend, "t1", "t2", "t3", "t4") == [True, False, True, False]
    assert ids(take_ready(backend)) == ["t2", "t4", "t1", "t3"]


def test_one_id_in_two_queues_is_two_tasks(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    assert push(backend, "t1", to="high") == [True]
    assert push(backend, "t1", to="low") == [True]

    backend.settle([Bury(take(backend, of="high"), "note")])

    assert push(backend, "t1", to="low") == [False]
    assert drain(backend, of="low") == ["t1"]


def test_ten_thousand_tasks_of_one_push_come_out_complete_and_in_order(backend: Backend) -> None:
    skip_unless_it_keeps_order(backend)
    names = [f"t{number}" for number in range(10_000)]

    assert push(backend, *names) == [True] * 10_000

    assert backend.count(QUEUE) == Counts(waiting=10_000)
    assert drain(backend, limit=500) == names
    assert backend.count(QUEUE) == Counts()


def test_of_many_threads_pushing_the_same_ids_one_wins_each(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)

    def push_all(number: int) -> list[bool]:
        return _push_in_parts(backend, offset=number * 125)

    won = in_threads(8, push_all)

    assert sum(sum(answers) for answers in won) == 1000
    assert sorted(drain(backend, limit=100)) == sorted(_thousand_ids())


def test_of_many_processes_pushing_the_same_ids_one_wins_each(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    skip_if_it_names_tasks(connect())

    def push_all(number: int) -> list[bool]:
        with opened(dsn) as backend:
            return _push_in_parts(backend, offset=number * 250)

    skip_if_it_names_tasks(connect())
    won = in_processes(4, push_all)

    assert sum(sum(answers) for answers in won) == 1000
    assert sorted(drain(connect(), limit=100)) == sorted(_thousand_ids())


def _thousand_ids() -> list[str]:
    return [f"t{number}" for number in range(1000)]


def _push_in_parts(backend: Backend, offset: int) -> list[bool]:
    """Push a thousand tasks, ten at once, each caller from another of them on."""
    names = _thousand_ids()
    names = names[offset:] + names[:offset]
    answers: list[bool] = []
    for place in range(0, len(names), 10):
        answers += push(backend, *names[place : place + 10])
    return answers
