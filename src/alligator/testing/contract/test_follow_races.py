"""What follows a task is queued once, whoever ends and watches it at the same time, and whoever is killed."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from alligator.backends.base import (
    Ack,
    Backend,
    Counts,
    Follow,
    Message,
)
from alligator.testing.running import Child, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    drain,
    opened,
    push,
    skip_unless_it_finds,
    take,
    take_ready,
    until,
)


@pytest.fixture(autouse=True)
def _only_stores_that_follow(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)


def after(task_id: str) -> Follow:
    return Follow(f"after {task_id}", b"well", b"badly")


def assert_followed_as_told(backend: Backend, told: dict[str, bool]) -> None:
    """Of each task it was told whether it can be watched: it is followed just then."""
    followed = {held.task_id for held in take_ready(backend, 2000)}
    assert followed == {after(name).task_id for name, was_there in told.items() if was_there}


@pytest.mark.parametrize("end", ["ack", "cancel"])
def test_what_is_watched_while_another_ends_it_is_followed_or_known_to_be_over(
    backend: Backend, end: str
) -> None:
    names = [f"t{number}" for number in range(300)]
    push(backend, *names)
    held = take_ready(backend) if end == "ack" else []
    told: dict[str, bool] = {}

    def work(number: int) -> None:
        if number == 0:
            told.update({name: backend.watch(QUEUE, name, after(name)) for name in names})
        elif end == "cancel":
            assert [backend.cancel(QUEUE, name) for name in names] == [n.encode() for n in names]
        else:
            assert [backend.settle([Ack(one)]) for one in held] == [[]] * 300

    in_threads(2, work)

    assert_followed_as_told(backend, told)


def test_what_is_watched_while_another_process_ends_it_is_followed_or_known_to_be_over(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    names = [f"t{number}" for number in range(500)]
    backend = connect()
    skip_unless_it_finds(backend)
    push(backend, *names)
    held = take_ready(backend, 500)

    def acknowledge() -> list[int]:
        with opened(dsn) as there:
            return [len(there.settle([Ack(one)])) for one in held]

    with Child(acknowledge) as child:
        until(lambda: backend.count(QUEUE).running < 500, "the child's first ack")
        told: dict[str, bool] = {}
        for name in names:
            told[name] = backend.watch(QUEUE, name, after(name))
        assert child.result() == [0] * 500

    assert_followed_as_told(backend, told)


def test_of_many_watching_one_task_the_first_is_followed(backend: Backend) -> None:
    for turn in range(20):
        push(backend, "t1")

        def watch(number: int) -> bool:
            return backend.watch(QUEUE, "t1", Follow(f"after {number}", b"", b""))

        assert in_threads(4, watch) == [True] * 4
        backend.settle([Ack(take(backend))])
        [held] = take_ready(backend)
        assert held.task_id in [f"after {number}" for number in range(4)], turn
        backend.settle([Ack(held)])


def test_of_many_ending_tasks_with_one_follow_one_queues_it(backend: Backend) -> None:
    follow = Follow("after", b"well", b"badly")
    backend.push_many(QUEUE, [Message(f"t{number}", b"", follow=follow) for number in range(200)])
    held = take_ready(backend)

    in_threads(4, lambda number: [backend.settle([Ack(one)]) for one in held[number::4]])

    assert drain(backend) == ["after"]


@pytest.mark.parametrize("at_once", [1, 20])
def test_a_killed_process_has_ended_a_task_and_queued_what_follows_or_neither(
    dsn: str, connect: Callable[[], Backend], at_once: int
) -> None:
    chance = random.Random()
    names = [f"t{number}" for number in range(2000)]
    backend = connect()
    skip_unless_it_finds(backend)
    backend.push_many(QUEUE, [Message(name, b"", follow=after(name)) for name in names])
    held = take_ready(backend, 2000, lease=FAR_OFF)

    def acknowledge(first: int) -> None:
        with opened(dsn) as there:
            for place in range(first, 2000, at_once):
                some = held[place : place + at_once]
                there.settle([Ack(one) for one in some])

    for _ in range(5):
        done = backend.count(QUEUE).waiting
        enough = min(done + chance.randrange(1, 10 * at_once), 1999)
        with Child(partial(acknowledge, done)) as child:
            until(partial(has_at_least, backend, enough), "some acks of the child")
            child.kill()
        counts = backend.count(QUEUE)
        assert counts == Counts(waiting=counts.waiting, running=2000 - counts.waiting)

    for name in names:
        found = backend.find(QUEUE, name), backend.find(QUEUE, after(name).task_id)
        assert found.count(None) == 1, name


def has_at_least(backend: Backend, count: int) -> bool:
    return backend.count(QUEUE).waiting >= count
