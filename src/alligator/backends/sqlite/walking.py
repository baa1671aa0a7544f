"""Going through the tasks of a SQLite file in pages, and taking out and putting in what is moved.

Each page begins behind the last row of the one before, along an index: it costs by its own size.
"""

import json
import sqlite3
from typing import Any

from alligator.backends.base import DeadLetter, Follow, Listed, State

_COLUMNS = "task_id, body, ifnull(due_at, 0.0), priority, ifnull(token, ''), follow_id, on_success, on_failure"

# By two ways along the index, for one condition for both would read it from its beginning.
_WAITING = """
SELECT * FROM (
    SELECT {columns}, priority AS p, seq AS s FROM alligator_tasks
    WHERE queue = :queue AND token IS NULL AND due_at IS NULL AND priority = :first AND seq > :second
    ORDER BY seq LIMIT :limit
)
UNION ALL
SELECT * FROM (
    SELECT {columns}, priority AS p, seq AS s FROM alligator_tasks
    WHERE queue = :queue AND token IS NULL AND due_at IS NULL AND priority < :first
    ORDER BY priority DESC, seq LIMIT :limit
)
LIMIT :limit
""".replace("{columns}", _COLUMNS)

_DELAYED = """
SELECT {columns}, due_at, seq FROM alligator_tasks
WHERE queue = :queue AND due_at IS NOT NULL AND (due_at, seq) > (:first, :second)
ORDER BY due_at, seq LIMIT :limit
""".replace("{columns}", _COLUMNS)

_RUNNING = """
SELECT {columns}, token, seq FROM alligator_tasks
WHERE token IS NOT NULL AND (token, seq) > (:first, :second) AND +queue = :queue
ORDER BY token, seq LIMIT :limit
""".replace("{columns}", _COLUMNS)

_PAGES: dict[State, tuple[str, tuple[Any, int]]] = {
    "waiting": (_WAITING, (2**31, 0)),
    "delayed": (_DELAYED, (0.0, 0)),
    "running": (_RUNNING, ("", 0)),
}
"""For each state the query, and where it begins."""

_TAKE_OUT = """
DELETE FROM alligator_tasks WHERE queue = ? AND task_id = ? AND token IS NULL
AND body = ? AND ifnull(due_at, 0.0) = ? AND priority = ? AND follow_id IS ?
"""

_PUT_DEAD = """
INSERT INTO alligator_dead (queue, task_id, priority, body, note, buried_at)
SELECT :queue, :id, :priority, :body, :note, :at WHERE NOT EXISTS (
    SELECT 1 FROM alligator_dead WHERE queue = :queue AND task_id = :id
    AND body = :body AND note = :note AND buried_at = :at AND priority = :priority
)
"""


def walk(
    db: sqlite3.Connection, queue_name: str, state: State, cursor: str, limit: int
) -> tuple[list[Listed], str]:
    """Return a page, and the cursor behind it."""
    query, begin = _PAGES[state]
    first, second = json.loads(cursor) if cursor else begin
    values = {"queue": queue_name, "first": first, "second": second, "limit": limit}
    rows = db.execute(query, values).fetchall()
    listed = [Listed._make((*row[:5], _follow(*row[5:8]))) for row in rows]
    return listed, json.dumps(rows[-1][8:]) if len(rows) == limit else ""


def take_out(db: sqlite3.Connection, queue_name: str, task: Listed) -> bool:
    """Take a task out, if it is as listed."""
    follow_id = task.follow.task_id if task.follow else None
    which = queue_name, task.task_id, task.body, task.due_at, task.priority, follow_id
    return db.execute(_TAKE_OUT, which).rowcount == 1


def put_dead(db: sqlite3.Connection, queue_name: str, letter: DeadLetter) -> bool:
    """Put a dead letter, unless it is there."""
    values = {
        "queue": queue_name,
        "id": letter.task_id,
        "priority": letter.priority,
        "body": letter.body,
        "note": letter.note,
        "at": letter.buried_at,
    }
    return db.execute(_PUT_DEAD, values).rowcount == 1


def _follow(
    task_id: str | None, on_success: bytes | None, on_failure: bytes | None
) -> Follow | None:
    if task_id is None:
        return None
    return Follow(task_id, on_success or b"", on_failure or b"")
