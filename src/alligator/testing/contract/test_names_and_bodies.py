"""Names and bodies are data: whatever they look like, a store carries them and does nothing else with them."""

import itertools

import pytest

from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release
from alligator.testing.stores import (
    QUEUE,
    carried,
    drain,
    ids,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_carries,
    skip_unless_it_makes_queues,
    skip_unless_it_picks,
    skipping_what_is_too_big,
    take,
    take_ready,
)

HOSTILE = [
    "with space",
    " leading and trailing ",
    "it's",
    'say "hi"',
    "back`tick",
    "back\\slash",
    "{braces}",
    "{",
    "}",
    "{}",
    "}{",
    "{0} {name} %s %(name)s %n $1 ${x} :name ?",
    "%",
    "%%",
    "*",
    "?",
    "[a-z]",
    "^\\d+$",
    "a,b;c|d&e",
    "a/b",
    "../../etc/passwd",
    "a:b",
    ":",
    "a.b",
    "-",
    "--help",
    "<b>&amp;</b>",
    "0",
    "00",
    "1e3",
    "-1",
    "nil",
    "None",
    "null",
    "true",
    "' OR '1'='1",
    "'; DROP TABLE tasks; --",
    '"; DELETE FROM tasks; --',
    "]] redis.call('FLUSHALL') --",
    "' .. redis.call('FLUSHALL') .. '",
    "žluťoučký",
    "\u00e9",
    "e\u0301",  # the same to the eye, of two characters
    "Ω",
    "\u2126",  # the sign for ohm, which normalizing makes the letter above
    "任务",
    "مهمة",
    "🐊",
    "\ufeffbom",
    "\u200b",
    "\ufffd",
    "\U0010ffff",
]

ALL_BYTES = bytes(range(256))

BODIES = {
    "empty": b"",
    "every byte": ALL_BYTES,
    "every byte backwards": ALL_BYTES[::-1],
    "NUL": b"\0",
    "a line end": b"\r\n",
    "not UTF-8": b"\xff\xfe\xed\xa0\x80",
    "a number": b"0123.50",
    "a protocol's lines": b"$-1\r\n*2\r\n$3\r\nfoo\r\n",
    "a megabyte": ALL_BYTES * 4096,
}


def test_a_task_id_may_be_any_text(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    for name in HOSTILE:
        assert push(backend, name, "bystander") == [True, True]
        assert push(backend, name) == [False]

        held, bystander = take_ready(backend)
        assert (held.task_id, held.body) == (name, name.encode())
        assert backend.extend([held], 60.0) == []
        assert backend.settle([Release(held, body=b"new"), Ack(bystander)]) == []
        assert backend.cancel(QUEUE, name) == b"new", name
        assert backend.get(QUEUE, name) is None, name

        push(backend, name)
        take(backend, worker="dead")
        assert backend.recover([QUEUE], "dead", started=[name]) == 1, name
        held = take(backend)
        assert (held.task_id, held.deliveries) == (name, 2)
        assert backend.settle([Bury(held, name)]) == []
        [letter] = backend.dead(QUEUE, task_id=name)
        assert (letter.task_id, letter.note) == (name, name)
        assert backend.retry_dead(QUEUE, [letter.letter_id]) == [letter.letter_id], name
        assert backend.get(QUEUE, name) == name.encode()


def test_a_queue_name_may_be_any_text(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    push(backend, "t1")
    for name in HOSTILE:
        push(backend, "t1", "t2", "t3", to=name)

        one, two = take_ready(backend, 2, of=name)
        assert (one.queue_name, one.body) == (name, b"t1")
        assert backend.extend([one], 60.0) == []
        assert backend.settle([Ack(one), Bury(two, "note")]) == []
        assert backend.count(name) == Counts(waiting=1, dead=1), name
        [letter] = backend.dead(name)
        assert letter.queue_name == name
        assert backend.retry_dead(name, [letter.letter_id]) == [letter.letter_id], name
        assert name in backend.queues()
        left = ["t3", "t2"] if backend.orders_by_due else ["t2", "t3"]
        assert drain(backend, of=name) == left, name
        assert backend.count(QUEUE) == Counts(waiting=1), name


def test_all_these_are_different_ids(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    assert push(backend, *HOSTILE) == [True] * len(HOSTILE)

    held = take_ready(backend)

    assert ids(held) == HOSTILE
    assert [one.body.decode() for one in held] == HOSTILE
    assert backend.settle([Bury(one, "note") for one in held]) == []
    letters = backend.dead(QUEUE, limit=1000)
    assert [letter.task_id for letter in reversed(letters)] == HOSTILE
    assert len({letter.letter_id for letter in letters}) == len(HOSTILE)


SIMILAR = [
    *HOSTILE,
    *("q", "qq", "Q", "q ", " q", "q:", ":q", "q:q", "q}", "{q", "{q}", "{q}q", "{q}:q", "q}:{q"),
    *("q:waiting", "q:delayed", "q:leased", "q:dead", "q:order", "q/waiting", "waiting"),
    *("queues", "alligator", "alligator:q", "alligator:{q}", "tasks", "sqlite_master"),
    *("ß", "ss", "SS", "ẞ", "İ", "i", "I", "ı"),
    "q" * 200,
    "q" * 199,
    "ř" * 100,
]


def test_queues_of_similar_names_do_not_mix(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    similar = carried(backend, SIMILAR)
    for name in similar:
        backend.push_many(name, [Message("t1", name.encode()), Message("t2", b"two")])
    assert backend.queues() == sorted(similar)

    first = [take(backend, of=name) for name in similar]

    assert [held.body.decode() for held in first] == similar
    for name, held in itertools.islice(zip(similar, first, strict=True), 0, None, 2):
        assert backend.settle([Bury(held, "note")]) == []
        backend.drop_all(name)
    for place, name in enumerate(similar):
        expected = Counts(waiting=1, running=1) if place % 2 else Counts(dead=1)
        assert backend.count(name) == expected, name
        assert len(backend.dead(name)) == expected.dead, name


def test_the_longest_names_fit(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)
    for queue_name, task_id in [
        ("q" * 200, "t" * 255),
        ("ř" * 100, "ř" * 127),
        ("🐊" * 50, "🐊" * 63),
    ]:
        if not carried(backend, [queue_name]):
            continue
        assert push(backend, task_id, to=queue_name) == [True]
        held = take(backend, of=queue_name)
        assert (held.queue_name, held.task_id) == (queue_name, task_id)
        assert backend.settle([Ack(held)]) == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_may_be_any_bytes(backend: Backend, body: bytes) -> None:
    skip_unless_it_carries(backend, len(body))
    skip_unless_it_picks(backend)
    backend.push_many(QUEUE, [Message("t1", body), Message("t2", b"next")])

    held = take(backend)
    assert held.body == body
    backend.settle([Release(held)])
    by_id = backend.reserve_task(QUEUE, "t1", "w")
    assert by_id is not None
    assert by_id.body == body
    backend.settle([Release(by_id)])
    assert backend.cancel(QUEUE, "t1") == body

    assert take(backend).body == b"next"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_body_of_a_new_attempt_may_be_any_bytes(backend: Backend, body: bytes) -> None:
    skip_unless_it_carries(backend, len(body))
    with skipping_what_is_too_big():
        backend.push_many("other", [Message("t1", body)])
    push(backend, "t1")

    backend.settle([Release(take(backend), body=body)])

    held = take(backend)
    assert held.body == body
    backend.settle([Bury(held, "note")])
    [letter] = backend.dead(QUEUE)
    assert letter.body == body
    backend.retry_dead(QUEUE, [letter.letter_id])
    assert backend.pop(QUEUE) == body


def test_a_batch_may_be_many_megabytes(backend: Backend) -> None:
    skip_unless_it_carries(backend, 1_000_000)
    bodies = [bytes([number]) * 1_000_000 for number in range(10)]
    with skipping_what_is_too_big():
        backend.push_many(QUEUE, [Message(f"t{n}", body) for n, body in enumerate(bodies)])

    held = take_ready(backend)

    assert [one.body for one in held] == bodies
    assert backend.settle([Ack(one) for one in held]) == []
