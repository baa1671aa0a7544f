"""Tasks in a SQLite file: durable, for any number of processes of one machine, with nothing to set up.

The file is in WAL mode, and a push has reached the disk when it returns (``?sync=normal`` gives that up, for
speed: a power cut may then take back the last moments, but never break the file). Costs, with n tasks waiting:
push, reserve and settle O(log n) a task, counting O(n).
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from pathlib import Path

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
)
from alligator.backends.sqlite_file import Database, version_of
from alligator.backends.sqlite_wake import Wake
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption

SHORTEST_LOOK, LONGEST_LOOK = 0.001, 0.05
"""Seconds between two looks for what other processes pushed, though nobody rang: the ring may have woken a
worker of another queue. 20 looks a second cost about half a percent of a processor."""
MOVE_AT_ONCE = 1000
"""Delayed tasks that one reserve makes ready: others write meanwhile."""

_RESERVE = """
UPDATE tasks SET token = ? WHERE seq IN (
    SELECT seq FROM tasks WHERE queue = ? AND token IS NULL AND due_at IS NULL
    ORDER BY seq LIMIT ?
) RETURNING seq, task_id, body, lapses
"""

# Also what is held under a token that has no lease, should someone have deleted that.
_LAPSED = """
SELECT token FROM leases WHERE lapses_at <= ?
UNION
SELECT token FROM tasks WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM leases)
"""

_HAS_NO_LEASE = """
SELECT 1 FROM tasks WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM leases) LIMIT 1
"""

_JOIN_THE_END = """
UPDATE tasks SET due_at = NULL, seq = (SELECT max(seq) + 1 FROM tasks) WHERE seq = ?
"""

_NEW_ATTEMPT = """
UPDATE tasks SET token = NULL, due_at = ?, lapses = ?, body = ?,
    seq = (SELECT max(seq) + 1 FROM tasks)
WHERE queue = ? AND task_id = ? AND token = ?
"""

# Steps from name to name along the index, instead of reading every row.
_QUEUES = """
WITH RECURSIVE names (name) AS (
    SELECT min(queue) FROM {table}
    UNION ALL
    SELECT (SELECT min(queue) FROM {table} WHERE queue > name) FROM names WHERE name IS NOT NULL
) SELECT name FROM names WHERE name IS NOT NULL
"""


_DEAD = """
SELECT queue, letter_id, task_id, body, note, buried_at FROM dead
WHERE {which} ORDER BY letter_id DESC LIMIT ? OFFSET ?
"""


class Client(Backend):
    """A store in a file.

    Args:
        conn_string: ``sqlite://`` and the file's path, which is absolute if it begins with a "/":
            ``sqlite:///tmp/queue.db``, ``sqlite://queue.db``. ``?sync=full`` (default) or ``normal``.
        clock: Seconds since 1970; the store's clock, which all processes of a machine share.

    Raises:
        InvalidOption: The DSN names no file, or an option that there is not.
        BackendRefused: The file lies on a network filesystem, or SQLite is too old.
    """

    def __init__(self, conn_string: str, clock: Callable[[], float] = time.time) -> None:
        dsn = DSN.parse(conn_string)
        if dsn.rest in ("", ":memory:"):
            raise InvalidOption(f"{dsn} names no file. For tasks in memory, use locmem://.")
        options = dsn.query
        sync = options.pop("sync", "full").upper()
        if sync not in ("FULL", "NORMAL") or options:
            raise InvalidOption(f"{dsn}: the only option is sync=full or sync=normal.")
        path = Path(dsn.rest).absolute()
        self._database = Database(path, sync)
        self._clock = clock
        self._bell = Bell()
        self._wake = Wake(path)
        self._tokens = count(1)
        self._busy_at = 0.0
        self.records = _Records(self._database, clock)

    def push_many(self, queue_name: str, messages: Sequence[Message]) -> list[bool]:
        now = self._clock()
        rows = [
            (queue_name, message.task_id, message.body, due if due > now else None)
            for message in messages
            for due in [max(now + message.delay, message.due_at)]
        ]
        insert = (
            "INSERT INTO tasks (queue, task_id, body, due_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING"
        )
        with self._database.write() as db:
            queued = [db.execute(insert, row).rowcount == 1 for row in rows]
        self._wake.ring()
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
        if limit <= 0 or not queue_names:
            return Batch(late=self.settle(settlements))
        began = time.monotonic()
        batch = Batch()
        while True:
            self._wake.clear()
            version, ready_at = self._look(queue_names)
            if settlements or ready_at <= self._clock():
                with self._database.write() as db:
                    batch.late.extend(self._settle(db, settlements))
                    batch.reservations.extend(self._reserve(db, queue_names, worker, limit, lease))
                settlements = ()
            if batch.reservations:
                self._busy_at = time.monotonic()
            if batch.reservations or time.monotonic() - began >= wait:
                return batch
            if self._interrupted(version, ready_at, began + wait, nap):
                return batch

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        with self._database.write() as db:
            token = self._new_lease(db, worker, lease)
            row = db.execute(
                "UPDATE tasks SET token = ?, due_at = NULL "
                "WHERE queue = ? AND task_id = ? AND token IS NULL RETURNING body, lapses",
                (token, queue_name, task_id),
            ).fetchone()
            self._end_empty_leases(db, {token})
        return Reservation(queue_name, task_id, row[0], token, row[1] + 1) if row else None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        if not settlements:
            return []
        with self._database.write() as db:
            return self._settle(db, settlements)

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        with self._database.write() as db:
            held = [reservation for reservation in reservations if _is_held(db, reservation)]
            lapses_at = self._clock() + lease
            for token in {reservation.token for reservation in held}:
                db.execute("UPDATE leases SET lapses_at = ? WHERE token = ?", (lapses_at, token))
        return [reservation for reservation in reservations if reservation not in held]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        given_back = 0
        with self._database.write() as db:
            tokens = db.execute("SELECT token FROM leases WHERE worker = ?", (worker,)).fetchall()
            for (token,) in tokens:
                for name in queue_names:
                    for task_id in started:
                        db.execute(
                            "UPDATE tasks SET lapses = lapses + 1 "
                            "WHERE queue = ? AND task_id = ? AND token = ?",
                            (name, task_id, token),
                        )
                    given_back += db.execute(
                        "UPDATE tasks SET token = NULL WHERE token = ? AND queue = ?",
                        (token, name),
                    ).rowcount
            self._end_empty_leases(db, {token for (token,) in tokens})
        self._wake.ring()
        return given_back

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        with self._database.write() as db:
            row = db.execute(
                "DELETE FROM tasks WHERE queue = ? AND task_id = ? AND token IS NULL RETURNING body",
                (queue_name, task_id),
            ).fetchone()
        return row[0] if row else None

    def drop_all(self, queue_name: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM tasks WHERE queue = ? AND token IS NULL", (queue_name,))

    def count(self, queue_name: str) -> Counts:
        with self._database.read() as db:
            row = db.execute(
                "SELECT"
                " (SELECT count(*) FROM tasks"
                "  WHERE queue = :queue AND token IS NULL AND due_at IS NULL),"
                " (SELECT count(*) FROM tasks WHERE queue = :queue AND due_at IS NOT NULL),"
                " (SELECT count(*) FROM tasks WHERE queue = :queue AND token IS NOT NULL),"
                " (SELECT count(*) FROM dead WHERE queue = :queue)",
                {"queue": queue_name},
            ).fetchone()
        return Counts(*row)

    def queues(self) -> list[str]:
        with self._database.read() as db:
            return sorted(
                {
                    row[0]
                    for table in ("tasks", "dead")
                    for row in db.execute(_QUEUES.format(table=table))
                }
            )

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        # Two queries, each along an index of its own; one for both would sort them all.
        which = "queue = ?" if task_id is None else "queue = ? AND task_id = ?"
        values = (queue_name,) if task_id is None else (queue_name, task_id)
        with self._database.read() as db:
            rows = db.execute(_DEAD.format(which=which), (*values, limit, skip)).fetchall()
        return [DeadLetter(queue, str(letter), *rest) for queue, letter, *rest in rows]

    def retry_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        moved: list[str] = []
        with self._database.write() as db:
            for letter_id in letter_ids:
                done = db.execute(
                    "INSERT INTO tasks (queue, task_id, body) SELECT queue, task_id, body FROM dead "
                    "WHERE queue = ? AND letter_id = ? ON CONFLICT DO NOTHING",
                    (queue_name, letter_id),
                )
                if done.rowcount == 1:
                    moved.append(letter_id)
            self._purge_dead(db, queue_name, moved)
        self._wake.ring()
        return moved

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        with self._database.write() as db:
            return self._purge_dead(db, queue_name, letter_ids)

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._database.close()
        self._bell.close()
        self._wake.close()

    def _reserve(
        self,
        db: sqlite3.Connection,
        queue_names: Sequence[str],
        worker: str,
        limit: int,
        lease: float,
    ) -> Iterator[Reservation]:
        self._bring_up_to_date(db, queue_names)
        token = self._new_lease(db, worker, lease)
        taken = 0
        for name in queue_names:
            if taken == limit:
                break
            rows = db.execute(_RESERVE, (token, name, limit - taken)).fetchall()
            taken += len(rows)
            for _, task_id, body, lapses in sorted(rows):
                yield Reservation(name, task_id, body, token, lapses + 1)
            if len(rows) == limit:
                self._wake.ring()  # there may be more than this worker could take
        if not taken:
            self._end_empty_leases(db, {token})

    def _bring_up_to_date(self, db: sqlite3.Connection, queue_names: Sequence[str]) -> None:
        """Make ready what is due, and take back what lapsed."""
        now = self._clock()
        for name in queue_names:
            due = db.execute(
                "SELECT seq FROM tasks WHERE queue = ? AND due_at <= ? ORDER BY due_at LIMIT ?",
                (name, now, MOVE_AT_ONCE),
            ).fetchall()
            # One by one, for each is to join the end after the one before it.
            for (seq,) in due:
                db.execute(_JOIN_THE_END, (seq,))
        for (token,) in db.execute(_LAPSED, (now,)).fetchall():
            db.execute(
                "UPDATE tasks SET token = NULL, lapses = lapses + 1 WHERE token = ?", (token,)
            )
            db.execute("DELETE FROM leases WHERE token = ?", (token,))

    def _look(self, queue_names: Sequence[str]) -> tuple[int, float]:
        """Return the file's version, and when it has, or may have, something to hand out. Hinders no writer."""
        with self._database.read() as db:
            # The version first: what is pushed after it, it will tell.
            version = version_of(db)
            if db.execute(_HAS_NO_LEASE).fetchone():
                return version, 0.0
            moments = db.execute("SELECT min(lapses_at) FROM leases").fetchall()
            for name in queue_names:
                if db.execute(
                    "SELECT 1 FROM tasks WHERE queue = ? AND token IS NULL AND due_at IS NULL LIMIT 1",
                    (name,),
                ).fetchone():
                    return version, 0.0
                moments += db.execute(
                    "SELECT min(due_at) FROM tasks WHERE queue = ? AND due_at IS NOT NULL", (name,)
                ).fetchall()
        known = (moment for (moment,) in moments if moment is not None)
        return version, min(known, default=float("inf"))

    def _interrupted(self, version: int, ready_at: float, until: float, nap: float) -> bool:
        """Wait for a change by anyone, or a moment to come. Returns whether it was interrupted."""
        with self._database.read() as db:
            while True:
                now = time.monotonic()
                # Look often at first, for work comes in bursts; then less, up to the limits.
                look = max(SHORTEST_LOOK, min((now - self._busy_at) / 10, LONGEST_LOOK, nap))
                timeout = min(look, until - now, ready_at - self._clock())
                if timeout <= 0:
                    return False
                if self._bell.wait(timeout, *self._wake.files()):
                    return True
                self._wake.clear()
                if version_of(db) != version:
                    return False

    def _new_lease(self, db: sqlite3.Connection, worker: str, lease: float) -> str:
        token = f"{worker}.{next(self._tokens)}"
        db.execute("INSERT INTO leases VALUES (?, ?, ?)", (token, worker, self._clock() + lease))
        return token

    def _end_empty_leases(self, db: sqlite3.Connection, tokens: Collection[str]) -> None:
        for token in tokens:
            db.execute(
                "DELETE FROM leases WHERE token = :token "
                "AND NOT EXISTS (SELECT 1 FROM tasks WHERE token = :token)",
                {"token": token},
            )

    def _settle(
        self, db: sqlite3.Connection, settlements: Sequence[Settlement]
    ) -> list[Settlement]:
        late = [settlement for settlement in settlements if not self._settle_one(db, settlement)]
        self._end_empty_leases(db, {settlement.reservation.token for settlement in settlements})
        return late

    def _settle_one(self, db: sqlite3.Connection, settlement: Settlement) -> bool:
        held = settlement.reservation
        which = held.queue_name, held.task_id, held.token
        if isinstance(settlement, Release):
            return self._release(db, settlement, which)
        if isinstance(settlement, Bury):
            db.execute(
                "INSERT INTO dead (queue, task_id, body, note, buried_at) "
                "SELECT queue, task_id, body, ?, ? FROM tasks "
                "WHERE queue = ? AND task_id = ? AND token = ?",
                (settlement.note, self._clock(), *which),
            )
        done = db.execute("DELETE FROM tasks WHERE queue = ? AND task_id = ? AND token = ?", which)
        return done.rowcount == 1

    def _release(
        self, db: sqlite3.Connection, release: Release, which: tuple[str, str, str]
    ) -> bool:
        due_at = self._clock() + release.delay if release.delay else None
        if release.body is None:
            done = db.execute(
                "UPDATE tasks SET token = NULL, due_at = ?, lapses = lapses + ? "
                "WHERE queue = ? AND task_id = ? AND token = ?",
                (due_at, release.lapsed, *which),
            )
        else:
            done = db.execute(
                _NEW_ATTEMPT,
                (due_at, release.lapsed, release.body, *which),
            )
        return done.rowcount == 1

    def _purge_dead(
        self, db: sqlite3.Connection, queue_name: str, letter_ids: Sequence[str]
    ) -> list[str]:
        return [
            letter_id
            for letter_id in letter_ids
            if db.execute(
                "DELETE FROM dead WHERE queue = ? AND letter_id = ?", (queue_name, letter_id)
            ).rowcount
        ]


def _is_held(db: sqlite3.Connection, reservation: Reservation) -> bool:
    which = reservation.queue_name, reservation.task_id, reservation.token
    found = db.execute("SELECT 1 FROM tasks WHERE queue = ? AND task_id = ? AND token = ?", which)
    return found.fetchone() is not None


class _Records:
    """Small values, a row each."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def get(self, key: str) -> bytes | None:
        with self._database.read() as db:
            return self._get(db, key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        with self._database.write() as db:
            self._set(db, key, value, ttl)

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        with self._database.write() as db:
            if self._get(db, key) != old:
                return False
            self._set(db, key, new, ttl)
            return True

    def delete(self, key: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM records WHERE key = ?", (key,))

    def list(self, family: str) -> dict[str, bytes]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT key, value FROM records WHERE key >= ? AND key < ? "
                "AND ifnull(expires_at > ?, 1) ORDER BY key",
                (f"{family}/", f"{family}0", self._clock()),  # "0" comes after "/"
            ).fetchall()
        return dict(rows)

    def _get(self, db: sqlite3.Connection, key: str) -> bytes | None:
        row = db.execute(
            "SELECT value FROM records WHERE key = ? AND ifnull(expires_at > ?, 1)",
            (key, self._clock()),
        ).fetchone()
        return row[0] if row else None

    def _set(self, db: sqlite3.Connection, key: str, value: bytes, ttl: float | None) -> None:
        now = self._clock()
        expires_at = None if ttl is None else now + ttl
        db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (key, value, expires_at))
        # Two for one: what has expired cannot pile up.
        db.execute(
            "DELETE FROM records WHERE key IN "
            "(SELECT key FROM records WHERE expires_at <= ? LIMIT 2)",
            (now,),
        )
