"""A single task tells where it is and how it fares, and is left as it is."""

import pytest

from alligator.backends.base import (
    NEVER,
    Ack,
    Backend,
    Counts,
    Found,
    Message,
    Release,
)
from alligator.testing.stores import (
    FAR_OFF,
    ODD_BODIES,
    ODD_IDS,
    QUEUE,
    TICK,
    WORKER,
    buried,
    drain,
    ids,
    let_pass,
    push,
    skip_unless_it_finds,
    skip_unless_it_prioritizes,
    take,
    take_ready,
)

SHORT = 0.05


@pytest.fixture(autouse=True)
def _only_stores_that_find(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)


def find(backend: Backend, task_id: str) -> Found:
    """Look at a task that has to be there."""
    found = backend.find(QUEUE, task_id)
    assert found is not None
    return found


def test_a_waiting_task_is_found(backend: Backend) -> None:
    push(backend, "t1", "t2")

    assert backend.find(QUEUE, "t2") == Found(b"t2", position=1)


def test_a_delayed_task_is_found(backend: Backend) -> None:
    before = backend.now()
    push(backend, "t1", delay=FAR_OFF)

    found = find(backend, "t1")

    assert before - TICK <= found.due_at - FAR_OFF <= backend.now() + TICK
    assert found == Found(b"t1", due_at=found.due_at)


def test_a_task_due_at_a_moment_tells_it(backend: Backend) -> None:
    due_at = backend.now() + FAR_OFF
    backend.push_many(QUEUE, [Message("t1", b"one", due_at=due_at)])

    assert find(backend, "t1").due_at == pytest.approx(due_at, abs=0.001)


def test_a_task_that_is_never_due_says_so(backend: Backend) -> None:
    backend.push_many(QUEUE, [Message("t1", b"one", due_at=NEVER)])

    assert backend.find(QUEUE, "t1") == Found(b"one", due_at=NEVER)


def test_a_held_task_is_found(backend: Backend) -> None:
    push(backend, "t1", "t2")
    before = backend.now()
    held = take(backend, lease=60.0)

    found = find(backend, "t1")

    assert before - TICK <= found.lapses_at - 60.0 <= backend.now() + TICK
    assert found == Found(b"t1", token=held.token, lapses_at=found.lapses_at, deliveries=1)
    assert find(backend, "t2").position == 0


def test_a_task_held_by_its_id_is_found(backend: Backend) -> None:
    push(backend, "t1", delay=FAR_OFF)
    held = backend.reserve_task(QUEUE, "t1", WORKER, lease=60.0)
    assert held is not None

    found = find(backend, "t1")

    assert (found.token, found.due_at, found.deliveries) == (held.token, 0.0, 1)


def test_what_is_unknown_over_or_elsewhere_is_not_found(backend: Backend) -> None:
    push(backend, "t1", to="other")
    buried(backend, "dead")
    push(backend, "done", "canceled")
    backend.settle([Ack(take(backend))])
    backend.cancel(QUEUE, "canceled")
    push(backend, "dropped")
    backend.drop_all(QUEUE)

    for name in ["t1", "dead", "done", "canceled", "dropped", "unknown"]:
        assert backend.find(QUEUE, name) is None, name
    assert backend.find("never-used", "t1") is None
    assert "never-used" not in backend.queues()


def test_an_extended_lease_is_told(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend, lease=60.0)

    backend.extend([held], FAR_OFF)

    assert find(backend, "t1").lapses_at == pytest.approx(backend.now() + FAR_OFF, abs=10)


def test_of_a_lapsed_lease_the_end_is_past_until_somebody_takes_it_back(backend: Backend) -> None:
    push(backend, "t1")
    slow = take(backend, lease=SHORT)
    let_pass(backend, 2 * SHORT)

    found = find(backend, "t1")

    assert found.token in ("", slow.token)
    assert found.lapses_at <= backend.now() + TICK
    assert take(backend).deliveries == 2


def test_deliveries_are_told(backend: Backend) -> None:
    push(backend, "t1")
    assert find(backend, "t1").deliveries == 0
    held = take(backend)
    assert find(backend, "t1").deliveries == 1

    backend.settle([Release(held, lapsed=True)])
    assert find(backend, "t1").deliveries == 1
    held = take(backend)
    assert find(backend, "t1").deliveries == held.deliveries == 2

    backend.settle([Release(held)])
    assert find(backend, "t1").deliveries == 1
    backend.settle([Release(take(backend), delay=FAR_OFF)])
    assert find(backend, "t1").deliveries == 1
    assert backend.get(QUEUE, "t1") == b"t1"
    assert backend.find(QUEUE, "t1") is None


def test_deliveries_are_told_anew_after_an_outcome(backend: Backend) -> None:
    push(backend, "t1")
    backend.settle([Release(take(backend), lapsed=True)])

    backend.settle([Release(take(backend), body=b"new")])

    assert backend.find(QUEUE, "t1") == Found(b"new", position=0)


def test_the_position_counts_who_is_handed_out_before(backend: Backend) -> None:
    names = [f"t{number}" for number in range(20)]
    priorities = [(number * 7) % 5 - 2 for number in range(20)]
    backend.push_many(
        QUEUE,
        [
            Message(name, b"", priority=priority if backend.can_prioritize else 0)
            for name, priority in zip(names, priorities, strict=True)
        ],
    )
    push(backend, "delayed", delay=FAR_OFF)
    take_ready(backend, 3)
    given_back = take_ready(backend, 3)
    backend.settle([Release(one) for one in given_back])

    positions = {name: find(backend, name).position for name in names}

    in_order = drain(backend)
    assert [positions[name] for name in in_order] == list(range(17))
    assert sum(position is None for position in positions.values()) == 3


def test_the_priority_is_told_in_every_state(backend: Backend) -> None:
    skip_unless_it_prioritizes(backend)
    messages = [
        Message("t1", b"", priority=100),
        Message("t2", b"", priority=-100),
        Message("t3", b"", priority=7, delay=FAR_OFF),
        Message("t4", b"", priority=-7, due_at=NEVER),
    ]
    backend.push_many(QUEUE, messages)

    def priorities() -> list[int]:
        return [find(backend, message.task_id).priority for message in messages]

    assert priorities() == [100, -100, 7, -7]
    held = [backend.reserve_task(QUEUE, message.task_id, WORKER) for message in messages]
    assert priorities() == [100, -100, 7, -7]
    one, two, three, four = (reservation for reservation in held if reservation is not None)
    backend.settle([Release(one), Release(two, body=b""), Release(three), Release(four, delay=60)])
    assert priorities() == [100, -100, 7, -7]


def test_looking_changes_nothing(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")
    push(backend, "t4", delay=FAR_OFF)
    held = take(backend)
    before = backend.count(QUEUE)

    for name in ["t1", "t2", "t3", "t4", "t5"] * 3:
        backend.find(QUEUE, name)

    assert backend.count(QUEUE) == before
    assert backend.settle([Release(held)]) == []
    assert [(one.task_id, one.deliveries) for one in take_ready(backend)] == [
        ("t1", 1),
        ("t2", 1),
        ("t3", 1),
    ]
    assert backend.count(QUEUE) == Counts(delayed=1, running=3)


def test_ids_and_bodies_may_be_anything(backend: Backend) -> None:
    for name in ODD_IDS:
        for body in ODD_BODIES:
            backend.push_many(QUEUE, [Message(name, body)])
            assert backend.find(QUEUE, name) == Found(body, position=0)
            held = take(backend)
            found = find(backend, name)
            assert (found.body, found.token) == (body, held.token)
            backend.settle([Ack(held)])
            assert backend.find(QUEUE, name) is None


def test_a_task_among_ten_thousand_is_found(backend: Backend) -> None:
    push(backend, *(f"t{number}" for number in range(10_000)))
    held = take_ready(backend, 1000)

    assert ids(held)[:2] == ["t0", "t1"]
    assert find(backend, "t999").token == held[0].token
    assert find(backend, "t1000").position == 0
    assert find(backend, "t9999").position == 8999
