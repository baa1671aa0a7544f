"""SQLite's own: a file that is shared with an application."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from alligator import Gator
from alligator.backends.sqlite_backend import Client
from alligator.cli import main
from alligator.exceptions import BackendRefused
from alligator.testing.running import in_threads
from alligator.testing.stores import LONG, QUEUE, push, records_of
from tests.features.work import do, work_off


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an application's database."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        # Names and numbers that an application may well use, too.
        connection.executescript(
            "CREATE TABLE tasks (id INTEGER); CREATE TABLE records (id INTEGER);"
            "PRAGMA user_version = 7; PRAGMA application_id = 7;"
        )
        yield connection


@pytest.fixture
def dsn(tmp_path: Path) -> str:
    """The queue in that database."""
    return f"sqlite://{tmp_path}/shop.db"


def tables(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the tables in a file."""
    return {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(
    shop: sqlite3.Connection, dsn: str, tmp_path: Path
) -> None:
    before = shop.execute("PRAGMA journal_mode").fetchone()

    with closing(Client(dsn)) as client, pytest.raises(BackendRefused, match="alligator migrate"):
        push(client, "t1")

    assert tables(shop) == {"tasks", "records"}
    assert shop.execute("PRAGMA journal_mode").fetchone() == before
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


def test_a_queue_shares_the_database_of_another_program_when_it_is_told_to(
    shop: sqlite3.Connection, dsn: str
) -> None:
    assert main(["migrate", dsn]) == 0

    gator = Gator(dsn)
    with shop, gator.using(shop):
        shop.execute("INSERT INTO tasks VALUES (1)")
        gator.task(do, 7)
    shop.rollback()
    work_off(gator)

    assert gator.len() == 0
    assert shop.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    assert shop.execute("PRAGMA user_version").fetchone() == (7,)
    assert {name for name in tables(shop) if not name.startswith(("alligator_", "sqlite_"))} == {
        "tasks",
        "records",
    }


@pytest.mark.usefixtures("shop")
def test_a_migration_happens_once(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = in_threads(8, lambda _: Client(dsn).migrate())

    assert any(made)
    assert main(["migrate", dsn]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_the_sql_of_a_migration_makes_the_tables(
    shop: sqlite3.Connection, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", dsn, "--sql"]) == 0
    assert tables(shop) == {"tasks", "records"}
    shop.executescript(capsys.readouterr().out)

    with closing(Client(dsn)) as client:
        assert client.migration() == ""
        push(client, "t1")
        assert client.reserve([QUEUE], "w1", wait=LONG).reservations


def test_tables_of_another_version_are_refused(dsn: str, shop: sqlite3.Connection) -> None:
    Client(dsn).migrate()
    with shop:
        shop.execute("UPDATE alligator_schema SET version = 1000")

    is_of_another = r"another version of Alligator \(schema 1000"
    with pytest.raises(BackendRefused, match=is_of_another):
        Client(dsn).len(QUEUE)
    with pytest.raises(BackendRefused, match=is_of_another):
        Client(dsn).migrate()


def test_a_file_that_does_not_wait_for_the_disk_is_a_risk(dsn: str) -> None:
    assert Client(dsn).risks(QUEUE) == []
    assert "sync=normal" in Client(f"{dsn}?sync=normal").risks(QUEUE)[0]


def test_a_record_that_was_written_as_text_is_bytes(tmp_path: Path) -> None:
    gator = Gator(f"sqlite://{tmp_path}/queue.db")
    records = records_of(gator.backend)
    records.set("a/b", b"")
    with closing(sqlite3.connect(tmp_path / "queue.db")) as db, db:
        db.execute("UPDATE alligator_records SET value = '{}'")

    assert (records.get("a/b"), records.list("a")) == (b"{}", {"a/b": b"{}"})
    assert records.swap("a/b", b"{}", b"1")
    gator.backend.close()
