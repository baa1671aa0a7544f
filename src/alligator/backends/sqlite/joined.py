"""A connection of the caller's to the queue's file, in a transaction of its own.

While that is open, nobody else can write into the file: workers wait for it, for some seconds.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alligator.backends.driver_connections import driver_connection
from alligator.backends.sqlite.file import Database, translated
from alligator.exceptions import InvalidOption


class JoinedDatabase(Database):
    """The file as the caller's transaction sees it.

    Args:
        path: Where the file is.
        connection: One of the sqlite3 module, of SQLAlchemy or of Django, to that file.

    Raises:
        InvalidOption: It is none, to another file, or commits each statement at once.
    """

    def __init__(self, path: Path, connection: object) -> None:
        found = driver_connection(connection)
        if not isinstance(found, sqlite3.Connection):
            raise InvalidOption(
                f"{type(found).__module__}.{type(found).__name__} is no connection of the sqlite3 module, nor "
                "a SQLAlchemy or Django one that uses it."
            )
        self._path = path
        self._connection = found
        with self._plainly() as db:
            main = _main_of(db)
        if not (main and Path(main).samefile(path)):
            raise InvalidOption(
                f"The connection is to {main or 'no file'}, and the queue is in {path}: one transaction has to "
                "be of one file. Keep your tables in the queue's file, beside its own."
            )
        is_autocommit = getattr(found, "autocommit", None) is True or found.isolation_level is None
        if is_autocommit and not found.in_transaction:
            raise InvalidOption(
                "The connection commits each statement at once: execute BEGIN IMMEDIATE first."
            )

    @contextmanager
    def read(self) -> Generator[sqlite3.Connection]:
        """Give the connection to read with."""
        with self._plainly() as db:
            yield db

    @contextmanager
    def write(self) -> Generator[sqlite3.Connection]:
        """Give the connection, within the caller's transaction."""
        with self._plainly() as db:
            if not db.in_transaction:
                # sqlite3 would let it begin as a reader: then it may not be able to write later.
                db.execute("BEGIN IMMEDIATE")
            yield db

    def roll_back(self) -> None:
        """Undo what was done in the transaction, the caller's own things too."""
        self._connection.rollback()

    @contextmanager
    def _plainly(self) -> Generator[sqlite3.Connection]:
        """Give the connection; its rows are plain ones meanwhile."""
        with translated(self._path), _plain(self._connection) as db:
            yield db

    def close(self) -> None:
        """Leave it open: it is the caller's."""


def is_to(path: Path, connection: object) -> bool:
    """Return whether a connection is to a file, as its main database."""
    found = driver_connection(connection)
    if not isinstance(found, sqlite3.Connection):
        return False
    with translated(path), _plain(found) as db:
        main = _main_of(db)
        return bool(main) and Path(main).exists() and path.exists() and Path(main).samefile(path)


def _main_of(db: sqlite3.Connection) -> str:
    """Return the path of the main database; empty: it is in no file."""
    [main] = [row[2] for row in db.execute("PRAGMA database_list") if row[1] == "main"]
    return main or ""


@contextmanager
def _plain(db: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """Give a connection of the caller's; its rows are plain ones meanwhile."""
    factories = db.row_factory, db.text_factory
    db.row_factory, db.text_factory = None, str
    try:
        yield db
    finally:
        db.row_factory, db.text_factory = factories
