"""What a dead letter tells of the failure, as JSON: its note, written and read."""

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

from alligator import payloads
from alligator.deaths import Death

MAX_TRACEBACK = 32_768
"""Characters of a traceback that a note keeps: its end, where the error is."""
MAX_ERROR = 1000
"""Characters of an error that the next attempts are told."""
MAX_LINE = 1000
"""Characters of an error in one line."""

OUR_OWN = "alligator.exceptions.TaskFailed"
"""The type of the errors that no task raised: it says nothing beside their text."""


def describe(err: BaseException) -> str:
    """Return an error's type and text, in few words."""
    return _told(lambda: traceback.format_exception_only(err), err).strip()[:MAX_ERROR]


def write(
    reason: str,
    err: BaseException,
    death: Death | None = None,
    progress: dict[str, Any] | None = None,
) -> str:
    """Return the note of a failure: no local variables, for they may hold secrets.

    Args:
        reason: In one word.
        err: What it failed with.
        death: How the process ended that ran it, if one has.
        progress: How far it was then, if it said so.
    """
    besides = {"death": death._asdict()} if death else {}
    if progress:
        besides["progress"] = progress
    return payloads.encode(
        {
            "reason": reason,
            "type": _type_of(err),
            "message": _message_of(err)[:MAX_TRACEBACK],
            "error": _told(lambda: traceback.format_exception_only(err), err).strip()[
                -MAX_TRACEBACK:
            ],
            "traceback": _told(
                lambda: traceback.format_exception(type(err), err, _below_us(err.__traceback__)),
                err,
            )[-MAX_TRACEBACK:],
            **besides,
        }
    )


def read(note: str) -> dict[str, Any]:
    """Read a dead letter's note; one that is not ours is its error."""
    return payloads.object_in(note) or {"error": note}


def death_in(told: dict[str, Any]) -> Death | None:
    """Return how the process ended that ran a task, as its note tells; None: it tells nothing of that."""
    return Death.read(_object(told, "death"))


def progress_in(told: dict[str, Any]) -> dict[str, Any]:
    """Return how far a task was when its process ended, as its note tells; empty: it tells nothing of that."""
    return _object(told, "progress")


def _object(told: dict[str, Any], name: str) -> dict[str, Any]:
    found = told.get(name)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def error_line(told: dict[str, Any]) -> str:
    """Return in one line what the note of a dead letter tells."""
    kind, message = str(told.get("type", "")), str(told.get("message", ""))
    if not kind:
        line = str(told.get("error", ""))
    elif kind == OUR_OWN or not message:
        line = message or kind
    else:
        line = f"{kind}: {message}"
    return " ".join(line.split())[:MAX_LINE]


def _told(lines: Callable[[], list[str]], err: BaseException) -> str:
    """Return what an error says of itself; if not even that can be had, its type."""
    try:
        return "".join(lines())
    except BaseException:  # of a user's class
        return f"{_type_of(err)}, which cannot be told\n"


def _type_of(err: BaseException) -> str:
    """Return the name of an error's type as a traceback has it."""
    module, name = type(err).__module__, type(err).__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _message_of(err: BaseException) -> str:
    try:
        return str(err)
    except BaseException:  # of a user's class
        return ""


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of Alligator at the top: they say nothing about the task."""
    last = trace
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        "alligator."
    ):
        last, trace = trace, trace.tb_next
    return trace or last
