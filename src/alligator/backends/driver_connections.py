"""From what a caller's database client calls a connection to that of the driver beneath it."""

from typing import Any

from alligator.exceptions import InvalidOption


def driver_connection(given: Any) -> Any:
    """Return the driver's connection of a SQLAlchemy 2 session or connection, or of one of Django's.

    Anything else is returned as it is. The transaction, where it begins by itself, has begun then.
    """
    if callable(
        getattr(given, "ensure_connection", None)
    ):  # Django's, or its stand-in for each thread
        given.ensure_connection()
        return given.connection
    if callable(getattr(given, "get_bind", None)) and callable(getattr(given, "connection", None)):
        given = given.connection()  # of a session
    if callable(getattr(given, "get_isolation_level", None)):
        return _of_sqlalchemy(given)
    return given


def _of_sqlalchemy(connection: Any) -> Any:
    if not callable(getattr(connection, "exec_driver_sql", None)) or hasattr(
        connection, "sync_connection"
    ):
        raise InvalidOption(
            f"{type(connection).__name__} cannot be used here: use a connection or session that is not async."
        )
    # It begins a transaction with the first statement that it knows of, and would not commit without one.
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection
