"""What is done to tasks in a SQLite file: each step within a transaction, which the caller begins and ends.

To end a hand-out takes one statement, which passes over tasks that have a replacement or a follow. Only where
it found nothing do others look for one of those; so the tasks that have neither, nearly all, pay nothing.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence

from alligator.backends.base import (
    MAX_PRIORITY,
    Ack,
    Bury,
    Follow,
    Message,
    Release,
    Reservation,
    Settlement,
    no_room,
    worker_of,
)

MOVE_AT_ONCE = 1000
"""Delayed tasks that one reserve makes ready: others write meanwhile."""

DROP_AT_ONCE = 10_000
"""Tasks that are dropped in one step: a million take many seconds, and then others would give up waiting."""

Which = tuple[str, str, str]
"""A task that is held: its queue, its id and the token."""

_PUSH = """
INSERT INTO alligator_tasks (body, due_at, priority, queue, task_id) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_REPLACE = """
UPDATE alligator_tasks SET body = ?, due_at = ?, priority = ?, lapses = 0,
    seq = (SELECT max(seq) + 1 FROM alligator_tasks), keeps_place = 0
WHERE queue = ? AND task_id = ? AND token IS NULL
"""

_KEEP_REPLACEMENT = """
UPDATE alligator_tasks SET new_body = ?, new_due_at = ?, new_priority = ?
WHERE queue = ? AND task_id = ? AND token IS NOT NULL
"""

_PUT_REPLACEMENT = """
UPDATE alligator_tasks SET token = NULL, body = new_body, priority = new_priority, lapses = 0,
    due_at = CASE WHEN new_due_at > ? THEN new_due_at END,
    seq = (SELECT max(seq) + 1 FROM alligator_tasks), keeps_place = 0,
    new_body = NULL, new_due_at = NULL, new_priority = NULL
WHERE queue = ? AND task_id = ? AND token = ? AND new_body IS NOT NULL
"""

_FORGET_REPLACEMENT = """
UPDATE alligator_tasks SET new_body = NULL, new_due_at = NULL, new_priority = NULL
WHERE queue = ? AND task_id = ? AND new_body IS NOT NULL
"""

_FORGET_REPLACEMENTS = """
UPDATE alligator_tasks SET new_body = NULL, new_due_at = NULL, new_priority = NULL
WHERE queue = ? AND new_body IS NOT NULL
"""

_WATCH = """
UPDATE alligator_tasks SET follow_id = ?, on_success = ?, on_failure = ?
WHERE queue = ? AND task_id = ? AND follow_id IS NULL
"""

_FIRST = """
SELECT task_id, body, lapses FROM alligator_tasks WHERE queue = ? AND token IS NULL AND due_at IS NULL
ORDER BY priority DESC, seq LIMIT ?
"""

# Two statements: one with RETURNING would take longer, and give them in another order.
_TAKE_FIRST = """
UPDATE alligator_tasks SET token = ? WHERE seq IN (
    SELECT seq FROM alligator_tasks WHERE queue = ? AND token IS NULL AND due_at IS NULL
    ORDER BY priority DESC, seq LIMIT ?
)
"""

# Also what is held under a token that has no lease, should someone have deleted that.
_LAPSED = """
SELECT token FROM alligator_leases WHERE lapses_at <= ?
UNION
SELECT token FROM alligator_tasks WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM alligator_leases)
"""

_FALL_DUE = """
UPDATE alligator_tasks SET due_at = NULL,
    seq = CASE WHEN keeps_place THEN seq ELSE (SELECT max(seq) + 1 FROM alligator_tasks) END
WHERE seq = ?
"""

_RESCHEDULE = """
UPDATE alligator_tasks SET due_at = ? WHERE queue = ? AND task_id = ? AND due_at IS NOT NULL
"""

_RELEASE = """
UPDATE alligator_tasks SET token = NULL, due_at = ?, keeps_place = 1, lapses = lapses + ?
WHERE queue = ? AND task_id = ? AND token = ? AND new_body IS NULL
"""

_NEW_ATTEMPT = """
UPDATE alligator_tasks SET token = NULL, due_at = ?, lapses = ?, body = ?,
    seq = (SELECT max(seq) + 1 FROM alligator_tasks), keeps_place = 0
WHERE queue = ? AND task_id = ? AND token = ? AND new_body IS NULL
"""

_REMOVE_PLAIN = """
DELETE FROM alligator_tasks WHERE queue = ? AND task_id = ? AND token = ?
AND follow_id IS NULL AND new_body IS NULL
"""

# By the index, for the rows of other queues are not to be read; hence the "+".
_DROP_SOME = """
DELETE FROM alligator_tasks WHERE seq IN (
    SELECT seq FROM alligator_tasks
    WHERE queue = ? AND token IS NULL AND follow_id IS NULL AND +seq <= ? LIMIT ?
)
"""

_BURY = """
INSERT INTO alligator_dead (queue, task_id, priority, body, note, buried_at)
SELECT queue, task_id, priority, body, ?, ? FROM alligator_tasks
WHERE queue = ? AND task_id = ? AND token = ?
"""

_RETRY = """
INSERT INTO alligator_tasks (queue, task_id, priority, body, due_at)
SELECT queue, task_id, priority, body, ? FROM alligator_dead WHERE queue = ? AND letter_id = ?
ON CONFLICT DO NOTHING
"""


class Tasks:
    """The tasks of a file, during one transaction.

    Args:
        db: Where that has begun.
        now: The moment it is for all of it, by the store's clock.
    """

    def __init__(self, db: sqlite3.Connection, now: float) -> None:
        self.db = db
        self.now = now
        self.has_news = False
        """Whether there may be something for those who wait."""

    # Putting in.

    def push(self, queue_name: str, messages: Sequence[Message]) -> list[bool]:
        """Queue tasks; return for each whether it was."""
        self.has_news = True
        now, execute = self.now, self.db.execute
        queued: list[bool] = []
        for message in messages:
            due_at = max(now + message.delay, message.due_at)
            row = (
                message.body,
                due_at if due_at > now else None,
                message.priority,
                queue_name,
                message.task_id,
            )
            done = (message.replaces and self._replace(row)) or execute(_PUSH, row).rowcount == 1
            if message.follow and done:
                self.watch(queue_name, message.task_id, message.follow)
            queued.append(done)
        return queued

    def refuse_more_than(self, max_length: int, queue_name: str, task_ids: Iterable[str]) -> None:
        """Raise QueueFull when there is no room for those of some tasks that are not here already."""
        is_here = "SELECT 1 FROM alligator_tasks WHERE queue = ? AND task_id = ?"
        coming = sum(not self.db.execute(is_here, (queue_name, id)).fetchone() for id in task_ids)
        room = max_length - coming
        # No more are counted than it takes to know.
        [length] = self.db.execute(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM alligator_tasks"
            "  WHERE queue = :queue AND token IS NULL AND due_at IS NULL LIMIT :limit))"
            " + (SELECT count(*) FROM (SELECT 1 FROM alligator_tasks"
            "  WHERE queue = :queue AND due_at IS NOT NULL LIMIT :limit))",
            {"queue": queue_name, "limit": max(0, room + 1)},
        ).fetchone()
        if coming and length > room:
            raise no_room(queue_name, coming, max_length)

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> None:
        """Let a task be followed by another, unless it has a follow."""
        self.db.execute(
            _WATCH,
            (follow.task_id, follow.on_success, follow.on_failure, queue_name, task_id),
        )

    def has(self, queue_name: str, task_id: str) -> bool:
        """Whether a task is there, in whatever state."""
        which = "SELECT 1 FROM alligator_tasks WHERE queue = ? AND task_id = ?"
        return self.db.execute(which, (queue_name, task_id)).fetchone() is not None

    def reschedule(self, queue_name: str, task_ids: Sequence[str], due_at: float) -> list[bool]:
        """Let delayed tasks be due at another moment; return for each whether it was delayed."""
        self.has_news = True
        return [self._reschedule(queue_name, task_id, due_at) for task_id in task_ids]

    def retry_dead(self, queue_name: str, letter_ids: Sequence[str], due_at: float) -> list[str]:
        """Move dead letters to the end of their queue; return those moved."""
        self.has_news = True
        values = due_at if due_at > self.now else None, queue_name
        moved = [
            letter_id
            for letter_id in letter_ids
            if self.db.execute(_RETRY, (*values, letter_id)).rowcount == 1
        ]
        return self.purge_dead(queue_name, moved)

    # Handing out, and taking back.

    def new_lease(self, token: str, lease: float) -> None:
        """Begin a hand-out."""
        values = token, worker_of(token), self.now + lease
        self.db.execute("INSERT INTO alligator_leases VALUES (?, ?, ?)", values)

    def end_empty_leases(self, tokens: Iterable[str]) -> None:
        """Forget hand-outs of which nothing is left."""
        for token in tokens:
            self.db.execute(
                "DELETE FROM alligator_leases WHERE token = :token "
                "AND NOT EXISTS (SELECT 1 FROM alligator_tasks WHERE token = :token)",
                {"token": token},
            )

    def reserve(self, queue_names: Sequence[str], token: str, limit: int) -> list[Reservation]:
        """Hand out the first tasks of these queues under a token."""
        taken: list[Reservation] = []
        for name in queue_names:
            rows = self.db.execute(_FIRST, (name, limit - len(taken))).fetchall()
            if rows:
                self.db.execute(_TAKE_FIRST, (token, name, len(rows)))
            taken += [
                Reservation(name, task_id, body, token, lapses + 1)
                for task_id, body, lapses in rows
            ]
            if len(taken) == limit:
                self.has_news = True  # there may be more than this worker could take
                break
        return taken

    def reserve_task(self, queue_name: str, task_id: str, token: str) -> Reservation | None:
        """Hand out one task by its id."""
        row = self.db.execute(
            "UPDATE alligator_tasks SET token = ?, due_at = NULL "
            "WHERE queue = ? AND task_id = ? AND token IS NULL RETURNING body, lapses",
            (token, queue_name, task_id),
        ).fetchone()
        return Reservation(queue_name, task_id, row[0], token, row[1] + 1) if row else None

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """Let leases end later; return what is held no more."""
        held = [reservation for reservation in reservations if self._is_held(reservation)]
        for token in {reservation.token for reservation in held}:
            self.db.execute(
                "UPDATE alligator_leases SET lapses_at = ? WHERE token = ?",
                (self.now + lease, token),
            )
        return [reservation for reservation in reservations if reservation not in held]

    def bring_up_to_date(self, queue_names: Sequence[str]) -> None:
        """Make ready what is due, and take back what lapsed."""
        for name in queue_names:
            due = self.db.execute(
                "SELECT seq FROM alligator_tasks WHERE queue = ? AND due_at <= ? ORDER BY due_at LIMIT ?",
                (name, self.now, MOVE_AT_ONCE),
            ).fetchall()
            # One by one, for each that joins the end is to do so after the one before it.
            for row in due:
                self.db.execute(_FALL_DUE, row)
        tokens = [token for (token,) in self.db.execute(_LAPSED, (self.now,)).fetchall()]
        self._put_replacements(tokens)
        for token in tokens:
            self.db.execute(
                "UPDATE alligator_tasks SET token = NULL, lapses = lapses + 1 WHERE token = ?",
                (token,),
            )
            self.db.execute("DELETE FROM alligator_leases WHERE token = ?", (token,))

    def recover(self, queue_names: Sequence[str], worker: str, started: Collection[str]) -> int:
        """Give back what a worker holds; return how many tasks that was."""
        self.has_news = True
        rows = self.db.execute(
            "SELECT token FROM alligator_leases WHERE worker = ?", (worker,)
        ).fetchall()
        tokens = [token for (token,) in rows]
        given_back = self._put_replacements(tokens, queue_names)
        for token in tokens:
            for name in queue_names:
                self.db.executemany(
                    "UPDATE alligator_tasks SET lapses = lapses + 1 "
                    "WHERE queue = ? AND task_id = ? AND token = ?",
                    [(name, task_id, token) for task_id in started],
                )
                given_back += self.db.execute(
                    "UPDATE alligator_tasks SET token = NULL WHERE token = ? AND queue = ?",
                    (token, name),
                ).rowcount
        self.end_empty_leases(tokens)
        return given_back

    # Ending.

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Carry out settlements; return those that came too late."""
        late = [settlement for settlement in settlements if not self._settle(settlement)]
        self.end_empty_leases({settlement.reservation.token for settlement in settlements})
        return late

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out a task that nobody holds, and return its body. A held one loses its replacement."""
        row = self.db.execute(
            "DELETE FROM alligator_tasks WHERE queue = ? AND task_id = ? AND token IS NULL "
            "RETURNING body, follow_id, on_failure",
            (queue_name, task_id),
        ).fetchone()
        if row is None:
            self.db.execute(_FORGET_REPLACEMENT, (queue_name, task_id))
            return None
        body: bytes
        body, follow_id, on_failure = row
        self._queue_follow(queue_name, follow_id, on_failure)
        return body

    def drop_some(self, queue_name: str, last: int) -> bool:
        """Take out some that nobody holds and nothing follows, up to a seq; return whether to go on."""
        dropped = self.db.execute(_DROP_SOME, (queue_name, last, DROP_AT_ONCE))
        return dropped.rowcount == DROP_AT_ONCE

    def drop_all(self, queue_name: str) -> None:
        """Take out all that nobody holds."""
        follows = self.db.execute(
            "SELECT follow_id, on_failure FROM alligator_tasks "
            "WHERE queue = ? AND token IS NULL AND follow_id IS NOT NULL ORDER BY seq",
            (queue_name,),
        ).fetchall()
        self.db.execute(
            "DELETE FROM alligator_tasks WHERE queue = ? AND token IS NULL", (queue_name,)
        )
        self.db.execute(_FORGET_REPLACEMENTS, (queue_name,))
        for follow_id, on_failure in follows:  # after the others: these are not dropped
            self._queue_follow(queue_name, follow_id, on_failure)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Remove dead letters; return those removed."""
        return [
            letter_id
            for letter_id in letter_ids
            if self.db.execute(
                "DELETE FROM alligator_dead WHERE queue = ? AND letter_id = ?",
                (queue_name, letter_id),
            ).rowcount
        ]

    # The parts.

    def _replace(self, row: tuple[bytes, float | None, int, str, str]) -> bool:
        """Let a task be what a row says, now or when its hand-out ends. Returns False: there is none."""
        return any(
            self.db.execute(statement, row).rowcount == 1
            for statement in (_REPLACE, _KEEP_REPLACEMENT)
        )

    def _reschedule(self, queue_name: str, task_id: str, due_at: float) -> bool:
        if due_at > self.now:
            done = self.db.execute(_RESCHEDULE, (due_at, queue_name, task_id))
            return done.rowcount == 1
        row = self.db.execute(
            "SELECT seq FROM alligator_tasks WHERE queue = ? AND task_id = ? AND due_at IS NOT NULL",
            (queue_name, task_id),
        ).fetchone()
        return row is not None and self.db.execute(_FALL_DUE, row).rowcount == 1

    def _is_held(self, reservation: Reservation) -> bool:
        which = reservation.queue_name, reservation.task_id, reservation.token
        found = self.db.execute(
            "SELECT 1 FROM alligator_tasks WHERE queue = ? AND task_id = ? AND token = ?", which
        )
        return found.fetchone() is not None

    def _settle(self, settlement: Settlement) -> bool:
        held = settlement.reservation
        which = held.queue_name, held.task_id, held.token
        if isinstance(settlement, Release):
            done = self._release(settlement, which)
        else:
            if isinstance(settlement, Bury):
                self.db.execute(_BURY, (settlement.note, self.now, *which))
            done = self.db.execute(_REMOVE_PLAIN, which).rowcount == 1
        return done or self._settle_what_goes_on(settlement, which)

    def _release(self, release: Release, which: Which) -> bool:
        due_at = self.now + release.delay if release.delay else None
        self.has_news |= due_at is None
        if release.body is None:
            done = self.db.execute(_RELEASE, (due_at, release.lapsed, *which))
        else:
            done = self.db.execute(_NEW_ATTEMPT, (due_at, release.lapsed, release.body, *which))
        return done.rowcount == 1

    def _settle_what_goes_on(self, settlement: Settlement, which: Which) -> bool:
        """Settle a task that has a replacement or a follow. Returns False: it is held no more."""
        if self._put_replacement(which):
            return True
        if isinstance(settlement, Release):
            return False
        row = self.db.execute(
            "DELETE FROM alligator_tasks WHERE queue = ? AND task_id = ? AND token = ? "
            "RETURNING follow_id, on_success, on_failure",
            which,
        ).fetchone()
        if row is None:
            return False
        follow_id, on_success, on_failure = row
        succeeded = isinstance(settlement, Ack) and settlement.succeeded
        self._queue_follow(which[0], follow_id, on_success if succeeded else on_failure)
        return True

    def _put_replacement(self, which: Which) -> bool:
        """Let what was kept aside be the task. Returns False: there is nothing, or it is held no more."""
        done = self.db.execute(_PUT_REPLACEMENT, (self.now, *which)).rowcount == 1
        self.has_news |= done
        return done

    def _put_replacements(
        self, tokens: Sequence[str], queue_names: Collection[str] | None = None
    ) -> int:
        """Let what was kept aside be the tasks of these hand-outs; None: of any queue. Returns how many."""
        found: list[tuple[int, str, str, str]] = [
            row
            for token in tokens
            for row in self.db.execute(
                "SELECT seq, queue, task_id, token FROM alligator_tasks "
                "WHERE token = ? AND new_body IS NOT NULL",
                (token,),
            ).fetchall()
            if queue_names is None or row[1] in queue_names
        ]
        return sum(self._put_replacement(row[1:]) for row in sorted(found))

    def _queue_follow(self, queue_name: str, follow_id: str | None, body: bytes) -> None:
        if follow_id is not None:
            self.db.execute(_PUSH, (body, None, MAX_PRIORITY + 1, queue_name, follow_id))
            self.has_news = True
