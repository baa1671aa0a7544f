"""Dead letters of one store can be put into another as they are."""

import pytest

from alligator.backends.base import Backend, DeadLetter
from alligator.testing.stores import ODD_BODIES, ODD_IDS, QUEUE, buried, skip_unless_it_walks, take


@pytest.fixture(autouse=True)
def _only_stores_that_can(backend: Backend) -> None:
    skip_unless_it_walks(backend)


def letter(task_id: str = "t", body: bytes = b"body", at: float = 1700000000.25) -> DeadLetter:
    """Return a dead letter of another store."""
    return DeadLetter("elsewhere", "x-1", task_id, body, "the note", at, 5)


def told(backend: Backend) -> list[tuple[str, bytes, str, float, int]]:
    """Return what the dead letters tell, the newest first."""
    return [one[2:] for one in backend.dead(QUEUE)]


def test_a_dead_letter_is_put_as_it_is(backend: Backend) -> None:
    [own] = buried(backend, "own")

    assert backend.put_dead(QUEUE, [letter("a"), letter("b")]) == [True, True]

    found = backend.dead(QUEUE)
    assert [one[2:] for one in found[:2]] == [letter("b")[2:], letter("a")[2:]]
    assert len({own, *(one.letter_id for one in found)}) == 3
    assert {one.queue_name for one in found} == {QUEUE}
    assert backend.count(QUEUE).dead == 3
    assert QUEUE in backend.queues()


def test_it_is_put_once(backend: Backend) -> None:
    assert backend.put_dead(QUEUE, [letter(), letter()]) == [True, False]
    others = [letter("t2"), letter(body=b"other"), letter(at=1700000001.5)]

    assert backend.put_dead(QUEUE, [letter(), *others]) == [False, True, True, True]

    assert backend.count(QUEUE).dead == 4
    assert sorted(told(backend)) == sorted(one[2:] for one in (letter(), *others))


def test_what_was_read_in_one_store_is_the_same_when_put_back(backend: Backend) -> None:
    buried(backend, "a", "b", "a")
    letters = backend.dead(QUEUE)

    assert backend.put_dead(QUEUE, letters) == [False] * 3


def test_it_is_retried_with_its_priority_and_purged_as_any_other(backend: Backend) -> None:
    backend.put_dead(QUEUE, [letter("a"), letter("b")])
    of_b, of_a = (one.letter_id for one in backend.dead(QUEUE))

    assert backend.retry_dead(QUEUE, [of_a]) == [of_a]
    assert backend.purge_dead(QUEUE, [of_b]) == [of_b]

    found = backend.find(QUEUE, "a")
    assert found is not None
    assert (found.priority, found.body) == (5, b"body")
    assert take(backend).task_id == "a"
    assert backend.count(QUEUE).dead == 0


def test_odd_ids_and_bodies(backend: Backend) -> None:
    letters = [letter(name) for name in ODD_IDS] + [letter("t", body) for body in ODD_BODIES]

    assert all(backend.put_dead(QUEUE, letters))

    assert told(backend) == [one[2:] for one in reversed(letters)]
    assert not any(backend.put_dead(QUEUE, letters))
