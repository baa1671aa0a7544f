"""The outbox in PostgreSQL: in a schema of its own, so that whoever's search_path leads wherever finds it."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from alligator.backends.base import Message
from alligator.backends.postgres.connection import Connection, Server, ours
from alligator.backends.postgres.connection import Row as Columns
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption
from alligator.outbox.tables import COMMITS_AT_ONCE, Outbox, Ref, Row, Summary, no_outbox
from alligator.utils import new_id

LOOK_EVERY = 1.0
"""Seconds between two looks, should nothing be heard."""

_SCHEMA = """\
CREATE SCHEMA IF NOT EXISTS alligator_outbox;
CREATE TABLE alligator_outbox.identity (
    id text NOT NULL DEFAULT gen_random_uuid()::text
);
INSERT INTO alligator_outbox.identity DEFAULT VALUES;
CREATE TABLE alligator_outbox.tasks (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL,
    store text NOT NULL,
    queue text NOT NULL,
    task_id text NOT NULL,
    body bytea NOT NULL,
    delay double precision NOT NULL,
    due_at double precision NOT NULL,
    priority smallint NOT NULL,
    replaces boolean NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    refused text  -- why the store does not take it, if it does not
);
CREATE INDEX tasks_to_forward ON alligator_outbox.tasks (store, queue, seq) WHERE refused IS NULL;
"""

# Who waits is told of the commit, or of nothing if there is none.
_TELL = "SELECT pg_notify('alligator_outbox', '')"

_IS_THERE = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = 'alligator_outbox' AND tablename = 'tasks'"

_WRITE = """
INSERT INTO alligator_outbox.tasks (id, store, queue, task_id, body, delay, due_at, priority, replaces)
SELECT id, %s::text, %s::text, task_id, body, delay, due_at, priority, replaces
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::float8[], %s::float8[], %s::smallint[], %s::boolean[])
    WITH ORDINALITY AS given (id, task_id, body, delay, due_at, priority, replaces, place)
ORDER BY place
"""

# Steps from name to name along the index, instead of reading every row.
_QUEUES = """
WITH RECURSIVE names (name) AS (
    (SELECT queue FROM alligator_outbox.tasks WHERE store = %(store)s AND refused IS NULL
        ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM alligator_outbox.tasks
        WHERE store = %(store)s AND refused IS NULL AND queue > name ORDER BY queue LIMIT 1)
    FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
"""

# What is not asked for in the end is not read: of a body that is not short, a row has the address alone.
_ROWS = """
SELECT seq, id, task_id, body,
    greatest(0, delay - greatest(0, extract(epoch FROM clock_timestamp() - written_at)::float8)),
    due_at, priority, replaces
FROM (
    SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) AS bytes, row_number() OVER (ORDER BY seq) AS place
    FROM (
        SELECT * FROM alligator_outbox.tasks
        WHERE store = %s AND queue = %s AND refused IS NULL ORDER BY seq LIMIT %s
    ) AS first
) AS measured
WHERE bytes <= %s OR place = 1 ORDER BY seq
"""

# By their numbers, along the primary key, whatever is known of the table's size; an id is one row's alone.
_REMOVE = """
DELETE FROM alligator_outbox.tasks WHERE seq = ANY (%s::bigint[]) AND id = ANY (%s::text[])
"""

_SET_ASIDE = "UPDATE alligator_outbox.tasks SET refused = %s WHERE seq = %s AND id = %s"

_WAITING = """
SELECT store, count(*), extract(epoch FROM clock_timestamp() - min(written_at))::float8
FROM alligator_outbox.tasks WHERE refused IS NULL GROUP BY store ORDER BY store
"""

_ASIDE = "SELECT count(*) FROM alligator_outbox.tasks WHERE refused IS NOT NULL"


class PostgresWriter:
    """Writes to the outbox, over a connection of the caller's.

    Raises:
        InvalidOption: It is not one of psycopg 3, commits each statement at once, or there is no outbox.
    """

    def __init__(self, connection: object) -> None:
        if not isinstance(connection, psycopg.Connection):
            raise InvalidOption(
                f"{type(connection).__name__} is not one of psycopg 3, or is async."
            )
        self._connection: psycopg.Connection[Any] = connection
        info = connection.info
        if connection.autocommit and info.transaction_status == TransactionStatus.IDLE:
            raise InvalidOption(COMMITS_AT_ONCE)
        self._dsn = DSN.parse(f"postgres://{info.host}:{info.port}/{info.dbname}")
        if not self._rows(_IS_THERE):  # here, where it breaks nobody's transaction
            raise no_outbox(f"the database {self._dsn}")

    def write(self, store: str, queue_name: str, messages: Sequence[Message]) -> None:
        """Put tasks into the outbox, in this order."""
        columns: list[list[Any]] = [
            [new_id() for _ in messages],
            [message.task_id for message in messages],
            [message.body for message in messages],
            [message.delay for message in messages],
            [message.due_at for message in messages],
            [message.priority for message in messages],
            [message.replaces for message in messages],
        ]
        self._rows(_WRITE, (store, queue_name, *columns))
        self._rows(_TELL)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Columns]:
        """Carry out a statement in the caller's transaction; whatever the connection's own settings are."""
        try:
            with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
                cursor.execute(statement.encode(), values, prepare=False)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as err:
            raise ours(err, self._dsn) from None


class PostgresOutbox(Outbox):
    """The outbox of a PostgreSQL database.

    Each turn is a transaction, and a lock that ends with it: so nothing is left in the session, as PgBouncer
    wants it. It says its own isolation, whatever the application has for a default.

    Args:
        dsn: As of the store; with ``listen=no`` it looks by itself alone.
    """

    def __init__(self, dsn: DSN) -> None:
        self.dsn = dsn
        self._server = Server(dsn, begins=True)
        self._listens = self._server.options.get("listen", "yes") != "no"
        self._connection: Connection | None = None
        self._identity = ""

    @contextmanager
    def turn(self, store: str) -> Generator[bool]:
        """Take the turn, as a transaction."""
        with self._connected() as connection, connection.transaction():
            [[is_ours]] = connection.execute(
                "SELECT pg_try_advisory_xact_lock(hashtext('alligator_outbox'), hashtext(%s))",
                (store,),
            )
            yield is_ours

    def identity(self) -> str:
        """Return what tells this outbox from all others."""
        if not self._identity:
            [[self._identity]] = self._rows("SELECT id FROM alligator_outbox.identity")
        return self._identity

    def queues(self, store: str) -> list[str]:
        """Return the names of the queues that rows are there for."""
        return [name for (name,) in self._rows(_QUEUES, {"store": store})]

    def rows(self, store: str, queue_name: str, limit: int, max_bytes: int) -> list[Row]:
        """Return the first rows of a queue."""
        return [
            Row((seq, id_), Message(*task))
            for seq, id_, *task in self._rows(_ROWS, (store, queue_name, limit, max_bytes))
        ]

    def remove(self, refs: Sequence[Ref]) -> int:
        """Remove rows."""
        columns = [seq for seq, _ in refs], [id_ for _, id_ in refs]
        return self._open().execute(_REMOVE.encode(), columns).rowcount

    def set_aside(self, ref: Ref, reason: str) -> None:
        """Keep a row apart."""
        # PostgreSQL's texts carry neither.
        reason = reason.replace("\0", "").encode(errors="replace").decode()
        self._open().execute(_SET_ASIDE.encode(), (reason, *ref))

    def wait(self, bell: Bell) -> None:
        """Wait until a commit is told."""
        with self._connected() as connection:
            bell.wait(LOOK_EVERY, connection.pgconn.socket)
            connection.pgconn.consume_input()
            while connection.pgconn.notifies():
                pass

    def summary(self) -> Summary:
        """Return what is in it."""
        with self._connected() as connection, connection.transaction():
            waiting = self._rows(_WAITING)
            [[aside]] = self._rows(_ASIDE)
        oldest = max((age for _, _, age in waiting), default=0.0)
        return Summary({store: count for store, count, _ in waiting}, oldest, aside)

    def migration(self) -> str:
        """Return the SQL that makes the table."""
        with self._server.translated(), self._server.connection() as connection:
            is_there = connection.execute(_IS_THERE.encode()).fetchone()
        return "" if is_there else f"BEGIN;\n{_SCHEMA}COMMIT;\n"

    def migrate(self) -> bool:
        """Make the table."""
        with self._server.translated(), self._server.connection() as connection:
            return _migrate(connection)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._identity = ""  # the next one may be to another server
        if connection is not None:
            connection.close()

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        """Give the connection; closed if anything goes wrong with it."""
        with self._server.translated():
            try:
                yield self._open()
            except psycopg.Error:
                self.close()
                raise

    def _open(self) -> Connection:
        if self._connection is None:
            connection = self._server.connect()
            self._connection = connection
            _migrate(connection)
            if self._listens:
                connection.execute("LISTEN alligator_outbox")
        return self._connection

    def _rows(self, statement: str, values: Any = ()) -> list[Columns]:
        return self._open().execute(statement.encode(), values, binary=True).fetchall()


def _migrate(connection: Connection) -> bool:
    if connection.execute(_IS_THERE.encode()).fetchone():
        return False
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('alligator_outbox.migrate'))")
        if connection.execute(_IS_THERE.encode()).fetchone():
            return False
        connection.execute(_SCHEMA.encode())
    return True
