"""The commands that tell of one task: all that is known of it, and why it does not run."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from alligator.gator import Gator
from alligator.statuses import Progress, Status, status_of, why
from alligator.tables import ago, printable


def tell_why(gator: Gator, options: argparse.Namespace, queue_names: Sequence[str]) -> int:
    """Say in one sentence why a task does not run, or what became of it."""
    status = _found(gator, options.id, queue_names)
    if options.json:
        print(json.dumps({**status_json(status), "why": why(status)}, indent=2))
    else:
        print(printable(why(status)))
    return _exit_status(status)


def show(gator: Gator, options: argparse.Namespace, queue_names: Sequence[str]) -> int:
    """Tell all that is known of a task."""
    status = _found(gator, options.id, queue_names)
    if options.json:
        print(json.dumps(status_json(status), indent=2))
    else:
        print(status_text(status, time.time()))
    return _exit_status(status)


def status_json(status: Status) -> dict[str, Any]:
    """Return what is known of a task; moments as ISO 8601."""
    told = asdict(status)
    for name in ("due_at", "since", "lease_until", "ended_at", "at"):
        if told[name] is not None:
            told[name] = _moment(told[name]).isoformat(timespec="milliseconds")
    told["blocked_by"] = [{"queue": queue, "task_id": id} for queue, id in status.blocked_by]
    told["held_by"] = [{"queue": queue, "task_id": id} for queue, id in status.held_by]
    return {name: value for name, value in told.items() if value not in (None, "", [], ())}


def status_text(status: Status, now: float) -> str:
    """Return what is known of a task, a line each."""
    fields = {
        "id": status.task_id,
        "queue": status.queue_name,
        "state": status.state,
        "why": why(status),
        "callable": status.callable,
        "attempt": str(status.attempt) if status.attempt > 1 else "",
        "progress": _progress_text(status.progress, now) if status.progress else "",
        "history": f"{len(status.history)} failed before" if status.history else "",
    }
    lines = [f"{name:8}  {printable(value)}" for name, value in fields.items() if value]
    for entry in status.history:
        error = " ".join(str(entry.get("error", "")).split())
        lines.append(printable(f"          attempt {entry.get('attempt', '?')}: {error}"))
    return "\n".join(lines)


def _progress_text(progress: Progress, now: float) -> str:
    of = ""
    if progress.total:
        of = f" of {progress.total:,g} ({math.floor(100 * progress.done / progress.total)} %)"
    note = f", {progress.note}" if progress.note else ""
    return f"{progress.done:,g}{of}{note}; said {ago(now - progress.at)}"


def _found(gator: Gator, task_id: str, queue_names: Sequence[str]) -> Status:
    """Return the status of a task in the first queue that knows it."""
    statuses = [
        status_of(gator.backend, gator.results, queue_name, task_id) for queue_name in queue_names
    ]
    known = [status for status in statuses if status.state != "unknown"]
    return (known or statuses)[0]


def _exit_status(status: Status) -> int:
    return 1 if status.state == "unknown" else 0


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
