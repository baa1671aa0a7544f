"""The SQLite store: dropping very many tasks."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from alligator.backends.base import Follow, Message
from alligator.backends.sqlite import tasks
from alligator.backends.sqlite_backend import Client


def test_others_can_write_while_many_tasks_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "DROP_AT_ONCE", 10)
    other = Client(f"sqlite://{tmp_path}/queue.db")
    seen: list[int] = []

    class Watched(Client):
        @contextmanager
        def _changing(self) -> Generator[tasks.Tasks]:
            seen.append(other.len("all"))
            with super()._changing() as step:
                yield step

    other.push_many("all", [Message(f"t{number}", b"{}") for number in range(25)])

    Watched(f"sqlite://{tmp_path}/queue.db").drop_all("all")

    assert seen == [25, 15, 5, 0]


def test_within_a_caller_s_transaction_it_is_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "DROP_AT_ONCE", 1)
    client = Client(f"sqlite://{tmp_path}/queue.db")
    client.push_many("all", [Message("t1", b"1"), Message("t2", b"2")])
    statements: list[str] = []

    with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
        joined = client.within(connection)
        connection.set_trace_callback(statements.append)
        joined.drop_all("all")
        connection.commit()

    assert client.len("all") == 0
    assert len([one for one in statements if one.lstrip().startswith("DELETE")]) == 1


def test_what_follows_a_task_stays_though_its_id_was_dropped_in_an_earlier_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "DROP_AT_ONCE", 1)
    client = Client(f"sqlite://{tmp_path}/queue.db")
    client.push_many("all", [Message("first", b"1", follow=Follow("next", b"well", b"badly"))])
    client.push_many("all", [Message("next", b"2"), Message("last", b"3")])

    client.drop_all("all")

    assert client.len("all") == 1
    assert client.cancel("all", "next") == b"badly"
