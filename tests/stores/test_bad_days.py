"""A store that is gone, full, locked or damaged: it says so, loses nothing, and goes on when it can."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from alligator.backends.base import (
    Ack,
    Backend,
    Bury,
    Counts,
    Follow,
    Message,
    Records,
    Release,
    Reservation,
)
from alligator.backends.redis.connection import Command
from alligator.backends.redis.connection import Server as RedisServer
from alligator.exceptions import BackendRefused, BackendUnavailable, QueueFull, TaskTooBig
from alligator.testing.running import A_MOMENT, in_a_thread, later
from alligator.testing.stores import (
    FAR_OFF,
    IN_A_WHILE,
    LONG,
    PATIENCE,
    QUEUE,
    SOON,
    WORKER,
    buried,
    drain,
    ids,
    opened,
    push,
    records_of,
    soon_but_after,
    take,
    take_ready,
    until,
    wait_for,
)
from alligator.verify.proxy import Proxy
from tests.support.kinds import Mortal
from tests.support.servers import Server

HELD = Reservation(QUEUE, "t1", b"", f"{WORKER}.1")
FOLLOW = Follow("follow", b"succeeded", b"failed")
PRIOR = Message("t1", b"", priority=5)
REPLACING = Message("t1", b"", replaces=True)

CALLS: dict[str, Callable[[Backend], Any]] = {
    "push_many": lambda backend: push(backend, "t1"),
    "push_many, by priority": lambda backend: backend.push_many(QUEUE, [PRIOR]),
    "push_many, replacing": lambda backend: backend.push_many(QUEUE, [REPLACING]),
    "push_many, to so many": lambda backend: backend.push_many(QUEUE, [PRIOR], max_length=99),
    "push_if": lambda backend: backend.push_if(QUEUE, PRIOR, f"schedules:{QUEUE}/s", b"", b""),
    "find": lambda backend: backend.find(QUEUE, "t1"),
    "reschedule": lambda backend: backend.reschedule(QUEUE, ["t1"]),
    "watch": lambda backend: backend.watch(QUEUE, "t1", FOLLOW),
    "reserve": take_ready,
    "reserve and wait": lambda backend: backend.reserve([QUEUE], WORKER, wait=LONG),
    "reserve_task": lambda backend: backend.reserve_task(QUEUE, "t1", WORKER),
    "settle": lambda backend: backend.settle([Ack(HELD)]),
    "extend": lambda backend: backend.extend([HELD], 60.0),
    "recover": lambda backend: backend.recover([QUEUE], WORKER),
    "cancel": lambda backend: backend.cancel(QUEUE, "t1"),
    "drop_all": lambda backend: backend.drop_all(QUEUE),
    "count": lambda backend: backend.count(QUEUE),
    "queues": lambda backend: backend.queues(),
    "dead": lambda backend: backend.dead(QUEUE),
    "retry_dead": lambda backend: backend.retry_dead(QUEUE, ["1"]),
    "retry_dead, later": lambda backend: backend.retry_dead(QUEUE, ["1"], due_at=1.0),
    "purge_dead": lambda backend: backend.purge_dead(QUEUE, ["1"]),
    "len": lambda backend: backend.len(QUEUE),
    "push": lambda backend: backend.push(QUEUE, "t1", "{}"),
    "pop": lambda backend: backend.pop(QUEUE),
    "get": lambda backend: backend.get(QUEUE, "t1"),
    "records.get": lambda backend: records_of(backend).get("a/b"),
    "records.get_many": lambda backend: records_of(backend).get_many(["a/b", "a/c"]),
    "records.set": lambda backend: records_of(backend).set("a/b", b""),
    "records.set, for a while": lambda backend: records_of(backend).set("a/b", b"", LONG),
    "records.set_many": lambda backend: records_of(backend).set_many({"a/b": b"", "a/c": b""}),
    "records.wait": lambda backend: records_of(backend).wait(["a/d", "a/e"], timeout=0.01),
    "records.swap": lambda backend: records_of(backend).swap("a/b", None, b""),
    "records.delete": lambda backend: records_of(backend).delete("a/b"),
    "records.delete, several": lambda backend: records_of(backend).delete("a/b", "a/c"),
    "records.list": lambda backend: records_of(backend).list("a"),
    "records.list, some": lambda backend: records_of(backend).list("a", limit=1),
}


@pytest.fixture
def mortal_client(mortal: Mortal) -> Iterator[Backend]:
    """A client of a server of any kind that the test may kill."""
    with opened(mortal.dsn) as backend:
        yield backend


@pytest.fixture
def client(own_server: Server) -> Iterator[Backend]:
    """A client of a server that the test may kill."""
    with opened(own_server.dsn) as backend:
        yield backend


# A server that is killed and started again.


def test_every_call_says_that_the_server_is_gone_and_works_once_it_is_back(
    mortal: Mortal, mortal_client: Backend
) -> None:
    push(mortal_client, "t0")
    mortal.kill()

    for name, call in CALLS.items():
        with pytest.raises(BackendUnavailable):
            call(mortal_client)
            pytest.fail(f"{name} did not say that the server is gone")

    mortal.start()
    for name, call in CALLS.items():
        if name != "reserve and wait":
            call(mortal_client)


def test_what_a_server_had_acknowledged_is_there_after_its_death(
    mortal: Mortal, mortal_client: Backend
) -> None:
    buried(mortal_client, "dead")
    push(mortal_client, "t1", "t2", "t3")
    push(mortal_client, "delayed", delay=FAR_OFF)
    one, two = take_ready(mortal_client, 2)
    records_of(mortal_client).set("workers/1", b"alive")

    mortal.kill()
    mortal.start()

    assert mortal_client.count(QUEUE) == Counts(waiting=1, delayed=1, running=2, dead=1)
    assert mortal_client.settle([Ack(one), Release(two)]) == []
    assert drain(mortal_client) == ["t2", "t3"]
    assert records_of(mortal_client).get("workers/1") == b"alive"


def test_who_waits_is_told_soon_that_the_server_is_gone(
    mortal: Mortal, mortal_client: Backend
) -> None:
    started = time.monotonic()
    with later(mortal.kill), pytest.raises(BackendUnavailable):
        # The wait may end without an error, for its settlements are done; then the next one tells.
        assert mortal_client.reserve([QUEUE], WORKER, wait=LONG).reservations == []
        mortal_client.reserve([QUEUE], WORKER, wait=LONG)

    assert time.monotonic() - started < SOON


def test_a_wait_begun_after_the_server_is_back_is_woken(
    mortal: Mortal, mortal_client: Backend
) -> None:
    mortal_client.reserve([QUEUE], WORKER, wait=0.01)
    mortal.kill()
    with pytest.raises(BackendUnavailable):
        mortal_client.reserve([QUEUE], WORKER, wait=LONG)
    mortal.start()

    with later(lambda: push(mortal_client, "t1")):
        assert take(mortal_client).task_id == "t1"


def test_a_server_whose_scripts_were_flushed_gets_them_anew(
    own_server: Server, client: Backend
) -> None:
    push(client, "t1", "t2", "t3")
    held = take(client)
    own_server.command("SCRIPT", "FLUSH")

    batch = client.reserve([QUEUE], WORKER, settlements=[Ack(held)])

    assert (ids(batch.reservations), batch.late) == (["t2"], [])
    own_server.command("SCRIPT", "FLUSH")
    assert client.settle([Ack(one) for one in batch.reservations]) == []
    own_server.command("SCRIPT", "FLUSH")
    assert push(client, "t3", "t4") == [False, True]
    own_server.command("SCRIPT", "FLUSH")
    assert drain(client) == ["t3", "t4"]


def test_every_call_brings_the_scripts_that_a_server_lacks(
    own_server: Server, client: Backend
) -> None:
    for name, call in CALLS.items():
        if name != "reserve and wait":
            own_server.command("SCRIPT", "FLUSH")
            call(client)


def test_an_answer_that_is_cut_short_loses_and_doubles_nothing(own_server: Server) -> None:
    with Proxy(own_server.port) as proxy, ExitStack() as stack:
        client = stack.enter_context(opened(f"redis://127.0.0.1:{proxy.port}"))
        there = stack.enter_context(opened(own_server.dsn))
        push(client, "warm-up")
        drain(client)
        for passed in range(0, 40, 3):  # the longest answer here has about 100 bytes
            proxy.cut_after(passed)
            push(client, "t1")  # again by itself, if need be
            assert there.count(QUEUE) == Counts(waiting=1)

            proxy.cut_after(passed)
            with pytest.raises(BackendUnavailable):
                client.reserve([QUEUE], WORKER)
            assert there.count(QUEUE) == Counts(running=1)
            assert client.recover([QUEUE], WORKER) == 1

            held = take(client)
            proxy.cut_after(passed)
            with suppress(BackendUnavailable):
                client.settle([Ack(held)])
            proxy.cut_after(None)
            client.settle([Ack(held)])
            assert there.count(QUEUE) == Counts()


def test_who_waited_and_got_no_answer_with_the_task_is_told(own_server: Server) -> None:
    with Proxy(own_server.port) as proxy, ExitStack() as stack:
        client = stack.enter_context(opened(f"redis://127.0.0.1:{proxy.port}"))
        there = stack.enter_context(opened(own_server.dsn))
        take_ready(client)
        with in_a_thread(lambda: client.reserve([QUEUE], WORKER, wait=LONG)) as waiting:
            until(lambda: "cmd=blpop" in own_server.command("CLIENT", "LIST"), "it waits")
            woken = b"*2\r\n$20\r\nalligator:{all}:wake\r\n$1\r\n1\r\n"
            proxy.cut_after(len(woken) + 1)
            push(there, "t1")

            with pytest.raises(BackendUnavailable):
                waiting.result(LONG)
        assert there.count(QUEUE) == Counts(running=1)
        assert client.recover([QUEUE], WORKER) == 1


def test_a_client_whose_connections_are_cut_makes_new_ones(
    own_server: Server, client: Backend
) -> None:
    push(client, "t1", "t2")
    held = take(client)
    own_server.command("CLIENT", "KILL", "TYPE", "normal")

    def settles() -> bool:
        try:
            return client.settle([Ack(held)]) == [Ack(held)]  # late: an earlier try did it
        except BackendUnavailable:
            return False

    until(settles, "an answer after the connections were cut")
    assert take(client).task_id == "t2"


def test_a_server_that_is_no_primary_any_more_is_tried_again(
    own_server: Server, client: Backend
) -> None:
    push(client, "t1")
    with (
        soon_but_after(A_MOMENT),
        later(lambda: own_server.command("REPLICAOF", "127.0.0.1", "1")),
    ):
        # Woken by the server, for that can hand out nothing any more.
        assert client.reserve(["other"], WORKER, wait=LONG).reservations == []

    for call in (lambda: push(client, "t2"), lambda: take_ready(client)):
        with pytest.raises(BackendUnavailable, match="cannot answer now"):
            call()
    own_server.command("REPLICAOF", "NO", "ONE")

    assert push(client, "t2") == [True]
    assert drain(client) == ["t1", "t2"]


def test_a_server_that_is_gone_tells_no_time(mortal: Mortal) -> None:
    with opened(mortal.dsn) as backend:
        mortal.kill()

        with pytest.raises(BackendUnavailable):
            backend.now()


def test_who_waits_for_a_value_is_told_soon_that_the_server_is_gone(mortal: Mortal) -> None:
    with opened(mortal.dsn) as backend:
        records = records_of(backend)
        with soon_but_after(0, late=A_MOMENT + SOON), later(mortal.kill):
            with pytest.raises(BackendUnavailable):
                wait_for(records, "results/1")
            with pytest.raises(BackendUnavailable):
                records.wait(["results/1"], LONG)

        mortal.start()
        with soon_but_after(A_MOMENT), later(lambda: records.set("results/1", b"")):
            wait_for(records, "results/1")


def test_who_waits_notices_a_value_that_came_while_its_connection_was_cut(
    own_server: Server,
) -> None:
    with opened(own_server.dsn) as here, opened(own_server.dsn) as there:

        def write_unheard() -> None:
            for kind in ("pubsub", "normal"):
                own_server.command("CLIENT", "KILL", "TYPE", kind)
            # Perhaps on a connection that was cut: it says so then, and the next is a new one.
            until(lambda: is_written(records_of(there), "results/1"), "a write")

        with soon_but_after(0, late=IN_A_WHILE), later(write_unheard):
            while True:
                try:
                    wait_for(records_of(here), "results/1")
                except BackendUnavailable:
                    continue
                break


def is_written(records: Records, key: str) -> bool:
    """Write a value; return whether the store said that it did."""
    try:
        records.set(key, b"")
    except BackendUnavailable:
        return False
    return True


# A server that is full.


@pytest.fixture
def full(own_server: Server, client: Backend) -> Backend:
    """A client of a server without room for more, with tasks waiting and a dead letter."""
    buried(client, "dead")
    push(client, *(f"t{number}" for number in range(100)))
    own_server.command("CONFIG", "SET", "maxmemory", "1mb")  # less than it uses already
    own_server.command("SCRIPT", "FLUSH")
    return client


def test_a_push_to_a_full_server_says_so_and_queues_nothing(full: Backend) -> None:
    with pytest.raises(QueueFull):
        full.push_many(QUEUE, [Message("new", b"x" * 1000)])

    assert full.count(QUEUE) == Counts(waiting=100, dead=1)


def test_a_full_server_still_drains(full: Backend) -> None:
    one, two, three, four, *rest = take_ready(full, 50)

    assert full.extend([one], 60.0) == []
    assert full.settle([Bury(two, "note"), Release(three), Release(four, body=b"new")]) == []
    assert full.settle([Ack(one), *(Ack(held) for held in rest)]) == []
    assert full.recover([QUEUE], WORKER) == 0
    assert full.cancel(QUEUE, "t99") == b"t99"
    letters = [letter.letter_id for letter in full.dead(QUEUE)]
    assert sorted(full.purge_dead(QUEUE, letters)) == sorted(letters)
    assert len(drain(full)) == 51
    assert full.count(QUEUE) == Counts()


def test_who_drains_a_full_server_can_enter_and_leave_a_limit(full: Backend) -> None:
    records = records_of(full)

    assert records.swap("limits/1", None, b"one is in")
    assert records.swap("limits/1", b"one is in", b"nobody is in")
    with pytest.raises(QueueFull):
        records.set("results/1", b"what may be big")


def test_a_server_with_room_again_takes_tasks_again(own_server: Server, full: Backend) -> None:
    with pytest.raises(QueueFull):
        push(full, "new")

    own_server.command("CONFIG", "SET", "maxmemory", "0")

    assert push(full, "new") == [True]


def test_a_push_of_which_the_answer_was_lost_is_not_told_as_refused(
    own_server: Server, client: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RedisServer.answers

    def loses_the_first(server: RedisServer, commands: Sequence[Command]) -> list[Any]:
        run(server, commands)
        monkeypatch.undo()
        own_server.command("CONFIG", "SET", "maxmemory", "1mb")  # less than it uses already
        raise BackendUnavailable("no answer")

    monkeypatch.setattr(RedisServer, "answers", loses_the_first)
    with pytest.raises(BackendUnavailable):
        push(client, "t1")

    assert client.count(QUEUE) == Counts(waiting=1)


# A server that refuses.


def test_a_task_is_queued_also_if_its_queue_s_name_cannot_be_noted(
    own_server: Server, client: Backend
) -> None:
    own_server.command("ACL", "SETUSER", "default", "-sadd")
    assert push(client, "t1") == [True]
    assert client.queues() == []

    own_server.command("ACL", "SETUSER", "default", "+sadd")
    assert push(client, "t2") == [True]
    assert client.queues() == [QUEUE]


def test_a_wrong_password_is_refused_and_not_shown(own_server: Server) -> None:
    own_server.command("CONFIG", "SET", "requirepass", "right-one")
    dsn = own_server.dsn.replace("://", "://:wrong-one@")

    with opened(dsn) as client:
        for call in CALLS.values():
            with pytest.raises(BackendRefused) as caught:
                call(client)
            assert "wrong-one" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_the_right_password_opens(own_server: Server) -> None:
    own_server.command("CONFIG", "SET", "requirepass", "p@ss:w/rd%")
    dsn = own_server.dsn.replace("://", "://:p%40ss%3Aw%2Frd%25@")

    with opened(dsn) as client:
        assert push(client, "t1") == [True]
        assert drain(client) == ["t1"]


# A file that is damaged or busy.


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "queue.db"
    file.write_bytes(b"Dear diary, " * 1000)

    with opened(f"sqlite://{file}") as client:
        for call in CALLS.values():
            with pytest.raises(BackendRefused, match="queue"):
                call(client)

    assert file.read_bytes() == b"Dear diary, " * 1000


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(BackendRefused, match="missing"),
        opened(f"sqlite://{tmp_path}/missing/q.db") as client,
    ):
        push(client, "t1")


def test_a_writer_outside_is_waited_for(tmp_path: Path) -> None:
    dsn = f"sqlite://{tmp_path}/queue.db"
    with opened(dsn) as client:
        push(client, "t1")
        person = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        try:
            person.execute("BEGIN IMMEDIATE")
            with in_a_thread(lambda: push(client, "t2")) as pushing:
                assert client.count(QUEUE) == Counts(waiting=1)
                person.execute("COMMIT")
                assert pushing.result(PATIENCE) == [True]
        finally:
            person.close()
        assert drain(client) == ["t1", "t2"]


LIMIT = 2**20


@pytest.fixture(params=["sqlite", "redis"])
def limited(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    """A store that takes no task of more than a megabyte, in place of some hundreds of them."""
    if request.param == "redis":
        with (
            Server.redis(tmp_path, "--proto-max-bulk-len", str(LIMIT)) as server,
            opened(server.dsn) as backend,
        ):
            yield backend
        return
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def limiting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limiting)
    with opened(f"sqlite://{tmp_path}/queue.db") as backend:
        yield backend


def test_what_is_too_big_for_the_store_is_refused_as_that(limited: Backend) -> None:
    room = LIMIT - 1000  # of SQLite's limit, a row takes some, too
    limited.push_many(QUEUE, [Message("t1", bytes(room))])

    for messages in (
        [Message("big", bytes(LIMIT + 1))],
        [Message("t2", b""), Message("big", bytes(LIMIT + 1))],
        # A server hangs up while this is sent to it, so that its answer is lost.
        [Message("huge", bytes(64 * LIMIT))],
    ):
        with pytest.raises(TaskTooBig, match="carry less"):
            limited.push_many(QUEUE, messages)

    assert limited.count(QUEUE) == Counts(waiting=1)
    assert take(limited).body == bytes(room)
