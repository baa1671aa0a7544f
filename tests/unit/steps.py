"""Steps that many tests take."""

import json
from pathlib import Path
from typing import Any

import pytest

from alligator import ALL, Gator, Task
from alligator.backends.base import DeadLetter


def popped(gator: Gator) -> Task:
    """Run the first task; there must be one."""
    task = gator.pop()
    assert task is not None, "no task was ready"
    return task


def dead_letter(gator: Gator) -> DeadLetter:
    """Return the only dead letter."""
    [letter] = gator.backend.dead(ALL)
    return letter


def note_of(gator: Gator) -> dict[str, Any]:
    """Return what the only dead letter tells."""
    note: dict[str, Any] = json.loads(dead_letter(gator).note)
    return note


def payload_of(task: Task) -> dict[str, Any]:
    """Return the payload of a task, read as any JSON."""
    payload: dict[str, Any] = json.loads(task.serialize())
    return payload


def import_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules in a folder be imported, those too that have just been written."""
    # pytest does not say what it takes.
    monkeypatch.syspath_prepend(folder)  # pyright: ignore[reportUnknownMemberType]
