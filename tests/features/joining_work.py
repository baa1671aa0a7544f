"""Connections to the database that a queue lives in, and tasks that write there."""

import importlib
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy
from psycopg import conninfo
from sqlalchemy.orm import Session

from alligator import Gator, Snooze, Task

gators: list[Gator] = []
"""Where the tasks of this process come from: the last one."""


@dataclass
class Caller:
    """What an application has in hand: a connection of some client, in a transaction or about to begin one."""

    connection: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]


def plain(dsn: str) -> Any:
    """Return a connection of the driver's own."""
    if dsn.startswith("sqlite"):
        return sqlite3.connect(dsn.removeprefix("sqlite://"))
    return psycopg.connect(dsn)


def rows(dsn: str) -> int:
    """Return how many orders there are, as others see it."""
    with closing(plain(dsn)) as connection:
        count: int = connection.execute("SELECT count(*) FROM orders").fetchone()[0]
        return count


@contextmanager
def driver(dsn: str) -> Generator[Caller]:
    """The driver's own."""
    with closing(plain(dsn)) as one:
        yield Caller(one, one.execute, one.commit, one.rollback)


def _engine(dsn: str) -> sqlalchemy.Engine:
    if dsn.startswith("sqlite"):
        return sqlalchemy.create_engine(f"sqlite:///{dsn.removeprefix('sqlite://')}")
    return sqlalchemy.create_engine(dsn.replace("postgres://", "postgresql+psycopg://"))


@contextmanager
def sqlalchemy_connection(dsn: str) -> Generator[Caller]:
    """SQLAlchemy's."""
    engine = _engine(dsn)
    try:
        with engine.connect() as one:
            yield Caller(
                one, lambda text: one.execute(sqlalchemy.text(text)), one.commit, one.rollback
            )
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy_session(dsn: str) -> Generator[Caller]:
    """A session of SQLAlchemy's."""
    engine = _engine(dsn)
    try:
        with Session(engine) as one:
            yield Caller(
                one, lambda text: one.execute(sqlalchemy.text(text)), one.commit, one.rollback
            )
    finally:
        engine.dispose()


@contextmanager
def django_connection(dsn: str) -> Generator[Caller]:
    """Django's, in an atomic block that its commit and rollback end."""
    # Any: Django has no types of its own.
    conf: Any = importlib.import_module("django.conf")
    utils: Any = importlib.import_module("django.db.utils")
    transaction: Any = importlib.import_module("django.db.transaction")
    if not conf.settings.configured:
        conf.settings.configure(USE_TZ=True)
        importlib.import_module("django").setup()
    settings: dict[str, Any] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": dsn.removeprefix("sqlite://"),
    }
    if not dsn.startswith("sqlite"):
        known: Any = conninfo.conninfo_to_dict(dsn)
        settings = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": known["dbname"],
            "USER": known["user"],
            "HOST": known["host"],
            "PORT": known["port"],
        }
    one: Any = utils.ConnectionHandler({"default": settings})["default"]

    class RolledBack(Exception):
        pass

    def end(atomic: Any, err: Exception | None) -> None:
        atomic.__exit__(err and type(err), err, None)

    # Atomic finds its connection by the name of one of Django's own: this one is not among those.
    atomic: Any = transaction.Atomic("default", False, False)
    connections: Any = importlib.import_module("django.db").connections
    connections["default"] = one
    try:
        atomic.__enter__()
        yield Caller(
            one,
            lambda text: one.cursor().execute(text),
            lambda: end(atomic, None),
            lambda: end(atomic, RolledBack()),
        )
    finally:
        one.close()


CALLERS = (driver, sqlalchemy_connection, sqlalchemy_session, django_connection)


# Tasks.


def order(number: int) -> str:
    """Write an order, and be done in the same transaction."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, connection, gator.completing(connection):
        connection.execute(f"INSERT INTO orders VALUES ({number})")
    return f"ordered {number}"


def order_with_session(number: int) -> None:
    """The same, with a session of SQLAlchemy's."""
    gator = gators[-1]
    with sqlalchemy_session(gator.dsn.url) as caller:
        with gator.completing(caller.connection):
            caller.execute(f"INSERT INTO orders VALUES ({number})")
        caller.commit()


def order_and_raise(number: int) -> None:
    """Raise within the block."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, connection, gator.completing(connection):
        connection.execute(f"INSERT INTO orders VALUES ({number})")
        raise ValueError("no order")


def order_and_raise_before_the_commit(number: int) -> None:
    """Raise when the block has ended well, and the transaction has not."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, connection:
        with gator.completing(connection):
            connection.execute(f"INSERT INTO orders VALUES ({number})")
        raise ValueError("no commit")


def order_and_forget_to_commit(number: int) -> None:
    """Commit nothing."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection:
        with gator.completing(connection):
            connection.execute(f"INSERT INTO orders VALUES ({number})")
        connection.rollback()


def order_and_raise_after_the_commit(number: int) -> None:
    """Raise when all is done."""
    order(number)
    raise ValueError("too late")


def order_and_snooze(number: int) -> None:
    """Ask for another attempt when all is done."""
    order(number)
    raise Snooze(0)


def order_in_one_block_after_another(number: int) -> None:
    """Complete twice."""
    order(number)
    order(number)


def order_in_one_transaction_twice(number: int) -> None:
    """Complete twice before the commit."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, connection:
        for _ in range(2):
            with gator.completing(connection):
                connection.execute(f"INSERT INTO orders VALUES ({number})")


def order_in_one_block_inside_another(number: int) -> None:
    """Complete while completing."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, connection, gator.completing(connection):
        connection.execute(f"INSERT INTO orders VALUES ({number})")
        with gator.completing(connection):
            connection.execute(f"INSERT INTO orders VALUES ({number})")


def order_after_a_rollback(number: int) -> None:
    """Try once more by itself, as transactions are that met another one."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection, gator.completing(connection):
        connection.execute(f"INSERT INTO orders VALUES ({number})")
    order(number)


def order_by_another_gator(number: int) -> None:
    """Know a Gator that has nothing to do with the task."""
    gator = Gator(gators[-1].dsn.url, "another")
    gators.append(gator)
    try:
        order(number)
    finally:
        gators.remove(gator)
        gator.backend.close()


def order_elsewhere(number: int) -> None:
    """Take a connection to another database."""
    gator = gators[-1]
    dsn = gator.dsn.url
    other = f"{dsn}-other" if dsn.startswith("sqlite") else dsn.replace("/postgres", "/template1")
    with closing(plain(other)) as connection, connection, gator.completing(connection):
        connection.execute(f"INSERT INTO orders VALUES ({number})")


hooked: list[str] = []
"""Which hooks were called in this process."""


def note_success(task: Task, result: object) -> None:
    hooked.append(f"success {result}")


def note_error(task: Task, err: BaseException) -> None:
    hooked.append(f"error {err}")


def order_too_late(number: int) -> None:
    """Lose the lease meanwhile, hear nothing of it, and commit."""
    gator = gators[-1]
    with closing(plain(gator.dsn.url)) as connection:
        try:
            with gator.completing(connection):
                lose_lease(gator)
                connection.execute(f"INSERT INTO orders VALUES ({number})")
        finally:
            connection.commit()


def order_and_forget_to_commit_and_lose_the_lease(number: int) -> None:
    """Commit nothing, and lose the lease before anybody asks."""
    order_and_forget_to_commit(number)
    lose_lease(gators[-1])


def order_and_raise_and_lose_the_lease(number: int) -> None:
    """The same, by an exception."""
    try:
        order_and_raise_before_the_commit(number)
    finally:
        lose_lease(gators[-1])


def order_and_be_pushed_anew(number: int) -> None:
    """Be done; and before anybody asks, somebody queues another task of that id."""
    order(number)
    with gators[-1].options(task_id="t1", if_exists="raise") as opts:
        opts.task(order, number + 1)


def lose_lease(gator: Gator) -> None:
    """Let the task that runs here go to another worker."""
    from alligator.backends.base import Release
    from alligator.running import current_task

    held = current_task().reservation
    assert held is not None
    assert gator.backend.settle([Release(held)]) == []
    assert gator.backend.reserve_task(held.queue_name, held.task_id, "another") is not None
