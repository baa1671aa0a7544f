"""One attempt at a reserved task: from its bytes to what shall become of it."""

import logging
import os
import traceback
from dataclasses import dataclass
from types import TracebackType

from alligator import payloads, retries
from alligator.backends.base import Ack, Backend, Bury, Release, Reservation, Settlement, as_bytes
from alligator.exceptions import TaskFailed
from alligator.tasks import Abandoned, Task

log = logging.getLogger("alligator.task")

VOID = "Task %r went to another worker while it ran here: what came of it here is void"
"""Logged by whoever settles an attempt too late."""

MAX_TRACEBACK = 32_768
"""Characters of a traceback that a dead letter keeps: its end, where the error is."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it. ``task`` is None where the payload could not be read."""

    settlement: Settlement
    task: Task | None = None
    error: BaseException | None = None


def attempt(
    reservation: Reservation,
    task_class: type[Task],
    *,
    max_deliveries: int = retries.MAX_DELIVERIES,
    code_wait: float = 10.0,
) -> Attempt:
    """Run a reserved task once, and decide how to settle it. Only the task's own code is called.

    Args:
        reservation: What to run.
        task_class: What reads it.
        max_deliveries: How often it may be handed out with no outcome.
        code_wait: Seconds before the first look again for code that is missing; doubling.
    """
    task_id, deliveries = reservation.task_id, reservation.deliveries
    if retries.is_poison(deliveries, max_deliveries):
        error = TaskFailed(
            f"Handed out {deliveries - 1} times, and no worker lived to tell the outcome"
        )
        log.error("Task %r is buried as poison: %s", task_id, error)
        return Attempt(Bury(reservation, note("poison", error)), error=error)
    try:
        task = task_class.deserialize(reservation.body)
    except Abandoned:
        raise
    except BaseException as err:
        return _unreadable(reservation, err, max_deliveries, code_wait)
    pid = os.getpid()
    try:
        task.run()
    except Abandoned:
        raise
    except BaseException as err:
        _end_copy(pid, 1)
        return _failed(reservation, task, err)
    _end_copy(pid, 0)
    return Attempt(Ack(reservation), task)


def _end_copy(pid: int, status: int) -> None:
    """End here if the task has forked, and this is the copy: it must not go on as a second worker."""
    if os.getpid() != pid:
        os._exit(status)


def take_retry(task: Task) -> bool:
    """Take one of a failed task's retries, and return whether there was one left."""
    if task.retries <= 0:
        task.to_failed()
        return False
    task.retries -= 1
    task.to_retrying()
    return True


def deliveries_of(backend: Backend) -> int:
    """Return the ``max_deliveries`` for a store: one without leases cannot count, and must not loop."""
    return retries.MAX_DELIVERIES if backend.can_lease else 1


def _failed(reservation: Reservation, task: Task, err: BaseException) -> Attempt:
    try:
        again = task.serialize() if take_retry(task) else None
    except Exception as unserializable:
        # A hook has put something into the task that cannot be queued.
        log.error("Task %r cannot be tried again: %s", reservation.task_id, unserializable)
        task.to_failed()
        again = None
    if again is not None:
        log.warning("Task %r failed, to be tried again: %r", reservation.task_id, err)
        return Attempt(Release(reservation, body=as_bytes(again)), task, err)
    log.error("Task %r failed", reservation.task_id, exc_info=err)
    return Attempt(Bury(reservation, note("failed", err)), task, err)


def _unreadable(
    reservation: Reservation, err: BaseException, max_deliveries: int, code_wait: float
) -> Attempt:
    wait = retries.wait_for_code(reservation.deliveries, base=code_wait, limit=max_deliveries)
    if wait is None:
        log.error("Task %r cannot be read or imported: buried", reservation.task_id, exc_info=err)
        return Attempt(Bury(reservation, note("unreadable", err)), error=err)
    log.warning(
        "Task %r cannot be read or imported, next try in %s s: %s", reservation.task_id, wait, err
    )
    return Attempt(Release(reservation, delay=wait, lapsed=True), error=err)


def note(reason: str, err: BaseException) -> str:
    """Return what a dead letter tells, as JSON: no local variables, for they may hold secrets."""
    return payloads.encode(
        {
            "reason": reason,
            "error": "".join(traceback.format_exception_only(err)).strip()[-MAX_TRACEBACK:],
            "traceback": "".join(
                traceback.format_exception(type(err), err, _below_us(err.__traceback__))
            )[-MAX_TRACEBACK:],
        }
    )


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of Alligator at the top: they say nothing about the task."""
    last = trace
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        "alligator."
    ):
        last, trace = trace, trace.tb_next
    return trace or last
