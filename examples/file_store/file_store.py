"""A store in one file: the SQLite client of Alligator's documents, grown up. Copy it, and put your store in.

What is asked of a store is said in ``alligator.backends.base``: read that first. Here each call is one
transaction, on a connection of its own. So threads share nothing, nothing is open when a process forks, and a
process that dies between two statements has changed nothing.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import closing, contextmanager

from alligator.backends.base import (
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
    token_of,
)
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable, QueueFull

BUSY = 30.0
"""Seconds to wait while others write."""

# A task stands in its place until it is over. While it is held, it stands there under the token of that
# hand-out; and is free again once the lease has lapsed, without anybody's doing.
TABLES = """
CREATE TABLE IF NOT EXISTS tasks (
    place INTEGER PRIMARY KEY, queue TEXT NOT NULL, task_id TEXT NOT NULL, body BLOB NOT NULL,
    priority INTEGER NOT NULL, due_at REAL NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0,
    keeps_place INTEGER NOT NULL DEFAULT 0, token TEXT, worker TEXT, lapses_at REAL,
    UNIQUE (queue, task_id)
);
CREATE INDEX IF NOT EXISTS by_due ON tasks (due_at) WHERE due_at > 0;
CREATE INDEX IF NOT EXISTS by_turn ON tasks (queue, priority DESC, place);
CREATE TABLE IF NOT EXISTS dead (
    letter_id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, task_id TEXT NOT NULL,
    body BLOB NOT NULL, priority INTEGER NOT NULL, note BLOB NOT NULL, buried_at REAL NOT NULL
)
"""
# Names and bodies are data, and never become a part of a statement.
PUSH = """
INSERT INTO tasks (queue, task_id, body, priority, due_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
FIND_DUE = """
SELECT place FROM tasks WHERE due_at > 0 AND due_at <= ? AND NOT keeps_place ORDER BY due_at, place
"""
JOIN_END = """
UPDATE tasks SET place = (SELECT max(place) + 1 FROM tasks), due_at = 0 WHERE place = ?
"""
FIND_READY = """
SELECT * FROM tasks
WHERE queue = :queue_name AND due_at <= :now AND (token IS NULL OR lapses_at <= :now)
ORDER BY priority DESC, place LIMIT :room
"""
FIND_FREE = """
SELECT * FROM tasks
WHERE queue = :queue_name AND task_id = :task_id AND (token IS NULL OR lapses_at <= :now)
"""
TAKE = """
UPDATE tasks SET token = ?, worker = ?, lapses_at = ?, due_at = 0, deliveries = deliveries + 1
WHERE place = ?
"""
EXTEND = """
UPDATE tasks SET lapses_at = :until WHERE queue = :queue_name AND task_id = :task_id AND token = :token
"""
REMOVE = "DELETE FROM tasks WHERE queue = :queue_name AND task_id = :task_id AND token = :token"
BURY = """
INSERT INTO dead (queue, task_id, body, priority, note, buried_at)
SELECT queue, task_id, body, priority, :note, :now FROM tasks
WHERE queue = :queue_name AND task_id = :task_id AND token = :token
"""
RELEASE = """
UPDATE tasks SET token = NULL, due_at = :due_at, keeps_place = 1,
    deliveries = deliveries - :uncounted
WHERE queue = :queue_name AND task_id = :task_id AND token = :token
"""
NEW_ATTEMPT = """
UPDATE tasks SET token = NULL, due_at = :due_at, keeps_place = 0, deliveries = 0, body = :body,
    place = (SELECT max(place) + 1 FROM tasks)
WHERE queue = :queue_name AND task_id = :task_id AND token = :token
"""
RECOVER = """
UPDATE tasks SET token = NULL,
    deliveries = deliveries - (task_id NOT IN (SELECT value FROM json_each(:started)))
WHERE queue = :queue_name AND worker = :worker AND token IS NOT NULL AND lapses_at > :now
"""
DROP = "DELETE FROM tasks WHERE queue = :queue_name AND (token IS NULL OR lapses_at <= :now)"
COUNT = """
SELECT
    count(*) FILTER (WHERE (token IS NULL OR lapses_at <= :now) AND due_at <= :now),
    count(*) FILTER (WHERE (token IS NULL OR lapses_at <= :now) AND due_at > :now),
    count(*) FILTER (WHERE token IS NOT NULL AND lapses_at > :now),
    (SELECT count(*) FROM dead WHERE queue = :queue_name)
FROM tasks WHERE queue = :queue_name
"""
LIST_DEAD = """
SELECT queue, CAST(letter_id AS TEXT), task_id, body, note, buried_at FROM dead
WHERE queue = ? AND task_id = ifnull(?, task_id)
ORDER BY letter_id DESC LIMIT ? OFFSET ?
"""
RETRY = """
INSERT INTO tasks (queue, task_id, body, priority, due_at)
SELECT queue, task_id, body, priority, ? FROM dead
WHERE queue = ? AND CAST(letter_id AS TEXT) = ? ON CONFLICT DO NOTHING
"""
PURGE = "DELETE FROM dead WHERE queue = ? AND CAST(letter_id AS TEXT) = ?"

# A process may fork while another of its threads is in a call. It waits for the end of that: SQLite has locks
# inside that would stay closed in the child.
one_call_at_a_time = threading.RLock()
os.register_at_fork(
    before=one_call_at_a_time.acquire,
    after_in_parent=one_call_at_a_time.release,
    after_in_child=one_call_at_a_time.release,
)


class Client(Backend):
    """A store in a file. What it leaves out, to be short, it says by flags: Alligator refuses it at push.

    Args:
        conn_string: ``filestore://`` and the path of the file, as in ``filestore:///tmp/tasks.db``.
    """

    can_find = False
    can_walk = False

    def __init__(self, conn_string: str) -> None:
        self._path = DSN.parse(conn_string).rest
        self._bell = Bell()
        with self._transaction() as db:
            for statement in TABLES.split(";"):
                db.execute(statement)

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        with self._transaction() as db:
            queued = [self._is_pushed(db, queue_name, message) for message in messages]
            if max_length is not None and any(queued):
                counts = self._count(db, queue_name)
                if counts.waiting + counts.delayed > max_length:
                    # An error undoes the transaction.
                    raise QueueFull(f"{queue_name!r} has no room: its max_length is {max_length}.")
            return queued

    def reserve(
        self,
        queue_names: Sequence[str],
        worker: str,
        *,
        limit: int = 1,
        lease: float = 30.0,
        wait: float = 0.0,
        nap: float = 0.1,
        settlements: Sequence[Settlement] = (),
    ) -> Batch:
        late = self.settle(settlements) if settlements else []
        until = time.monotonic() + wait
        while True:
            taken: list[Reservation] = []
            with self._transaction() as db:
                db.executemany(JOIN_END, db.execute(FIND_DUE, (self.now(),)).fetchall())
                for queue_name in queue_names:
                    room = max(0, limit - len(taken))
                    which = {"queue_name": queue_name, "now": self.now(), "room": room}
                    for row in db.execute(FIND_READY, which).fetchall():
                        taken.append(self._hand_out(db, row, worker, lease))
            left = until - time.monotonic()
            if taken or left <= 0 or self._bell.wait(min(left, nap)) is Woken.BY_INTERRUPT:
                return Batch(taken, late)

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        with self._transaction() as db:
            which = {"queue_name": queue_name, "task_id": task_id, "now": self.now()}
            row = db.execute(FIND_FREE, which).fetchone()
            return self._hand_out(db, row, worker, lease) if row else None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        with self._transaction() as db:
            return [one for one in settlements if not self._is_settled(db, one)]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        with self._transaction() as db:
            until = {"until": self.now() + lease}
            done = [db.execute(EXTEND, {**held._asdict(), **until}) for held in reservations]
            return [held for held, one in zip(reservations, done, strict=True) if not one.rowcount]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        whose = {"worker": worker, "started": json.dumps(list(started)), "now": self.now()}
        with self._transaction() as db:
            each = [db.execute(RECOVER, {**whose, "queue_name": name}) for name in queue_names]
            return sum(done.rowcount for done in each)

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        # Of two steps: after a crash in between, the lease ends.
        return self.get(queue_name, task_id)

    def drop_all(self, queue_name: str) -> None:
        with self._transaction() as db:
            db.execute(DROP, {"queue_name": queue_name, "now": self.now()})

    def count(self, queue_name: str) -> Counts:
        with self._transaction() as db:
            return self._count(db, queue_name)

    def queues(self) -> list[str]:
        with self._transaction() as db:
            rows = db.execute("SELECT queue FROM tasks UNION SELECT queue FROM dead").fetchall()
            return sorted(row["queue"] for row in rows)

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        with self._transaction() as db:
            rows = db.execute(LIST_DEAD, (queue_name, task_id, max(0, limit), skip)).fetchall()
        # Error texts may hold what is no valid text.
        decoded = [row["note"].decode(errors="surrogatepass") for row in rows]
        return [
            DeadLetter(*row)._replace(note=note) for row, note in zip(rows, decoded, strict=True)
        ]

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        with self._transaction() as db:
            due_at = due_at if due_at > self.now() else 0.0
            moving = [(one, db.execute(RETRY, (due_at, queue_name, one))) for one in letter_ids]
            moved = [letter_id for letter_id, done in moving if done.rowcount == 1]
            db.executemany(PURGE, [(queue_name, one) for one in moved])
            return moved

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        with self._transaction() as db:
            return [one for one in letter_ids if db.execute(PURGE, (queue_name, one)).rowcount]

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._bell.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        """A connection in a transaction: committed at the end of the block, undone by an error."""
        try:
            with (
                one_call_at_a_time,
                closing(sqlite3.connect(self._path, timeout=BUSY, isolation_level=None)) as db,
            ):
                db.row_factory = sqlite3.Row
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except sqlite3.Error as err:
            is_busy = getattr(err, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            problem = BackendUnavailable if is_busy else BackendRefused
            raise problem(f"The store {self._path}: {err}") from err

    def _is_pushed(self, db: sqlite3.Connection, queue_name: str, message: Message) -> bool:
        now = self.now()
        due_at = max(now + message.delay, message.due_at)
        row = (queue_name, message.task_id, message.body, message.priority)
        return db.execute(PUSH, (*row, due_at if due_at > now else 0.0)).rowcount == 1

    def _hand_out(
        self, db: sqlite3.Connection, row: sqlite3.Row, worker: str, lease: float
    ) -> Reservation:
        now = self.now()
        # By chance, and not by counting: a forked child would count on from where its parent is.
        token = token_of(worker, secrets.randbits(48), now)
        db.execute(TAKE, (token, worker, now + lease, row["place"]))
        return Reservation(row["queue"], row["task_id"], row["body"], token, row["deliveries"] + 1)

    def _is_settled(self, db: sqlite3.Connection, settlement: Settlement) -> bool:
        """Settle a task; return whether that was in time."""
        which = {**settlement.reservation._asdict(), "now": self.now()}
        if isinstance(settlement, Release):
            which["due_at"] = self.now() + settlement.delay if settlement.delay else 0.0
            which |= {"uncounted": not settlement.lapsed, "body": settlement.body}
            statement = RELEASE if settlement.body is None else NEW_ATTEMPT
            return db.execute(statement, which).rowcount == 1
        if isinstance(settlement, Bury):
            db.execute(BURY, {**which, "note": settlement.note.encode(errors="surrogatepass")})
        return db.execute(REMOVE, which).rowcount == 1

    def _count(self, db: sqlite3.Connection, queue_name: str) -> Counts:
        return Counts(*db.execute(COUNT, {"queue_name": queue_name, "now": self.now()}).fetchone())
