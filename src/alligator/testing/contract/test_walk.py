"""The tasks of a queue can be gone through, page by page, and taken out as they were listed."""

import pytest

from alligator.backends.base import NEVER, Ack, Backend, Follow, Listed, Message, Records, State
from alligator.keys import with_queue
from alligator.testing.stores import (
    FAR_OFF,
    ODD_BODIES,
    ODD_IDS,
    QUEUE,
    drain,
    ids,
    push,
    records_of,
    skip_unless_it_walks,
    take,
    take_ready,
)

KEY = f"moves:{QUEUE}/mover"


@pytest.fixture(autouse=True)
def _only_stores_that_can(backend: Backend) -> None:
    skip_unless_it_walks(backend)


def walked(backend: Backend, state: State, limit: int = 2, of: str = QUEUE) -> list[Listed]:
    """Return all tasks of a state, read in pages."""
    listed, cursor = backend.walk(of, state, limit=limit)
    while cursor:
        more, cursor = backend.walk(of, state, cursor, limit)
        listed += more
    return listed


def names(listed: list[Listed]) -> list[str]:
    """Return ids."""
    return [one.task_id for one in listed]


def notes(*task_ids: str) -> list[str]:
    """Return the keys of what is noted of tasks."""
    return [f"moved:{QUEUE}/{number}" for number, _ in enumerate(task_ids)]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_those_that_wait_come_in_the_order_in_which_they_would_be_handed_out(
    backend: Backend, limit: int
) -> None:
    backend.push_many(
        QUEUE,
        [Message(str(number), b"", priority=number % 3 - 1) for number in range(10)],
    )
    push(backend, "elsewhere", to="other")
    listed = names(walked(backend, "waiting", limit))

    assert listed == ids(take_ready(backend))
    assert walked(backend, "waiting", limit) == []


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_those_that_are_delayed_come_by_when_they_are_due(backend: Backend, limit: int) -> None:
    at = backend.now() + FAR_OFF
    moments = [at + 3, at, at, at, NEVER, NEVER, at + 1]
    messages = [Message(f"t{n}", b"", due_at=due) for n, due in enumerate(moments)]
    backend.push_many(QUEUE, messages)

    listed = walked(backend, "delayed", limit)

    assert sorted(names(listed)) == [f"t{n}" for n in range(7)]
    assert [one.due_at for one in listed] == pytest.approx(sorted(moments), abs=0.001)


def test_those_that_are_held_come_with_their_tokens(backend: Backend) -> None:
    push(backend, "a", "b", "c", "d")
    first, second = take_ready(backend, 2), take_ready(backend, 1)

    listed = walked(backend, "running", 1)

    assert sorted((one.task_id, one.token) for one in listed) == sorted(
        (held.task_id, held.token) for held in first + second
    )
    assert names(walked(backend, "waiting")) == ["d"]


def test_what_is_listed_is_whole(backend: Backend) -> None:
    follow = Follow("next", b"on success", b"on failure")
    due_at = float(int(backend.now() + FAR_OFF))
    backend.push_many(
        QUEUE,
        [
            Message("w", b"\0\xff", priority=7, follow=follow),
            Message("d", b"later", due_at=due_at, priority=-7),
        ],
    )

    assert walked(backend, "waiting") == [Listed("w", b"\0\xff", 0.0, 7, "", follow)]
    assert walked(backend, "delayed") == [Listed("d", b"later", due_at, -7)]


def test_odd_ids_and_bodies_are_listed_and_taken_out(backend: Backend, records: Records) -> None:
    bodies = [*ODD_BODIES, *[b""] * len(ODD_IDS)]
    records.set(KEY, b"mine")
    for later in (0.0, NEVER):
        messages = [
            Message(name, body, due_at=later) for name, body in zip(ODD_IDS, bodies, strict=False)
        ]
        backend.push_many(QUEUE, messages)
        listed = walked(backend, "delayed" if later else "waiting", 1)
        assert [(one.task_id, one.body) for one in sorted(listed)] == sorted(
            (message.task_id, message.body) for message in messages
        )
        assert all(backend.take_out(QUEUE, listed, KEY, b"mine", notes(*names(listed))))
        assert backend.len(QUEUE) == 0


def test_who_stays_is_met_whatever_goes(backend: Backend) -> None:
    delays: dict[State, float] = {"waiting": 0.0, "delayed": FAR_OFF}
    for state, delay in delays.items():
        push(backend, *(f"{state}{n}" for n in range(20)), delay=delay)
    for state in delays:
        met, cursor = backend.walk(QUEUE, state, limit=3)
        while cursor:
            backend.cancel(QUEUE, met[-1].task_id)
            backend.cancel(QUEUE, met[-3].task_id)
            more, cursor = backend.walk(QUEUE, state, cursor, 3)
            met += more
        assert set(names(met)) == {f"{state}{n}" for n in range(20)}


def test_what_is_taken_out_is_gone_and_noted(backend: Backend, records: Records) -> None:
    records.set(KEY, b"mine")
    push(backend, "a", "b")
    push(backend, "c", delay=FAR_OFF)
    listed = [*walked(backend, "waiting"), *walked(backend, "delayed")]

    assert backend.take_out(QUEUE, listed[1:], KEY, b"mine", notes("b", "c")) == [True, True]

    assert records.list(f"moved:{QUEUE}") == dict.fromkeys(notes("b", "c"), b"mine")
    assert backend.find(QUEUE, "b") is None
    assert backend.find(QUEUE, "c") is None
    assert push(backend, "b") == [True]
    assert drain(backend) == ["a", "b"]


def test_what_follows_a_task_stays_away(backend: Backend, records: Records) -> None:
    records.set(KEY, b"mine")
    follow = Follow("next", b"on success", b"on failure")
    backend.push_many(QUEUE, [Message("a", b"", follow=follow)])

    assert backend.take_out(QUEUE, walked(backend, "waiting"), KEY, b"mine", notes("a")) == [True]
    push(backend, "a")

    assert drain(backend) == ["a"]


def test_who_is_not_named_in_the_record_takes_nothing(backend: Backend, records: Records) -> None:
    push(backend, "a")
    listed = walked(backend, "waiting")

    assert backend.take_out(QUEUE, listed, KEY, b"mine", notes("a")) == [False]
    records.set(KEY, b"another's")
    assert backend.take_out(QUEUE, listed, KEY, b"mine", notes("a")) == [False]

    assert drain(backend) == ["a"]
    assert records.list(f"moved:{QUEUE}") == {}
    assert records.get(KEY) == b"another's"


def test_what_has_changed_is_left(backend: Backend, records: Records) -> None:
    records.set(KEY, b"mine")
    push(backend, "held", "done", "body", "prio", "put off", "followed")
    push(backend, "called", delay=FAR_OFF)
    listed = [*walked(backend, "waiting"), *walked(backend, "delayed")]
    take(backend)
    backend.settle([Ack(take(backend))])
    backend.push_many(
        QUEUE,
        [
            Message("body", b"new", replaces=True),
            Message("prio", b"prio", priority=1, replaces=True),
            Message("put off", b"put off", delay=FAR_OFF, replaces=True),
        ],
    )
    backend.watch(QUEUE, "followed", Follow("next", b"", b""))
    backend.reschedule(QUEUE, ["called"], NEVER)

    taken = backend.take_out(QUEUE, listed, KEY, b"mine", notes(*names(listed)))

    assert taken == [False] * 7
    assert records.list(f"moved:{QUEUE}") == {}
    count = backend.count(QUEUE)
    assert (count.waiting, count.delayed, count.running) == (3, 2, 1)


def test_what_was_given_back_is_listed_at_its_place(backend: Backend, records: Records) -> None:
    records.set(KEY, b"mine")
    push(backend, "a", "b", "c")
    held = take(backend)
    assert backend.recover([QUEUE], held.token.rsplit(".", 2)[0]) == 1

    listed = walked(backend, "waiting")

    assert names(listed) == ["a", "b", "c"]
    assert all(backend.take_out(QUEUE, listed, KEY, b"mine", notes("a", "b", "c")))


def test_a_queue_of_any_name_is_walked(backend: Backend) -> None:
    records = records_of(backend)
    for name in ("a/b", "a%2Fb", "{a}", "a:b", "ž"):
        key, note = (f"{family}:{with_queue(name)}/1" for family in ("moves", "moved"))
        records.set(key, b"mine")
        push(backend, "t", to=name)
        listed = walked(backend, "waiting", of=name)
        assert backend.take_out(name, listed, key, b"mine", [note]) == [True]
        assert records.get(note) == b"mine"
