"""A task is queued and a record swapped in one step, or neither."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from alligator.backends.base import (
    NEVER,
    Ack,
    Backend,
    Counts,
    Follow,
    Message,
    Records,
)
from alligator.keys import with_queue
from alligator.testing.running import Child, in_processes, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    ODD_BODIES,
    ODD_IDS,
    QUEUE,
    buried,
    contents,
    drain,
    ids,
    opened,
    push,
    records_of,
    skip_unless_it_finds,
    take,
    take_ready,
    until,
    woken,
)

KEY = f"schedules:{QUEUE}/nightly"
SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_can(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)
    records_of(abilities)


def test_while_the_record_is_as_known_the_task_is_queued(
    backend: Backend, records: Records
) -> None:
    records.set(KEY, b"old")

    assert backend.push_if(QUEUE, Message("t1", b"one"), KEY, b"old", b"new")

    assert records.get(KEY) == b"new"
    assert records.list(f"schedules:{QUEUE}") == {KEY: b"new"}
    assert backend.count(QUEUE) == Counts(waiting=1)
    assert QUEUE in backend.queues()
    assert contents(take_ready(backend)) == [("t1", b"one")]


def test_where_the_record_is_another_nothing_happens(backend: Backend, records: Records) -> None:
    records.set(KEY, b"another")

    assert not backend.push_if(QUEUE, Message("t1", b"one"), KEY, b"old", b"new")

    assert records.get(KEY) == b"another"
    assert backend.count(QUEUE) == Counts()


def test_where_there_is_no_record_nothing_happens(backend: Backend, records: Records) -> None:
    records.set(f"{KEY}/deleted", b"old")
    records.delete(f"{KEY}/deleted")
    for old in (b"", b"old", b"None", b"nil", b"0"):
        for key in (KEY, f"{KEY}/deleted"):
            assert not backend.push_if(QUEUE, Message("t1", b"one"), key, old, b"new")

    assert records.list(f"schedules:{QUEUE}") == {}
    assert backend.count(QUEUE) == Counts()


def test_an_empty_record_is_not_an_absent_one(backend: Backend, records: Records) -> None:
    records.set(KEY, b"")

    assert not backend.push_if(QUEUE, Message("t1", b""), KEY, b"old", b"new")
    assert backend.push_if(QUEUE, Message("t1", b""), KEY, b"", b"new")
    assert backend.push_if(QUEUE, Message("t2", b""), KEY, b"new", b"")

    assert records.get(KEY) == b""
    assert ids(take_ready(backend)) == ["t1", "t2"]


def test_where_the_record_stays_as_it_is_the_task_is_queued(
    backend: Backend, records: Records
) -> None:
    records.set(KEY, b"same")

    assert backend.push_if(QUEUE, Message("t1", b""), KEY, b"same", b"same")

    assert records.get(KEY) == b"same"
    assert ids(take_ready(backend)) == ["t1"]


def test_a_task_that_is_queued_already_stays_and_the_record_is_swapped(
    backend: Backend, records: Records
) -> None:
    records.set(KEY, b"0")
    push(backend, "held", "waiting")
    held = take(backend)
    push(backend, "delayed", delay=FAR_OFF)

    for turn, name in enumerate(["held", "waiting", "delayed"]):
        message = Message(name, b"another")
        assert backend.push_if(QUEUE, message, KEY, b"%d" % turn, b"%d" % (turn + 1))

    assert records.get(KEY) == b"3"
    assert backend.count(QUEUE) == Counts(waiting=1, delayed=1, running=1)
    assert backend.settle([Ack(held)]) == []
    assert contents(take_ready(backend)) == [("waiting", b"waiting")]
    assert backend.cancel(QUEUE, "delayed") == b"delayed"


def test_several_tasks_are_queued_in_their_order_or_none(
    backend: Backend, records: Records
) -> None:
    names = [f"t{number}" for number in range(1000)]
    messages = [Message(name, name.encode()) for name in names]
    records.set(KEY, b"old")

    assert not backend.push_many_if(QUEUE, messages, KEY, b"another", b"new")
    assert backend.count(QUEUE) == Counts()
    assert backend.push_many_if(QUEUE, messages, KEY, b"old", b"new")
    assert not backend.push_many_if(QUEUE, messages, KEY, b"old", b"new")

    assert records.get(KEY) == b"new"
    assert ids(take_ready(backend, 1000)) == names


def test_a_dead_letter_is_no_obstacle(backend: Backend, records: Records) -> None:
    buried(backend, "t1")
    records.set(KEY, b"old")

    assert backend.push_if(QUEUE, Message("t1", b"new"), KEY, b"old", b"new")

    assert contents(take_ready(backend)) == [("t1", b"new")]


def test_a_message_is_queued_as_it_says(backend: Backend, records: Records) -> None:
    follow = Follow("after", b"well", b"badly")
    push(backend, "t4", "t0")
    held = take(backend)
    messages = [
        Message("t1", b"", delay=FAR_OFF),
        Message("t2", b"", due_at=NEVER),
        Message("t3", b"three", follow=follow),
        Message("t4", b"new", replaces=True),
        Message("t5", b"five", priority=5 if backend.can_prioritize else 0),
    ]
    records.set(KEY, b"")

    for message in messages:
        assert backend.push_if(QUEUE, message, KEY, b"", b"")

    assert backend.count(QUEUE) == Counts(waiting=3, delayed=2, running=1)
    assert backend.settle([Ack(held)]) == []
    expected = ["t5", "t0", "t3", "t4"] if backend.can_prioritize else ["t0", "t3", "t5", "t4"]
    came = take_ready(backend)
    assert ids(came) == expected
    assert backend.settle([Ack(one) for one in came]) == []
    assert contents(take_ready(backend)) == [("after", b"well")]


def test_what_has_no_place_in_a_record_may_be_in_one(backend: Backend, records: Records) -> None:
    for number, name in enumerate(ODD_IDS):
        key = f"schedules:{QUEUE}/{name}"
        old, new = ODD_BODIES[number % len(ODD_BODIES)], ODD_BODIES[number % len(ODD_BODIES) - 1]
        records.set(key, old)

        assert not backend.push_if(QUEUE, Message(name, new), key, new, old)
        assert backend.push_if(QUEUE, Message(name, new), key, old, new)

        assert records.get(key) == new
        [held] = take_ready(backend)
        assert contents([held]) == [(name, new)]
        backend.settle([Ack(held)])


def test_a_queues_name_is_escaped_in_that_of_its_records(
    backend: Backend, records: Records
) -> None:
    names = ["a/b", "a%2Fb", "50%", "%25", "//", "%/%2F%252F", "a"]
    keys = {name: f"schedules:{with_queue(name)}/1" for name in names}
    for name, key in keys.items():
        records.set(key, name.encode())

    for name, key in keys.items():
        assert backend.push_if(name, Message("t1", b""), key, name.encode(), b"new"), name

    for name, key in keys.items():
        assert records.list(f"schedules:{with_queue(name)}") == {key: b"new"}


def test_queues_and_their_records_may_have_any_name(backend: Backend, records: Records) -> None:
    names = [
        "q",
        "a:b",
        ":",
        "{q}",
        "}{",
        "q}",
        "sched ules",
        "schedules:q",
        "žluť",
        "*",
        "%s",
        "' --",
    ]
    for name in names:
        records.set(f"schedules:{name}/1", name.encode())
    for name in names:
        key = f"schedules:{name}/1"
        assert backend.push_if(name, Message("t1", b""), key, name.encode(), b"new"), name

    assert backend.queues() == sorted(names)
    for name in names:
        assert records.list(f"schedules:{name}") == {f"schedules:{name}/1": b"new"}
        assert drain(backend, of=name) == ["t1"]


def test_it_wakes_who_waits(backend: Backend, records: Records) -> None:
    records.set(KEY, b"old")

    def push_it() -> None:
        backend.push_if(QUEUE, Message("t1", b"one"), KEY, b"old", b"new")

    assert woken(backend, push_it).task_id == "t1"


# The record's time.


def test_an_expired_record_is_an_absent_one(backend: Backend, records: Records) -> None:
    records.set(KEY, b"old", ttl=SHORT)
    until(lambda: records.get(KEY) is None, "the expiry of the record")

    assert not backend.push_if(QUEUE, Message("t1", b""), KEY, b"old", b"new")

    assert records.get(KEY) is None
    assert backend.count(QUEUE) == Counts()


def test_a_record_that_was_swapped_does_not_expire(backend: Backend, records: Records) -> None:
    records.set(f"{KEY}/marker", b"", ttl=2 * SHORT)
    records.set(KEY, b"old", ttl=SHORT)
    assert backend.push_if(QUEUE, Message("t1", b""), KEY, b"old", b"new")

    until(lambda: records.get(f"{KEY}/marker") is None, "the expiry of another record")

    assert records.get(KEY) == b"new"
    assert records.list(f"schedules:{QUEUE}") == {KEY: b"new"}


# Others at the same time.

TURNS = 60


def push_in_turns(backend: Backend, number: int) -> int:
    """Push a task for each turn of a shared record, as long as there is one; return how many it was."""
    records, done = records_of(backend), 0
    while (turn := int(records.get(KEY) or b"0")) < TURNS:
        message = Message(f"{turn}-{number}", b"%d" % turn)
        done += backend.push_if(QUEUE, message, KEY, b"%d" % turn, b"%d" % (turn + 1))
    return done


def assert_one_each(backend: Backend, done: list[int]) -> None:
    """One task was pushed for each turn, and whoever pushed it was told."""
    held = take_ready(backend)
    assert [int(one.body) for one in held] == list(range(TURNS))
    by_number = [one.task_id.partition("-")[2] for one in held]
    assert [by_number.count(str(number)) for number in range(len(done))] == done


def test_of_many_threads_one_pushes_each(backend: Backend, records: Records) -> None:
    records.set(KEY, b"0")

    done = in_threads(8, lambda number: push_in_turns(backend, number))

    assert_one_each(backend, done)


def test_of_many_processes_one_pushes_each(dsn: str, connect: Callable[[], Backend]) -> None:
    with opened(dsn) as before:
        records_of(before).set(KEY, b"0")

    def work(number: int) -> int:
        with opened(dsn) as backend:
            return push_in_turns(backend, number)

    assert_one_each(connect(), in_processes(4, work))


def test_of_swaps_and_pushes_at_the_same_time_none_undoes_another(
    backend: Backend, records: Records
) -> None:
    records.set(KEY, b"0")

    def work(number: int) -> int:
        done = 0
        while (turn := int(records.get(KEY) or b"")) < 500:
            old, new = b"%d" % turn, b"%d" % (turn + 1)
            if number % 2:
                done += records.swap(KEY, old, new)
            else:
                done += backend.push_if(QUEUE, Message(f"t{turn}", b""), KEY, old, new)
        return done

    done = in_threads(4, work)

    assert sum(done) == 500
    assert backend.count(QUEUE) == Counts(waiting=done[0] + done[2])


def test_a_killed_process_has_pushed_and_swapped_or_neither(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    chance = random.Random()
    backend = connect()
    records = records_of(backend)
    records.set(KEY, b"0")

    def turn_on() -> None:
        with opened(dsn) as there:
            turn = int(records_of(there).get(KEY) or b"")
            while True:
                message = Message(f"t{turn}", b"")
                there.push_if(QUEUE, message, KEY, b"%d" % turn, b"%d" % (turn + 1))
                turn += 1

    for _ in range(5):
        enough = int(records.get(KEY) or b"") + chance.randrange(1, 20)
        with Child(turn_on) as child:
            until(partial(has_turned, records, enough), "some turns of the child")
            child.kill()
        # A server may still carry out what the child had sent.
        until(partial(is_in_step, backend, records), "as many are queued as were swapped")

    turns = int(records.get(KEY) or b"")
    assert ids(take_ready(backend, turns)) == [f"t{turn}" for turn in range(turns)]


def is_in_step(backend: Backend, records: Records) -> bool:
    return backend.count(QUEUE) == Counts(waiting=int(records.get(KEY) or b""))


def has_turned(records: Records, turns: int) -> bool:
    return int(records.get(KEY) or b"") >= turns
