"""What is known of a task, wherever it is, and why it does not run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from alligator import keys, limits, payloads, registry, results, stops
from alligator.backends.base import (
    NEVER,
    Backend,
    DeadLetter,
    Found,
    Records,
    reserved_at,
    worker_of,
)
from alligator.exceptions import AlligatorException, UnreadableTask
from alligator.letters import Story

MANY = 10
"""Tasks to name as reasons; of more, these."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task is, as it said itself."""

    done: float
    total: float | None
    note: str
    at: float


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a task. What does not apply to its state is None, or empty. Moments are timestamps."""

    task_id: str
    queue_name: str
    state: str
    """One of "waiting", "delayed", "retrying", "blocked", "limited", "running", "succeeded", "failed",
    "canceled" and "unknown": never queued, or done and forgotten."""
    callable: str = ""
    attempt: int = 1
    position: int | None = None
    """When it waits: how many come before it, if the store can tell."""
    due_at: float | None = None
    """When it is delayed, or retrying: until when."""
    blocked_by: tuple[tuple[str, str], ...] = ()
    """When it is blocked: the queues and ids of tasks that it waits for (ten of them at most)."""
    limit: str = ""
    """When it is limited: the key of the limit that is reached."""
    held_by: tuple[tuple[str, str], ...] = ()
    """When it is limited: the queues and ids of tasks that have the places."""
    since: float | None = None
    """When it runs: since when."""
    lease_until: float | None = None
    worker: registry.Presence | None = None
    """When it runs: who runs it, if that is known."""
    stop_asked: str = ""
    """When it is to end although it runs: why."""
    progress: Progress | None = None
    ended_at: float | None = None
    reason: str = ""
    """When it failed: "failed", "poison", "unreadable", "expired", "timeout" or "dependency"."""
    error: str = ""
    history: tuple[dict[str, Any], ...] = ()
    """What came of the last attempts before this one."""
    consumers: int | None = None
    """Workers that are alive and take from this queue, if the store knows."""
    at: float = 0.0
    """When this was so, by the store's clock."""


def status_of(backend: Backend, kept_in: Records | None, queue_name: str, task_id: str) -> Status:
    """Return what is known of a task.

    Args:
        backend: The store.
        kept_in: Where results are kept, and how tasks ended.
        queue_name: The task's queue.
        task_id: The task.
    """
    now = backend.now()
    found = backend.find(queue_name, task_id) if backend.can_find else None
    if found is not None:
        return _queued(backend, queue_name, task_id, found, now)
    outcome = results.outcome_of(kept_in, queue_name, task_id) if kept_in is not None else None
    letters = backend.dead(queue_name, task_id=task_id, limit=1)
    if letters and (
        outcome is None or outcome.state == "failed" or outcome.at < letters[0].buried_at
    ):
        return _dead(letters[0], now)
    if outcome is None:
        return Status(task_id, queue_name, "unknown", at=now)
    state = "succeeded" if outcome.state == "success" else outcome.state
    return Status(
        task_id,
        queue_name,
        state,
        ended_at=outcome.at,
        reason=outcome.reason,
        error=outcome.error,
        at=now,
    )


def _queued(backend: Backend, queue_name: str, task_id: str, found: Found, now: float) -> Status:
    told = _told(found.body)
    options = told.get("options") or {}
    workers = registry.present(backend)
    common: dict[str, Any] = {
        "callable": f"{told['module']}.{told['callable']}" if told else "",
        "attempt": options.get("attempt", 1),
        "history": tuple(options.get("history", ())),
        "progress": _progress(backend, queue_name, task_id),
        "consumers": sum(queue_name in one.queues for one in workers) if backend.records else None,
        "at": now,
    }
    if found.token:
        stop = stops.asked(backend, queue_name, task_id)
        return Status(
            task_id,
            queue_name,
            "running",
            since=reserved_at(found.token),
            lease_until=found.lapses_at,
            worker=next((one for one in workers if one.worker == worker_of(found.token)), None),
            stop_asked=stop.reason if stop and stop.token == found.token else "",
            **common,
        )
    if not found.due_at:
        return Status(task_id, queue_name, "waiting", position=found.position, **common)
    due_at = None if found.due_at == NEVER else found.due_at
    if blocked_by := _needs(backend, queue_name, task_id):
        return Status(task_id, queue_name, "blocked", blocked_by=blocked_by, **common)
    if (limit := _limit(options)) is not None and limits.is_parked(
        backend, queue_name, task_id, limit
    ):
        return Status(
            task_id,
            queue_name,
            "limited",
            due_at=due_at,
            limit=limit.key,
            held_by=tuple(limits.holders(backend, limit)[:MANY]),
            **common,
        )
    state = "retrying" if common["attempt"] > 1 else "delayed"
    return Status(task_id, queue_name, state, due_at=due_at, **common)


def _dead(letter: DeadLetter, now: float) -> Status:
    told, story = _told(letter.body), Story.of(letter)
    options = told.get("options") or {}
    return Status(
        letter.task_id,
        letter.queue_name,
        "failed",
        callable=f"{told['module']}.{told['callable']}" if told else "",
        attempt=options.get("attempt", 1),
        history=tuple(options.get("history", ())),
        ended_at=letter.buried_at,
        reason=story.reason,
        error=story.error_line,
        at=now,
    )


def _told(body: bytes) -> Mapping[str, Any]:
    """Return a payload, or nothing if only the task's own class can read it."""
    try:
        return payloads.decode(body)
    except UnreadableTask:
        return {}


def _limit(options: Mapping[str, Any]) -> limits.Limit | None:
    try:
        return limits.limit_from_json(options["limit"]) if "limit" in options else None
    except AlligatorException:
        return None


def _needs(backend: Backend, queue_name: str, task_id: str) -> tuple[tuple[str, str], ...]:
    if backend.records is None:
        return ()
    family = f"needs:{keys.ref(queue_name, task_id)}"
    found = backend.records.list(family, limit=MANY)
    return tuple(keys.of_ref(key.partition("/")[2]) for key in found)


def _progress(backend: Backend, queue_name: str, task_id: str) -> Progress | None:
    if backend.records is None:
        return None
    value = backend.records.get(f"{keys.PROGRESS}/{keys.ref(queue_name, task_id)}")
    try:
        told = json.loads(value or b"{}")
        return Progress(told["done"], told.get("total"), str(told.get("note", "")), told["at"])
    except (ValueError, TypeError, KeyError):
        return None


def why(status: Status) -> str:
    """Return in one sentence what a task waits for, or what became of it.

    Example:
        >>> why(Status("t1", "mail", "waiting", position=0, consumers=0))
        "Task 't1' waits, next in line, and no worker that is alive takes from queue 'mail'."
    """
    return f"Task {status.task_id!r} {_SENTENCES[status.state](status)}."


def _waiting(status: Status) -> str:
    if status.position is None:
        place = "waits"
    else:
        ahead = status.position
        place = "waits, next in line" if ahead == 0 else f"waits behind {ahead:,} others"
    return place + _consumers(status)


def _consumers(status: Status) -> str:
    if status.consumers == 0:
        return f", and no worker that is alive takes from queue {status.queue_name!r}"
    return ""


def _delayed(status: Status) -> str:
    if status.due_at is None:
        return "is delayed until someone says otherwise"
    return f"is delayed until {_moment(status.due_at)}{_in(status)}{_consumers(status)}"


def _retrying(status: Status) -> str:
    error = str(status.history[-1].get("error", "")) if status.history else ""
    when = "" if status.due_at is None else f" at {_moment(status.due_at)}{_in(status)}"
    failed = f"failed ({error})" if error else "failed"
    return f"{failed}, and attempt {status.attempt} follows{when}{_consumers(status)}"


def _blocked(status: Status) -> str:
    return f"waits for {_names(status.blocked_by, status.queue_name)} to succeed"


def _limited(status: Status) -> str:
    by = f", held by {_names(status.held_by, status.queue_name)}" if status.held_by else ""
    return f"waits for room under the limit {status.limit!r}{by}"


def _running(status: Status) -> str:
    where = ""
    if status.worker is not None:
        where = f" in process {status.worker.pid} of {status.worker.host}"
    since = "" if status.since is None else f" since {_moment(status.since)}"
    until = status.lease_until or 0.0
    if until < status.at:
        tail = ", whose lease has lapsed: another worker takes it next"
    elif status.worker is None:
        tail = f", on a lease held until {_moment(until)} by a worker that is not registered"
    else:
        tail = f", on a lease held until {_moment(until)} and extended while it runs"
    asked = f", and is asked to end ({status.stop_asked})" if status.stop_asked else ""
    return f"runs{since}{where}{tail}{asked}"


def _succeeded(status: Status) -> str:
    return "has succeeded" + _ended(status)


def _failed(status: Status) -> str:
    reason = f", reason {status.reason!r}" if status.reason else ""
    return f"has failed for good{_ended(status)}{reason}: {status.error}".rstrip(": .")


def _canceled(status: Status) -> str:
    return "was canceled" + _ended(status)


def _unknown(status: Status) -> str:
    return (
        f"is not in queue {status.queue_name!r}: it was never put there, or it is done and forgotten "
        "(keep_result keeps what became of a task)"
    )


def _ended(status: Status) -> str:
    return "" if status.ended_at is None else f" at {_moment(status.ended_at)}"


def _names(tasks: tuple[tuple[str, str], ...], queue_name: str) -> str:
    named = [
        repr(task_id) if queue == queue_name else f"{task_id!r} of queue {queue!r}"
        for queue, task_id in tasks
    ]
    more = " and perhaps others" if len(named) >= MANY else ""
    return ", ".join(named) + more


def _in(status: Status) -> str:
    left = (status.due_at or 0.0) - status.at
    return f" (in {left:,.0f} s)" if 0 < left < NEVER else ""


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


_SENTENCES = {
    "waiting": _waiting,
    "delayed": _delayed,
    "retrying": _retrying,
    "blocked": _blocked,
    "limited": _limited,
    "running": _running,
    "succeeded": _succeeded,
    "failed": _failed,
    "canceled": _canceled,
    "unknown": _unknown,
}
