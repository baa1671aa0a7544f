"""What a task returned, kept for those who wait for it; and how it ended, for a day longer."""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

from alligator import keys, notes, payloads
from alligator.backends.base import Records
from alligator.exceptions import AGES, InvalidArguments, TaskFailed

log = logging.getLogger("alligator.task")

SUCCESS, FAILED, CANCELED = "success", "failed", "canceled"
REMEMBERED = 86400.0
"""Seconds that an outcome outlives its result: who comes too late is told so, not that there was no task."""
MAX_RESULT = 64 * 2**20
"""Bytes of a result as JSON: more belongs elsewhere, and the stores have limits of their own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. Moments are of the queue's store."""

    state: str
    """SUCCESS, FAILED or CANCELED."""
    at: float
    """When."""
    reason: str = ""
    """Of a failure: as in ``TaskFailed.reason``."""
    error: str = ""
    """Of a failure: what it was, in one line. Of a success: why its result could not be kept; empty: it was."""
    kept_until: float = 0.0
    """Until when its result is kept; no later than ``at``: not at all."""
    token: str = ""
    """Which hand-out ended so; empty: none did."""
    push: str = ""
    """Which push of its id it was, if that was told: as in ``Task.push``."""


def outcome_of(records: Records, queue_name: str, task_id: str) -> Outcome | None:
    """Return how a task ended, the last time; None when that is not known, or not any more."""
    value = records.get(outcome_key(queue_name, task_id))
    return None if value is None else read_outcome(value)


def distinct(*places: Records | None) -> list[Records]:
    """Return those of some records that there are, each once."""
    return list({id(one): one for one in places if one is not None}.values())


def last_outcome(places: Iterable[Records | None], queue_name: str, task_id: str) -> Outcome | None:
    """Return how a task ended, the last time that any of some places knows of."""
    found = [outcome_of(records, queue_name, task_id) for records in distinct(*places)]
    return max(filter(None, found), key=lambda outcome: outcome.at, default=None)


def note_outcome(
    records: Records,
    queue_name: str,
    task_id: str,
    outcome: Outcome,
    result: bytes | None = None,
) -> None:
    """Note how a task ended, for a day longer than its result is kept; and the result, if there is one."""
    keep_for = max(0.0, outcome.kept_until - outcome.at)
    written = {outcome_key(queue_name, task_id): payloads.encode(asdict(outcome)).encode()}
    ttls = {outcome_key(queue_name, task_id): keep_for + REMEMBERED}
    if result is not None:
        # The outcome last: it is what is waited for. A crash in between leaves a result that nobody asks for;
        # the task's lease brings it back, and it ends anew.
        written = {result_key(queue_name, task_id): result, **written}
        ttls[result_key(queue_name, task_id)] = keep_for
    records.set_many(written, ttls)


def keep_success(
    records: Records,
    queue_name: str,
    task_id: str,
    result: Any,
    keep_for: float,
    at: float | None = None,
    token: str = "",
    push: str = "",
) -> None:
    """Keep what a task returned, and that it succeeded: also where JSON cannot carry what it returned.

    Args:
        records: Where to.
        queue_name: The task's queue.
        task_id: The task.
        result: What it returned.
        keep_for: Seconds to keep that.
        at: When it ended, by the clock of the queue's store; by default now, by ours.
        token: The hand-out that ended so.
        push: Which push of its id it was, if that was told.
    """
    kept, why_not = _encoded(result)
    if why_not:
        log.warning("Task %r has succeeded; its result is not kept: %s", task_id, why_not)
    moment = _moment(at)
    outcome = Outcome(SUCCESS, moment, "", why_not, moment + keep_for, token, push)
    note_outcome(records, queue_name, task_id, outcome, kept)


def keep_failure(
    records: Records,
    queue_name: str,
    task_id: str,
    note: str,
    keep_for: float,
    at: float | None = None,
    token: str = "",
    push: str = "",
) -> None:
    """Keep why a task failed for good: the note of its dead letter. For the rest, see ``keep_success``."""
    told = notes.read(note)
    kept = payloads.encode({"failure": told}).encode()
    reason, line = str(told.get("reason", "")), notes.error_line(told)
    moment = _moment(at)
    outcome = Outcome(FAILED, moment, reason, line, moment + keep_for, token, push)
    note_outcome(records, queue_name, task_id, outcome, kept)


def keep_canceled(
    records: Records,
    queue_name: str,
    task_id: str,
    keep_for: float,
    at: float | None = None,
    token: str = "",
) -> None:
    """Keep that a task was canceled. For the rest, see ``keep_success``."""
    moment = _moment(at)
    outcome = Outcome(CANCELED, moment, kept_until=moment + keep_for, token=token)
    note_outcome(records, queue_name, task_id, outcome)


def kept_for(body: bytes) -> float | None:
    """Return how long a queued task's result is to be kept, by its payload; None: it does not tell."""
    told: Any = (payloads.options_in(body) or {}).get("keep_result")
    is_number = isinstance(told, float | int) and not isinstance(told, bool)
    return told if is_number and 0 < told < AGES else None


def outcome_key(queue_name: str, task_id: str) -> str:
    """Return the key of how a task ended."""
    return f"{keys.OUTCOMES}/{keys.ref(queue_name, task_id)}"


def result_key(queue_name: str, task_id: str) -> str:
    """Return the key of what a task returned, or failed with."""
    return f"{keys.RESULTS}/{keys.ref(queue_name, task_id)}"


def read_outcome(value: bytes) -> Outcome | None:
    """Read an outcome's record; None if there is no sense in it."""
    told = payloads.object_in(value)
    at = payloads.number(told.get("at"))
    if "state" not in told or at is None:
        return None
    return Outcome(
        state=str(told["state"]),
        at=at,
        reason=str(told.get("reason", "")),
        error=str(told.get("error", "")),
        kept_until=payloads.number(told.get("kept_until")) or 0.0,
        token=str(told.get("token", "")),
        push=str(told.get("push", "")),
    )


def read_result(value: bytes, task_id: str) -> Any:
    """Return what a task returned.

    Raises:
        TaskFailed: It failed.
        LookupError: There is no sense in the record.
    """
    kept = payloads.object_in(value)
    if "failure" in kept:
        told: Any = kept["failure"]
        raise failure_of(task_id, cast(dict[str, Any], told) if isinstance(told, dict) else {})
    return kept["result"]


def failure_of(task_id: str, told: dict[str, Any]) -> TaskFailed:
    """Return the error for who waits for a task that failed.

    Args:
        task_id: The task.
        told: What the note of its dead letter tells.
    """
    error = str(told.get("error", ""))
    kind, _, message = error.partition(": ")  # as notes of the version before have it, in one
    return TaskFailed(
        f"Task {task_id!r} has failed: {notes.error_line(told)}",
        error_type=str(told.get("type", kind)),
        error_message=str(told.get("message", message)),
        traceback=str(told.get("traceback", "")),
        reason=str(told.get("reason", "")),
    )


def _moment(at: float | None) -> float:
    return time.time() if at is None else at


def _encoded(result: Any) -> tuple[bytes | None, str]:
    """Return the record of a result; or None, and why there is none."""
    try:
        payloads.check_carriable(result, "What it returned")
        kept = payloads.encode({"result": result}).encode()
    except InvalidArguments as err:
        return None, str(err)
    except Exception as err:  # of a subclass of dict, say, whose methods are the user's
        return (
            None,
            f"What it returned cannot be turned into JSON: a {type(err).__name__} came of it.",
        )
    if len(kept) > MAX_RESULT:
        return None, (
            f"What it returned takes {len(kept):,} bytes, and {MAX_RESULT:,} are kept. "
            "Return where it is stored."
        )
    return kept, ""
