"""The tasks of a store, as ``alligator list`` shows them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from alligator.backends.base import NEVER, Backend, Listed, State, worker_of
from alligator.commands.letters import callable_of
from alligator.commands.tables import Column, duration, iso, table
from alligator.exceptions import InvalidOption
from alligator.payloads import Refused, signature_of

PAGE = 100
STATES: tuple[State, ...] = ("running", "waiting", "delayed")

Row = tuple[str, State, Listed]
"""A task, with its queue and state."""


def tasks(
    backend: Backend, queue_names: Sequence[str], states: Sequence[State], limit: int
) -> list[Row]:
    """Return the first tasks that are in some states, each once.

    Raises:
        InvalidOption: The store cannot list its tasks.
    """
    if not backend.can_walk:
        raise InvalidOption(
            "This store cannot list what is queued: those that can are locmem, sqlite, postgres and redis."
        )
    met: dict[tuple[str, str], Row] = {}
    for name in queue_names:
        for state in states:
            for task in islice(walked(backend, name, state), limit):
                met.setdefault((name, task.task_id), (name, state, task))
                if len(met) == limit:
                    return list(met.values())
    return list(met.values())


def walked(backend: Backend, queue_name: str, state: State) -> Iterator[Listed]:
    """Return all tasks of a queue that are in a state."""
    cursor = None
    while cursor != "":
        page, cursor = backend.walk(queue_name, state, cursor or "", PAGE)
        yield from page


def tasks_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return tasks for programs to read."""
    return {
        "tasks": [
            {
                "task_id": task.task_id,
                "queue": queue_name,
                "state": state,
                "callable": callable_of(task.body),
                "signature": signature_of(task.body) or None,
                "priority": task.priority,
                "due_at": iso(task.due_at) if 0 < task.due_at < NEVER else None,
                "worker": worker_of(task.token) if task.token else None,
            }
            for queue_name, state, task in rows
        ]
    }


def tasks_text(rows: Sequence[Row], now: float, width: int | None) -> str:
    """Return tasks in a table, to fit a terminal of that width, if any."""
    columns = [
        Column("id", keep="end"),
        Column("queue", keep="start"),
        Column("state"),
        Column("priority", "right"),
        Column("callable", keep="end"),
    ]
    return table(columns, [_cells(*row, now) for row in rows], width)


def _cells(queue_name: str, state: State, task: Listed, now: float) -> list[str]:
    said: str = state
    if state == "delayed":
        until = "until told" if task.due_at == NEVER else f"for {duration(task.due_at - now)}"
        said = f"delayed {until}"
    return [
        task.task_id,
        queue_name,
        said,
        str(task.priority),
        "? (refused)" if isinstance(task.body, Refused) else callable_of(task.body) or "?",
    ]
