"""An outbox: a table of the application's own database, for tasks whose store cannot join its transactions.

What is queued inside ``gator.using(connection)`` is written to that table, in the caller's transaction
(``writing``), and a worker with ``--outbox DSN`` moves what is committed there to the store (``forwarding``).
``postgres_outbox`` and ``sqlite_outbox`` have the SQL.

Exactly once is to be had where a store can queue tasks and swap a record in one step. For each queue, a record
tells which rows were moved in the last such step. A forwarder

1. reads that record, and removes the rows that it tells of, if there still are any;
2. reads the next rows: whatever is committed by now, so one that commits late is not passed over;
3. queues them, and in the same step lets the record tell of them, in place of what it told in 1;
4. removes them.

If it dies after 3, the next one makes up for 4 by its own 1. If it slept meanwhile and another went on, the
record is another one by now, and its step 3 does nothing. So any number may be at work; that they take turns is
for the sake of order.

A store without such a step gets a batch of a few tasks, and then their rows are removed: if the forwarder dies
in between, they are queued twice.
"""

from alligator.dsn import DSN
from alligator.exceptions import InvalidOption
from alligator.outbox.tables import Outbox, Writer


def outbox_at(dsn: str) -> Outbox:
    """Return the outbox of a database.

    Raises:
        InvalidOption: It is of no kind that there are outboxes in.
    """
    parsed = DSN.parse(dsn)
    if parsed.scheme in ("postgres", "postgresql"):
        from alligator.outbox.postgres_outbox import PostgresOutbox  # here, for it imports psycopg

        return PostgresOutbox(parsed)
    if parsed.scheme == "sqlite":
        from alligator.outbox.sqlite_outbox import SQLiteOutbox

        return SQLiteOutbox(parsed)
    raise InvalidOption(
        f"{parsed}: an outbox is in your application's database, postgres://... or sqlite://..."
    )


def writer_on(connection: object) -> Writer:
    """Return what writes to the outbox of a connection's database, in its transaction.

    Raises:
        InvalidOption: It is no connection that is known, commits each statement at once, or there is no outbox.
    """
    import sqlite3  # here, for few need it

    from alligator.backends.driver_connections import driver_connection

    found = driver_connection(connection)
    if isinstance(found, sqlite3.Connection):
        from alligator.outbox.sqlite_outbox import SQLiteWriter

        return SQLiteWriter(found)
    if any(one.__module__.partition(".")[0] == "psycopg" for one in type(found).__mro__):
        from alligator.outbox.postgres_outbox import PostgresWriter

        return PostgresWriter(found)
    raise InvalidOption(
        f"{type(found).__module__}.{type(found).__name__} is no connection of psycopg 3 or of the sqlite3 "
        "module, nor a SQLAlchemy or Django one that uses such."
    )
