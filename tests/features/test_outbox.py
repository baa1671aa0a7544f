"""What is queued in a transaction of the application's own, for a store that cannot join it."""

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from alligator import Gator, cli
from alligator.backends.base import Ack, Backend, Counts, Message
from alligator.backends.sqlite.fork import INSIDE
from alligator.bell import Bell
from alligator.exceptions import (
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    QueueFull,
    TaskTooBig,
    UnknownTask,
)
from alligator.outbox import outbox_at, sqlite_outbox
from alligator.outbox.forwarding import AT_ONCE, Forwarder, forwarding
from alligator.outbox.postgres_outbox import PostgresOutbox
from alligator.outbox.tables import Outbox, Summary
from alligator.testing.running import A_MOMENT, Child, in_threads, later
from alligator.testing.stores import LONG, soon_but_after
from tests.features.joining_work import CALLERS, Caller, plain
from tests.features.work import QuietWorker, do, done, work_off
from tests.integration.scenes import Scene, played, until
from tests.support.kinds import empty_store
from tests.support.postgres import SAFE, PostgresServer

Open = Callable[[str], AbstractContextManager[Caller]]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of a database of the application's, of each kind: with an outbox, and nothing in it."""
    if request.param == "sqlite":
        dsn = f"sqlite://{tmp_path}/shop.db"
        sqlite3.connect(tmp_path / "shop.db").close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.empty()
        dsn = server.dsn
    with closing(outbox_at(dsn)) as outbox:
        assert outbox.migrate()
    return dsn


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A database in a file, for what is no matter of the database."""
    dsn = f"sqlite://{tmp_path}/shop.db"
    sqlite3.connect(tmp_path / "shop.db").close()
    with closing(outbox_at(dsn)) as outbox:
        outbox.migrate()
    return dsn


@pytest.fixture
def gator(request: pytest.FixtureRequest) -> Iterator[Gator]:
    """A Gator on an empty Redis."""
    gator = Gator(empty_store("redis", request))
    yield gator
    gator.backend.close()


@pytest.fixture
def opened() -> Iterator[Callable[[Gator, str], Forwarder]]:
    """Opens forwarders; each is to the others what another process would be."""
    with ExitStack() as stack:

        def make(gator: Gator, dsn: str) -> Forwarder:
            forwarder = Forwarder(gator, outbox_at(dsn))
            stack.callback(forwarder.close)
            return forwarder

        yield make


Opened = Callable[[Gator, str], Forwarder]


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, database: str) -> Iterator[Caller]:
    """A connection of each client to the application's database."""
    open_one: Open = request.param
    with open_one(database) as caller:
        yield caller


def write(gator: Gator, dsn: str, *names: str, **options: Any) -> None:
    """Commit tasks into an outbox, each with its name for an id."""
    with closing(plain(dsn)) as connection, connection, gator.using(connection):
        for name in names:
            with gator.options(task_id=name, **options) as opts:
                opts.task(do, name)


def in_outbox(dsn: str) -> Summary:
    with closing(outbox_at(dsn)) as outbox:
        return outbox.summary()


def waiting(dsn: str) -> int:
    return sum(in_outbox(dsn).waiting.values())


# Writing.


def test_what_is_committed_is_queued(
    gator: Gator, database: str, caller: Caller, opened: Opened
) -> None:
    with gator.using(caller.connection):
        gator.task(do, "work")
    opened(gator, database).forward_all()
    assert gator.len() == 0

    caller.commit()
    opened(gator, database).forward_all()

    assert gator.len() == 1
    assert waiting(database) == 0
    work_off(gator)
    assert done == ["work"]


def test_what_is_rolled_back_never_was(
    gator: Gator, database: str, caller: Caller, opened: Opened
) -> None:
    with gator.using(caller.connection):
        gator.task(do, "work")

    caller.rollback()

    opened(gator, database).forward_all()
    assert gator.len() == 0
    assert in_outbox(database) == Summary({})


def test_options_and_batches_go_with_it(gator: Gator, database: str, opened: Opened) -> None:
    with closing(plain(database)) as connection, connection, gator.using(connection):
        with gator.options(delay_by=60) as opts:
            opts.task(do, "later")
        gator.map(do, ["many", "more"])
        with gator.batch(priority=3) as batch:
            batch.task(do, "urgent")
        with gator.options(task_id="t1", if_exists="replace") as opts:
            opts.task(do, "old")
            opts.task(do, "new")
        with gator.options(task_id="t2", if_exists="skip", expires=60) as opts:
            opts.task(do, "one")
            opts.task(do, "other")
    gator.task(do, "at once")

    opened(gator, database).forward_all()

    assert gator.backend.count("all") == Counts(waiting=6, delayed=1)
    work_off(gator)
    assert done == ["urgent", "at once", "many", "more", "new", "one"]


def set_back(dsn: str, seconds: int) -> None:
    """Let what is in an outbox have been written so much earlier."""
    table = "alligator_outbox" if dsn.startswith("sqlite") else "alligator_outbox.tasks"
    unit = "" if dsn.startswith("sqlite") else " * interval '1 s'"
    with closing(plain(dsn)) as connection, connection:
        connection.execute(f"UPDATE {table} SET written_at = written_at - ({seconds}){unit}")


def test_a_delay_counts_from_when_it_was_told(gator: Gator, database: str, opened: Opened) -> None:
    write(gator, database, "t1", delay_by=60)
    set_back(database, 50)

    opened(gator, database).forward_all()

    found = gator.backend.find("all", "t1")
    assert found is not None
    assert 0 < found.due_at - gator.backend.now() <= 10


def test_a_clock_that_was_set_back_delays_nothing(
    gator: Gator, database: str, opened: Opened
) -> None:
    write(gator, database, "t1")
    write(gator, database, "t2", delay_by=60)
    set_back(database, -3600)

    opened(gator, database).forward_all()

    found = gator.backend.find("all", "t2")
    assert found is not None
    assert found.due_at - gator.backend.now() <= 60
    assert gator.backend.count("all") == Counts(waiting=1, delayed=1)


def test_the_store_may_be_away_meanwhile(file: str) -> None:
    gator = Gator("redis://127.0.0.1:1/0")

    write(gator, file, "t1", expires=60)

    assert waiting(file) == 1


@pytest.mark.parametrize("options", [{"if_exists": "raise"}, {"depends_on": ["t0"]}])
def test_what_takes_an_answer_of_the_store_is_refused(
    gator: Gator, file: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match="after the commit"):
        write(gator, file, "t1", **options)
    with pytest.raises(InvalidOption, match="max_length"):
        write(Gator(gator.dsn.url, max_length=5), file, "t1")

    assert waiting(file) == 0


def test_a_result_that_nobody_could_ask_for_is_refused(file: str) -> None:
    """The store gives the task the id that its result goes by, and gives it to the worker that forwards."""
    gator = Gator("beanstalk://127.0.0.1:1/", results="locmem://")

    with pytest.raises(InvalidOption, match="keep_result"):
        write(gator, file, "t1", keep_result=60)
    write(gator, file, "t1")

    assert waiting(file) == 1


def test_a_connection_of_a_class_of_one_s_own_will_do(
    gator: Gator, postgres_server: PostgresServer
) -> None:
    class Own(psycopg.Connection[Any]):
        """What an application, or a library that watches it, makes of psycopg's."""

    postgres_server.empty()
    outbox_at(postgres_server.dsn).migrate()
    with Own.connect(postgres_server.dsn) as connection, gator.using(connection):
        gator.task(do, "work")

    assert waiting(postgres_server.dsn) == 1


def test_without_an_outbox_it_says_how_to_make_one(
    gator: Gator, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    postgres_server.empty()
    for dsn in (f"sqlite://{tmp_path}/other.db", postgres_server.dsn):
        with closing(plain(dsn)) as connection:
            with (
                pytest.raises(InvalidOption, match="migrate TARGET --outbox"),
                gator.using(connection),
            ):
                pytest.fail("there is none")
            connection.execute("SELECT 1")  # the transaction is as it was


def test_a_connection_that_commits_each_statement_is_refused(gator: Gator, database: str) -> None:
    with closing(plain(database)) as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None
        else:
            connection.autocommit = True
        with pytest.raises(InvalidOption, match="each statement"), gator.using(connection):
            pytest.fail("it has no transaction")


def test_a_store_that_joins_transactions_has_an_outbox_in_other_databases(
    tmp_path: Path, database: str, opened: Opened
) -> None:
    gator = Gator(f"sqlite://{tmp_path}/queue.db")
    gator.len()

    write(gator, database, "t1")
    with closing(plain(gator.dsn.url)) as connection, connection, gator.using(connection):
        gator.task(do, "joined")

    assert (gator.len(), waiting(database)) == (1, 1)
    opened(gator, database).forward_all()
    assert gator.len() == 2


def test_postgres_knows_its_own_database(
    tmp_path: Path, postgres_server: PostgresServer, opened: Opened
) -> None:
    postgres_server.empty()
    postgres_server.run("DROP DATABASE IF EXISTS shop")
    postgres_server.run("CREATE DATABASE shop")
    shop = postgres_server.dsn.removesuffix("postgres") + "shop"
    gator = Gator(postgres_server.dsn)
    Gator(shop).len()  # that there is a queue there, too, does not matter
    with closing(outbox_at(shop)) as outbox:
        outbox.migrate()

    write(gator, shop, "t1")

    assert (gator.len(), waiting(shop)) == (0, 1)
    opened(gator, shop).forward_all()
    assert (gator.len(), Gator(shop).len()) == (1, 0)


def test_postgres_as_a_store_may_be_away_too(postgres_server: PostgresServer) -> None:
    postgres_server.empty()
    postgres_server.run("DROP DATABASE IF EXISTS shop")
    postgres_server.run("CREATE DATABASE shop")
    gator = Gator(postgres_server.dsn.removesuffix("postgres") + "shop")
    outbox_at(postgres_server.dsn).migrate()
    write(gator, postgres_server.dsn, "t1")
    gator.backend.close()

    postgres_server.run("DROP DATABASE shop")

    write(gator, postgres_server.dsn, "t2")
    assert waiting(postgres_server.dsn) == 2


def test_few_rights_will_do(gator: Gator, postgres_server: PostgresServer, opened: Opened) -> None:
    postgres_server.empty()
    dsn = postgres_server.dsn
    outbox_at(dsn).migrate()
    for role, rights in (("clerk", "INSERT"), ("porter", "SELECT, UPDATE, DELETE")):
        postgres_server.run(f"DROP ROLE IF EXISTS {role}")
        postgres_server.run(f"CREATE ROLE {role} LOGIN")
        postgres_server.run(f"GRANT USAGE ON SCHEMA alligator_outbox TO {role}")
        postgres_server.run(f"GRANT {rights} ON alligator_outbox.tasks TO {role}")
    postgres_server.run("GRANT SELECT ON alligator_outbox.identity TO porter")

    write(gator, dsn.replace("alligator@", "clerk@"), "t1", "bad")
    store = choosy(gator, TaskTooBig("no"), "bad")
    opened(store, dsn.replace("alligator@", "porter@")).forward_all()

    assert run_all(gator) == ["t1"]
    postgres_server.empty()
    postgres_server.run("DROP ROLE clerk, porter")


def test_the_application_may_have_any_isolation(
    gator: Gator, postgres_server: PostgresServer, opened: Opened
) -> None:
    postgres_server.empty()
    strict = f"{postgres_server.dsn}?options=-c%20default_transaction_isolation%3Dserializable"
    with closing(outbox_at(strict)) as outbox:
        assert isinstance(outbox, PostgresOutbox)
        assert outbox.migrate()
        with outbox.turn("shop") as is_ours:
            # A turn is to see what was committed after it began.
            rows = outbox._rows("SHOW transaction_isolation")  # pyright: ignore[reportPrivateUsage]
            assert (is_ours, rows) == (True, [("read committed",)])
    write(gator, strict, "t1")

    opened(gator, strict).forward_all()

    assert run_all(gator) == ["t1"]
    assert in_outbox(strict) == Summary({})


def test_until_it_is_forwarded_nothing_is_known_of_it(gator: Gator, file: str) -> None:
    keeping = gator.options(keep_result=60)
    with closing(plain(file)) as connection, connection, gator.using(connection):
        task = keeping.task(do, "work")

    assert gator.status(task.task_id).state == "unknown"
    with pytest.raises(UnknownTask):
        task.wait(0)


# Forwarding.


def test_they_come_in_order_and_all(gator: Gator, database: str, opened: Opened) -> None:
    names = [f"t{number}" for number in range(2 * AT_ONCE + 5)]
    write(gator, database, *names)

    opened(gator, database).forward_all()

    batch = gator.backend.reserve(["all"], "w", limit=1000)
    assert [held.task_id for held in batch.reservations] == names


def test_what_commits_late_is_not_passed_over(
    gator: Gator, postgres_server: PostgresServer, opened: Opened
) -> None:
    postgres_server.empty()
    dsn = postgres_server.dsn
    outbox_at(dsn).migrate()
    forwarder = opened(gator, dsn)
    with closing(plain(dsn)) as slow:
        with gator.using(slow):
            gator.task(do, "late")
        write(gator, dsn, "t1", "t2")
        forwarder.forward_all()
        assert gator.len() == 2
        slow.commit()

    forwarder.forward_all()

    assert gator.len() == 3


def test_a_commit_is_heard_by_who_waits(
    gator: Gator, postgres_server: PostgresServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_server.empty()
    dsn = postgres_server.dsn
    forwarder = opened(gator, dsn)
    forwarder.forward_all()
    monkeypatch.setattr("alligator.outbox.postgres_outbox.LOOK_EVERY", LONG)

    with soon_but_after(A_MOMENT), later(lambda: write(gator, dsn, "t1")):
        forwarder.wait(Bell())
    forwarder.forward_all()

    assert gator.len() == 1


def test_each_store_has_its_own(file: str, gator: Gator, tmp_path: Path, opened: Opened) -> None:
    other = Gator(f"sqlite://{tmp_path}/queue.db")
    write(gator, file, "t1")
    write(other, file, "t2")

    forwarder = opened(gator, file)
    forwarder.forward_all()

    assert (gator.len(), other.len(), waiting(file)) == (1, 0, 1)
    assert "another store (sqlite)" in forwarder.warnings()[0]


def test_stores_of_one_kind_have_names(gator: Gator, database: str, opened: Opened) -> None:
    other = Gator(gator.dsn.url.replace("/0", "/1"), store_name="payments")
    other.backend.drop_all("all")
    write(gator, database, "t1")
    write(other, database, "t2")

    forwarder = opened(gator, database)
    forwarder.forward_all()

    assert (gator.len(), other.len(), waiting(database)) == (1, 0, 1)
    assert "another store (payments)" in forwarder.warnings()[0]
    opened(other, database).forward_all()
    assert (gator.len(), other.len(), waiting(database)) == (1, 1, 0)
    other.backend.drop_all("all")
    other.backend.close()


def test_a_turn_is_one_s_of_those_to_the_same_store(postgres_server: PostgresServer) -> None:
    """One that waits for a store that hangs holds up no other store."""
    dsn = postgres_server.dsn
    with (
        closing(outbox_at(dsn)) as first,
        closing(outbox_at(dsn)) as second,
        first.turn("redis") as is_first,
        second.turn("redis") as is_second,
        closing(outbox_at(dsn)) as third,
        third.turn("sqs") as is_third,
    ):
        assert (is_first, is_second, is_third) == (True, False, True)


def test_no_more_is_read_than_is_moved_together(gator: Gator, database: str) -> None:
    write(gator, database, "t1", "t2", "t3")
    with closing(outbox_at(database)) as outbox, outbox.turn("redis"):
        [size, *_] = [len(row.message.body) for row in outbox.rows("redis", "all", 3, 10_000)]

        read = [len(outbox.rows("redis", "all", 3, most)) for most in (0, 2 * size, 3 * size)]

    assert read == [1, 2, 3]


def test_queues_go_their_own_ways(gator: Gator, database: str, opened: Opened) -> None:
    odd = Gator(gator.dsn.url, "it's/odd: ž")
    write(gator, database, "t1")
    write(odd, database, "t1")

    opened(gator, database).forward_all()

    assert (gator.len(), odd.len()) == (1, 1)


def test_of_several_forwarders_each_task_comes_once(
    gator: Gator, database: str, opened: Opened
) -> None:
    names = [f"t{number}" for number in range(3 * AT_ONCE)]
    write(gator, database, *names)
    forwarders = [opened(Gator(gator.dsn.url), database) for _ in range(4)]

    def work(number: int) -> list[str]:
        ran: list[str] = []
        while waiting(database):
            forwarders[number].forward_all()
            # What has run cannot be told by its id from what was never there.
            held = gator.backend.reserve(["all"], f"w{number}", limit=1000).reservations
            gator.backend.settle([Ack(one) for one in held])
            ran += [one.task_id for one in held]
        return ran

    ran = [name for some in in_threads(4, work) for name in some]

    held = gator.backend.reserve(["all"], "w", limit=1000).reservations
    assert sorted([*ran, *(one.task_id for one in held)]) == sorted(names)


# When it dies, or loses what it talks to, between any two steps.


class Died(BaseException):
    """What ends a forwarder as a kill does: nothing of ours catches it."""


class Trap:
    """Lets calls pass, but for one: that dies before it, or after it."""

    def __init__(self, at: int, kind: type[BaseException], *, is_after: bool) -> None:
        self.at, self.kind, self.is_after = at, kind, is_after
        self.calls = 0

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        is_it = self.calls == self.at
        if is_it and not self.is_after:
            raise self.kind("trap")
        answer = function(*args, **kwargs)
        if is_it:
            raise self.kind("trap")
        return answer


class Trapped:
    """An object some of whose methods are in a trap."""

    def __init__(self, what: Any, names: Sequence[str], trap: Trap) -> None:
        self._what, self._names, self._trap = what, names, trap

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._what, name)
        if name in self._names:
            return partial(self._trap.call, found)
        return found


def trapped(gator: Gator, dsn: str, trap: Trap) -> tuple[Forwarder, Outbox]:
    """A forwarder each of whose calls to the store and the database is in a trap."""
    store = Gator(gator.dsn.url)
    outbox = outbox_at(dsn)
    records = Trapped(store.backend.records, ["get", "swap"], trap)
    backend: Any = Trapped(store.backend, ["push_many_if", "push_named"], trap)
    backend.records = records
    store.backend = backend
    names = ["identity", "queues", "rows", "remove", "set_aside"]
    inside: Any = Trapped(outbox, names, trap)
    return Forwarder(store, inside), outbox


def run_all(gator: Gator) -> list[str]:
    """Run what is queued, so that the store knows nothing of it any more; return the ids."""
    held = gator.backend.reserve(["all"], "w", limit=1000).reservations
    gator.backend.settle([Ack(one) for one in held])
    return [one.task_id for one in held]


@pytest.mark.parametrize("kind", [Died, BackendUnavailable])
@pytest.mark.parametrize("is_after", [False, True])
def test_wherever_it_dies_each_task_comes_once(
    gator: Gator, database: str, opened: Opened, kind: type[BaseException], is_after: bool
) -> None:
    at = 0
    while True:
        at += 1
        names = [f"{at}-{number}" for number in range(3)]
        write(gator, database, *names)
        trap = Trap(at, kind, is_after=is_after)
        forwarder, outbox = trapped(gator, database, trap)
        with closing(outbox):
            try:
                forwarder.forward_all()
            except kind:
                pass
        ran = run_all(gator)
        late = f"{at}-late"
        write(gator, database, late)

        opened(gator, database).forward_all()

        assert [*ran, *run_all(gator)] == [*names, late], at
        assert waiting(database) == 0
        if trap.calls < at:
            break
    assert at > 5


@pytest.mark.parametrize("others_move", [1, AT_ONCE])
def test_one_that_slept_while_others_went_on_moves_nothing_twice(
    gator: Gator,
    file: str,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    others_move: int,
) -> None:
    """Its turn was over without its knowing: a lock that is lost costs the order, and nothing else."""
    names = ["t1", "t2", "t3"]
    write(gator, file, *names)
    outbox = outbox_at(file)
    store = Gator(gator.dsn.url)
    pushed = store.backend.push_many_if
    ran: list[str] = []

    def slow(*args: Any) -> bool:
        Path(f"{file.removeprefix('sqlite://')}-outbox").unlink()  # so that another has its turn
        monkeypatch.setattr("alligator.outbox.forwarding._SureStep.limit", others_move)
        opened(gator, file).forward()
        ran.extend(run_all(gator))
        return pushed(*args)

    backend: Any = store.backend
    backend.push_many_if = slow
    with closing(outbox):
        Forwarder(store, outbox).forward()
    assert run_all(gator) == []
    opened(gator, file).forward_all()

    assert ran + run_all(gator) == names
    assert waiting(file) == 0


def test_one_that_dies_after_moving_them_one_by_one_has_moved_each_once(
    gator: Gator, database: str, opened: Opened
) -> None:
    write(gator, database, "t1", "t2", "t3")
    trap = Trap(1, Died, is_after=False)
    with closing(outbox_at(database)) as outbox:
        inside: Any = Trapped(outbox, ["remove"], trap)
        store = Gator(gator.dsn.url)
        backend: Any = store.backend
        pushed = backend.push_many_if

        def singly(queue: str, messages: Sequence[Message], *record: Any) -> Any:
            if len(messages) > 1:
                raise BackendRefused("one at a time")
            return pushed(queue, messages, *record)

        backend.push_many_if = singly
        with pytest.raises(Died):
            Forwarder(store, inside).forward()
    assert run_all(gator) == ["t1", "t2", "t3"]

    opened(gator, database).forward_all()

    assert run_all(gator) == []
    assert waiting(database) == 0


def test_a_store_that_cannot_tell_gets_each_task_at_least_once(
    request: pytest.FixtureRequest, database: str, opened: Opened
) -> None:
    gator = Gator(empty_store("beanstalk", request))
    for at in (1, 2, 3, 4, 5):
        for is_after in (False, True):
            write(gator, database, "t1", "t2")
            forwarder, outbox = trapped(gator, database, Trap(at, Died, is_after=is_after))
            with closing(outbox):
                try:
                    forwarder.forward_all()
                except Died:
                    pass
            opened(gator, database).forward_all()
            bodies = [gator.backend.pop("all") for _ in range(gator.len())]
            assert len(set(bodies)) == 2
            assert waiting(database) == 0
    gator.backend.close()


def test_killed_again_and_again_each_task_comes_once(gator: Gator, database: str) -> None:
    names = [f"t{number}" for number in range(2000)]
    chance = random.Random()

    def forward() -> None:
        forwarder = Forwarder(Gator(gator.dsn.url), outbox_at(database))
        while True:
            forwarder.forward_all()

    ran: list[str] = []

    def have_run(enough: int) -> bool:
        ran.extend(run_all(gator))
        return len(ran) >= enough

    for at in range(0, len(names), 400):
        write(gator, database, *names[at : at + 400])
        enough = len(ran) + chance.randrange(1, 400)
        with Child(forward) as child:
            until(partial(have_run, enough), "some tasks")
            child.kill()
    with closing(Forwarder(gator, outbox_at(database))) as forwarder:
        forwarder.forward_all()

    while some := run_all(gator):
        ran += some
    assert ran == names
    assert waiting(database) == 0


# What cannot be forwarded.


class Choosy:
    """A store that refuses some tasks."""

    def __init__(self, backend: Backend, err: Exception, *refused: str) -> None:
        self._backend, self._err, self.refused = backend, err, refused
        self.refusals = 0

    def push_many_if(self, queue: str, messages: Sequence[Message], *record: Any) -> bool:
        if any(message.task_id in self.refused for message in messages):
            self.refusals += 1
            raise self._err
        return self._backend.push_many_if(queue, messages, *record)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def choosy(gator: Gator, err: Exception, *refused: str) -> Any:
    store = Gator(gator.dsn.url)
    backend: Any = Choosy(store.backend, err, *refused)
    store.backend = backend
    return store


@pytest.mark.parametrize("err", [TaskTooBig("no"), BackendRefused("no"), ValueError("no")])
def test_a_task_that_is_refused_is_kept_aside_and_told(
    gator: Gator, database: str, opened: Opened, err: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    write(gator, database, "t1", "bad", "t2")

    forwarder = opened(choosy(gator, err, "bad"), database)
    forwarder.forward_all()

    assert run_all(gator) == ["t1", "t2"]
    assert (waiting(database), in_outbox(database).aside) == (0, 1)
    assert "'bad'" in caplog.text
    assert "refused by their store" in forwarder.warnings()[0]


def test_one_that_is_too_big_is_kept_aside_though_it_is_alone(
    gator: Gator, database: str, opened: Opened
) -> None:
    write(gator, database, "bad")

    opened(choosy(gator, TaskTooBig("no"), "bad"), database).forward_all()

    assert (waiting(database), in_outbox(database).aside) == (0, 1)


@pytest.mark.parametrize("err", [QueueFull("full"), BackendRefused("no rights")])
def test_where_all_are_refused_all_stay(
    gator: Gator, database: str, opened: Opened, err: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    write(gator, database, "t1", "t2")
    other = Gator(gator.dsn.url, "other")
    write(other, database, *(f"other-{number}" for number in range(2 * AT_ONCE + 1)))
    forwarder = opened(choosy(gator, err, "t1", "t2"), database)

    with pytest.raises(BackendRefused):
        forwarder.forward_all()

    assert caplog.text.count("Tasks of queue 'all' stay in") == 1
    assert (waiting(database), in_outbox(database).aside) == (2, 0)
    assert (gator.len(), other.len()) == (0, 2 * AT_ONCE + 1)
    opened(gator, database).forward_all()
    assert run_all(gator) == ["t1", "t2"]


@pytest.mark.parametrize("err", [BackendUnavailable("a node is away"), BackendRefused("no queue")])
def test_a_queue_that_is_refused_holds_up_no_other(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch, err: Exception
) -> None:
    monkeypatch.setattr("alligator.outbox.forwarding.LONGEST_PAUSE", LONG)
    monkeypatch.setattr("alligator.outbox.forwarding.SHORTEST_PAUSE", LONG)
    other = Gator(gator.dsn.url, "other")
    write(gator, file, "t1")
    store = choosy(gator, err, "t1")

    with forwarding(store, [file]):
        until(lambda: store.backend.refusals, "it is refused")
        refusals = store.backend.refusals
        for name in ("t2", "t3"):
            write(other, file, name)
            until(partial(other.backend.find, "other", name), "it is forwarded")

    assert store.backend.refusals == refusals
    assert (gator.len(), waiting(file)) == (0, 1)


def test_a_queue_whose_node_is_away_is_tried_after_the_others(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    monkeypatch.setattr("alligator.outbox.forwarding.LONGEST_PAUSE", 0.0)  # over by the next round
    others = [Gator(gator.dsn.url, name) for name in ("b", "c")]
    forwarder = opened(choosy(gator, BackendUnavailable("away"), "t1"), file)
    write(gator, file, "t1")
    for other in others:
        write(other, file, "t2")
    with pytest.raises(BackendUnavailable):
        forwarder.forward()

    assert forwarder.forward()

    assert [other.len() for other in others] == [1, 1]


def test_queues_whose_nodes_are_away_are_tried_in_turns(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    monkeypatch.setattr("alligator.outbox.forwarding.LONGEST_PAUSE", 0.0)
    store = choosy(gator, BackendUnavailable("away"), "t1", "t2")
    forwarder = opened(store, file)
    other = Gator(gator.dsn.url, "b")
    write(gator, file, "t1")
    write(other, file, "t2")
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            forwarder.forward()
    with pytest.raises(BackendUnavailable):
        forwarder.forward()  # the first one, again

    store.backend.refused = ("t1",)
    forwarder.forward()

    assert other.len() == 1


def test_who_has_not_the_turn_has_no_trouble(gator: Gator, file: str, opened: Opened) -> None:
    write(gator, file, "t1")
    forwarder = opened(choosy(gator, BackendUnavailable("away"), "t1"), file)
    with pytest.raises(BackendUnavailable):
        forwarder.forward()

    with closing(outbox_at(file)) as other, other.turn("redis"):
        assert not forwarder.forward()


# When the process forks meanwhile.


class WatchedGate:
    """Lets calls into SQLite, and knows whether one is inside."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        INSIDE.__enter__()
        self.depth += 1

    def __exit__(self, *args: object) -> None:
        self.depth -= 1
        INSIDE.__exit__(*args)


def test_a_fork_waits_for_each_statement_but_not_for_the_store(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    write(gator, file, "t1", "bad")
    store = choosy(gator, BackendRefused("no"), "bad")
    gate, connect, push = WatchedGate(), sqlite3.connect, store.backend.push_many_if
    in_sqlite: list[int] = []
    in_store: list[int] = []

    def watched_connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        in_sqlite.append(gate.depth)
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda _: in_sqlite.append(gate.depth))
        return connection

    def watched_push(*args: Any) -> bool:
        in_store.append(gate.depth)
        return bool(push(*args))

    monkeypatch.setattr(sqlite_outbox, "INSIDE", gate)
    monkeypatch.setattr(sqlite3, "connect", watched_connect)
    monkeypatch.setattr(store.backend, "push_many_if", watched_push)
    forwarder = opened(store, file)

    with closing(outbox_at(file)) as outbox:
        outbox.migrate()
    forwarder.forward_all()
    forwarder.warnings()

    assert (gator.len(), in_outbox(file).aside) == (1, 1)
    assert in_sqlite
    assert 0 not in in_sqlite
    assert set(in_store) == {0}


def test_a_child_uses_a_connection_of_its_own(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(gator, file, "t1")
    connect, made = sqlite3.connect, list[sqlite3.Connection]()

    def watched_connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", watched_connect)
    with closing(outbox_at(file)) as outbox:
        assert outbox.queues("redis") == ["all"]
        made.clear()

        with Child(lambda: [outbox.queues("redis"), len(made)]) as child:
            assert child.result() == [["all"], 1]

        assert outbox.queues("redis") == ["all"]
        assert not made


def test_a_child_keeps_no_turn(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_outbox, "unlock", bool)  # who is killed does not
    reading, writing = os.pipe()

    def live_on() -> None:
        os.write(writing, b".")
        threading.Event().wait()

    with closing(outbox_at(file)) as killed, killed.turn("redis") as is_ours:
        assert is_ours
        child = Child(live_on)
    with child, closing(outbox_at(file)) as other:
        os.read(reading, 1)
        with other.turn("redis") as is_ours:
            assert is_ours
    os.close(reading)
    os.close(writing)


# Workers.


def test_a_worker_forwards(gator: Gator, database: str) -> None:
    write(gator, database, "t1")

    work_off(gator, outbox=database)

    assert done == ["t1"]


def test_a_burst_that_is_told_to_leave_begins_no_more_steps(
    gator: Gator, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = QuietWorker(gator, burst=True, outbox=file)
    steps: list[str] = []

    def forward(_: Forwarder) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        worker.stop()
        steps.append("at the start")
        return len(steps) < 3

    monkeypatch.setattr(Forwarder, "forward", forward)

    worker.run_forever()

    assert len(steps) == 1


@pytest.fixture
def scene(gator: Gator, tmp_path: Path) -> Iterator[Scene]:
    with played(gator.dsn.url, tmp_path) as scene:
        yield scene


def write_job(scene: Scene, dsn: str, name: str) -> None:
    gator = scene.gator
    with closing(plain(dsn)) as connection, connection, gator.using(connection):
        scene.push(name)


def outbox_is_in(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master").fetchall())


def test_latergator_forwards_from_several(scene: Scene, database: str, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    new.touch()
    program = scene.latergator("--outbox", database, "--outbox", f"sqlite://{new}")

    write_job(scene, database, "t1")
    scene.finished("t1")
    until(lambda: outbox_is_in(new), "the table is made")
    write_job(scene, f"sqlite://{new}", "t2")
    scene.finished("t2")

    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert (waiting(database), waiting(f"sqlite://{new}")) == (0, 0)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, to be killed and started again."""
    with PostgresServer.debian(*SAFE) as server:
        yield server


def test_while_a_database_is_away_the_queue_is_worked_on(
    scene: Scene, own_postgres: PostgresServer
) -> None:
    with closing(outbox_at(own_postgres.dsn)) as outbox:
        outbox.migrate()
    program = scene.latergator("--outbox", own_postgres.dsn)
    write_job(scene, own_postgres.dsn, "t1")
    scene.finished("t1")

    own_postgres.kill()
    program.says("Cannot forward from the outbox")
    scene.push("t2")
    scene.finished("t2")
    own_postgres.start()
    write_job(scene, own_postgres.dsn, "t3")

    scene.finished("t3")
    assert program.stderr.count("Cannot forward from the outbox") == 1


def test_a_burst_begins_with_what_is_committed(scene: Scene, database: str) -> None:
    write_job(scene, database, "t1")

    assert scene.latergator("--burst", "--outbox", database).wait() == 0

    assert len(scene.journal.entries("finish", "t1")) == 1


def test_alligator_makes_the_table_and_tells_of_it(
    gator: Gator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.db"
    new.touch()
    options = [gator.dsn.url, "--outbox", f"sqlite://{new}"]

    assert cli.main(["status", *options]) == 1
    assert "There is no outbox" in capsys.readouterr().err
    assert cli.main(["migrate", *options, "--sql"]) == 0
    assert "CREATE TABLE IF NOT EXISTS alligator_outbox " in capsys.readouterr().out
    assert not outbox_is_in(new)
    assert cli.main(["migrate", *options]) == 0
    assert cli.main(["migrate", *options]) == 0
    assert capsys.readouterr().out.startswith("Done: the outbox is ready")
    write(gator, f"sqlite://{new}", "t1")

    assert cli.main(["status", *options]) == 0
    assert "Outbox: 1 task to be forwarded, the oldest for 0 s." in capsys.readouterr().out


def test_an_outbox_is_in_a_database() -> None:
    with pytest.raises(InvalidOption, match="postgres"):
        outbox_at("redis://localhost")
