"""The connections of one client: as many as threads use at a time, and few of them hold jobs."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from alligator.backends.beanstalk.address import Address
from alligator.backends.beanstalk.connection import Connection

KEPT = 16
"""Connections to keep, if they hold nothing: as many threads need no new ones."""


class Pool:
    """Connections to a server, made as they are needed.

    Args:
        address: The server's.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connections: list[Connection] = []
        self.begin()

    def begin(self) -> None:
        """Begin without any: in a process just forked, for they are the parent's, and so are the locks."""
        self._lock = threading.RLock()
        self.close()

    @contextmanager
    def free(self) -> Generator[Connection]:
        """A connection that holds no job and that nobody uses: to lose it is no loss."""
        with self._taken(lambda connection: not connection.held) as connection:
            yield connection

    @contextmanager
    def any(self) -> Generator[Connection]:
        """A connection that nobody uses; if possible one that holds jobs, so that they stay few."""
        with self._taken(lambda connection: True) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        # In a fork, too: the server would not see that the parent has died, if we kept their other ends.
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    @contextmanager
    def _taken(self, fits: Callable[[Connection], bool]) -> Generator[Connection]:
        connection = self._take(fits) or self._opened()
        try:
            yield connection
        finally:
            if not connection.held and len(self._connections) > KEPT:
                connection.close()
            connection.lock.release()

    def _take(self, fits: Callable[[Connection], bool]) -> Connection | None:
        with self._lock:
            self._connections = [one for one in self._connections if one.is_open]
            for connection in sorted(self._connections, key=_holds_none):
                if not fits(connection) or not connection.lock.acquire(blocking=False):
                    continue
                if connection.is_open and connection.is_stale:
                    connection.close()
                if connection.is_open and fits(connection):
                    return connection
                connection.lock.release()
        return None

    def _opened(self) -> Connection:
        connection = Connection(self._address)
        connection.lock.acquire()
        with self._lock:
            self._connections.append(connection)
        return connection


def _holds_none(connection: Connection) -> bool:
    return not connection.held
