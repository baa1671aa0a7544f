"""Tasks in a SQLite file: durable, for any number of processes of one machine, with nothing to set up.

The file is in WAL mode, and a push has reached the disk when it returns (``?sync=normal`` gives that up, for
speed: a power cut may then take back the last moments, but never break the file). Costs, with n tasks waiting:
push, reserve and settle O(log n) a task; counting, and a push with a ``max_length``, O(n).
"""

import copy
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from alligator.backends.base import (
    Ack,
    Backend,
    Batch,
    Counts,
    DeadLetter,
    Follow,
    Found,
    Listed,
    Message,
    Reservation,
    Settlement,
    State,
    token_of,
)
from alligator.backends.sqlite import walking
from alligator.backends.sqlite.file import LONGEST_TRY, SCHEMA, Database, version_of
from alligator.backends.sqlite.joined import JoinedDatabase, is_to
from alligator.backends.sqlite.records import FileRecords
from alligator.backends.sqlite.tasks import Tasks
from alligator.backends.sqlite.wake import LONGEST_LOOK, SHORTEST_LOOK, Wake
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption, LeaseLost

# What is held under a token that has no lease, should someone have deleted that.
_HAS_NO_LEASE = """
SELECT 1 FROM alligator_tasks
WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM alligator_leases) LIMIT 1
"""

# One statement, so that all of it tells of the same moment. The position is that of a task that waits.
_FIND = """
SELECT body, ifnull(due_at, 0.0), ifnull(task.token, ''), ifnull(lapses_at, 0.0),
    CASE WHEN task.token IS NULL AND due_at IS NULL THEN
        (SELECT count(*) FROM alligator_tasks AS other WHERE other.queue = task.queue
            AND other.token IS NULL AND other.due_at IS NULL AND other.priority > task.priority)
        + (SELECT count(*) FROM alligator_tasks AS other WHERE other.queue = task.queue
            AND other.token IS NULL AND other.due_at IS NULL AND other.priority = task.priority
            AND other.seq < task.seq)
    END,
    lapses + (task.token IS NOT NULL), priority
FROM alligator_tasks AS task LEFT JOIN alligator_leases AS lease ON lease.token = task.token
WHERE queue = ? AND task_id = ?
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
SELECT queue, letter_id, task_id, body, note, buried_at, priority FROM alligator_dead
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

    can_join = True

    def __init__(self, conn_string: str, clock: Callable[[], float] = time.time) -> None:
        dsn = DSN.parse(conn_string)
        if dsn.rest in ("", ":memory:"):
            raise InvalidOption(f"{dsn} names no file. For tasks in memory, use locmem://.")
        options = dsn.query
        sync = options.pop("sync", "full").upper()
        if sync not in ("FULL", "NORMAL") or options:
            raise InvalidOption(f"{dsn}: the only option is sync=full or sync=normal.")
        path = Path(dsn.rest).absolute()
        self._path = path
        self._sync = sync
        self._dsn = dsn
        self._database = Database(path, sync)
        self._clock = clock
        self._bell = Bell()
        # One for those who wait for tasks, and one for those who wait for records: neither wakes the others.
        self._wake = Wake(Path(f"{path}-wake"))
        self._records_wake = Wake(Path(f"{path}-wake-records"))
        self._tokens = count(1)
        self._busy_at = 0.0
        self.records = self._records = FileRecords(self._database, self._records_wake, clock)

    def risks(self, queue_name: str) -> list[str]:
        if self._sync == "FULL":
            return []
        return [
            f"{self._dsn} may lose its last moments in a power cut, for it says sync=normal. Without that, "
            "every push waits for the disk."
        ]

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        with self._changing() as tasks:
            if max_length is not None:
                tasks.refuse_more_than(max_length, queue_name, [one.task_id for one in messages])
            return tasks.push(queue_name, messages)

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        with self._changing() as tasks:
            if not self._records.swap_within(tasks.db, key, old, new):
                return False
            tasks.push(queue_name, messages)
        self._records.ring()
        return True

    def find(self, queue_name: str, task_id: str) -> Found | None:
        with self._database.read() as db:
            row = db.execute(_FIND, (queue_name, task_id)).fetchone()
        return Found(*row) if row else None

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        with self._changing() as tasks:
            return tasks.reschedule(queue_name, task_ids, due_at)

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        with self._changing() as tasks:
            tasks.watch(queue_name, task_id, follow)
            return tasks.has(queue_name, task_id)

    def now(self) -> float:
        return self._clock()

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
                with self._changing() as tasks:
                    batch.late.extend(tasks.settle(settlements))
                    tasks.bring_up_to_date(queue_names)
                    token = self._new_lease(tasks, worker, lease)
                    batch.reservations.extend(tasks.reserve(queue_names, token, limit))
                    if not batch.reservations:
                        tasks.end_empty_leases([token])
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
        with self._changing() as tasks:
            token = self._new_lease(tasks, worker, lease)
            reservation = tasks.reserve_task(queue_name, task_id, token)
            if reservation is None:
                tasks.end_empty_leases([token])
            return reservation

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        if not settlements:
            return []
        with self._changing() as tasks:
            return tasks.settle(settlements)

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        with self._changing() as tasks:
            return tasks.extend(reservations, lease)

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        with self._changing() as tasks:
            return tasks.recover(queue_names, worker, started)

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        with self._changing() as tasks:
            return tasks.cancel(queue_name, task_id)

    def drop_all(self, queue_name: str) -> None:
        if not isinstance(self._database, JoinedDatabase):  # there the file stays locked anyhow
            self._drop_in_parts(queue_name)
        # What has a follow goes last, in one step: that is not queued while it is still to be dropped itself.
        with self._changing() as tasks:
            tasks.drop_all(queue_name)

    def count(self, queue_name: str) -> Counts:
        with self._database.read() as db:
            row = db.execute(
                "SELECT"
                " (SELECT count(*) FROM alligator_tasks"
                "  WHERE queue = :queue AND token IS NULL AND due_at IS NULL),"
                " (SELECT count(*) FROM alligator_tasks WHERE queue = :queue AND due_at IS NOT NULL),"
                " (SELECT count(*) FROM alligator_tasks WHERE queue = :queue AND token IS NOT NULL),"
                " (SELECT count(*) FROM alligator_dead WHERE queue = :queue)",
                {"queue": queue_name},
            ).fetchone()
        return Counts(*row)

    def queues(self) -> list[str]:
        with self._database.read() as db:
            return sorted(
                {
                    row[0]
                    for table in ("alligator_tasks", "alligator_dead")
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

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        with self._changing() as tasks:
            return tasks.retry_dead(queue_name, letter_ids, due_at)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        with self._changing() as tasks:
            return tasks.purge_dead(queue_name, letter_ids)

    def joins(self, connection: object) -> bool:
        return is_to(self._path, connection)

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        with self._database.read() as db:
            return walking.walk(db, queue_name, state, cursor, limit)

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        with self._database.write() as db:
            if not self._records.swap_within(db, key, value, value):
                return [False] * len(tasks)
            taken: list[bool] = []
            for task, note in zip(tasks, notes, strict=True):
                taken.append(walking.take_out(db, queue_name, task))
                if taken[-1]:
                    self._records.set_within(db, note, value)
            return taken

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        with self._database.write() as db:
            return [walking.put_dead(db, queue_name, letter) for letter in letters]

    def migration(self) -> str:
        return "" if self._database.is_made() else SCHEMA

    def migrate(self) -> bool:
        if self._database.is_made():
            return False
        self._database.make()
        return True

    def within(self, connection: object) -> "Client":
        with self._database.read():  # so that the file and its tables are there
            joined = copy.copy(self)
        joined._database = JoinedDatabase(self._path, connection)
        # Nobody is woken by the commit, of which we do not know: whoever waits looks by itself.
        joined.records = joined._records = FileRecords(
            joined._database, self._records_wake, self._clock
        )
        return joined

    def complete(self, reservation: Reservation) -> None:
        if not self.settle([Ack(reservation)]):
            return
        if isinstance(self._database, JoinedDatabase):
            self._database.roll_back()
        raise LeaseLost(
            f"Task {reservation.task_id!r} went to another worker: what it has written here is void."
        )

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._database.close()
        self._bell.close()
        self._wake.close()
        self._records_wake.close()

    @contextmanager
    def _changing(self) -> Generator[Tasks]:
        """A transaction; when it is over, those are woken for whom there may be something now."""
        with self._database.write() as db:
            tasks = Tasks(db, self._clock())
            yield tasks
        if tasks.has_news:
            self._wake.ring()

    def _drop_in_parts(self, queue_name: str) -> None:
        """Drop all that nothing follows, letting others write in between."""
        with self._database.read() as db:
            [last] = db.execute("SELECT ifnull(max(seq), 0) FROM alligator_tasks").fetchone()
        may_be_more = True
        while may_be_more:
            with self._changing() as tasks:
                may_be_more = tasks.drop_some(queue_name, last)
            if may_be_more:
                time.sleep(2 * LONGEST_TRY)  # so that those who wait for the file find it free

    def _new_lease(self, tasks: Tasks, worker: str, lease: float) -> str:
        token = token_of(worker, next(self._tokens), tasks.now)
        tasks.new_lease(token, lease)
        return token

    def _look(self, queue_names: Sequence[str]) -> tuple[int, float]:
        """Return the file's version, and when it has, or may have, something to hand out. Hinders no writer."""
        with self._database.read() as db:
            # The version first: what is pushed after it, it will tell.
            version = version_of(db)
            if db.execute(_HAS_NO_LEASE).fetchone():
                return version, 0.0
            moments = db.execute("SELECT min(lapses_at) FROM alligator_leases").fetchall()
            for name in queue_names:
                if db.execute(
                    "SELECT 1 FROM alligator_tasks "
                    "WHERE queue = ? AND token IS NULL AND due_at IS NULL LIMIT 1",
                    (name,),
                ).fetchone():
                    return version, 0.0
                moments += db.execute(
                    "SELECT min(due_at) FROM alligator_tasks WHERE queue = ? AND due_at IS NOT NULL",
                    (name,),
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
                woken = self._bell.wait(timeout, *self._wake.files())
                if woken is Woken.BY_INTERRUPT:
                    return True
                self._wake.clear()
                if version_of(db) != version:
                    return False
