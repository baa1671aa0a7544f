"""Calls over a connection of the caller's, in a transaction of its own."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from alligator.backends.driver_connections import driver_connection
from alligator.backends.postgres import schema as schemas
from alligator.backends.postgres.connection import IDENTITY, Calls, Row, Server
from alligator.exceptions import InvalidOption


class JoinedCalls(Calls):
    """Calls that are a part of the caller's transaction. What fails there, fails it.

    Args:
        server: The store; its tables are made if need be, by a transaction of its own.
        connection: psycopg's, SQLAlchemy's or Django's.

    Raises:
        InvalidOption: It is none, to another database, or in autocommit mode with no transaction begun.
    """

    def __init__(self, server: Server, connection: object) -> None:
        found = driver_connection(connection)
        if not isinstance(found, psycopg.Connection):
            raise InvalidOption(
                f"{type(found).__module__}.{type(found).__name__} is no connection of psycopg 3 (one that is "
                "not async), nor a SQLAlchemy or Django one that uses it."
            )
        self._connection: psycopg.Connection[Any] = found
        if found.autocommit and found.info.transaction_status == TransactionStatus.IDLE:
            raise InvalidOption(
                "The connection commits each statement at once: begin a transaction first "
                "(connection.transaction(), or Django's transaction.atomic())."
            )
        server.make_ready()
        self._server = server
        self.schema = server.schema
        # Who waits is told of the commit in any case: nobody can know yet whether anybody will.
        [[_, *identity]] = self.rows(
            f"SELECT set_config('alligator.joined', 'yes', true), {IDENTITY}"
        )
        if not server.is_known_as(tuple(identity)):
            theirs = found.info
            raise InvalidOption(
                f"The connection is to {theirs.dbname!r} at {theirs.host}:{theirs.port}, and the queue is in "
                f"{server.dsn}: one transaction has to be of one database."
            )

    def rows(
        self, statement: str, values: Sequence[Any] = (), *, is_repeatable: bool = False
    ) -> list[Row]:
        """Carry out a statement, in the caller's transaction: never again, for an error has ended that."""
        query = schemas.filled(statement, self.schema).encode()
        with (
            self._server.translated(),
            psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor,
        ):
            return cursor.execute(query, values, prepare=False, binary=True).fetchall()
