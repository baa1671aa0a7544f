"""PostgreSQL's own: the schema, connections that are cut, a server that dies in the middle of work, plans."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from math import inf
from typing import Self
from unittest.mock import ANY

import psycopg
import pytest
from psycopg import errors

from alligator.backends import postgres_backend
from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release, Reservation
from alligator.backends.postgres import connection, functions, listener, schema
from alligator.backends.postgres_backend import Client
from alligator.cli import main
from alligator.dsn import DSN
from alligator.exceptions import (
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    TaskTooBig,
)
from alligator.testing.running import A_MOMENT, in_a_thread, in_processes, in_threads, later
from alligator.testing.stores import (
    IN_A_WHILE,
    LONG,
    PATIENCE,
    QUEUE,
    SOON,
    WORKER,
    drain,
    ids,
    opened,
    push,
    records_of,
    soon_but_after,
    take,
    take_ready,
    until,
)
from tests.support.postgres import FAST, SAFE, PostgresServer


@pytest.fixture(params=["postgres_server", "newest_postgres_server"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    """A server of each kind, without our schema."""
    server: PostgresServer = request.getfixturevalue(request.param)
    server.empty()
    return server


@pytest.fixture
def client(server: PostgresServer) -> Iterator[Client]:
    """A client of it."""
    client = Client(server.dsn)
    yield client
    client.close()


# The schema.


def test_many_processes_may_make_the_tables_at_once(server: PostgresServer) -> None:
    def work(number: int) -> list[bool]:
        with opened(server.dsn) as backend:
            return push(backend, f"t{number}")

    assert in_processes(6, work) == [[True]] * 6

    with opened(server.dsn) as backend:
        assert sorted(drain(backend)) == [f"t{number}" for number in range(6)]
    [[version]] = server.run("SELECT version FROM alligator.version")
    assert version == schema.VERSION


def test_a_newer_schema_that_serves_us_no_more_is_left_alone(
    server: PostgresServer, client: Client
) -> None:
    push(client, "t1")
    server.run("UPDATE alligator.version SET version = version + 1, oldest = version + 1")

    with opened(server.dsn) as late, pytest.raises(BackendRefused, match="Update Alligator"):
        push(late, "t2")

    assert drain(client) == ["t1"]  # what knew it before goes on, with the functions that are there


def test_who_runs_while_a_newer_schema_drops_its_functions_is_told_so(
    server: PostgresServer, client: Client
) -> None:
    push(client, "t1")
    server.run("UPDATE alligator.version SET version = version + 1, oldest = version + 1")
    for [function] in server.run(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'reserve'"
    ):
        server.run(f"DROP FUNCTION {function}")

    with pytest.raises(BackendRefused, match="Update Alligator"):
        drain(client)


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets this be a later version, which serves programs of that one and later ones."""

    def begin(oldest: int) -> None:
        later_step = """
        ALTER TABLE {s}.tasks ADD COLUMN colour text NOT NULL DEFAULT 'green';
        ALTER TABLE {s}.leases ADD COLUMN colour text;
        """
        monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, later_step))
        monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
        monkeypatch.setattr(schema, "OLDEST", oldest)

    return begin


def test_an_older_schema_is_brought_up_to_date_by_one_of_many_while_others_work(
    server: PostgresServer, client: Client, next_version: Callable[[int], None]
) -> None:
    with Work(client) as work:
        work.goes_on()
        began = len(work.pushed)
        next_version(schema.VERSION)

        def migrate(number: int) -> bool:
            with opened(server.dsn) as late:
                return late.migrate()

        assert sorted(in_threads(4, migrate)) == [False, False, False, True]
        work.goes_on()
        assert len(work.pushed) > began

    assert work.troubles == []
    [found] = server.run("SELECT version, oldest FROM alligator.version")
    assert found == (schema.VERSION, schema.VERSION - 1)


def test_an_older_program_works_with_a_newer_schema_that_serves_it(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer, opened(server.dsn) as late:
        newer.setattr(schema, "VERSION", schema.VERSION + 1)
        newer.setattr(schema, "STEPS", (*schema.STEPS, ""))
        assert late.migrate()

    with opened(server.dsn) as client:
        assert push(client, "t1") == [True]
        assert (client.migrate(), client.migration()) == (False, "")
        assert drain(client) == ["t1"]


def test_a_printed_migration_is_for_the_version_that_was_found(
    server: PostgresServer, client: Client, next_version: Callable[[int], None]
) -> None:
    push(client, "t1")
    next_version(schema.VERSION)
    with opened(server.dsn) as late:
        printed = late.migration()

    server.run(printed)

    with opened(server.dsn) as late:
        assert late.migration() == ""
        assert drain(late) == ["t1"]
    with pytest.raises(psycopg.errors.RaiseException, match="any more"):
        server.run(printed)


def test_a_migration_does_not_wait_for_ever_behind_an_open_transaction(
    server: PostgresServer,
    client: Client,
    next_version: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push(client, "t1")
    next_version(schema.VERSION)
    monkeypatch.setattr(schema, "_ALONE", schema._ALONE.replace("10s", "10ms"))  # pyright: ignore[reportPrivateUsage]

    with psycopg.connect(server.dsn) as other:
        other.execute("SELECT count(*) FROM alligator.tasks")
        with opened(server.dsn) as late:
            with pytest.raises(BackendUnavailable, match="lock timeout"):
                push(late, "t2")
            other.rollback()
            assert push(late, "t2") == [True]


def test_what_else_is_in_the_schema_stays(server: PostgresServer) -> None:
    server.run("CREATE SCHEMA shop")
    server.run("CREATE FUNCTION shop.price() RETURNS integer LANGUAGE sql AS 'SELECT 7'")

    with opened(f"{server.dsn}?schema=shop") as backend:
        push(backend, "t1")

    assert server.run("SELECT shop.price()") == [(7,)]


@pytest.fixture
def guests(server: PostgresServer) -> str:
    """The DSN for a role that has no rights yet."""
    if not server.run("SELECT 1 FROM pg_roles WHERE rolname = 'guest'"):
        server.run("CREATE ROLE guest LOGIN")
    return server.dsn.replace("alligator@", "guest@")


def test_a_role_with_few_rights_uses_what_another_has_made(
    server: PostgresServer, guests: str
) -> None:
    with opened(guests) as backend, pytest.raises(BackendRefused, match="alligator migrate"):
        push(backend, "t1")

    with opened(server.dsn) as owner:
        owner.migrate()
    server.run("GRANT USAGE ON SCHEMA alligator TO guest")
    server.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA alligator TO guest")
    server.run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA alligator TO guest")

    with opened(guests) as backend:
        push(backend, "t1", "t2")
        held = take(backend)
        assert backend.settle([Bury(held, "note")]) == []
        [letter] = backend.dead(QUEUE)
        assert backend.retry_dead(QUEUE, [letter.letter_id]) == [letter.letter_id]
        records_of(backend).set("a/b", b"")
        with soon_but_after(A_MOMENT), later(lambda: push(backend, "t3", to="q3")):
            assert take(backend, of="q3").task_id == "t3"
        assert sorted(drain(backend)) == ["t1", "t2"]


def test_a_role_may_be_given_the_schema_alone(server: PostgresServer, guests: str) -> None:
    server.run("CREATE SCHEMA alligator AUTHORIZATION guest")

    with opened(guests) as backend:
        assert push(backend, "t1") == [True]


def test_a_database_that_looks_at_old_snapshots_is_refused(server: PostgresServer) -> None:
    strict = "options=-c%20default_transaction_isolation%3Dserializable"
    with (
        opened(f"{server.dsn}?{strict}") as backend,
        pytest.raises(BackendRefused, match="read committed"),
    ):
        push(backend, "t1")


def test_a_schema_that_was_dropped_is_made_anew(server: PostgresServer, client: Client) -> None:
    push(client, "t1")
    server.run("DROP SCHEMA alligator CASCADE")

    assert push(client, "t2") == [True]
    assert drain(client) == ["t2"]


def test_each_schema_is_a_store_of_its_own(server: PostgresServer, client: Client) -> None:
    with opened(f"{server.dsn}?schema=shop_queue") as other:
        push(client, "t1")
        assert other.queues() == []
        push(other, "t2")
        records_of(other).set("a/b", b"")

        assert (drain(client), drain(other)) == (["t1"], ["t2"])
        assert records_of(client).get("a/b") is None
        with soon_but_after(A_MOMENT), later(lambda: push(other, "t3")):
            assert take(other).task_id == "t3"


@pytest.mark.parametrize("name", ["", "Shop", "a-b", 'a"b', "a.b", "pg_shop", "ž", "x" * 51])
def test_a_schemas_name_is_plain(name: str) -> None:
    with pytest.raises(InvalidOption, match="schema="):
        Client(f"postgres://localhost/db?schema={name}")


def test_the_sql_of_a_migration_makes_the_schema(server: PostgresServer) -> None:
    server.run(f"BEGIN; {schema.migration('alligator', None)} COMMIT")

    with opened(server.dsn) as backend:
        assert push(backend, "t1") == [True]


def test_the_command_makes_the_tables_or_prints_how(
    server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--sql", server.dsn]) == 0
    printed = capsys.readouterr().out
    assert server.run("SELECT 1 FROM pg_namespace WHERE nspname = 'alligator'") == []

    assert main(["migrate", server.dsn]) == 0
    assert capsys.readouterr().out.startswith("Done")
    assert main(["migrate", server.dsn]) == 0
    assert capsys.readouterr().out.startswith("Nothing to do")
    assert main(["migrate", "--sql", server.dsn]) == 0
    assert capsys.readouterr().out == ""

    server.empty()
    server.run(printed)
    assert main(["migrate", server.dsn]) == 0
    assert capsys.readouterr().out.startswith("Nothing to do")


def test_a_database_that_cannot_carry_every_name_is_refused(server: PostgresServer) -> None:
    server.run("DROP DATABASE IF EXISTS latin")
    server.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

    with (
        opened(server.dsn.replace("/postgres", "/latin")) as backend,
        pytest.raises(BackendRefused, match="LATIN1"),
    ):
        push(backend, "t1")


# The DSN.


def test_other_options_are_libpqs(server: PostgresServer) -> None:
    with opened(f"{server.dsn}?application_name=shop&schema=shop&listen=no") as backend:
        push(backend, "t1")
        [[count]] = server.run(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop'"
        )
        assert count == 1


@pytest.mark.parametrize("query", ["listen=maybe", "no_such_option=1", "connect_timeout"])
def test_what_libpq_does_not_know_is_refused_without_the_password(query: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Client(f"postgres://me:secret@localhost/db?{query}")

    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_who_is_not_let_in_is_told_so_without_the_password() -> None:
    with PostgresServer.debian(*SAFE) as server:
        server.run("CREATE ROLE guest LOGIN PASSWORD 'p@ss:w/rd%'")
        server.run("GRANT CREATE ON DATABASE postgres TO guest")
        server.ask_for_password("guest")
        wrong = server.dsn.replace("alligator@", "guest:wrong-one@")
        right = server.dsn.replace("alligator@", "guest:p%40ss%3Aw%2Frd%25@")

        with opened(wrong) as backend, pytest.raises(BackendRefused) as caught:
            push(backend, "t1")
        assert "wrong-one" not in f"{caught.value!r} {caught.value.__cause__!r}"
        with opened(right) as backend:
            assert push(backend, "t1") == [True]
        with (
            opened(server.dsn.replace("/postgres", "/nowhere")) as backend,
            pytest.raises(BackendRefused, match="nowhere"),
        ):
            push(backend, "t1")


# Connections.


def test_connections_that_were_cut_are_made_anew(server: PostgresServer, client: Client) -> None:
    push(client, "t1", "t2")
    held = take(client)
    server.cut()

    assert client.settle([Ack(held)]) == []
    server.cut()
    assert drain(client) == ["t2"]


@pytest.mark.parametrize(
    "kind", [errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow]
)
def test_a_connection_that_the_server_ends_is_one_that_does_not_answer(
    kind: type[psycopg.Error],
) -> None:
    err = connection.ours(kind("unexpected postmaster exit"), DSN.parse("postgres://shop/orders"))

    assert isinstance(err, BackendUnavailable)
    assert str(err) == "postgres://shop/orders does not answer: unexpected postmaster exit"


def test_who_waits_hears_again_after_its_connections_were_cut(
    server: PostgresServer, client: Client
) -> None:
    def wait() -> list[Reservation]:
        while True:
            try:
                # Without an error it may be empty, too: then the next call tells.
                if held := client.reserve([QUEUE], WORKER, wait=LONG).reservations:
                    return held
            except BackendUnavailable:
                pass

    with in_a_thread(wait) as waiting:
        for _ in range(3):
            until(lambda: listening(server) == 1, "somebody listens")
            server.cut()
        until(lambda: listening(server) == 1, "somebody listens again")
        started = time.monotonic()
        with opened(server.dsn) as other:
            push(other, "t1")
        held = waiting.result(PATIENCE)

    assert ids(held) == ["t1"]
    assert time.monotonic() - started < SOON


def test_any_number_of_waiting_threads_share_one_connection_to_listen(
    server: PostgresServer, client: Client
) -> None:
    def work(number: int) -> list[str]:
        if number == 0:
            # Not always: for a moment none does, when it begins to listen to another channel, too.
            until(lambda: listening(server) == 1, "one listens for all")
            with opened(server.dsn) as other:
                for place in range(1, 8):
                    push(other, f"t{place}", to=f"q{place}")
            return []
        if number == 8:
            records_of(client).wait(["a/b"], LONG)
            return []
        with soon_but_after(0, late=PATIENCE):
            return ids(client.reserve([f"q{number}"], WORKER, wait=LONG).reservations)

    def tell() -> None:
        until(lambda: client.count("q7").running, "all are told")
        with opened(server.dsn) as other:
            records_of(other).set("a/b", b"")

    thread = threading.Thread(target=tell)
    thread.start()
    came = in_threads(9, work)
    thread.join()

    assert came == [[], *([f"t{place}"] for place in range(1, 8)), []]
    assert client.settle([]) == []


def test_who_waits_is_told_and_need_not_look(
    server: PostgresServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHORTEST_LOOK", "LONGEST_LOOK"):
        monkeypatch.setattr(listener, name, LONG)
    held: list[Reservation] = []

    def tell(number: int) -> None:
        until(lambda: listening(server) == 1, "somebody listens")
        if number == 0:
            push(client, "t1")
        elif number == 1:
            assert client.settle([Release(held[0])]) == []
        elif number == 2:
            with psycopg.connect(server.dsn) as db:
                push(client.within(db), "t2")
        else:
            records_of(client).set("a/b", b"")

    for number in range(3):
        with in_a_thread(partial(tell, number)), soon_but_after(0):
            held += client.reserve([QUEUE], WORKER, wait=LONG).reservations
    with in_a_thread(partial(tell, 3)), soon_but_after(0):
        records_of(client).wait(["a/b"], LONG)

    assert ids(held) == ["t1", "t1", "t2"]


def test_nothing_is_told_when_nobody_waits(server: PostgresServer, client: Client) -> None:
    with later(lambda: push(client, "t1")):
        take(client)
    until(lambda: server.run("SELECT * FROM alligator.waiters") == [], "nobody waits")

    with psycopg.connect(server.dsn, autocommit=True) as other:
        other.execute('LISTEN "alligator"')
        other.execute('LISTEN "alligator.records"')
        push(client, "t2")
        records_of(client).set("a/b", b"")
        other.execute("SELECT pg_notify('alligator', 'that is all')")

        assert [told.payload for told in other.notifies(timeout=0)] == ["that is all"]


def test_one_who_died_waiting_is_forgotten(server: PostgresServer, client: Client) -> None:
    push(client, "t1")
    server.run("INSERT INTO alligator.waiters VALUES ('dead', '', 1.0)")

    take(client)
    assert client.reserve([QUEUE], WORKER, wait=A_MOMENT).reservations == []

    until(lambda: server.run("SELECT * FROM alligator.waiters") == [], "nobody waits")


def test_nobody_listens_when_nobody_waits(server: PostgresServer, client: Client) -> None:
    with later(lambda: push(client, "t1")):
        take(client)

    until(lambda: listening(server) == 0, "it has said that it listens no longer")


def test_without_a_connection_to_listen_it_looks_by_itself(server: PostgresServer) -> None:
    with opened(f"{server.dsn}?listen=no") as backend:
        with soon_but_after(A_MOMENT), later(lambda: push(backend, "t1")):
            assert take(backend).task_id == "t1"
        with soon_but_after(A_MOMENT), later(lambda: records_of(backend).set("a/b", b"")):
            records_of(backend).wait(["a/b"], LONG)
        assert listening(server) == 0


def test_what_is_not_told_is_found_in_a_while(server: PostgresServer, client: Client) -> None:
    # As behind a PgBouncer in transaction mode: LISTEN is answered, and nothing ever comes.
    push(client, "t0")
    drain(client)
    server.run("DROP FUNCTION alligator.tell(text)")
    server.run("CREATE FUNCTION alligator.tell(text) RETURNS void LANGUAGE sql AS ''")

    with soon_but_after(A_MOMENT, late=IN_A_WHILE), later(lambda: push(client, "t1")):
        assert take(client).task_id == "t1"


def test_a_server_that_hangs_is_given_up(
    server: PostgresServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWERS_WITHIN", 0.3)
    [[pid]] = client._server.rows("SELECT pg_backend_pid()")  # pyright: ignore[reportPrivateUsage]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(BackendUnavailable, match="no answer"):
            client.count(QUEUE)
    finally:
        os.kill(pid, signal.SIGCONT)

    monkeypatch.undo()
    assert client.count(QUEUE) == Counts()


def test_a_migration_without_an_answer_says_how_long_it_was_waited_for(
    server: PostgresServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MIGRATES_WITHIN", 0.3)
    with psycopg.connect(server.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('alligator.migrate'))")

        with pytest.raises(BackendUnavailable, match=r"no answer within 0\.3 s"):
            client.migrate()


def test_while_one_asks_for_a_connection_to_listen_others_leave(
    server: PostgresServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(client, "t1")
    inner = client._server  # pyright: ignore[reportPrivateUsage]
    heard = client._listener  # pyright: ignore[reportPrivateUsage]
    is_asking, has_left, in_time = threading.Event(), threading.Event(), list[bool]()
    connect = inner.connect

    def slowly() -> connection.Connection:
        is_asking.set()
        in_time.append(has_left.wait(PATIENCE))
        return connect()

    def attend() -> None:
        with heard.waiting(listener.TASKS, [QUEUE]) as waiter:
            waiter.attend()
            assert listening(server) == 1

    monkeypatch.setattr(inner, "connect", slowly)
    with heard.waiting(listener.TASKS, ["q2"]), in_a_thread(attend) as attending:
        assert is_asking.wait(PATIENCE)
        with heard.waiting(listener.TASKS, ["q3"]):
            pass
        has_left.set()
        attending.result(PATIENCE)

    assert in_time == [True]


def test_a_task_that_is_locked_for_long_is_waited_for_by_nobody_who_has_gone(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a schema of its own, for its functions are kept.
    monkeypatch.setattr(functions, "SOON", "SET lock_timeout = '20ms'")
    with opened(f"{server.dsn}?schema=shop_soon") as backend:
        push(backend, "t1", "t2")
        held = take(backend)
        with psycopg.connect(server.dsn) as other:
            joined = backend.within(other)
            joined.push_many(QUEUE, [Message("t1", b"new", replaces=True)])

            with pytest.raises(BackendUnavailable, match="lock timeout"):
                backend.reserve([QUEUE], WORKER, settlements=[Ack(held)])
            assert backend.extend([held], LONG) == []
            assert ids(backend.reserve([QUEUE], WORKER).reservations) == ["t2"]

        assert backend.settle([Ack(held)]) == []
        assert backend.count(QUEUE) == Counts(waiting=1, running=1)


def listening(server: PostgresServer) -> int:
    """Return how many connections have said last that they listen."""
    [[count]] = server.run(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND state = 'idle'"
    )
    assert isinstance(count, int)
    return count


# A server that dies.


class Work:
    """Pushes and runs tasks in threads, until it is told to end; notes what the server has answered."""

    def __init__(self, backend: Backend) -> None:
        self.pushed: list[str] = []
        self.done: list[str] = []
        self.troubles: list[Exception] = []
        self._backend = backend
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._produce, args=[n]) for n in range(2)]
        self._threads.append(threading.Thread(target=self._consume))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until some more is pushed and done."""
        pushed, done = len(self.pushed) + 50, len(self.done) + 20
        until(lambda: len(self.pushed) >= pushed and len(self.done) >= done, "more work")

    def _produce(self, number: int) -> None:
        turn = 0
        while not self._is_over.is_set():
            turn += 1
            names = [f"{number}-{turn}-{place}" for place in range(5)]
            try:
                push(self._backend, *names)
            except BackendUnavailable as err:
                self.troubles.append(err)
                continue
            self.pushed += names

    def _consume(self) -> None:
        acks: list[Ack] = []
        while not self._is_over.is_set():
            try:
                batch = self._backend.reserve(
                    [QUEUE], WORKER, limit=10, lease=1.0, settlements=acks
                )
            except BackendUnavailable as err:
                self.troubles.append(err)
                acks = []  # what they were about comes back, unless they arrived
                continue
            assert batch.late == []
            self.done += [ack.reservation.task_id for ack in acks]
            acks = [Ack(held) for held in batch.reservations]


@pytest.mark.parametrize("make", [PostgresServer.debian, PostgresServer.newest])
def test_nothing_that_was_acknowledged_is_lost_with_a_killed_server(
    make: Callable[..., PostgresServer],
) -> None:
    with make(*SAFE) as server, opened(server.dsn) as backend:
        with Work(backend) as work:
            for _ in range(3):
                work.goes_on()
                server.kill()
                server.start()
            work.goes_on()

        known = {*work.done}
        while held := backend.reserve([QUEUE], WORKER, limit=1000, wait=2.0).reservations:
            known.update(ids(held))
            assert backend.settle([Ack(one) for one in held]) == []

        # Acks without an answer may have arrived: those of one batch at each death, and of the last one.
        assert len({*work.pushed} - known) <= 4 * 10
        assert backend.count(QUEUE) == Counts()


# Large ones.


def test_bodies_that_are_too_large_for_one_call_are_pushed_in_several(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backend, "MOST_BYTES", 100)
    sizes = [0, 60, 40, 1, 200, 0, 99, 2]
    messages = [Message(f"t{place}", b"x" * size) for place, size in enumerate(sizes)]

    assert client.push_many(QUEUE, messages) == [True] * len(sizes)

    assert [len(held.body) for held in take_ready(client)] == sizes


# What it costs.


def test_a_step_reads_a_few_rows_however_many_wait(server: PostgresServer, client: Client) -> None:
    # Without statistics: PostgreSQL takes each table for a small one, and must not read it from end to end.
    for table in ("tasks", "leases"):
        push(client, "first")
        drain(client)
        server.run(f"ALTER TABLE alligator.{table} SET (autovacuum_enabled = off)")
    many = [f"t{number}" for number in range(5000)]
    push(client, *many)
    client.push_many(QUEUE, [Message(f"d{number}", b"", delay=1e6) for number in range(2000)])
    before = rows_read(client)

    held = take_ready(client, 50)
    assert client.settle([Ack(one) for one in held[:25]]) == []
    batch = client.reserve([QUEUE], WORKER, limit=50, settlements=[Ack(one) for one in held[25:]])
    assert client.extend(batch.reservations, 60.0) == []
    assert client.cancel(QUEUE, "t4000") == b"t4000"
    push(client, "t4000")
    client.push_many(QUEUE, [Message("t4500", b"new", replaces=True)])
    assert client.reschedule(QUEUE, ["d7"]) == [True]
    assert client.reserve_task(QUEUE, "t3000", WORKER) is not None
    assert client.recover([QUEUE], WORKER) == 51

    assert rows_read(client) - before < 2000


def test_a_transaction_that_stays_open_does_not_slow_reserving(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages; in a schema of its own, for its functions are kept.
    monkeypatch.setattr(schema, "FAR", 4)
    monkeypatch.setattr(postgres_backend, "LOOK_EVERYWHERE_EVERY", LONG)
    with (
        closing(Client(f"{server.dsn}?schema=shop_far")) as client,
        psycopg.connect(server.dsn) as other,
    ):
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        push(client, *(f"old{number}" for number in range(2000)))
        drain(client, limit=1000)
        names = [f"t{number:02}" for number in range(30)]
        push(client, *names)
        first = take(client)
        before = rows_read(client, "shop_far")

        came = [take(client).task_id for _ in range(10)]
        assert [first.task_id, *came] == names[:11]
        assert rows_read(client, "shop_far") - before < 1000

        # What comes to a place before is seen when there is nothing else, or it is time to look everywhere.
        assert client.settle([Release(first)]) == []
        client.push_many(QUEUE, [Message("urgent", b"", priority=1)])
        assert take(client).task_id == "urgent"
        assert take(client).task_id == names[11]
        assert drain(client) == [*names[12:], names[0]]
        assert drain(client) == []


def test_a_look_that_begins_at_a_place_comes_to_the_next_queue_when_there_is_nothing_behind(
    server: PostgresServer, client: Client
) -> None:
    plain = [f"t{number}" for number in range(4)]
    push(client, *plain)
    client.push_many(QUEUE, [Message("low", b"", priority=-1)])
    client.push_many(QUEUE, [Message("urgent", b"", priority=5)])
    push(client, "other0", "other1", to="q2")
    [[first]] = server.run("SELECT seq FROM alligator.tasks WHERE task_id = 't0'")
    assert isinstance(first, int)

    def look_from(priority: int | None, place: int) -> list[str]:
        client._places = {QUEUE: (priority, place)}  # pyright: ignore[reportPrivateUsage]
        client._look_everywhere_at = inf  # pyright: ignore[reportPrivateUsage]
        batch = client.reserve([QUEUE, "q2"], WORKER, limit=6)
        client.settle([Release(held) for held in batch.reservations])
        return [held.task_id for held in batch.reservations]

    # Where there was nothing in any priority, and where it had come as far as t0.
    assert look_from(None, 0) == ["urgent", *plain, "other0"]
    assert look_from(0, first) == ["urgent", *plain[1:], "low", "other0"]
    # It goes on from where that ended; what was before the place is of a higher priority then.
    assert client._places == {QUEUE: (-1, ANY)}  # pyright: ignore[reportPrivateUsage]


def test_what_is_too_big_is_refused_as_that(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backend, "LARGEST", 1000)
    client.push_many(QUEUE, [Message("t1", bytes(999)), Message("t2", bytes(1000))])

    for messages in (
        [Message("big", bytes(1001))],
        [Message("t3", b""), Message("big", bytes(1001))],
    ):
        with pytest.raises(
            TaskTooBig, match="'big' takes 1001 bytes, and PostgreSQL takes at most 1000"
        ):
            client.push_many(QUEUE, messages)

    assert drain(client) == ["t1", "t2"]


def test_a_retry_that_has_grown_too_big_is_buried(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_backend, "LARGEST", 1000)
    push(client, "t1", "t2", "t3")
    one, two, three = take(client), take(client), take(client)

    assert client.settle([Ack(one), Release(two, body=bytes(1001)), Release(three)]) == []

    [letter] = client.dead(QUEUE)
    assert (letter.task_id, letter.body) == ("t2", two.body)
    assert "1,001 bytes" in letter.note
    assert drain(client) == ["t3"]


def rows_read(client: Client, schema: str = "alligator") -> int:
    """Return how many rows and entries of indexes have been read, of all tables of ours."""
    rows = client._server.rows  # pyright: ignore[reportPrivateUsage]
    rows("SELECT pg_stat_force_next_flush()")
    [[count]] = rows(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = %s::text)"
        " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = %s::text)",
        [schema, schema],
    )
    return int(count)


# What `alligator verify` tells of a server.


def test_a_server_or_user_that_does_not_wait_for_the_disk_is_a_risk(server: PostgresServer) -> None:
    hasty = f"{server.dsn}?options=-c%20synchronous_commit%3Doff"
    with closing(Client(server.dsn)) as patient, closing(Client(hasty)) as client:
        usual, told = patient.risks("all"), client.risks("all")

    assert [one for one in told if "synchronous_commit" in one] != []
    assert all("may lose" in one for one in told)
    assert ("its fsync is off" in " ".join(usual)) == ("fsync=off" in " ".join(FAST))
