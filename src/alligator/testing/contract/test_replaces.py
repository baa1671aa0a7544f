"""A push that replaces takes the place of a task that waits or is delayed; of one that is held, later."""

from collections.abc import Callable

import pytest

from alligator.backends.base import (
    NEVER,
    Ack,
    Backend,
    Bury,
    Counts,
    Message,
    Release,
    Settlement,
)
from alligator.testing.running import Child, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    WORKER,
    buried,
    contents,
    drain,
    ids,
    let_pass,
    opened,
    push,
    ready,
    replace,
    skip_unless_it_finds,
    skip_unless_it_prioritizes,
    take,
    take_ready,
    until,
    woken,
)

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_replace(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)


def test_without_a_task_of_its_id_it_is_a_push_like_others(backend: Backend) -> None:
    replace(backend, "t1")
    push(backend, "t2")
    assert push(backend, "t1") == [False]

    assert ready(backend) == [("t1", b"new"), ("t2", b"t2")]


def test_a_waiting_task_is_replaced_at_the_end(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")

    replace(backend, "t1")
    replace(backend, "t2", b"newer")

    assert backend.count(QUEUE) == Counts(waiting=3)
    assert ready(backend) == [("t3", b"t3"), ("t1", b"new"), ("t2", b"newer")]


def test_a_replaced_task_given_back_returns_to_its_new_place(backend: Backend) -> None:
    push(backend, "t1", "t2")
    replace(backend, "t1")
    push(backend, "t3")
    two, one, _ = take_ready(backend)

    backend.settle([Release(one), Release(two)])

    assert drain(backend) == ["t2", "t1"]


def test_a_waiting_task_is_replaced_by_a_delayed_one(backend: Backend) -> None:
    push(backend, "t1", "t2")

    replace(backend, "t1", delay=SHORT)

    assert backend.count(QUEUE) == Counts(waiting=1, delayed=1)
    assert ready(backend) == [("t2", b"t2")]
    assert take(backend).body == b"new"


def test_a_delayed_task_is_replaced_by_a_waiting_one(backend: Backend) -> None:
    push(backend, "t1", "t2", delay=SHORT)
    backend.push_many(QUEUE, [Message("t3", b"", due_at=NEVER)])

    replace(backend, "t1")
    replace(backend, "t3")

    assert ready(backend) == [("t1", b"new"), ("t3", b"new")]
    let_pass(backend, 2 * SHORT)
    assert ready(backend) == [("t2", b"t2")]  # and nothing twice


def test_a_delayed_task_is_replaced_by_one_of_another_moment(backend: Backend) -> None:
    push(backend, "sooner", delay=FAR_OFF)
    push(backend, "later", delay=SHORT)
    push(backend, "never", delay=SHORT)

    replace(backend, "sooner", delay=SHORT)
    replace(backend, "later", delay=FAR_OFF)
    replace(backend, "never", due_at=NEVER)

    let_pass(backend, 2 * SHORT)
    assert ready(backend) == [("sooner", b"new")]
    assert backend.count(QUEUE) == Counts(delayed=2, running=1)


def test_a_replacement_has_its_own_priority(backend: Backend) -> None:
    skip_unless_it_prioritizes(backend)
    backend.push_many(QUEUE, [Message("t1", b"", priority=5), Message("t2", b"", priority=-5)])
    push(backend, "t3")

    replace(backend, "t1", priority=-6)
    replace(backend, "t2", priority=6)

    assert drain(backend) == ["t2", "t3", "t1"]


def test_a_replacement_has_no_deliveries(backend: Backend) -> None:
    push(backend, "t1")
    backend.settle([Release(take(backend), lapsed=True)])

    replace(backend, "t1")

    found = backend.find(QUEUE, "t1")
    assert found is not None
    assert found.deliveries == 0
    assert take(backend).deliveries == 1


def test_of_messages_of_one_push_the_last_that_replaces_counts(backend: Backend) -> None:
    messages = [
        Message("t1", b"first"),
        Message("t2", b"other"),
        Message("t1", b"second", replaces=True),
        Message("t1", b"third"),
        Message("t3", b"first", replaces=True),
        Message("t3", b"second", replaces=True),
    ]

    assert backend.push_many(QUEUE, messages) == [True, True, True, False, True, True]

    assert ready(backend) == [("t2", b"other"), ("t1", b"second"), ("t3", b"second")]


def test_a_replacement_of_a_waiting_task_is_canceled_and_dropped_like_others(
    backend: Backend,
) -> None:
    push(backend, "t1", "t2")
    replace(backend, "t1")
    replace(backend, "t2", delay=FAR_OFF)

    assert backend.cancel(QUEUE, "t1") == b"new"
    assert backend.find(QUEUE, "t1") is None
    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts()


def test_a_dead_letter_is_not_replaced(backend: Backend) -> None:
    buried(backend, "t1")

    replace(backend, "t1")

    assert [letter.body for letter in backend.dead(QUEUE)] == [b"t1"]
    assert ready(backend) == [("t1", b"new")]


def test_a_task_of_another_queue_is_not_replaced(backend: Backend) -> None:
    push(backend, "t1", to="other")

    replace(backend, "t1")

    assert contents(take_ready(backend, of="other")) == [("t1", b"t1")]


def test_a_replacement_wakes_who_waits(backend: Backend) -> None:
    push(backend, "t1", delay=FAR_OFF)

    assert woken(backend, lambda: replace(backend, "t1")).body == b"new"


# Others at the same time.


@pytest.mark.parametrize("end", ["ack", "bury", "release"])
def test_a_replacement_pushed_while_another_ends_the_task_is_not_lost(
    backend: Backend, end: str
) -> None:
    names = [f"t{number}" for number in range(300)]
    push(backend, *names)
    held = take_ready(backend)

    def work(number: int) -> None:
        for name, one in zip(names, held, strict=True):
            if number == 0:
                replace(backend, name)
            else:
                ways: dict[str, Settlement] = {
                    "ack": Ack(one),
                    "bury": Bury(one, ""),
                    "release": Release(one),
                }
                assert backend.settle([ways[end]]) == []

    in_threads(2, work)

    came = take_ready(backend)
    assert sorted(ids(came)) == sorted(names)
    assert {one.body for one in came} == {b"new"}


def test_a_replacement_pushed_while_another_process_ends_the_task_is_not_lost(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    names = [f"t{number}" for number in range(500)]
    backend = connect()
    push(backend, *names)
    held = take_ready(backend)

    def acknowledge() -> list[int]:
        with opened(dsn) as there:
            return [len(there.settle([Ack(one)])) for one in held]

    with Child(acknowledge) as child:
        until(lambda: backend.count(QUEUE).running < 500, "the child's first ack")
        for name in names:
            replace(backend, name)
        assert child.result() == [0] * 500

    came = take_ready(backend)
    assert sorted(ids(came)) == sorted(names)
    assert {one.body for one in came} == {b"new"}


def test_whoever_runs_tasks_while_they_are_replaced_ends_with_the_last_of_each(
    backend: Backend,
) -> None:
    names = [f"t{number}" for number in range(20)]
    last: dict[str, int] = {}

    def work(number: int) -> None:
        if number == 0:
            for version in range(30):
                for name in names:
                    replace(backend, name, b"%d" % version)
            push(backend, "end")
        else:
            run_until_the_end(backend, last)

    in_threads(2, work)

    assert last == {**dict.fromkeys(names, 29), "end": -1}
    assert backend.count(QUEUE) == Counts()


def run_until_the_end(backend: Backend, last: dict[str, int]) -> None:
    """Run tasks, whose bodies are versions, and note the last of each; none comes after a later one."""
    settlements: list[Settlement] = []
    while "end" not in last or settlements:
        batch = backend.reserve([QUEUE], WORKER, limit=3, wait=0.1, settlements=settlements)
        assert batch.late == []
        for held in batch.reservations:
            version = -1 if held.task_id == "end" else int(held.body)
            assert last.get(held.task_id, -2) < version
            last[held.task_id] = version
        settlements = [Ack(held) for held in batch.reservations]
