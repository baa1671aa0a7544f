"""Tasks of a higher priority are handed out first; within one priority, first in first out."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from alligator.backends.base import (
    MAX_PRIORITY,
    Ack,
    Backend,
    Bury,
    Counts,
    Message,
    Release,
)
from alligator.testing.running import in_processes, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    WORKER,
    drain,
    ids,
    let_pass,
    opened,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_prioritizes,
    skip_unless_what_is_due_joins_the_end,
    take,
    take_ready,
    woken,
)

SHORT = 0.05


@pytest.fixture(autouse=True)
def _only_stores_that_prioritize(abilities: Backend) -> None:
    skip_unless_it_prioritizes(abilities)


def push_with(backend: Backend, priority: int, *task_ids: str, delay: float = 0.0) -> None:
    """Push tasks of a priority, each with its id for a body."""
    backend.push_many(
        QUEUE, [Message(name, name.encode(), delay, priority=priority) for name in task_ids]
    )


def test_a_higher_priority_comes_first(backend: Backend) -> None:
    push_with(backend, -1, "lower")
    push(backend, "normal")
    push_with(backend, 1, "higher")

    assert drain(backend, limit=1) == ["higher", "normal", "lower"]


def test_within_a_priority_the_first_comes_first(backend: Backend) -> None:
    for turn in range(3):
        for priority in (-7, 0, 7):
            push_with(backend, priority, f"{priority}:{turn}")

    expected = [f"{priority}:{turn}" for priority in (7, 0, -7) for turn in range(3)]
    assert drain(backend, limit=2) == expected


def test_priorities_reach_from_minus_a_hundred_to_a_hundred(backend: Backend) -> None:
    priorities = list(range(-MAX_PRIORITY, MAX_PRIORITY + 1))
    mixed = random.Random(1).sample(priorities, k=len(priorities))
    messages = [Message(f"t{priority}", b"", priority=priority) for priority in mixed]

    backend.push_many(QUEUE, messages)

    assert drain(backend) == [f"t{priority}" for priority in reversed(priorities)]


def test_a_batch_is_in_the_order_of_priorities(backend: Backend) -> None:
    push_with(backend, -5, "t1")
    push_with(backend, 5, "t2", "t3")
    push(backend, "t4")
    push_with(backend, 9, "t5")

    held = take_ready(backend)

    assert ids(held) == ["t5", "t2", "t3", "t4", "t1"]


def test_a_batch_without_room_for_all_takes_the_highest(backend: Backend) -> None:
    push(backend, *(f"t{number}" for number in range(20)))
    push_with(backend, 1, "higher")
    push_with(backend, 2, "highest")

    assert ids(take_ready(backend, 3)) == ["highest", "higher", "t0"]


def test_the_order_of_queues_goes_before_priorities(backend: Backend) -> None:
    backend.push_many("high", [Message("t1", b"", priority=-MAX_PRIORITY)])
    backend.push_many("low", [Message("t2", b"", priority=MAX_PRIORITY)])

    batch = backend.reserve(["high", "low"], WORKER, limit=10)

    assert ids(batch.reservations) == ["t1", "t2"]


def test_ten_thousand_tasks_of_mixed_priorities_come_in_order(backend: Backend) -> None:
    chance = random.Random(2)
    priorities = [chance.randint(-MAX_PRIORITY, MAX_PRIORITY) for _ in range(10_000)]
    messages = [Message(f"t{n}", b"", priority=priority) for n, priority in enumerate(priorities)]

    assert backend.push_many(QUEUE, messages) == [True] * 10_000

    in_order = sorted(messages, key=lambda message: -message.priority)  # stable: the first first
    assert drain(backend, limit=500) == [message.task_id for message in in_order]
    assert backend.count(QUEUE) == Counts()


def test_a_push_repeated_with_another_priority_changes_nothing(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    push(backend, "t1", "t2")

    assert backend.push_many(QUEUE, [Message("t2", b"", priority=50)]) == [False]

    assert drain(backend) == ["t1", "t2"]


def test_a_push_of_any_priority_wakes_who_waits(backend: Backend) -> None:
    for priority in (-MAX_PRIORITY, MAX_PRIORITY):
        name = f"t{priority}"
        held = woken(backend, partial(push_with, backend, priority, name))
        assert held.task_id == name


# A task keeps its priority.


def test_a_task_given_back_returns_to_its_place_in_its_priority(backend: Backend) -> None:
    push_with(backend, 5, "t1", "t2", "t3")
    push(backend, "t4")
    one, two = take_ready(backend, 2)
    push_with(backend, 6, "t0")

    assert backend.settle([Release(two), Release(one, lapsed=True)]) == []

    assert drain(backend) == ["t0", "t1", "t2", "t3", "t4"]


def test_a_whole_batch_given_back_returns_to_its_places(backend: Backend) -> None:
    chance = random.Random(3)
    messages = [Message(f"t{n}", b"", priority=chance.randint(-3, 3)) for n in range(300)]
    backend.push_many(QUEUE, messages)
    held = take_ready(backend)

    assert backend.settle([Release(one) for one in chance.sample(held, k=300)]) == []

    assert drain(backend) == ids(held)


def test_a_new_attempt_joins_the_end_of_its_priority(backend: Backend) -> None:
    push_with(backend, 5, "t1", "t2")
    push(backend, "t3")

    backend.settle([Release(take(backend), body=b"new")])

    held = take_ready(backend)
    assert ids(held) == ["t2", "t1", "t3"]
    assert held[1].body == b"new"


def test_a_lapsed_task_returns_to_its_place_in_its_priority(backend: Backend) -> None:
    push_with(backend, -5, "t4", "t5")
    push_with(backend, 5, "t1", "t2")
    push(backend, "t3")
    take_ready(backend, 4, lease=SHORT)
    let_pass(backend, 2 * SHORT)

    came = [(held.task_id, held.deliveries) for held in take_ready(backend)]

    assert came == [("t1", 2), ("t2", 2), ("t3", 2), ("t4", 2), ("t5", 1)]


def test_a_recovered_task_returns_to_its_place_in_its_priority(backend: Backend) -> None:
    push_with(backend, 5, "t1", "t2")
    push(backend, "t3")
    take(backend, worker="dead")
    take(backend, worker="dead")

    assert backend.recover([QUEUE], "dead", started=["t1"]) == 2

    assert drain(backend) == ["t1", "t2", "t3"]


def test_a_task_taken_by_its_id_and_given_back_returns_to_its_place(backend: Backend) -> None:
    push_with(backend, 5, "t1", "t2", "t3")
    push(backend, "t4")
    held = backend.reserve_task(QUEUE, "t2", WORKER)
    assert held is not None

    assert backend.settle([Release(held)]) == []

    assert drain(backend) == ["t1", "t2", "t3", "t4"]


def test_a_delayed_task_joins_the_end_of_its_priority_when_its_time_comes(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    push_with(backend, 5, "t3", delay=SHORT)
    push_with(backend, -5, "t6", delay=SHORT)
    push(backend, "t5", delay=SHORT)
    push(backend, "t4")
    push_with(backend, 5, "t1", "t2")
    let_pass(backend, 2 * SHORT)

    assert drain(backend) == ["t1", "t2", "t3", "t4", "t5", "t6"]


def test_a_release_with_a_delay_keeps_the_priority(backend: Backend) -> None:
    push_with(backend, 5, "t1", "t2")
    one, two = take_ready(backend)
    push(backend, "t3")
    push_with(backend, 4, "t4")

    backend.settle([Release(one, delay=SHORT), Release(two, delay=SHORT, body=b"new")])
    let_pass(backend, 2 * SHORT)

    assert sorted(ids(take_ready(backend, 2))) == ["t1", "t2"]
    assert drain(backend) == ["t4", "t3"]


def test_a_retried_dead_letter_joins_the_end_of_its_priority(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    push_with(backend, 5, "t2")
    push_with(backend, -5, "t6")
    backend.settle([Bury(one, "note") for one in take_ready(backend)])
    push(backend, "t3", "t4")
    push_with(backend, 5, "t1")
    push_with(backend, -5, "t5")

    letters = [letter.letter_id for letter in backend.dead(QUEUE)]
    assert backend.retry_dead(QUEUE, letters) == letters

    assert drain(backend) == ["t1", "t2", "t3", "t4", "t5", "t6"]


def test_a_dead_letter_keeps_its_priority_beside_a_new_task_of_its_id(backend: Backend) -> None:
    push_with(backend, 5, "t1")
    backend.settle([Bury(take(backend), "note")])
    push_with(backend, -5, "t1")
    push(backend, "t2")
    assert drain(backend) == ["t2", "t1"]
    push(backend, "t2")

    backend.retry_dead(QUEUE, [letter.letter_id for letter in backend.dead(QUEUE)])

    assert drain(backend) == ["t1", "t2"]


def test_an_id_pushed_again_has_no_priority_of_its_predecessor(backend: Backend) -> None:
    endings: list[Callable[[], object]] = [
        lambda: backend.settle([Ack(take(backend))]),
        lambda: backend.cancel(QUEUE, "t1"),
        lambda: backend.drop_all(QUEUE),
        lambda: backend.settle([Bury(take(backend), "note")]),
        lambda: backend.get(QUEUE, "t1"),
    ]
    for end in endings:
        push_with(backend, 5, "t1")
        end()
        push(backend, "t2", "t1")
        assert drain(backend) == ["t2", "t1"]


def test_a_delayed_task_that_was_canceled_leaves_no_priority_behind(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    push_with(backend, 5, "t1", delay=FAR_OFF)
    backend.cancel(QUEUE, "t1")
    push(backend, "t1", delay=SHORT)
    push(backend, "t2", "t3")
    let_pass(backend, 2 * SHORT)

    assert drain(backend) == ["t2", "t3", "t1"]


# Others at the same time.


def test_each_threads_tasks_keep_their_order_in_each_priority(backend: Backend) -> None:
    def work(number: int) -> None:
        for turn in range(100):
            push_with(backend, turn % 3, f"{number}-{turn:02}")

    in_threads(4, work)
    done = drain(backend, limit=7)

    turns = [int(name.partition("-")[2]) for name in done]
    assert [turn % 3 for turn in turns] == sorted((turn % 3 for turn in turns), reverse=True)
    for number in range(4):
        mine = [name for name in done if name.startswith(f"{number}-")]
        assert mine == sorted(mine, key=lambda name: (-(int(name[2:]) % 3), name))
        assert len(mine) == 100


def test_of_many_processes_pushing_the_same_ids_each_with_its_priority_one_wins_each(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    skip_if_it_names_tasks(connect())
    names = [f"t{number}" for number in range(1000)]
    skip_unless_it_prioritizes(connect())

    def push_all(number: int) -> int:
        start = number * 125
        own = names[start:] + names[:start]
        with opened(dsn) as backend:
            won = 0
            for place in range(0, 1000, 10):
                some = [
                    Message(name, b"%d" % number, priority=number)
                    for name in own[place : place + 10]
                ]
                won += sum(backend.push_many(QUEUE, some))
            return won

    won: list[int] = in_processes(8, push_all)

    assert sum(won) == 1000
    held = take_ready(connect())
    assert sorted(ids(held)) == sorted(names)
    # The priority is that of the process whose body it is.
    assert [int(one.body) for one in held] == sorted((int(one.body) for one in held), reverse=True)
    assert [sum(int(one.body) == number for one in held) for number in range(8)] == won
