"""Hearing from PostgreSQL that there is something new: one connection that listens, for all who wait here.

Whichever of those who wait finds something to read there reads it, and rings for those it is for. When nobody
waits any more, the connection is told to listen no longer: else the server would keep for it what nobody reads.

It is a help, and not relied on. A connection may be cut without a word, and a PgBouncer in transaction mode
passes nothing on: so who waits looks now and then.

That somebody waits is noted in a table. Who pushes tells of it only then, for NOTIFY makes all commits of a
database take turns.
"""

import math
import os
import select
import threading
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager

import psycopg
from psycopg.pq.abc import PGconn

from alligator.backends.postgres import schema as schemas
from alligator.backends.postgres.connection import (
    ANSWERS_WITHIN,
    Connection,
    Server,
    poll,
)
from alligator.bell import Bell, Woken
from alligator.exceptions import AlligatorException
from alligator.utils import new_id

TASKS, RECORDS = "", ".records"
"""What can be told of: the ends of two channels' names, which begin with the schema's."""
SHORTEST_LOOK, LONGEST_LOOK = 0.02, 5.0
"""Seconds between two looks of one who listens: often at first, and seldom later."""
WAITS_FOR, SAY_EVERY = 30.0, 10.0
"""Seconds for which it is noted that somebody waits, and after which that is noted again."""
TRY_AGAIN_AFTER = 5.0
"""Seconds until a connection to listen on is asked for again, if there was none to be had."""


class Listener:
    """What is told to this process.

    Args:
        server: Where to listen.
        is_wanted: Whether to; else all have to look by themselves.
    """

    def __init__(self, server: Server, is_wanted: bool) -> None:
        self._server = server
        self._is_wanted = is_wanted
        self._line = _Line(server, is_wanted)

    @contextmanager
    def waiting(self, channel: str, names: Collection[str]) -> Generator["Waiter"]:
        """Be told of these names, while the block runs."""
        line = self._own_line()
        waiter = Waiter(line, channel, names)
        line.waiters.add(waiter)
        try:
            yield waiter
        finally:
            line.leave(waiter)
            waiter.close()

    def close(self) -> None:
        """Hang up; who waits calls again."""
        self._own_line().hang_up()

    def _own_line(self) -> "_Line":
        if (
            self._line.pid != os.getpid()
        ):  # its connection is the parent's, and its lock may be taken
            self._line = _Line(self._server, self._is_wanted)
        return self._line


class Waiter:
    """One who waits, to be told of some names of one channel."""

    def __init__(self, line: "_Line", channel: str, names: Collection[str]) -> None:
        self._line = line
        self._told = Bell()
        self._began_at = time.monotonic()
        self.channel = channel
        self.names = frozenset(name[:1000] for name in names)

    def attend(self) -> None:
        """Listen, from now on. To be called before each look: what is told after it, the next wait hears."""
        self._told.wait(0)
        self._line.listen_to(self.channel)

    def wait(self, timeout: float, bell: Bell) -> Woken:
        """Wait until something is told (``BY_FILE``), for so long, or until the bell is rung."""
        until = time.monotonic() + timeout
        while True:
            woken = bell.wait(until - time.monotonic(), self._told.fileno(), *self._line.files())
            if woken is not Woken.BY_FILE:
                return woken
            self._line.hear()
            if self._told.wait(0) is Woken.BY_RING:
                return Woken.BY_FILE

    def look(self, longest_untold: float) -> float:
        """Return after how many seconds to look again.

        Often at first: work comes in bursts, and who was committing something when we began to wait may not
        have known that; then less, up to the limit.
        """
        longest = LONGEST_LOOK if self._line.files() else longest_untold
        return min(max(SHORTEST_LOOK, (time.monotonic() - self._began_at) / 5), longest)

    def ring(self) -> None:
        """Let it look."""
        self._told.ring()

    def close(self) -> None:
        """End it."""
        self._told.close()


class _Line:
    """The connection of one process, and who waits there."""

    def __init__(self, server: Server, is_wanted: bool) -> None:
        self.pid = os.getpid()
        self.waiters: set[Waiter] = set()
        self.connection: Connection | None = None
        self._server = server
        self._who = new_id()
        self._said_at: dict[str, float] = {}  # by the channels that are listened to
        self._lock = threading.RLock()
        self._connecting = threading.RLock()
        # No sooner than this moment is a connection asked for.
        self._try_at = time.monotonic() if is_wanted else float("inf")

    def files(self) -> tuple[int, ...]:
        """Return the descriptor to wait on; none when there is nothing to hear."""
        connection = self.connection
        try:
            return (connection.pgconn.socket,) if connection is not None else ()
        except psycopg.Error:  # another thread has just hung up
            return ()

    def listen_to(self, channel: str) -> None:
        """Listen to a channel, if that can be done."""
        now = time.monotonic()
        is_said = now - self._said_at.get(channel, -math.inf) < SAY_EVERY
        if is_said or (self.connection is None and now < self._try_at):
            return
        self._connect()
        with self._lock:
            if self.connection is None:
                return
            try:
                self._say(
                    self.connection.pgconn,
                    f'LISTEN "{self._server.schema}{channel}"; '
                    f"SELECT {{s}}.wait('{self._who}', '{channel}', {WAITS_FOR})",
                )
                self._said_at[channel] = now
            except (psycopg.Error, AlligatorException):
                self.hang_up()

    def _connect(self) -> None:
        """Open the connection, if there is none and that is not tried too often."""
        with self._connecting:  # and not under the lock: others hear and leave meanwhile
            if self.connection is not None or time.monotonic() < self._try_at:
                return
            try:
                connection = self._server.connect()
            except (psycopg.Error, AlligatorException):
                self.hang_up()
                return
            with self._lock:
                if time.monotonic() < self._try_at:  # hung up meanwhile
                    connection.close()
                else:
                    self.connection = connection

    def leave(self, waiter: Waiter) -> None:
        """Tell one nothing more; without any, listen no longer."""
        self.waiters.discard(waiter)
        with self._lock:
            if self.connection is not None and self._said_at and not self.waiters:
                self._said_at.clear()
                try:
                    # The answer is read when it is used again, for whoever leaves has something to do.
                    self._send(
                        self.connection.pgconn,
                        f"UNLISTEN *; SELECT {{s}}.wait_no_more('{self._who}')",
                    )
                except psycopg.Error:
                    self.hang_up()

    def hear(self) -> None:
        """Read what there is, and ring for those it is for."""
        with self._lock:
            try:
                if self.connection is not None:
                    self.connection.pgconn.consume_input()
                    self._pass_on(self.connection.pgconn)
            except psycopg.Error:
                self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, and let everyone look: they will notice, or call again."""
        with self._lock:
            connection, self.connection = self.connection, None
            self._said_at.clear()
            if connection is not None:
                connection.close()
            else:
                self._try_at = max(self._try_at, time.monotonic() + TRY_AGAIN_AFTER)
        self._ring()

    def _say(self, server: PGconn, statement: str) -> None:
        """Send a statement and wait for its answer, and for those of what was said before."""
        self._read_answers(server)
        self._send(server, statement)
        self._read_answers(server)

    def _send(self, server: PGconn, statement: str) -> None:
        """Send a statement, in whose text is nothing but what is ours."""
        server.send_query(schemas.filled(statement, self._server.schema).encode())
        server.flush()

    def _read_answers(self, server: PGconn) -> None:
        while True:
            while server.is_busy():
                if not poll(server.socket, select.POLLIN, ANSWERS_WITHIN):
                    raise psycopg.OperationalError(f"no answer within {ANSWERS_WITHIN:g} s")
                server.consume_input()
            if (result := server.get_result()) is None:
                break
            if result.error_message:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        self._pass_on(server)

    def _pass_on(self, server: PGconn) -> None:
        while (told := server.notifies()) is not None:
            channel = told.relname.decode()[len(self._server.schema) :]
            self._ring(channel, told.extra.decode(errors="replace"))

    def _ring(self, channel: str | None = None, name: str = "") -> None:
        for waiter in list(self.waiters):
            if channel is None or (
                channel == waiter.channel and (not name or name in waiter.names)
            ):
                waiter.ring()
