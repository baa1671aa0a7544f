"""What is particular to beanstalkd: ids of its own, whole seconds, what others put there, cut connections."""

import errno
import gc
import json
import socketserver
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from operator import add
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import greenstalk
import pytest

from alligator import Gator, Task
from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release, Reservation
from alligator.backends.beanstalk import connection
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.holdings import Holdings
from alligator.backends.beanstalk_backend import Client
from alligator.exceptions import (
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    NotFinished,
    QueueFull,
    TaskTooBig,
)
from alligator.testing.running import Child, in_a_thread, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    LONG,
    PATIENCE,
    QUEUE,
    at_rest,
    ids,
    take,
    take_ready,
    until,
)
from alligator.verify.proxy import Proxy
from tests.support.beanstalkd import Beanstalkd
from tests.support.kinds import empty_store

LIMIT = 65_535


@pytest.fixture
def dsn(request: pytest.FixtureRequest) -> str:
    return empty_store("beanstalk", request)


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """A client of an empty server, with the ids that it gives."""
    client = Client(dsn)
    yield client
    client.close()


@pytest.fixture
def other(dsn: str) -> Iterator[Client]:
    """Another client of that server."""
    other = Client(dsn)
    yield other
    other.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Beanstalkd]:
    """A server for one test, to be killed and started again."""
    with Beanstalkd.installed(tmp_path) as server:
        yield server


@pytest.fixture
def own(own_server: Beanstalkd) -> Iterator[Client]:
    """A client of that server."""
    own = Client(own_server.dsn)
    yield own
    own.close()


def push(client: Backend, *bodies: str, delay: float = 0.0) -> list[str]:
    return client.push_named(QUEUE, [Message("own", body.encode(), delay) for body in bodies])


# Ids.


def test_the_id_of_a_task_is_that_of_its_job_and_its_own_stays_in_the_payload(dsn: str) -> None:
    gator = Gator(dsn)
    with gator.options(task_id="mine") as opts:
        task = opts.task(add, 1, 2)

    assert task.task_id.isdecimal()
    held = take(gator.backend)
    assert held.task_id == task.task_id
    assert json.loads(held.body)["task_id"] == "mine"
    gator.backend.close()


def test_every_task_of_a_batch_is_told_its_id(dsn: str) -> None:
    gator = Gator(dsn)
    with gator.batch() as batch:
        tasks = [batch.task(add, number, 1) for number in range(1200)]

    assert ids(take_ready(gator.backend, 2000)) == [task.task_id for task in tasks]
    gator.backend.close()


def test_a_task_can_be_run_and_canceled_by_the_id_that_its_push_told(dsn: str) -> None:
    gator = Gator(dsn)
    one, two = gator.task(add, 1, 2), gator.task(add, 3, 4)

    canceled = gator.cancel(two.task_id)
    assert canceled is not None
    assert canceled.func is add
    assert gator.cancel(two.task_id) is None
    done = gator.get(one.task_id)
    assert done is not None
    assert done.result == 3
    assert gator.get(one.task_id) is None
    assert gator.len() == 0
    gator.backend.close()


def test_who_waits_is_not_told_what_came_of_a_former_task_of_that_id(
    dsn: str, server: Beanstalkd, tmp_path: Path
) -> None:
    results = f"sqlite://{tmp_path}/results.db"
    gator = Gator(dsn, results=results)
    with gator.options(keep_result=60) as opts:
        former = opts.task(add, 1, 2)
        gator.pop()
        assert former.wait(0) == 3
        server.clear()

        task = opts.task(add, 3, 4)
        assert task.task_id == former.task_id
        with pytest.raises(NotFinished):
            task.wait(0)
        gator.pop()
        assert task.wait(0) == 7
    gator.backend.close()


def test_what_runs_by_hand_and_is_to_be_tried_again_is_queued(dsn: str) -> None:
    gator = Gator(dsn)
    with gator.options(retries=1) as opts:
        opts.task(int, "no number")

    first = gator.pop()
    assert first is not None
    assert gator.len() == 1
    with pytest.raises(ValueError, match="no number"):
        gator.pop()
    [letter] = gator.backend.dead(QUEUE)
    assert json.loads(letter.body)["task_id"] != letter.task_id
    gator.backend.close()


def test_the_five_methods_tell_and_take_the_id_of_the_job(client: Client) -> None:
    one, two = client.push(QUEUE, "any", "{}"), client.push(QUEUE, "any", b"\xff")

    assert one != two
    assert client.len(QUEUE) == 2
    assert client.get(QUEUE, two) == b"\xff"
    assert client.get(QUEUE, "any") is None
    assert client.pop(QUEUE) == b"{}"
    assert client.pop(QUEUE) is None


def test_a_new_attempt_keeps_the_id_and_is_another_job(client: Client) -> None:
    [first] = push(client, "one")
    for body in (b"two", b"three"):
        client.settle([Release(take(client), body=body)])

    held = take(client)

    assert (held.task_id, held.body) == (first, b"three")
    assert client.settle([Release(held)]) == []
    # The job of that id is gone, and the new one goes by no other name.
    assert client.cancel(QUEUE, first) is None
    assert client.cancel(QUEUE, str(int(first) + 2)) is None
    assert client.settle([Bury(take(client), "note")]) == []
    assert [letter.task_id for letter in client.dead(QUEUE)] == [first]


def test_no_other_queues_task_is_found_by_its_id(client: Client) -> None:
    [number] = push(client, "one")

    assert client.cancel("other", number) is None
    assert client.reserve_task("other", number, "w") is None
    for name in ["", "0", "-1", " 1", "01", "1.0", "x", "9" * 30, "１"]:
        assert client.cancel(QUEUE, name) is None
        assert client.reserve_task(QUEUE, name, "w") is None
    assert client.count(QUEUE) == Counts(waiting=1)


def test_what_needs_single_tasks_is_refused(client: Client, dsn: str) -> None:
    gator = Gator(dsn)
    for options in ({"if_exists": "skip"}, {"depends_on": ["1"]}, {"keep_result": 60}):
        with (
            pytest.raises(InvalidOption, match="use a store that"),
            gator.options(**options) as opts,
        ):
            opts.task(add, 1, 2)
    with pytest.raises(InvalidOption, match="replaces and follow"):
        client.push_many(QUEUE, [Message("t1", b""), Message("t2", b"", replaces=True)])

    assert gator.len() == 0
    gator.backend.close()


# Jobs as others see and put them.


def test_a_task_of_a_released_version_is_run_as_it_lies(dsn: str, server: Beanstalkd) -> None:
    body = Gator("locmem://").prepare(Task(task_id="old"), add, 2, 3).serialize()
    payload = body.encode() if isinstance(body, str) else body
    server.say(b"use all\r\n" + b"put 2147483648 0 120 %d\r\n" % len(payload) + payload + b"\r\n")
    gator = Gator(dsn)
    until(gator.len, "it is there")

    done = gator.pop()

    assert done is not None
    assert (done.task_id, done.result) == ("old", 5)
    assert gator.backend.count(QUEUE) == Counts()
    gator.backend.close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Beanstalkd:
    """The server of this session."""
    server: Beanstalkd = request.getfixturevalue("beanstalk_server")
    return server


def test_a_push_puts_nothing_but_the_payload(client: Client, server: Beanstalkd) -> None:
    [number] = client.push_named("two words", [Message("t1", b'{"a": 1}', priority=5)])

    assert server.say(b"peek %s\r\n" % number.encode()) == b"FOUND %s 8\r\n" % number.encode()
    assert form.tube_of("two words") == "two$20words"


def test_jobs_of_others_are_held_and_settled_whatever_their_urgency(
    client: Client, server: Beanstalkd
) -> None:
    for pri in (0, 1024, 65_536, 2**31 - 1, 2**32 - 1):
        server.say(b"use all\r\nput %d 0 60 4\r\nbody\r\n" % pri)
        held = take(client)
        assert client.settle([Release(held, lapsed=True)]) == []
        held = take(client)
        assert held.body == b"body"
        assert client.settle([Bury(held, "note")]) == []
        [letter] = client.dead(QUEUE)
        assert client.retry_dead(QUEUE, [letter.letter_id]) == [letter.letter_id]
        assert client.settle([Ack(take(client))]) == []
        assert client.count(QUEUE) == Counts()


@pytest.mark.parametrize(
    "body",
    [
        b"alligator-job 1 ",
        b"alligator-job 1 {}\n",
        b'alligator-job 1 {"id": "7"}\nx',
        b"alligator-job 1 " + b"[" * 60_000,
        b"alligator",
    ],
    ids=range(5),
)
def test_a_body_that_looks_like_ours_stays_as_it_is(client: Client, body: bytes) -> None:
    [number] = client.push_named(QUEUE, [Message("t1", body)])

    held = take(client)

    assert (held.task_id, held.body) == (number, body)
    client.settle([Release(held, body=body)])
    assert (take(client).task_id, held.body) == (number, body)


def test_what_others_have_buried_is_shown_one_at_a_time(client: Client, server: Beanstalkd) -> None:
    ours, *others = push(client, "ours", "one", "two")
    client.settle([Bury(take(client), "note")])
    for number in others:
        its = number.encode()
        server.say(b"reserve-job %s\r\nbury %s 0\r\n" % (its, its), until=b"BURIED")

    assert client.count(QUEUE) == Counts(dead=3)
    shown: list[str] = []
    for _ in range(3):
        letter = client.dead(QUEUE)[-1]
        shown.append(letter.task_id)
        assert client.purge_dead(QUEUE, [letter.letter_id]) == [letter.letter_id]
    assert sorted(shown) == sorted([ours, *others])
    assert client.count(QUEUE) == Counts()


def test_a_dead_letter_that_somebody_kicks_is_a_task_again(
    client: Client, server: Beanstalkd
) -> None:
    push(client, "one")
    for _ in range(3):
        client.settle([Release(take(client), lapsed=True)])
    held = take(client)
    assert held.deliveries == 4
    client.settle([Bury(held, "poison")])

    assert server.say(b"use all\r\nkick 10\r\n").startswith(b"USING")

    again = take(client)
    assert (again.body, again.deliveries) == (b"one", 1)
    assert client.dead(QUEUE) == []


def test_a_body_that_looks_like_ours_and_is_not_is_handed_out_as_it_is(
    client: Client, server: Beanstalkd
) -> None:
    for head in (b"[" * 60_000, b'{"id": ', b'"id"', b"\xff"):
        body = b"alligator-job 1 " + head
        server.say(b"use all\r\nput 0 0 60 %d\r\n%s\r\n" % (len(body), body), until=b"INSERTED")
        assert take(client).body == body


def test_what_others_put_where_notes_are_is_passed_over(client: Client, server: Beanstalkd) -> None:
    push(client, "one")
    client.settle([Bury(take(client), "note")])
    heads = [
        *(b"", b"[" * 60_000, b"[]", b"{}", b'{"job": "x"}'),
        *(b'{"job": %s, "task": "1", "at": 0}' % job for job in (b"-1", b"1e999", b"9" * 300)),
        *(b'{"job": 1, "task": "1", "at": %s}' % at for at in (b"NaN", b"Infinity", b"9" * 400)),
    ]
    for head in heads:
        put = b"put 0 0 60 %d\r\n%s\r\n" % (len(head), head)
        server.say(b"use all$.dead\r\n" + put, until=b"INSERTED")

    [letter] = client.dead(QUEUE)

    assert (letter.body, letter.note) == (b"one", "note")
    assert client.retry_dead(QUEUE, ["3", letter.letter_id, "4", "5"]) == [letter.letter_id]


def test_a_note_that_grows_beyond_measure_is_shown_in_part(
    client: Client, server: Beanstalkd
) -> None:
    [number] = push(client, "one")
    its = number.encode()
    server.say(b"reserve-job %s\r\nbury %s 0\r\n" % (its, its), until=b"BURIED")
    packed = zlib.compress(b"x" * 30_000_000)
    body = b'{"job": %s, "task": "1", "at": 1, "zlib": true}\n%s' % (its, packed)
    put = b"put 0 0 60 %d\r\n%s\r\n" % (len(body), body)
    server.say(b"use all$.dead\r\n" + put, until=b"INSERTED")

    [letter] = client.dead(QUEUE)

    assert len(letter.note) == 10_000_000


def test_many_letters_are_retried_and_purged(client: Client) -> None:
    push(client, *(f"t{number}" for number in range(150)))
    client.settle([Bury(held, "note") for held in take_ready(client)])
    names = [letter.letter_id for letter in client.dead(QUEUE, limit=200)]

    assert client.purge_dead(QUEUE, ["0", *names[:70], names[0]]) == names[:70]
    later = client.now() + FAR_OFF
    assert client.retry_dead(QUEUE, [*names[:71], names[71]], later) == names[70:72]
    assert client.retry_dead(QUEUE, names) == names[72:]

    assert client.count(QUEUE) == Counts(waiting=78, delayed=2)
    assert client.count(f"{QUEUE}$.dead") == Counts()
    assert client.dead(QUEUE) == []


def test_a_long_note_is_kept_as_far_as_there_is_room(client: Client) -> None:
    noise = "".join(
        chr(97 + (number * number * 31 + number // 7) % 26) for number in range(300_000)
    )
    push(client, "x" * LIMIT)
    client.settle([Bury(take(client), noise)])

    [letter] = client.dead(QUEUE)

    assert len(letter.body) == LIMIT
    assert noise.startswith(letter.note)
    assert len(letter.note) > 10_000


def test_letters_are_whole_for_several_who_read_them(client: Client, other: Client) -> None:
    push(client, *(f"t{number}" for number in range(150)))
    client.settle([Bury(held, "note") for held in take_ready(client)])

    counts = in_threads(4, lambda number: len((client, other)[number % 2].dead(QUEUE, limit=200)))

    assert counts == [150] * 4
    assert client.count(QUEUE) == Counts(dead=150)


# Sizes, names, times.


def test_a_task_as_big_as_the_server_takes_is_queued_and_no_bigger_one(client: Client) -> None:
    client.push(QUEUE, "t1", b"x" * LIMIT)
    with pytest.raises(TaskTooBig, match=r"'big' takes 65536 bytes.*65535"):
        client.push_many(
            QUEUE, [Message("fits", b"x" * (LIMIT - 1)), Message("big", b"x" * (LIMIT + 1))]
        )

    assert client.len(QUEUE) == 1
    assert len(client.pop(QUEUE) or b"") == LIMIT


def test_the_limit_is_the_servers(tmp_path: Path) -> None:
    with Beanstalkd.installed(tmp_path, "-z", "1000000") as server:
        client = Client(server.dsn)
        client.push(QUEUE, "t1", b"x" * 1_000_000)
        with pytest.raises(TaskTooBig):
            client.push(QUEUE, "t1", b"x" * 1_000_001)
        assert len(client.pop(QUEUE) or b"") == 1_000_000
        client.close()


def test_a_limit_that_has_shrunk_is_heeded(tmp_path: Path, own_server: Beanstalkd) -> None:
    client = Client(own_server.dsn)
    client.push(QUEUE, "t1", b"small")
    own_server.kill()
    smaller = Beanstalkd.installed(tmp_path, "-z", "100")
    smaller.port = own_server.port
    with smaller:
        with pytest.raises(TaskTooBig):
            client.push_many(QUEUE, [Message("t2", b"small"), Message("t3", b"x" * 1000)])
        with pytest.raises(TaskTooBig, match=r"'t4' takes 1000 bytes.*100"):
            client.push(QUEUE, "t4", b"x" * 1000)
        assert client.len(QUEUE) == 1
        client.close()


def test_a_limit_that_has_grown_is_heeded(tmp_path: Path, own_server: Beanstalkd) -> None:
    client = Client(own_server.dsn)
    with pytest.raises(TaskTooBig):
        client.push(QUEUE, "t1", b"x" * 100_000)
    own_server.kill()
    bigger = Beanstalkd.installed(tmp_path, "-z", "100000")
    bigger.port = own_server.port
    with bigger:
        client.push(QUEUE, "t1", b"x" * 100_000)
        client.close()


def test_a_new_attempt_that_is_too_big_is_buried_and_not_lost(client: Client) -> None:
    push(client, "x" * LIMIT)
    held = take(client)

    assert client.settle([Release(held, body=b"y" * LIMIT)]) == []

    [letter] = client.dead(QUEUE)
    assert (letter.task_id, len(letter.body)) == (held.task_id, LIMIT)
    assert "bigger" in letter.note


def test_a_queue_whose_name_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="takes 300 bytes in beanstalkd"):
        client.push("ř" * 50, "t1", "{}")
    assert client.queues() == []


def test_a_delay_is_never_cut_short(client: Client) -> None:
    started = time.monotonic()
    push(client, "one", delay=1.01)

    take(client)

    assert time.monotonic() - started >= 1.01


@pytest.mark.parametrize(
    "text",
    [
        "beanstalk://user:secret@localhost/",
        "beanstalk://localhost:port/",
        "beanstalk://localhost/path",
        "beanstalk://localhost/?ttr=soon",
        "beanstalk://localhost/?ttr=2",
        "beanstalk://localhost/?lease=60",
    ],
)
def test_a_dsn_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Client(text)
    assert "secret" not in str(caught.value)


def test_a_dsn_says_how_long_tasks_are_handed_out(dsn: str) -> None:
    client = Client(dsn + "?ttr=60")
    assert client.shortest_lease() == float("inf")
    push(client, "one")
    take(client)

    assert client.shortest_lease() == 60.0
    client.close()


@pytest.mark.parametrize("forgets", [True, False])
def test_a_server_that_keeps_nothing_on_disk_is_warned_of(tmp_path: Path, forgets: bool) -> None:
    server = Beanstalkd.installed(tmp_path)
    server.forgets = forgets
    with server:
        client = Client(server.dsn)
        assert ["nothing on disk" in text for text in client.warnings()] == [True] * forgets
        client.close()


# Several queues.


def test_many_queues_that_are_empty_are_looked_at_together(
    client: Client, server: Beanstalkd
) -> None:
    names = [f"queue {number}" for number in range(50)]
    with greenstalk.Client(("127.0.0.1", server.port)) as person:
        before = person.stats()["cmd-reserve-with-timeout"]

        assert client.reserve(names, "w").reservations == []
        client.push(names[30], "t1", b"one")
        client.push(names[20], "t2", b"two")
        held = client.reserve(names, "w", limit=10).reservations

        assert [one.body for one in held] == [b"two", b"one"]
        assert person.stats()["cmd-reserve-with-timeout"] - before <= 20


# Waiting.


def test_an_idle_wait_is_one_command_in_seconds(client: Client, server: Beanstalkd) -> None:
    push(client, "one")
    take(client)  # as another thread might, and be busy with it
    with greenstalk.Client(("127.0.0.1", server.port)) as person:
        before = person.stats()["cmd-reserve-with-timeout"]

        with at_rest():
            assert client.reserve([QUEUE], "w", wait=2.0).reservations == []

        assert person.stats()["cmd-reserve-with-timeout"] - before == 2  # a look, and the wait


def test_while_one_thread_waits_others_settle_extend_and_push(client: Client) -> None:
    push(client, "one", "two")
    one, two = take_ready(client)
    with in_a_thread(lambda: client.reserve([QUEUE], "w", wait=LONG)) as waiting:
        time.sleep(0.1)  # until it waits
        started = time.monotonic()
        assert client.extend([one, two], 60.0) == []
        assert client.settle([Ack(one), Ack(two)]) == []
        push(client, "three")
        [three] = waiting.result(PATIENCE).reservations
    assert time.monotonic() - started < 2
    assert three.body == b"three"


# Whoever holds a task has gone.


@pytest.mark.parametrize("body", [None, b"new"], ids=["ack", "new attempt"])
def test_what_the_server_has_taken_back_is_not_ours_to_settle(
    client: Client, other: Client, server: Beanstalkd, body: bytes | None
) -> None:
    server.say(b"use all\r\nput 0 0 1 3\r\none\r\n", until=b"INSERTED")
    slow = take(client, lease=60.0)

    def is_back() -> bool:
        client.reserve(["other"], "w")  # or the server may forget its TTR
        return other.count(QUEUE) == Counts(waiting=1)

    until(is_back, "the TTR is over")
    late = Ack(slow) if body is None else Release(slow, body=body)
    assert client.settle([late]) == [late]

    assert other.count(QUEUE) == Counts(waiting=1)
    fresh = take(other)
    assert (fresh.task_id, fresh.body, fresh.deliveries) == (slow.task_id, b"one", 2)


def test_what_a_process_held_that_died_is_there_at_once_and_counted(
    client: Client, dsn: str
) -> None:
    push(client, "one")

    def take_and_die() -> int:
        return take(Client(dsn)).deliveries

    with Child(take_and_die) as child:
        assert child.result() == 1

    assert take(client).deliveries == 2


def test_a_forked_child_holds_nothing_and_keeps_nothing_from_being_given_back(
    client: Client, other: Client
) -> None:
    push(client, "one", "two")
    one, two = take_ready(client)

    with Child(lambda: [len(client.settle([Ack(one)])), client.len(QUEUE)]) as child:
        assert child.result() == [1, 0]
    assert client.settle([Ack(two)]) == []

    with Child(lambda: time.sleep(LONG)):
        client.close()  # as if it had died, with a child of its own still alive
        assert take(other).body == b"one"


def test_a_fork_amid_a_call_of_another_thread_goes_on(own_server: Beanstalkd, own: Client) -> None:
    push(own, "one")
    own_server.freeze()
    with in_a_thread(lambda: own.count(QUEUE)) as counting:
        time.sleep(0.1)  # until it waits for an answer
        with Child(own.shortest_lease) as child, in_a_thread(child.result) as answer:
            try:
                assert answer.result(PATIENCE) == float("inf")
            finally:
                child.kill()
                own_server.kill()
        with pytest.raises(BackendUnavailable):
            counting.result(PATIENCE)


def test_whichever_line_an_exception_breaks_off_the_next_push_is_right(dsn: str) -> None:
    """As a timeout does, or Ctrl-C."""
    line, was_broken_off = 0, True
    while was_broken_off:
        line += 1
        client = Client(dsn)
        push(client, "one")
        # To another queue, so that the server has to be told.
        was_broken_off = broken_off(partial(client.push, "other", "t", b"other"), line)

        [number] = client.push_named("other", [Message("t", b"right")])
        assert client.cancel("other", number) == b"right"
        assert client.pop(QUEUE) == b"one"
        assert client.count(QUEUE) == Counts()
        client.close()
    assert line > 50


class _BrokenOff(BaseException):
    pass


def broken_off(call: Callable[[], object], at: int) -> bool:
    """Call something, and raise an exception in the line so-and-so that it comes to; return whether it did."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal lines
        if not any(name in frame.f_code.co_filename for name in ("beanstalk", "greenstalk")):
            return None
        if event == "line":
            lines += 1
            if lines == at:
                raise _BrokenOff
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except _BrokenOff:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("answer", [b"-ERR unknown command\r\n", b"OUT_OF_MEMORY\r\n", b"\r\n"])
def test_what_is_no_beanstalkd_is_not_taken_for_an_empty_one(answer: bytes) -> None:
    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Client(f"beanstalk://127.0.0.1:{server.server_address[1]}/")
        for call in CALLS:
            with pytest.raises((BackendRefused, BackendUnavailable)):
                call(client)
        late = Ack(Reservation(QUEUE, "1", b"", "w.1.1"))
        assert client.reserve([QUEUE], "w", settlements=[late]).late == [late]
        client.close()
        server.shutdown()


def test_a_connection_that_is_lost_as_it_is_made_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: object, **settings: object) -> NoReturn:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(greenstalk, "Client", lost)

    with pytest.raises(BackendUnavailable, match="not connected"):
        client.count(QUEUE)
    gc.collect()  # a socket left open is warned of


@pytest.fixture
def proxy(client: Client, server: Beanstalkd) -> Iterator[Proxy]:
    """What may cut the connections to the server, which is empty."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def cut_off(proxy: Proxy) -> Iterator[Client]:
    """A client of that server, behind it."""
    cut_off = Client(f"beanstalk://127.0.0.1:{proxy.port}/")
    yield cut_off
    cut_off.close()


def test_what_was_held_by_a_connection_that_was_cut_is_taken_again(
    client: Client, cut_off: Client, proxy: Proxy
) -> None:
    numbers = push(client, "one", "two", "three", "four")
    one, two, three, four = take_ready(cut_off)

    def cut() -> None:
        held = client.count(QUEUE).running
        proxy.cut()
        until(lambda: client.count(QUEUE) == Counts(waiting=held), "the server has noticed")

    cut()
    assert cut_off.shortest_lease() == 0.0

    assert cut_off.extend([one, two, three, four], 60.0) == []

    assert client.count(QUEUE) == Counts(running=4)
    cut()
    assert cut_off.settle([Ack(one), Release(two, body=b"new"), Release(three)]) == []
    again = take_ready(client)
    assert [(held.task_id, held.body, held.deliveries) for held in again] == [
        (numbers[2], b"three", 1),
        (numbers[1], b"new", 1),
    ]
    assert client.settle([Ack(held) for held in again]) == []
    assert cut_off.settle([Ack(four)]) == []
    assert client.count(QUEUE) == Counts()


def test_what_was_cut_off_in_a_worker_is_not_handed_out_to_it_again(
    client: Client, cut_off: Client, proxy: Proxy
) -> None:
    push(client, "one")
    held = take(cut_off)
    proxy.cut()

    until(lambda: client.count(QUEUE) == Counts(waiting=1), "the server has noticed")
    assert take_ready(cut_off) == []

    assert cut_off.settle([Ack(held)]) == []
    assert client.count(QUEUE) == Counts()


def test_what_is_settled_while_another_thread_takes_it_again_is_not_late(
    client: Client, cut_off: Client, proxy: Proxy
) -> None:
    push(client, "one")
    held = take(cut_off)
    holdings: Holdings = vars(cut_off)["_holdings"]
    lost = holdings.all()[0].connection
    # As a thread has it that is in a call.
    with lost.lock, in_a_thread(lambda: cut_off.settle([Ack(held)])) as settling:
        time.sleep(0.1)  # until it waits
        proxy.cut()
        until(lambda: client.count(QUEUE) == Counts(waiting=1), "the server has noticed")
        lost.close()
        assert cut_off.extend([held], 60.0) == []
        lost.lock.release()
        late = settling.result(PATIENCE)
        lost.lock.acquire()

    assert late == []
    assert client.count(QUEUE) == Counts()


def test_what_another_thread_has_given_up_is_not_taken_again(
    client: Client, cut_off: Client, proxy: Proxy
) -> None:
    push(client, "one")
    held = take(cut_off)
    proxy.cut()
    fresh = take(client)
    holdings: Holdings = vars(cut_off)["_holdings"]
    is_taking = vars(holdings)["_taking_again"]
    # As a thread has it that has found the task to be another's, and forgets it.
    with is_taking, in_a_thread(lambda: cut_off.extend([held], 60.0)) as extending:
        time.sleep(0.1)  # until it waits
        holdings.forget(holdings.all()[0])
        client.settle([Release(fresh)])
        is_taking.release()
        assert extending.result(PATIENCE) == [held]
        is_taking.acquire()

    assert client.count(QUEUE) == Counts(waiting=1)


def test_what_another_has_taken_meanwhile_stays_with_it(
    client: Client, cut_off: Client, proxy: Proxy
) -> None:
    push(client, "one")
    slow = take(cut_off)
    proxy.cut()
    fresh = take(client)

    assert cut_off.extend([slow], 60.0) == [slow]
    assert cut_off.settle([Ack(slow)]) == [Ack(slow)]
    assert (fresh.body, fresh.deliveries) == (b"one", 2)
    assert client.settle([Ack(fresh)]) == []


def test_a_late_ack_takes_no_task_from_a_server_that_counts_anew(
    own_server: Beanstalkd, own: Client
) -> None:
    [number] = push(own, "one")
    held = take(own)
    own_server.clear()
    fresh = Client(own_server.dsn)
    assert push(fresh, "another") == [number]

    assert own.settle([Ack(held)]) == [Ack(held)]

    assert fresh.pop(QUEUE) == b"another"
    fresh.close()


def test_a_server_that_was_killed_has_lost_nothing(own_server: Beanstalkd, own: Client) -> None:
    push(own, "one", "two", "three", "dead")
    push(own, "delayed", delay=FAR_OFF)
    one, two, three, dead = take_ready(own)
    own.settle([Bury(dead, "note")])
    own_server.kill()
    for call in CALLS:
        with pytest.raises(BackendUnavailable):
            call(own)
    with pytest.raises(BackendUnavailable):
        own.settle([Ack(one)])
    with pytest.raises(BackendUnavailable):
        own.extend([one, two, three], 60.0)
    own_server.start()

    assert own.settle([Ack(one), Release(two)]) == []
    assert own.count(QUEUE) == Counts(waiting=1, delayed=1, running=1, dead=1)
    assert take(own).body == b"two"
    assert own.settle([Ack(three)]) == []
    [letter] = own.dead(QUEUE)
    assert (letter.body, letter.note) == (b"dead", "note")


CALLS: list[Callable[[Client], object]] = [
    lambda client: push(client, "t1"),
    take_ready,
    lambda client: client.reserve([QUEUE], "w", wait=LONG),
    lambda client: client.reserve_task(QUEUE, "1", "w"),
    lambda client: client.cancel(QUEUE, "1"),
    lambda client: client.drop_all(QUEUE),
    lambda client: client.count(QUEUE),
    lambda client: client.queues(),
    lambda client: client.dead(QUEUE),
    lambda client: client.retry_dead(QUEUE, ["1"]),
    lambda client: client.purge_dead(QUEUE, ["1"]),
    lambda client: client.pop(QUEUE),
]


def test_who_waits_is_told_that_the_server_is_gone(own_server: Beanstalkd, own: Client) -> None:
    with in_a_thread(lambda: own.reserve([QUEUE], "w", wait=LONG)) as waiting:
        time.sleep(0.1)  # until it waits
        own_server.kill()
        with pytest.raises(BackendUnavailable):
            waiting.result(PATIENCE)


def test_a_server_that_drains_takes_nothing_new_and_lets_the_rest_be_done(
    own_server: Beanstalkd, own: Client
) -> None:
    push(own, "one", "two", "three")
    one, two, three = take_ready(own)
    own_server.drain()

    with pytest.raises(BackendRefused, match="drain mode"):
        push(own, "four")
    with pytest.raises(BackendRefused, match="drain mode"):
        own.settle([Ack(one), Release(two, body=b"new"), Bury(three, "note")])

    # What could be settled is. The new attempt could not be put, so the old one is still held.
    assert own.count(QUEUE) == Counts(running=1, dead=1)
    assert own.extend([two], 60.0) == []
    assert own.settle([Release(two)]) == []
    assert take(own).body == b"two"


def test_a_server_without_memory_takes_nothing_of_a_batch_and_lets_the_rest_be_done(
    own_server: Beanstalkd, own: Client
) -> None:
    push(own, *(f"t{number}" for number in range(100)))
    one, two, *rest = take_ready(own)
    own_server.fill()

    with pytest.raises(QueueFull):
        own.push_many(QUEUE, [Message("t1", b"small"), *[Message("t2", b"x" * LIMIT)] * 100])
    assert own.count(QUEUE) == Counts(running=100)
    with pytest.raises(QueueFull):
        own.settle([Ack(one), *(Release(held, body=b"y" * 60_000) for held in rest)])

    # What could not be put is still held, as it was.
    counts = own.count(QUEUE)
    assert counts.waiting + counts.running == 99
    assert counts.running > 1
    assert own.settle([Bury(two, "note")]) == []
    assert own.settle([Release(held) for held in still_held(own, rest)]) == []
    assert own.count(QUEUE) == Counts(waiting=98, dead=1)


@pytest.mark.parametrize("err", [greenstalk.OutOfMemoryError, greenstalk.InternalError])
def test_what_a_full_disk_keeps_from_being_given_back_is_still_held(
    client: Client, monkeypatch: pytest.MonkeyPatch, err: type[greenstalk.Error]
) -> None:
    push(client, "one", "two", "three")
    one, two, three = take_ready(client)
    run = connection.Connection.run

    def full(self: connection.Connection, commands: list[connection.Command]) -> list[Any]:
        if any(name in ("release", "bury") for name, *_ in commands):
            return [err(), err(), *run(self, commands[2:])]
        return run(self, commands)

    with monkeypatch.context() as patch:
        patch.setattr(connection.Connection, "run", full)
        with pytest.raises(BackendRefused):
            client.settle([Release(one, delay=5), Bury(two, "note"), Ack(three)])

    assert client.count(QUEUE) == Counts(running=2)
    assert client.settle([Release(one, delay=5), Bury(two, "note")]) == []
    assert client.count(QUEUE) == Counts(delayed=1, dead=1)
    assert len(client.dead(QUEUE)) == 1


def still_held(client: Client, reservations: list[Reservation]) -> list[Reservation]:
    """Return those that are still held."""
    lost = client.extend(reservations, 60.0)
    return [held for held in reservations if held not in lost]


def test_a_server_that_hangs_is_not_waited_for_without_end(
    own_server: Beanstalkd, own: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT", 0.3)
    push(own, "one")
    held = take(own)
    own_server.freeze()

    calls: list[Callable[[], object]] = [
        lambda: own.count(QUEUE),
        lambda: push(own, "two"),
        lambda: own.settle([Ack(held)]),
        lambda: own.reserve([QUEUE], "w", wait=1.0),
    ]
    for call in calls:
        with pytest.raises(BackendUnavailable):
            call()
    own_server.kill()  # it would not hear that it is to stop


def test_a_new_attempt_is_handed_out_for_as_long_as_the_first(client: Client, dsn: str) -> None:
    producer = Client(dsn + "?ttr=77")
    push(producer, "one")
    producer.close()
    client.settle([Release(take(client), body=b"new")])

    take(client)

    assert client.shortest_lease() == 77.0


def test_a_batch_that_finds_no_room_is_taken_out_again(client: Client) -> None:
    with pytest.raises(QueueFull):
        client.push_many(QUEUE, [Message("t1", b""), Message("t2", b"")], max_length=1)
    assert client.len(QUEUE) == 0


def test_an_emptied_queue_of_ten_thousand_leaves_what_is_held(client: Client) -> None:
    push(client, *(f"t{number}" for number in range(10_000)))
    push(client, *(f"d{number}" for number in range(50)), delay=FAR_OFF)
    held = take(client)

    client.drop_all(QUEUE)

    assert client.count(QUEUE) == Counts(running=1)
    assert client.settle([Release(held)]) == []
    assert client.pop(QUEUE) == b"t0"


def test_many_threads_do_not_get_in_each_others_way(client: Client) -> None:
    done: list[bytes] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        push(client, *(f"{number}-{turn}" for turn in range(50)))
        while held := take_ready(client, 7):
            assert client.extend(held, 60.0) == []
            assert client.settle([Ack(one) for one in held]) == []
            with lock:
                done.extend(one.body for one in held)

    in_threads(8, work)

    assert sorted(done) == sorted(b"%d-%d" % (n, t) for n in range(8) for t in range(50))
    assert client.count(QUEUE) == Counts()


def test_what_counts_a_delivery_and_what_does_not(client: Client) -> None:
    push(client, "one")
    counted: list[int] = []
    for lapsed in (False, True, False, True):
        held = take(client)
        counted.append(held.deliveries)
        client.settle([Release(held, lapsed=lapsed)])

    assert [*counted, take(client).deliveries] == [1, 1, 2, 2, 3]


def test_of_what_a_worker_of_this_process_left_only_what_it_had_started_counts(
    client: Client,
) -> None:
    _, second, _ = push(client, "one", "two", "three")
    assert len(client.reserve([QUEUE], "dead", limit=3).reservations) == 3

    assert client.recover([QUEUE], "dead", started={second, "unknown"}) == 3

    held = {one.body: one.deliveries for one in take_ready(client)}
    assert held == {b"one": 1, b"two": 2, b"three": 1}
