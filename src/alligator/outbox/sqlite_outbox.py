"""The outbox in a SQLite file: two tables beside the application's own.

Nothing is locked while a task is on its way to the store: the application could write nothing meanwhile. That
forwarders take turns is a matter of a lock of the operating system, on the file ``<name>-outbox``.
"""

import sqlite3
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alligator.backends.base import Message
from alligator.backends.sqlite.file import OpenFile, translated, try_lock, unlock
from alligator.backends.sqlite.fork import INSIDE
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption
from alligator.outbox.tables import COMMITS_AT_ONCE, Outbox, Ref, Row, Summary, no_outbox
from alligator.utils import new_id

LOOK_EVERY = 0.1
"""Seconds between two looks: SQLite tells nobody of a commit."""

_SCHEMA = """\
CREATE TABLE IF NOT EXISTS alligator_outbox_identity (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id TEXT NOT NULL
);
INSERT OR IGNORE INTO alligator_outbox_identity VALUES (1, lower(hex(randomblob(16))));
CREATE TABLE IF NOT EXISTS alligator_outbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    store TEXT NOT NULL,
    queue TEXT NOT NULL,
    task_id TEXT NOT NULL,
    body BLOB NOT NULL,
    delay REAL NOT NULL,
    due_at REAL NOT NULL,
    priority INTEGER NOT NULL,
    replaces INTEGER NOT NULL,
    written_at REAL NOT NULL,
    refused TEXT  -- why the store does not take it, if it does not
);
CREATE INDEX IF NOT EXISTS alligator_outbox_to_forward ON alligator_outbox (store, queue, seq)
    WHERE refused IS NULL;
"""

_IS_THERE = "SELECT count(*) FROM main.sqlite_master WHERE name = 'alligator_outbox_to_forward'"

_WRITE = """
INSERT INTO main.alligator_outbox
    (id, store, queue, task_id, body, delay, due_at, priority, replaces, written_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Steps from name to name along the index, instead of reading every row.
_QUEUES = """
WITH RECURSIVE names (name) AS (
    SELECT min(queue) FROM alligator_outbox WHERE store = :store AND refused IS NULL
    UNION ALL
    SELECT (SELECT min(queue) FROM alligator_outbox
        WHERE store = :store AND refused IS NULL AND queue > name)
    FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
"""

_ROWS = """
SELECT seq, id, task_id, body, max(0.0, delay - max(0.0, ? - written_at)), due_at, priority, replaces
FROM alligator_outbox WHERE store = ? AND queue = ? AND refused IS NULL ORDER BY seq LIMIT ?
"""

_WAITING = """
SELECT store, count(*), min(written_at) FROM alligator_outbox WHERE refused IS NULL
GROUP BY store ORDER BY store
"""


class SQLiteWriter:
    """Writes to the outbox, over a connection of the caller's.

    Raises:
        InvalidOption: It commits each statement at once, or there is no outbox.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        is_autocommit = (
            getattr(connection, "autocommit", None) is True or connection.isolation_level is None
        )
        if is_autocommit and not connection.in_transaction:
            raise InvalidOption(f"{COMMITS_AT_ONCE} (BEGIN IMMEDIATE)")
        with self._cursor() as cursor:
            [[count]] = cursor.execute(_IS_THERE)
            if not count:
                # Text as bytes, perhaps: the connection is the caller's, and so is its text_factory.
                raise no_outbox("the connection's main database")

    def write(self, store: str, queue_name: str, messages: Sequence[Message]) -> None:
        """Put tasks into the outbox, in this order."""
        now = time.time()
        with self._cursor() as cursor:
            if not self._connection.in_transaction:
                # sqlite3 would let it begin as a reader: then it may not be able to write later.
                cursor.execute("BEGIN IMMEDIATE")
            cursor.executemany(
                _WRITE,
                [
                    (
                        *(new_id(), store, queue_name, message.task_id, message.body),
                        *(message.delay, message.due_at, message.priority, message.replaces, now),
                    )
                    for message in messages
                ],
            )

    @contextmanager
    def _cursor(self) -> Generator[sqlite3.Cursor]:
        """Give a cursor with plain rows."""
        with translated(Path("the application's database")):
            cursor = self._connection.cursor()
            cursor.row_factory = None
            try:
                yield cursor
            finally:
                cursor.close()


class SQLiteOutbox(Outbox):
    """The outbox of a SQLite file, which is there already.

    Args:
        dsn: ``sqlite:///path/of/the/file.db``.
    """

    def __init__(self, dsn: DSN) -> None:
        self.dsn = dsn
        self._path = Path(dsn.rest)
        self._file: OpenFile | None = None

    @contextmanager
    def turn(self, store: str) -> Generator[bool]:
        """Take the turn, one for all stores; each change is committed at once."""
        with translated(self._path):
            with INSIDE:
                file = self._opened()
            is_ours = try_lock(file.lock)
            try:
                yield is_ours
            finally:
                if is_ours:
                    unlock(file.lock)

    def identity(self) -> str:
        """Return what tells this outbox from all others."""
        [[identity]] = self._rows("SELECT id FROM alligator_outbox_identity")
        return str(identity)

    def queues(self, store: str) -> list[str]:
        """Return the names of the queues that rows are there for."""
        return [name for (name,) in self._rows(_QUEUES, {"store": store})]

    def rows(self, store: str, queue_name: str, limit: int, max_bytes: int) -> list[Row]:
        """Return the first rows of a queue."""
        values = time.time(), store, queue_name, limit
        rows: list[Row] = []
        size = 0
        with self._inside() as db, closing(db.execute(_ROWS, values)) as found:
            for seq, id_, task_id, body, delay, due_at, priority, replaces in found:
                size += len(body)
                if rows and size > max_bytes:
                    break
                message = Message(task_id, body, delay, due_at, priority, bool(replaces))
                rows.append(Row((seq, id_), message))
        return rows

    def remove(self, refs: Sequence[Ref]) -> int:
        """Remove rows, in one step."""
        with self._inside() as db:
            db.execute("BEGIN IMMEDIATE")
            with db:
                return db.executemany(
                    "DELETE FROM alligator_outbox WHERE seq = ? AND id = ?", refs
                ).rowcount

    def set_aside(self, ref: Ref, reason: str) -> None:
        """Keep a row apart."""
        reason = reason.encode(errors="replace").decode()
        self._rows(
            "UPDATE alligator_outbox SET refused = ? WHERE seq = ? AND id = ?", (reason, *ref)
        )

    def wait(self, bell: Bell) -> None:
        """Wait a moment."""
        bell.wait(LOOK_EVERY)

    def summary(self) -> Summary:
        """Return what is in it."""
        with translated(self._path):
            waiting = self._rows(_WAITING)
            [[aside]] = self._rows(
                "SELECT count(*) FROM alligator_outbox WHERE refused IS NOT NULL"
            )
        now = time.time()
        oldest = max((now - written_at for _, _, written_at in waiting), default=0.0)
        return Summary({store: count for store, count, _ in waiting}, oldest, aside)

    def migration(self) -> str:
        """Return the SQL that makes the table."""
        with translated(self._path), INSIDE:
            file = self._connected()
            [[count]] = file.db.execute(_IS_THERE)
        return "" if count else f"BEGIN IMMEDIATE;\n{_SCHEMA}COMMIT;\n"

    def migrate(self) -> bool:
        """Make the table."""
        statements = self.migration()
        with translated(self._path), INSIDE:
            self._opened()
        return bool(statements)

    def close(self) -> None:
        """Close the connection."""
        self._file = None

    @contextmanager
    def _inside(self) -> Generator[sqlite3.Connection]:
        """Give the connection, not for a whole turn: a fork waits meanwhile, and a store may take its time."""
        with INSIDE:
            yield self._opened().db

    def _rows(self, statement: str, values: Any = ()) -> list[Any]:
        with self._inside() as db:
            return db.execute(statement, values).fetchall()

    def _opened(self) -> OpenFile:
        if self._file is None or not self._file.is_current():
            file = self._connected()
            [[count]] = file.db.execute(_IS_THERE)
            if not count:
                file.db.executescript(f"BEGIN IMMEDIATE;\n{_SCHEMA}COMMIT;")
            file.open_lock("-outbox")
            self._file = file
        return self._file

    def _connected(self) -> OpenFile:
        # It is not for us to make the application's database: a file that is not there may be a mistake.
        return OpenFile(self._path, f"file:{quote(str(self._path))}?mode=rw")
