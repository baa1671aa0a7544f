"""What the command ``alligator`` says of one task: as text for people, and as JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from alligator import registry, schedules
from alligator.commands.reports import (
    SIGNATURES,
    death_json,
    death_lines,
    progress_json,
    progress_text,
    quoted,
)
from alligator.commands.tables import counted, iso
from alligator.gator import Gator
from alligator.limits import Limit, Rate
from alligator.payloads import number
from alligator.printable import printable
from alligator.reasons import when, why
from alligator.statuses import Status, status_of

_MOMENTS = ("due_at", "expires_at", "since", "lease_until", "ended_at", "kept_until", "at")


def places(gator: Gator) -> list[str]:
    """Return the queues where a task may be, or have been: the Gator's own first."""
    used = {name for one in registry.present(gator.backend) for name in one.queues}
    others = {*gator.backend.queues(), *used, *schedules.queues(gator.backend)}
    return [gator.queue_name, *sorted(others - {gator.queue_name})]


def known(gator: Gator, task_id: str, queue_names: Sequence[str]) -> list[Status]:
    """Return what is known of the tasks of some id, one for each queue that knows it."""
    found = [
        status_of(gator.dsn, gator.backend, gator.results, name, task_id) for name in queue_names
    ]
    return [status for status in found if status.state != "unknown"]


def unknown(task_id: str, queue_names: Sequence[str]) -> str:
    """Return what to say where nothing is known of a task."""
    where = f"queue {quoted(queue_names[0])}"
    if len(queue_names) > 1:
        where = f"any of {counted(len(queue_names), 'queue')}"
    return (
        f"Nothing is known of a task {quoted(task_id)} in {where}: it was never put there, or it is done and "
        "forgotten. (keep_result keeps what became of a task. Only of what is dead, a part of its id will do.)"
    )


def sentence(status: Status) -> str:
    """Return why a task does not run, or what became of it."""
    return printable(why(status))


def status_json(status: Status) -> dict[str, Any]:
    """Return what is known of a task: the same keys whatever its state, and null for what does not apply."""
    told: dict[str, Any] = {
        **asdict(status),
        "why": why(status),
        "blocked_by": [_task_json(*one) for one in status.blocked_by],
        "limit": _limit_json(status.limit),
        "held_by": [_task_json(*one) for one in status.held_by],
        "history": [_attempt_json(entry) for entry in status.history],
        "progress": progress_json(status.progress),
        "death": death_json(status.death),
    }
    for name in _MOMENTS:
        told[name] = _iso(told[name])
    if told["worker"] is not None:
        told["worker"]["started_at"] = _iso(told["worker"]["started_at"])
    del told["queue_name"]
    named = {"task_id": status.task_id, "queue": status.queue_name, **told}
    return {name: None if value == "" else value for name, value in named.items()}


def status_text(status: Status) -> str:
    """Return what is known of a task, a line each."""
    fields = {
        "id": status.task_id,
        "queue": status.queue_name,
        "state": status.state,
        "why": why(status),
        "callable": status.callable,
        "signed": SIGNATURES[status.signature],
        "attempt": _attempt_text(status),
        "priority": str(status.priority or ""),
        "expires": _expires_text(status),
        "progress": progress_text(status.progress, status.at) if status.progress else "",
        "result": _result_text(status),
        "error": "" if status.state == "succeeded" else status.error,
    }
    lines = [f"{name:8}  {printable(value)}" for name, value in fields.items() if value]
    if status.death:
        lines += death_lines(status.death, status.at)
    for entry in status.history:
        error = " ".join(str(entry.get("error", "")).split())
        lines.append(printable(f"before    attempt {entry.get('attempt', '?')} failed: {error}"))
    return "\n".join(lines)


def _attempt_text(status: Status) -> str:
    if not status.retries:
        return str(status.attempt) if status.attempt > 1 else ""
    return f"{status.attempt}; {status.retries:,} more may follow"


def _expires_text(status: Status) -> str:
    return "" if status.expires_at is None else when(status.expires_at, status.at)


def _result_text(status: Status) -> str:
    if status.state != "succeeded":
        return ""
    if status.kept_until is None:
        return f"not kept. {status.error}".strip()
    was = "" if status.kept_until > status.at else "was "
    return f"{was}kept until {when(status.kept_until, status.at)}"


def _task_json(queue_name: str, task_id: str) -> dict[str, str]:
    return {"task_id": task_id, "queue": queue_name}


def _limit_json(limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    kind = "rate" if isinstance(limit, Rate) else "concurrency"
    return {"kind": kind, "key": limit.key, "n": limit.n, "per": getattr(limit, "per", None)}


def _attempt_json(entry: Mapping[str, Any]) -> dict[str, Any]:
    attempt, at = number(entry.get("attempt")), number(entry.get("at"))
    return {"attempt": attempt, "error": str(entry.get("error", "")), "at": _iso(at)}


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)
