"""A PostgreSQL server: connections to it, calls that take one round trip each, and psycopg's errors as ours.

Each call is one statement and one transaction, and nothing is left in the session: so it is all the same which
connection it takes, also behind PgBouncer in transaction mode.

psycopg's own pool is not used. Its threads would have to be begun anew after a fork; it waits for a server that
is gone, where a worker is to be told at once; and an exception that a task's timeout raises in the middle of it
would cost it a connection for good.
"""

import os
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import psycopg
from psycopg import IsolationLevel, conninfo, errors
from psycopg.abc import RV, PQGen
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from alligator.backends.postgres import schema as schemas
from alligator.dsn import DSN, masked
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    LeaseLost,
    QueueFull,
)

ANSWERS_WITHIN = 20.0
"""Seconds for the server to answer: less than a lease, more than a disk that is busy takes."""
MIGRATES_WITHIN = 3600.0
"""Seconds for it to bring the schema to our version, which may have to read large tables."""
CONNECTS_WITHIN = 10
"""Seconds for a connection, unless the DSN says otherwise."""
KEEPS_IDLE = 8
"""Connections that are kept when nobody uses them. More are opened when more threads ask at once."""
TRIES = 5
"""How often a call is made whose transaction met another one head on."""

_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": CONNECTS_WITHIN,
    "application_name": "alligator",
    # So that one who listens learns of a server that is gone without a word.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

# Names of functions are ours; what they are given is never a part of the text.
_CALL = "SELECT {{s}}.{}({})"
_CALL_FOR_ROWS = "SELECT * FROM {{s}}.{}({})"

Row = tuple[Any, ...]
T = TypeVar("T")


class Connection(psycopg.Connection[Row]):
    """A connection that does not wait for an answer for ever."""

    answers_within: float | None = None
    """Seconds; None: ANSWERS_WITHIN."""

    def __del__(self, _: Any = None, /) -> None:
        # psycopg would warn of one that is left open. But a Gator may just be dropped, and what is beneath
        # closes itself, in the process that opened it and in no other.
        pass

    def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:
        """Wait for an answer.

        Raises:
            OperationalError: There is none within the time.
        """
        within = (self.answers_within or ANSWERS_WITHIN) if timeout is None else timeout
        until = time.monotonic() + within
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted, until, within))
        except StopIteration as done:
            answer: RV = done.value
            return answer

    def _ready(self, wanted: Wait, until: float, within: float) -> Ready:
        mask = (select.POLLIN if wanted & Wait.R else 0) | (
            select.POLLOUT if wanted & Wait.W else 0
        )
        found = poll(self.pgconn.socket, mask, until - time.monotonic())
        if not found:
            raise errors.OperationalError(f"no answer within {within:g} s")
        if not found & (select.POLLIN | select.POLLOUT):  # hung up: reading will tell
            found = mask
        ready = (Ready.R if found & select.POLLIN else 0) | (
            Ready.W if found & select.POLLOUT else 0
        )
        return Ready(ready)


def poll(file: int, mask: int, timeout: float) -> int:
    """Wait until a file is ready. Returns for what, or 0."""
    waiting = select.poll()
    waiting.register(file, mask)
    events = waiting.poll(max(0.0, timeout) * 1000)
    return events[0][1] if events else 0


class Calls(ABC):
    """Calls of our functions, over whatever connection."""

    schema: str

    @abstractmethod
    def rows(
        self, statement: str, values: Sequence[Any] = (), *, is_repeatable: bool = False
    ) -> list[Row]:
        """Carry out a statement, and return its rows.

        Args:
            statement: ``{s}`` in it stands for the schema, ``%s`` for a value.
            values: The values.
            is_repeatable: Whether it may be made again when its answer was lost, and changes no more then.

        Raises:
            BackendUnavailable, BackendRefused, QueueFull: As for any ``Backend``.
        """

    def call(self, function: str, *values: Any, is_repeatable: bool = False) -> Any:
        """Call one of our functions, which returns one value."""
        query = _CALL.format(function, _places(values))
        [[answer]] = self.rows(query, values, is_repeatable=is_repeatable)
        return answer

    def call_for_rows(self, function: str, *values: Any) -> list[Row]:
        """Call one of our functions, which returns rows."""
        return self.rows(_CALL_FOR_ROWS.format(function, _places(values)), values)


class Server(Calls):
    """A database with our schema in it, which is made at the first use.

    Args:
        dsn: ``postgres://[user[:password]@][host][:port][/database][?option=value&...]``. The options are
            libpq's, but for ``schema`` and ``listen``.
        begins: Whether whoever uses it begins a transaction for whatever depends on the isolation; so that the
            default of the database or the role is all the same.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    def __init__(self, dsn: DSN, *, begins: bool = False) -> None:
        self.dsn = dsn
        self._begins = begins
        self.options, theirs = _parted(dsn)
        self.schema = schemas.check_schema(self.options.pop("schema", schemas.DEFAULT_SCHEMA))
        self._info = _understood(dsn, theirs)
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._is_ready = False
        self._identity: Row | None = None
        self._others: set[Row | None] = set()
        """Databases that were not ours, when that could be asked."""

    def rows(
        self, statement: str, values: Sequence[Any] = (), *, is_repeatable: bool = False
    ) -> list[Row]:
        """Carry out a statement, as a transaction of its own."""
        query = schemas.filled(statement, self.schema).encode()
        try:
            return self._answer(query, values)
        except BackendUnavailable:
            if not is_repeatable:
                raise
            return self._answer(query, values)

    def make_ready(self) -> None:
        """Make the schema, or bring it to our version, unless that was done."""
        if not self._is_ready:
            self.migrate()

    def migrate(self) -> bool:
        """Bring the schema to our version, or leave it at a newer one that still serves ours.

        Of several who do so at once, one does it: it returns True.

        Raises:
            BackendRefused: It is of a newer version, and does not serve ours.
        """
        with self.translated(), self.connection() as connection:
            has_migrated = self._is_old(self._version(connection)) and _tried(
                lambda: self._migrate(connection)
            )
        self._is_ready = True
        return has_migrated

    def migration(self) -> str:
        """Return the SQL that brings the schema to our version; empty: it is."""
        with self.translated(), self.connection() as connection:
            version = self._version(connection)
        if not self._is_old(version):
            return ""
        return f"BEGIN;\n{schemas.migration(self.schema, version)}COMMIT;\n"

    def is_reached_by(self, connection: Any) -> bool:
        """Return whether a connection of psycopg's, of whomever, is to this very database."""
        if not isinstance(connection, psycopg.Connection):
            return False
        with self.translated():
            return self.is_known_as(_identity(connection))

    def is_known_as(self, identity: Row) -> bool:
        """Return whether this is what the database says of itself (``IDENTITY``)."""
        if identity != self._identity:  # not known yet, or the server was started anew
            try:
                with self.translated(), self.connection() as connection:
                    self._identity = _identity(connection)
            except (BackendUnavailable, BackendRefused):
                if identity in self._others:
                    return False
                raise
        if identity != self._identity:
            self._others.add(identity)
        return identity == self._identity

    def connect(self) -> Connection:
        """Open a connection of its own."""
        connection = Connection.connect(
            self._info, autocommit=True, prepare_threshold=None, client_encoding="utf8"
        )
        # Of each transaction that is begun. The session's own default cannot be set: it would be lost behind
        # PgBouncer in transaction mode, or left to others there.
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        try:
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """A connection that nobody else has meanwhile; closed if it may have an answer left to read."""
        connection = self._take() or self.connect()
        try:
            yield connection
        except errors.Error as err:
            if err.sqlstate is None or connection.closed:
                connection.close()
            else:  # the server has answered
                self._put_back(connection)
            raise
        except BaseException:
            connection.close()
            raise
        else:
            self._put_back(connection)

    @contextmanager
    def translated(self) -> Generator[None]:
        """Raise psycopg's errors as ours."""
        try:
            yield
        except psycopg.Error as err:
            raise ours(err, self.dsn) from None

    def close(self) -> None:
        """Close the connections that nobody uses; the next call opens one again."""
        if self._pid == os.getpid():
            while self._idle:
                self._idle.pop().close()

    def _check(self, connection: Connection) -> None:
        """Refuse what would not carry every name, or not see what others have just committed."""
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise BackendRefused(
                f"{self.dsn}: the database's encoding is {encoding}; Alligator needs one in UTF8."
            )
        if self._begins:
            return
        [[isolation]] = connection.execute("SHOW transaction_isolation")
        if isolation != "read committed":
            raise BackendRefused(
                f"{self.dsn}: its default_transaction_isolation is {isolation!r}, in which tasks cannot be "
                "handed out to many; Alligator needs 'read committed'. Add "
                "options=-c%20default_transaction_isolation%3Dread%5C%20committed to the DSN, or ALTER ROLE."
            )

    def _answer(self, query: bytes, values: Sequence[Any]) -> list[Row]:
        with self.translated():
            try:
                return _tried(lambda: self._ask(query, values))
            except _IS_MISSING:
                self._is_ready = False  # dropped, or another database took over, or a newer schema
                return _tried(lambda: self._ask(query, values))

    def _ask(self, query: bytes, values: Sequence[Any]) -> list[Row]:
        self.make_ready()
        with self.connection() as connection:
            return connection.execute(query, values, binary=True).fetchall()

    def _take(self) -> Connection | None:
        if self._pid != os.getpid():
            self._idle, self._pid = [], os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if not connection.closed and not poll(connection.pgconn.socket, select.POLLIN, 0):
                return connection
            # There is something to read before anything was asked: as a rule, that the server hung up.
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if self._pid == os.getpid() and len(self._idle) < KEEPS_IDLE and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()

    def _migrate(self, connection: Connection) -> bool:
        connection.answers_within = MIGRATES_WITHIN
        try:
            with connection.transaction():
                connection.execute(schemas.alone(self.schema).encode())
                version = self._version(connection)
                if not self._is_old(version):
                    return False
                connection.execute(schemas.migration(self.schema, version).encode())
            return True
        except errors.InsufficientPrivilege as err:
            raise BackendRefused(
                f"{self.dsn}: the schema {self.schema!r} is to be made or brought up to date, and this role "
                f"may not: {err.diag.message_primary}. Let one that may run: alligator migrate."
            ) from None
        finally:
            connection.answers_within = None

    def _is_old(self, version: int | None) -> bool:
        return version is None or version < schemas.VERSION

    def _version(self, connection: Connection) -> int | None:
        # Not to_regclass: within a transaction, that does not notice what others have made meanwhile.
        found = connection.execute(
            "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'version'",
            (self.schema,),
        ).fetchone()
        if found is None:
            return None
        query = schemas.filled("SELECT version, oldest FROM {s}.version", self.schema).encode()
        [(version, oldest)] = connection.execute(query)
        if oldest > schemas.VERSION:
            raise BackendRefused(
                f"{self.dsn}: the schema {self.schema!r} is of a newer Alligator (version {version}; here "
                f"{schemas.VERSION}). Update Alligator, or name another with ?schema=..."
            )
        return int(version)


# What tells a database from all others, by whatever name or pooler it is reached. What tells servers apart is
# not for everyone to read; when they were started, to the microsecond, is: a number, for text depends on the
# session's time zone.
IDENTITY = "(extract(epoch FROM pg_postmaster_start_time()) * 1e6)::bigint, current_database()"


def _identity(connection: Any) -> Row:
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        found: Row
        [found] = cursor.execute(f"SELECT {IDENTITY}", prepare=False)
        return found


def _tried(call: Callable[[], T]) -> T:
    """Return what a call returns; made again where its transaction met another one head on, and did nothing."""
    for _ in range(TRIES - 1):
        with suppress(errors.DeadlockDetected, errors.SerializationFailure):
            return call()
    return call()


def _places(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _parted(dsn: DSN) -> tuple[dict[str, str], str]:
    """Return our options of a DSN, and the DSN without them."""
    start, _, query = dsn.url.partition("?")
    parts = query.split("&") if query else []
    is_ours = [part.partition("=")[0] in ("schema", "listen") for part in parts]
    ours = dict(
        pair
        for part, mine in zip(parts, is_ours, strict=True)
        if mine
        for pair in parse_qsl(part, keep_blank_values=True)
    )
    theirs = "&".join(part for part, mine in zip(parts, is_ours, strict=True) if not mine)
    return ours, f"{start}?{theirs}" if theirs else start


def _understood(dsn: DSN, url: str) -> str:
    """Return what libpq makes of a DSN, with our defaults."""
    try:
        theirs = conninfo.conninfo_to_dict(url)
        defaults = {key: value for key, value in _DEFAULTS.items() if key not in theirs}
        return conninfo.make_conninfo(url, **defaults)
    except psycopg.Error as err:
        # The text may quote a part of the DSN that is a part of the password.
        why = "" if "@" in dsn.url else f" ({str(err).strip()})"
        raise InvalidOption(
            f"{dsn} is no PostgreSQL DSN{why}. Write postgres://user:password@host:port/database, "
            "special characters in the password percent-encoded."
        ) from None


LEASE_LOST = "AL001"
"""The SQLSTATE of our own function ``complete``."""

_IS_MISSING = (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName)

_PASSING = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE: connection, rollback, resources, not in the right state, intervention, the system."""
_GONE = ("08", "57P")
"""Those with which a connection ends, as the server or an operator ends it."""
_STARTING = (
    "starting up",
    "shutting down",
    "recovery",
    "too many",
    "remaining connection slots",
    "not yet accepting",
    "terminating connection",
    # PgBouncer's:
    "cannot connect",
    "no more connections",
    "timeout",
)
"""Of what a server says before it lets anybody in: libpq does not pass on the SQLSTATE then."""


def ours(err: psycopg.Error, dsn: DSN) -> AlligatorException:
    """Return one of psycopg's errors as one of ours, without passwords."""
    text = masked(" ".join(str(err).split()))
    if err.sqlstate == LEASE_LOST:
        return LeaseLost(text)
    state = err.sqlstate or ""
    if state == "53100":
        return QueueFull(f"{dsn} has no room left: {text}")
    if state == "25006":  # of a server that is a standby now
        return BackendUnavailable(f"{dsn} takes nothing now: {text}")
    if state.startswith(_GONE):
        return BackendUnavailable(f"{dsn} does not answer: {text}")
    if state:
        kind = BackendUnavailable if state.startswith(_PASSING) else BackendRefused
        return kind(f"{dsn}: {text}")
    if isinstance(err, errors.DataError):  # psycopg's own: it has a NUL, and was not even sent
        return InvalidOption(f"{dsn} cannot carry that: {text}")
    if isinstance(err, errors.InterfaceError | errors.OperationalError):
        if "FATAL:" in text and not any(words in text for words in _STARTING):
            return BackendRefused(f"{dsn} does not let us in: {text}")
        return BackendUnavailable(f"{dsn} does not answer: {text}")
    return BackendRefused(f"{dsn}: {text}")
