"""The five methods that are documented for every store: len, drop_all, push, pop, get."""

from collections.abc import Callable
from itertools import chain

import pytest

from alligator.backends.base import Ack, Backend, Counts
from alligator.exceptions import InvalidOption
from alligator.testing.running import in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_delays,
    skip_unless_it_makes_queues,
    skip_unless_it_picks,
    take,
    take_ready,
)


def test_push_returns_the_id_and_queues_text_or_bytes(backend: Backend) -> None:
    assert backend.push(QUEUE, "t1", '{"ř": 1}') == "t1"
    assert backend.push(QUEUE, "t2", b"\xff\x00") == "t2"

    assert [held.body for held in take_ready(backend)] == ['{"ř": 1}'.encode(), b"\xff\x00"]


def test_push_of_an_id_that_is_queued_changes_nothing(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    backend.push(QUEUE, "t1", "first")

    assert backend.push(QUEUE, "t1", "second") == "t1"

    assert backend.len(QUEUE) == 1
    assert backend.pop(QUEUE) == b"first"


def test_pop_takes_out_the_first_task_for_good(backend: Backend) -> None:
    push(backend, "t1", "t2")

    assert [backend.pop(QUEUE), backend.pop(QUEUE), backend.pop(QUEUE)] == [b"t1", b"t2", None]
    assert backend.count(QUEUE) == Counts()


def test_pop_leaves_what_is_delayed(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    push(backend, "t1", delay=FAR_OFF)

    assert backend.pop(QUEUE) is None
    assert backend.len(QUEUE) == 1


def test_get_takes_out_one_task_for_good_by_its_id(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1", "t2", "t3")

    assert backend.get(QUEUE, "t2") == b"t2"
    assert backend.get(QUEUE, "t2") is None
    assert backend.get(QUEUE, "unknown") is None
    assert backend.get("never-used", "t1") is None

    assert backend.count(QUEUE) == Counts(waiting=2)
    assert [backend.pop(QUEUE), backend.pop(QUEUE)] == [b"t1", b"t3"]


def test_get_leaves_what_is_held(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    push(backend, "t1")
    held = take(backend)

    assert backend.get(QUEUE, "t1") is None
    assert backend.settle([Ack(held)]) == []


def test_drop_all_and_len_agree(backend: Backend) -> None:
    push(backend, "t1", "t2")
    assert backend.len(QUEUE) == 2

    backend.drop_all(QUEUE)

    assert backend.len(QUEUE) == 0
    assert backend.pop(QUEUE) is None


def test_pop_and_get_take_tasks_while_other_clients_do(connect: Callable[[], Backend]) -> None:
    clients = [connect(), connect(), connect()]
    skip_unless_it_picks(clients[0])
    push(clients[0], *(f"t{number}" for number in range(30)))

    def take_out(number: int) -> list[bytes | None]:
        client = clients[number]
        popped = [client.pop(QUEUE) for _ in range(5)]
        return popped + [client.get(QUEUE, f"t{29 - number - 3 * turn}") for turn in range(5)]

    taken = chain(*in_threads(3, take_out))

    assert sorted(body.decode() for body in taken if body) == sorted(f"t{n}" for n in range(30))
    assert clients[0].count(QUEUE) == Counts()


UNFIT = {
    "empty": "",
    "line feed": "a\nb",
    "carriage return": "a\rb",
    "NUL": "a\0b",
    "escape": "\x1b[31m",
    "delete": "a\x7f",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "lone surrogate": "a\ud800",
    "too long": "x" * 256,
    "too long in UTF-8": "ř" * 128,
}


@pytest.mark.parametrize("name", UNFIT.values(), ids=UNFIT.keys())
def test_push_refuses_names_that_not_every_store_can_carry(backend: Backend, name: str) -> None:
    known = backend.queues()
    with pytest.raises(InvalidOption):
        backend.push(QUEUE, name, "{}")
    with pytest.raises(InvalidOption):
        backend.push(name, "t1", "{}")

    assert backend.count(QUEUE) == Counts()
    assert backend.queues() == known


@pytest.mark.parametrize("name", [None, 1, b"t1", ["t1"]], ids=repr)
def test_push_refuses_a_name_that_is_no_text(backend: Backend, name: str) -> None:
    known = backend.queues()
    with pytest.raises(InvalidOption):
        backend.push(QUEUE, name, "{}")
    with pytest.raises(InvalidOption):
        backend.push(name, "t1", "{}")

    assert backend.queues() == known


def test_push_takes_the_longest_names(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    queue_name, task_id = "q" * 200, "t" * 255

    backend.push(queue_name, task_id, "{}")

    assert backend.get(queue_name, task_id) == b"{}"
    with pytest.raises(InvalidOption):
        backend.push("q" * 201, task_id, "{}")
