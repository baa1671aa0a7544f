"""A SQLite file that many processes share: opening it, its tables, transactions, and SQLite's errors as ours.

SQLite allows one writer at a time, and lets the others sleep and try again, up to 0.1 s at a time: under load
some then wait for many seconds, among them whoever wants to extend a lease. So writers first take a lock of the
operating system on the file ``<name>-lock``, for which they try every millisecond or two.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from alligator.backends.sqlite.fork import INSIDE
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    QueueFull,
    TaskTooBig,
)

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
except ImportError:  # Windows: SQLite's own waiting must do

    def try_lock(file: int) -> bool:
        """Take a file's lock, if nobody has it; return whether it is ours."""
        return True

    def unlock(file: int) -> None:
        """Give the lock back."""
else:

    def try_lock(file: int) -> bool:
        """Take a file's lock, if nobody has it; return whether it is ours."""
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(file: int) -> None:
        """Give the lock back."""
        flock(file, LOCK_UN)


SCHEMA_VERSION = 1
"""Of the tables below, which tell it, too."""
LOCK_TIMEOUT = 10.0
"""Seconds to wait for the writers before us. Each takes milliseconds, unless it was stopped half-way."""
LONGEST_TRY = 0.002
"""Seconds between two tries of one who waits for the writers before."""
BUSY_TIMEOUT = 10.0
"""Seconds to wait for a writer outside Alligator, such as a person's sqlite3."""

SCHEMA = """\
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE alligator_schema (version INTEGER NOT NULL);
INSERT INTO alligator_schema VALUES (1);
-- A task waits if it has neither a token nor a time, is delayed if it has a time, held if it has a token.
CREATE TABLE alligator_tasks (
    seq INTEGER PRIMARY KEY,      -- the order in its queue, among those of its priority
    queue TEXT NOT NULL,
    task_id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    body BLOB NOT NULL,
    due_at REAL,                  -- infinite: until someone says otherwise
    keeps_place INTEGER NOT NULL DEFAULT 0,  -- 1: when it is due, seq stays as it is
    token TEXT,
    lapses INTEGER NOT NULL DEFAULT 0,
    -- The task to queue when it is over, if it has a follow.
    follow_id TEXT,
    on_success BLOB,
    on_failure BLOB,
    -- What it becomes when its hand-out ends, if a held one was replaced.
    new_body BLOB,
    new_due_at REAL,
    new_priority INTEGER
);
CREATE UNIQUE INDEX alligator_tasks_by_id ON alligator_tasks (queue, task_id);
CREATE INDEX alligator_tasks_waiting ON alligator_tasks (queue, priority DESC)
    WHERE token IS NULL AND due_at IS NULL;
CREATE INDEX alligator_tasks_delayed ON alligator_tasks (queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX alligator_tasks_held ON alligator_tasks (token) WHERE token IS NOT NULL;
-- One row a hand-out, not a task: to extend it is one update, however many tasks it holds.
CREATE TABLE alligator_leases (
    token TEXT PRIMARY KEY,
    worker TEXT NOT NULL,
    lapses_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE alligator_dead (
    letter_id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    task_id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    body BLOB NOT NULL,
    note TEXT NOT NULL,
    buried_at REAL NOT NULL
);
CREATE INDEX alligator_dead_by_id ON alligator_dead (queue, task_id);
CREATE INDEX alligator_dead_in_order ON alligator_dead (queue);
CREATE TABLE alligator_records (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    expires_at REAL
) WITHOUT ROWID;
CREATE INDEX alligator_records_expiring ON alligator_records (expires_at) WHERE expires_at IS NOT NULL;
COMMIT;
"""


class Database:
    """A SQLite file, opened anew by each thread and after a fork.

    Args:
        path: Where it is.
        sync: SQLite's ``synchronous``: "FULL" or "NORMAL".

    Raises:
        BackendRefused: It lies on a network filesystem, or SQLite is too old.
    """

    def __init__(self, path: Path, sync: str) -> None:
        if sqlite3.sqlite_version_info < (3, 35):  # RETURNING
            raise BackendRefused(
                f"SQLite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}. Use another Python."
            )
        _refuse_network(path)
        self._path = path
        self._sync = sync
        self._local = threading.local()

    @contextmanager
    def read(self) -> Generator[sqlite3.Connection]:
        """Give a connection to read with; each statement sees the file as it is by then."""
        with translated(self._path), INSIDE:
            yield self._file().db

    @contextmanager
    def write(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it happens, on disk when the block is left, or nothing."""
        with translated(self._path), INSIDE, self._file().transaction() as db:
            yield db

    def is_made(self) -> bool:
        """Whether the tables are there, of this version; makes no file."""
        with translated(self._path), INSIDE:
            if not self._path.exists():
                return False
            with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT)) as db:
                return _version_in(db) == SCHEMA_VERSION

    def make(self) -> None:
        """Make the file and the tables, also beside those of another program."""
        with translated(self._path), INSIDE:
            self._local.file = _File(self._path, self._sync, is_shared=True)

    def close(self) -> None:
        """Close it, in this thread at once and in others when they are done; the next use opens it again."""
        self._local = threading.local()

    def _file(self) -> "_File":
        file: _File | None = getattr(self._local, "file", None)
        if file is None or not file.is_current():
            file = self._local.file = _File(self._path, self._sync)
        return file


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as err:
        raise _ours(err, path) from err


class OpenFile:
    """SQLite's connection to a file, and a lock beside it: this process's alone, though it may fork.

    Args:
        path: Where it is.
        uri: What to open, if not just that path.
    """

    def __init__(self, path: Path, uri: str = "") -> None:
        self.pid = os.getpid()
        self.path = path
        self.db = sqlite3.connect(
            uri or path,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            uri=bool(uri),
        )
        self.identity = _identity(path)

    def open_lock(self, suffix: str) -> None:
        """Open the file to lock, which is named like this one."""
        self.lock = os.open(f"{self.path}{suffix}", os.O_CREAT | os.O_RDWR, 0o666)
        _open_files.add(self)

    def is_current(self) -> bool:
        """Whether it is this process's, and the path still leads to it.

        A file that was deleted or replaced lives on for those who have it open, and their tasks would go
        with it. SQLite forbids the use of a connection after a fork.
        """
        return self.pid == os.getpid() and self.identity == _identity(self.path)

    def __del__(self) -> None:
        if not hasattr(self, "db"):
            return
        if self.pid != os.getpid():
            _inherited.append(self.db)  # to close it here would disturb the process it belongs to
            return
        try:
            with INSIDE:
                self.db.close()
        finally:  # a task's timeout may be raised here, too
            if hasattr(self, "lock"):
                os.close(self.lock)


class _File(OpenFile):
    """The store's file, with the lock that writers queue for."""

    def __init__(self, path: Path, sync: str, *, is_shared: bool = False) -> None:
        super().__init__(path)
        self._turn: object = None
        is_new = self._is_new(is_shared)  # before anything is made beside a file that is not ours
        self.open_lock("-lock")
        with self.locked():  # two that make the tables at once would meet a busy file
            if is_new and self._is_new(is_shared):
                self.db.executescript(SCHEMA)  # in one step: nobody sees it half made
        self.db.execute(f"PRAGMA synchronous = {sync}")

    def _is_new(self, is_shared: bool) -> bool:
        """Whether the file has no tables of ours yet.

        Args:
            is_shared: Whether those of another program may be there.

        Raises:
            BackendRefused: They are, and may not; or ours are of another version.
        """
        self.db.execute("BEGIN")  # so that both tell of the same moment
        version = _version_in(self.db)
        has_tables = self.db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        self.db.execute("COMMIT")
        if version is None and has_tables and not is_shared:
            raise BackendRefused(
                f"{self.path} is another program's database. Name a file of its own; or, to queue in that "
                f"program's transactions, let the queue share it: alligator migrate sqlite://{self.path}"
            )
        if version not in (None, SCHEMA_VERSION):
            raise BackendRefused(
                f"{self.path} is of another version of Alligator (schema {version}, here {SCHEMA_VERSION}). "
                "Use that version, or name another file."
            )
        return version is None

    @contextmanager
    def locked(self) -> Generator[None]:
        """Be the one writer."""
        # A task's timeout may be raised at any step, here too. So what is to be undone is within the `try`; and
        # if it hits the very end of the block, then what is left open is not for long: it ends with its
        # generator, but then it must let the next turn alone.
        self._turn = turn = object()
        try:
            self._wait_for_lock()
            yield
        finally:
            if turn is self._turn:
                try:
                    unlock(self.lock)
                except BaseException:  # it has been raised on the way there
                    unlock(self.lock)
                    raise

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Be the one writer, whose changes all happen, or none."""
        with self.locked():
            turn = self._turn
            try:
                if self.db.in_transaction:  # of a turn that was broken off
                    self.db.execute("ROLLBACK")
                self.db.execute("BEGIN IMMEDIATE")
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if turn is self._turn and self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def _wait_for_lock(self) -> None:
        wait, until = 0.0002, time.monotonic() + LOCK_TIMEOUT
        while not try_lock(self.lock):
            if time.monotonic() > until:
                raise BackendUnavailable(
                    f"{self.path} is locked by a writer that does not go on. Try again, or end that process."
                )
            time.sleep(wait)  # not a blocking lock: that one cannot be given up
            wait = min(2 * wait, LONGEST_TRY)


_inherited: list[sqlite3.Connection] = []
_open_files: "weakref.WeakSet[OpenFile]" = weakref.WeakSet()


def _close_inherited_locks() -> None:
    # A lock is let go when the last process that has it open does: a copy must not keep it.
    for file in list(_open_files):
        with suppress(OSError):  # another thread was about to close it
            os.close(file.lock)
    _open_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited_locks)


def _version_in(db: sqlite3.Connection) -> int | None:
    """Return the version of our tables in a file; None: they are not there."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'alligator_schema'").fetchone():
        return None
    version: int = db.execute("SELECT version FROM alligator_schema").fetchone()[0]
    return version


def version_of(db: sqlite3.Connection) -> int:
    """Return a number that changes when another connection, of any process, has written."""
    version: int = db.execute("PRAGMA data_version").fetchone()[0]
    return version


_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "fuse.sshfs",
    "fuse.s3",
)


def network_filesystem(path: str, mountinfo: str) -> str | None:
    """Return the type of the network filesystem that a path lies on; None if it lies on a disk.

    Args:
        path: An absolute path.
        mountinfo: What /proc/self/mountinfo says (proc(5): the 5th field is the mount point; the type
            follows a "-").

    Example:
        >>> network_filesystem("/mnt/q.db", "36 35 0:45 / /mnt rw shared:1 - nfs4 server:/ rw")
        'nfs4'
    """
    found = "", ""
    for line in mountinfo.splitlines():
        fields = line.split()
        if "-" not in fields[5:]:
            continue
        point = fields[4].replace("\\040", " ")
        kind = fields[fields.index("-", 5) + 1]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = point, kind
    return found[1] if found[1].startswith(_NETWORK) else None


def _refuse_network(path: Path) -> None:
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:  # not Linux: there is no telling
        return
    kind = network_filesystem(os.path.realpath(path), mountinfo)
    if kind:
        raise BackendRefused(
            f"{path} lies on a network filesystem ({kind}), where SQLite's locks and shared memory do not "
            "work and files break. Use a local disk, or a server such as redis://."
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _ours(err: Exception, path: Path) -> AlligatorException:
    code = getattr(err, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return BackendUnavailable(
            f"{path} is busy: another program has it locked. Try again when that is done."
        )
    if code.startswith("SQLITE_FULL"):
        return QueueFull(f"No room for {path}: the disk is full. Make some, and push again.")
    if code.startswith("SQLITE_TOOBIG"):
        return TaskTooBig(
            f"SQLite takes nothing as big as that into {path} (a gigabyte, as a rule): let the task carry "
            "less, such as the name of a file, or a key."
        )
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return BackendRefused(
            f"{path} is no SQLite file, or a broken one: {err}. Name another file."
        )
    return BackendRefused(f"Cannot use {path}: {err}. Do its folder and the file allow writing?")
