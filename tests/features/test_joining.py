"""A task may be queued, and may end, in a transaction of the application's own."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from alligator import Gator, LeaseLost, Task
from alligator.backends.base import Counts
from alligator.exceptions import InvalidOption, ResultNotKept, TaskExists, TaskFailed
from alligator.testing.running import A_MOMENT, later
from alligator.testing.stores import LONG, soon_but_after
from tests.features import joining_work
from tests.features.joining_work import CALLERS, Caller, plain, rows
from tests.features.work import do, done, work_off
from tests.support.kinds import empty_store
from tests.support.postgres import PostgresServer

Open = Callable[[str], AbstractContextManager[Caller]]


@pytest.fixture(params=["sqlite", "postgres", "postgres-newest"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that joins transactions; with a table of the application's."""
    dsn = empty_store(request.param, request)
    Gator(dsn).len()  # the file is the queue's
    with closing(plain(dsn)) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute("CREATE TABLE orders (id INTEGER)")
    return dsn


@pytest.fixture
def gator(dsn: str) -> Iterator[Gator]:
    """A Gator on that store."""
    gator = Gator(dsn)
    joining_work.gators.append(gator)
    yield gator
    gator.backend.close()


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, gator: Gator) -> Iterator[Caller]:
    """A connection of each client."""
    open_one: Open = request.param
    with open_one(gator.dsn.url) as caller:
        yield caller


@pytest.fixture
def connection(gator: Gator) -> Iterator[Any]:
    """A connection of the driver's own."""
    with closing(plain(gator.dsn.url)) as connection:
        yield connection


# Queueing.


def test_what_is_committed_is_queued(gator: Gator, caller: Caller) -> None:
    caller.execute("INSERT INTO orders VALUES (1)")
    with gator.using(caller.connection):
        gator.task(do, "work")
        assert gator.len() == 0
    assert gator.len() == 0

    caller.commit()

    assert (gator.len(), rows(gator.dsn.url)) == (1, 1)


def test_what_is_rolled_back_never_was(gator: Gator, caller: Caller) -> None:
    with gator.using(caller.connection):
        gator.task(do, "work")
        caller.execute("INSERT INTO orders VALUES (1)")

    caller.rollback()

    assert (gator.len(), rows(gator.dsn.url)) == (0, 0)
    assert gator.pop() is None


def test_a_transaction_of_nothing_but_a_task_is_committed(gator: Gator, caller: Caller) -> None:
    with gator.using(caller.connection):
        gator.task(do, "work")
    caller.commit()

    assert gator.len() == 1


def test_after_the_block_tasks_are_queued_at_once_again(gator: Gator, connection: Any) -> None:
    with gator.using(connection):
        gator.task(do, "one")
    connection.rollback()

    gator.task(do, "two")

    assert gator.len() == 1


def test_others_queue_at_once_meanwhile(gator: Gator, connection: Any) -> None:
    other = Gator("locmem://")

    with gator.using(connection):
        other.task(do, "work")

    assert other.len() == 1


def test_the_inner_of_two_blocks_counts(gator: Gator, connection: Any) -> None:
    if gator.dsn.scheme == "sqlite":
        pytest.skip("of two transactions in a file, one can write")
    with closing(plain(gator.dsn.url)) as inner:
        with gator.using(connection):
            gator.task(do, "outer")
            with gator.using(inner):
                gator.task(do, "inner")
            inner.commit()
            assert gator.len() == 1
        connection.commit()

    assert gator.len() == 2


def test_options_batches_and_maps_are_queued_so_too(gator: Gator, connection: Any) -> None:
    with gator.using(connection):
        with gator.options(delay_by=60) as opts:
            opts.task(do, "later")
        with gator.batch(priority=3) as batch:
            batch.task(do, "urgent")
        gator.map(do, ["many", "more"])
        with gator.options(task_id="t1", if_exists="replace") as opts:
            opts.task(do, "old")
            opts.task(do, "new")
    assert gator.len() == 0

    connection.commit()

    assert gator.len() == 5
    work_off(gator)
    assert done == ["urgent", "many", "more", "new"]


def test_what_depends_on_another_is_queued_so_too(gator: Gator, connection: Any) -> None:
    with gator.using(connection):
        first = gator.task(do, "first")
        with gator.options(depends_on=[first]) as opts:
            opts.task(do, "second")
    connection.rollback()
    assert gator.len() == 0

    with gator.using(connection):
        first = gator.task(do, "first")
        with gator.options(depends_on=[first]) as opts:
            opts.task(do, "second")
    connection.commit()

    work_off(gator)
    assert done == ["first", "second"]


def test_an_id_that_is_queued_already_is_told_at_once(gator: Gator, connection: Any) -> None:
    with gator.options(task_id="t1", if_exists="raise") as opts:
        opts.task(do, "one")
        with gator.using(connection), pytest.raises(TaskExists):
            opts.task(do, "two")
    connection.commit()

    assert gator.len() == 1


def test_a_commit_is_noticed_soon_by_who_waits(dsn: str, gator: Gator) -> None:
    def commit_later() -> None:
        # sqlite3's connections are for the thread that made them.
        with closing(plain(dsn)) as connection, connection, gator.using(connection):
            gator.task(do, "work")

    with soon_but_after(A_MOMENT), later(commit_later):
        batch = gator.backend.reserve(["all"], "worker", wait=LONG)

    assert len(batch.reservations) == 1


def test_what_is_queued_before_the_tables_are_there_makes_them(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    postgres_server.empty()
    gator = Gator(postgres_server.dsn)
    with psycopg.connect(postgres_server.dsn) as connection, gator.using(connection):
        gator.task(do, "work")

    assert gator.len() == 1


def test_the_application_may_have_rows_of_its_own_kind(dsn: str, gator: Gator) -> None:
    with closing(plain(dsn)) as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.row_factory = lambda cursor, row: {"row": row}
            connection.text_factory = bytes
        else:
            connection.row_factory = dict_row
        with gator.using(connection):
            gator.task(do, "work")
            with gator.options(task_id="t1", if_exists="raise") as opts:
                opts.task(do, "work")
        assert isinstance(connection.execute("SELECT count(*) FROM orders").fetchone(), dict)
        connection.commit()

    assert gator.len() == 2


def test_the_applications_time_zone_is_all_the_same(postgres_server: PostgresServer) -> None:
    postgres_server.empty()
    gator = Gator(postgres_server.dsn)
    with psycopg.connect(postgres_server.dsn) as connection:
        connection.execute("SET TIME ZONE 'Asia/Tokyo'")
        with gator.using(connection):
            gator.task(do, "work")

    assert gator.len() == 1
    gator.backend.close()


# What cannot be.


def test_a_connection_that_commits_each_statement_is_refused(dsn: str, gator: Gator) -> None:
    with closing(plain(dsn)) as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None
        else:
            connection.autocommit = True
        with pytest.raises(InvalidOption, match="each statement"), gator.using(connection):
            pytest.fail("it has no transaction")

        connection.execute("BEGIN")
        with gator.using(connection):
            gator.task(do, "work")
        connection.execute("ROLLBACK")

    assert gator.len() == 0


def test_a_connection_to_another_store_is_refused(dsn: str, gator: Gator, tmp_path: Path) -> None:
    for file in (tmp_path / "other.db", ":memory:"):
        with (
            closing(sqlite3.connect(file)) as connection,
            pytest.raises(InvalidOption),
            gator.using(connection),
        ):
            pytest.fail("it is another's")
    with pytest.raises(InvalidOption), gator.using(object()):
        pytest.fail("it is no connection")


def test_a_store_that_joins_no_transaction_says_which_do() -> None:
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(InvalidOption, match="sqlite, postgres"),
        Gator("locmem://").using(connection),
    ):
        pytest.fail("it cannot")


# Completing.


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the worker says."""
    caplog.set_level(logging.INFO)
    return caplog


def test_a_task_completes_in_its_own_transaction(
    gator: Gator, log: pytest.LogCaptureFixture
) -> None:
    with gator.options(keep_result=60) as opts:
        task = opts.task(joining_work.order, 1)
        opts.task(joining_work.order_with_session, 2)

    work_off(gator)

    assert rows(gator.dsn.url) == 2
    assert gator.backend.count("all") == Counts()
    assert task.wait(0) == "ordered 1"
    assert "void" not in log.text


def test_a_task_that_is_run_by_hand_completes_so_too(
    gator: Gator, log: pytest.LogCaptureFixture
) -> None:
    gator.task(joining_work.order, 1)

    popped = gator.pop()

    assert popped is not None
    assert popped.result == "ordered 1"
    assert (rows(gator.dsn.url), gator.backend.count("all")) == (1, Counts())
    assert "void" not in log.text


def test_what_follows_a_task_that_completes_itself_is_let_go(gator: Gator) -> None:
    first = gator.task(joining_work.order, 1)
    with gator.options(depends_on=[first]) as opts:
        opts.task(joining_work.order, 2)

    work_off(gator)

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (2, Counts())


@pytest.mark.parametrize(
    "work",
    [
        joining_work.order_and_raise,
        joining_work.order_and_raise_before_the_commit,
        joining_work.order_and_forget_to_commit,
    ],
)
def test_what_was_not_committed_is_tried_again(gator: Gator, work: Callable[[int], None]) -> None:
    with gator.options(retries=1) as opts:
        opts.task(work, 1)
    assert gator.pop() is not None
    assert (rows(gator.dsn.url), gator.len()) == (0, 1)

    with pytest.raises((ValueError, TaskFailed)):
        gator.pop()

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (0, Counts(dead=1))


def push_hooked(gator: Gator, work: Callable[[int], None]) -> Task:
    """Queue a task that may be tried again, and whose hooks are noted."""
    joining_work.hooked.clear()
    hooks = {"on_success": joining_work.note_success, "on_error": joining_work.note_error}
    with gator.options(retries=1, keep_result=60, **hooks) as opts:
        return opts.task(work, 1)


@pytest.mark.parametrize(
    "work", [joining_work.order_and_raise_after_the_commit, joining_work.order_and_snooze]
)
def test_what_is_raised_after_the_commit_undoes_nothing(
    gator: Gator, work: Callable[[int], None], log: pytest.LogCaptureFixture
) -> None:
    task = push_hooked(gator, work)
    with gator.options(depends_on=[task]) as opts:
        opts.task(joining_work.order, 2)

    work_off(gator)

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (2, Counts())
    assert joining_work.hooked == ["success None"]
    assert gator.status(task.task_id).state == "succeeded"
    with pytest.raises(ResultNotKept):
        task.wait(0)
    assert "after its commit" in log.text
    assert "void" not in log.text


def test_who_runs_a_task_by_hand_is_told_what_it_raised_after_the_commit(
    gator: Gator, log: pytest.LogCaptureFixture
) -> None:
    with gator.options(retries=1) as opts:
        opts.task(joining_work.order_and_raise_after_the_commit, 1)

    with pytest.raises(ValueError, match="too late"):
        gator.pop()

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (1, Counts())
    assert "void" not in log.text


def test_a_second_block_after_the_commit_is_refused(gator: Gator) -> None:
    gator.task(joining_work.order_in_one_block_after_another, 1)

    with pytest.raises(InvalidOption, match="before this one"):
        gator.pop()

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (1, Counts())


@pytest.mark.parametrize(
    "work",
    [joining_work.order_in_one_transaction_twice, joining_work.order_in_one_block_inside_another],
)
def test_a_second_block_in_the_transaction_is_refused(
    gator: Gator, work: Callable[[int], None]
) -> None:
    gator.task(work, 1)

    with pytest.raises(InvalidOption, match="block"):
        gator.pop()

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (0, Counts(dead=1))


def test_a_transaction_that_was_rolled_back_may_be_tried_again(gator: Gator) -> None:
    gator.task(joining_work.order_after_a_rollback, 1)

    work_off(gator)

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (1, Counts())


def test_a_task_completes_in_its_own_store_whichever_gator_it_knows(gator: Gator) -> None:
    gator.task(joining_work.order_by_another_gator, 1)

    work_off(gator)

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (1, Counts())


def test_a_connection_to_another_database_completes_nothing(gator: Gator) -> None:
    gator.task(joining_work.order_elsewhere, 1)

    with pytest.raises(InvalidOption, match=r"one (transaction|database)"):
        gator.pop()

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (0, Counts(dead=1))


def test_who_has_lost_the_task_cannot_commit(gator: Gator, log: pytest.LogCaptureFixture) -> None:
    gator.task(joining_work.order_too_late, 1)

    with pytest.raises(LeaseLost):
        gator.pop()

    assert rows(gator.dsn.url) == 0
    assert gator.backend.count("all") == Counts(running=1)
    assert "void" in log.text


@pytest.mark.parametrize(
    "work",
    [
        joining_work.order_and_forget_to_commit_and_lose_the_lease,
        joining_work.order_and_raise_and_lose_the_lease,
    ],
)
def test_what_was_not_committed_is_not_done_though_another_holds_the_task(
    gator: Gator, work: Callable[[int], None], log: pytest.LogCaptureFixture
) -> None:
    task = push_hooked(gator, work)

    with suppress(ValueError):
        gator.pop()

    assert (rows(gator.dsn.url), joining_work.hooked) == (0, [])
    assert gator.backend.count("all") == Counts(running=1)
    assert gator.status(task.task_id).state == "running"
    assert "void" in log.text


def test_what_was_committed_is_done_though_its_id_is_pushed_anew(
    gator: Gator, log: pytest.LogCaptureFixture
) -> None:
    joining_work.hooked.clear()
    with gator.options(task_id="t1", on_success=joining_work.note_success) as opts:
        opts.task(joining_work.order_and_be_pushed_anew, 1)

    work_off(gator)

    assert (rows(gator.dsn.url), gator.backend.count("all")) == (2, Counts())
    assert joining_work.hooked == ["success None"]
    assert "void" not in log.text


def test_a_plain_call_of_such_a_function_commits_as_ever(gator: Gator) -> None:
    assert joining_work.order(1) == "ordered 1"

    assert rows(gator.dsn.url) == 1


def test_a_commit_that_fails_leaves_the_task(postgres_server: PostgresServer) -> None:
    postgres_server.empty()
    postgres_server.run("DROP TABLE IF EXISTS orders")
    postgres_server.run("CREATE TABLE orders (id INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    postgres_server.run("INSERT INTO orders VALUES (1)")
    gator = Gator(postgres_server.dsn)
    joining_work.gators.append(gator)
    with gator.options(retries=1) as opts:
        opts.task(joining_work.order, 1)

    assert gator.pop() is not None  # which violates the constraint at its commit

    assert gator.len() == 1
    postgres_server.run("DELETE FROM orders")
    work_off(gator)
    assert (rows(postgres_server.dsn), gator.backend.count("all")) == (1, Counts())
    gator.backend.close()
