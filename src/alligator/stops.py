"""What is to end although it runs: who asked, and why; so that whoever takes the task next knows, too.

A stop names the hand-out that it is meant for, by its token, and not only the task: what was asked of a task
must not meet a later one of the same id.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alligator import keys, limits, payloads, results
from alligator.backends.base import Backend, Records, Release, Reservation, reserved_at
from alligator.exceptions import BackendRefused, BackendUnavailable

log = logging.getLogger("alligator.task")

CANCELED, TIMEOUT = "canceled", "timeout"

ASKED_FOR = 300.0
"""Seconds beyond the lease for which a task is asked to end: enough for whoever runs it to see that, or for the
next one to take it. If it ends in that moment, nobody looks any more, and this is how long it stays."""
KEPT_FOR = 86400.0
"""Seconds for which a task is asked to end that does not, once its worker has seen it."""
_FORGOTTEN = b"{}"


@dataclass(frozen=True, slots=True)
class Stop:
    """That a task which a hand-out holds, or held, is to end."""

    token: str
    reason: str


def ask(
    backend: Backend,
    queue_name: str,
    task_id: str,
    token: str,
    reason: str,
    ttl: float = KEPT_FOR,
) -> None:
    """Ask for the end of a task that a hand-out holds. A store without records is not asked.

    One that was canceled stays so: it is not to be tried again because it also ran for too long.
    """
    if backend.records is None:
        return
    key = key_of(queue_name, task_id)
    new = payloads.encode({"token": token, "reason": reason, "at": backend.now()}).encode()
    while True:
        old = backend.records.get(key)
        if old is None or read(old) != Stop(token, CANCELED):
            if backend.records.swap(key, old, new, ttl):
                return
        elif reason == CANCELED or backend.records.swap(key, old, old, ttl):
            return


def asked(backend: Backend, queue_name: str, task_id: str) -> Stop | None:
    """Return what was asked of a task, perhaps under a hand-out that is over; None: nothing."""
    if backend.records is None:
        return None
    return read(backend.records.get(key_of(queue_name, task_id)))


def found(
    backend: Backend, held: Reservation, history: Sequence[dict[str, Any]] = ()
) -> Stop | None:
    """Return what was asked of a task under an earlier hand-out, and is still to be done; None: nothing.

    Args:
        backend: The store.
        held: The present hand-out.
        history: What went before, with the token of each attempt that came to an end.
    """
    return left_of(asked(backend, held.queue_name, held.task_id), history)


def left_of(stop: Stop | None, history: Sequence[dict[str, Any]]) -> Stop | None:
    """Return what was asked of a task if that is still to be done, after what went before; None: it is not."""
    last = history[-1].get("token") if history else None
    if stop is None or not isinstance(last, str):
        return stop
    if stop.token == last:
        # That attempt failed by itself; it was not to be followed by another one.
        return stop if stop.reason == CANCELED else None
    return stop if (moment_of(stop.token) or 0.0) > (moment_of(last) or 0.0) else None


def forget(backend: Backend, queue_name: str, task_id: str, token: str) -> None:
    """Forget what was asked of a task under that hand-out: it is over, or has been given another attempt."""
    if backend.records is None:
        return
    key = key_of(queue_name, task_id)
    value = backend.records.get(key)
    stop = read(value)
    if stop is not None and stop.token == token:
        # In one step, for the next hand-out may be asked to end meanwhile; what is written is gone in a second.
        backend.records.swap(key, value, _FORGOTTEN, 1.0)


def keep(backend: Backend, queue_name: str, task_id: str, stop: Stop) -> bool:
    """Let what is asked of a task stay for as long as it may take; return whether it is still asked."""
    if backend.records is None:
        return False
    key = key_of(queue_name, task_id)
    value = backend.records.get(key)
    if value is None or read(value) != stop:
        return False
    return backend.records.swap(key, value, value, KEPT_FOR)


def listed(backend: Backend) -> dict[tuple[str, str], Stop]:
    """Return all that is asked for, by queue and id of the task."""
    return read_all(values_in(backend))


def values_in(backend: Backend) -> dict[str, bytes]:
    """Return all records of what is asked for, by their keys."""
    return {} if backend.records is None else backend.records.list(keys.STOPS)


def read_all(values: Mapping[str, bytes]) -> dict[tuple[str, str], Stop]:
    """Return all that is asked for by some records, by queue and id of the task."""
    stops = {keys.of_ref(key.partition("/")[2]): read(value) for key, value in values.items()}
    return {name: stop for name, stop in stops.items() if stop is not None}


@dataclass(frozen=True, slots=True)
class Canceling:
    """What came of canceling a task."""

    body: bytes
    runs: bool
    """It runs, and was asked to end; else it was taken out of its queue."""


def cancel(
    backend: Backend, kept_in: Records | None, queue_name: str, task_id: str
) -> Canceling | None:
    """Take a task out of its queue, or ask for its end if it runs; None when it is neither queued nor runs.

    Args:
        backend: The store.
        kept_in: Where it is noted that it was canceled; None: nowhere.
        queue_name: The task's queue.
        task_id: The task.
    """
    while True:
        body = backend.cancel(queue_name, task_id)
        if body is not None:
            _note(backend, kept_in, queue_name, task_id, body)
            _forget_limit(backend, queue_name, task_id, body)
            return Canceling(body, runs=False)
        if not backend.can_find or backend.records is None:
            return None
        task = backend.find(queue_name, task_id)
        if task is None:
            return None
        if not task.token:  # given back this moment
            continue
        ttl = max(0.0, task.lapses_at - backend.now()) + ASKED_FOR
        ask(backend, queue_name, task_id, task.token, CANCELED, ttl)
        # Whoever gives a task back looks for this afterwards (heed). So either they see it, or we see now that
        # the task is no longer theirs.
        now = backend.find(queue_name, task_id)
        if now is not None and now.token == task.token:
            return Canceling(task.body, runs=True)
        forget(backend, queue_name, task_id, task.token)


def canceled(backend: Backend, held: Sequence[Reservation]) -> list[Reservation]:
    """Return those of some hand-outs that were asked to end, for their tasks were canceled."""
    if not held or backend.records is None:
        return []
    asked = listed(backend)
    return [
        one for one in held if asked.get((one.queue_name, one.task_id)) == Stop(one.token, CANCELED)
    ]


def left(backend: Backend, held: Sequence[Reservation]) -> list[Reservation]:
    """Return those whose tasks were asked to end under an earlier hand-out: they are only to be settled."""
    if not held or backend.records is None:
        return []
    return [one for one in held if found(backend, one, _history_in(one.body))]


def warned(backend: Backend, releases: Sequence[Release]) -> list[Release]:
    """Return releases under which nobody starts those of some tasks that were canceled while they were held.

    They count a delivery: so whoever takes such a task first looks what was asked of it (``found``). For one
    that is canceled between this and the release, ``heed`` is to follow.
    """
    found = canceled(backend, [release.reservation for release in releases])
    return [replace(one, lapsed=one.lapsed or one.reservation in found) for one in releases]


def heed(backend: Backend, kept_in: Records | None, released: Sequence[Reservation]) -> None:
    """Cancel those of some tasks, just given back with nothing come of them, that were asked to end before."""
    for held in canceled(backend, released):
        task = backend.find(held.queue_name, held.task_id)
        if task is not None and not task.token:
            # Before it is taken out: who is killed right after that tells of it no more.
            _note(backend, kept_in, held.queue_name, held.task_id, task.body)
        cancel(backend, kept_in, held.queue_name, held.task_id)
        forget(backend, held.queue_name, held.task_id, held.token)


def _note(
    backend: Backend, kept_in: Records | None, queue_name: str, task_id: str, body: bytes
) -> None:
    """Note that a task was canceled that did not run; what it had come to before is of no use any more."""
    if (place := backend.records or kept_in) is not None:
        ref = keys.ref(queue_name, task_id)
        place.delete(f"{keys.PROGRESS}/{ref}", f"{keys.DEATHS}/{ref}")
    keep_for, now = results.kept_for(body) or 0.0, backend.now()
    # In the queue's own store too, where those look that depend on it.
    for records in results.distinct(kept_in, backend.records):
        results.keep_canceled(records, queue_name, task_id, keep_for, now)


def _forget_limit(backend: Backend, queue_name: str, task_id: str, body: bytes) -> None:
    """Let another one have the place that may have been kept for a task that is canceled."""
    if backend.records is None or (limit := limits.limit_in(body)) is None:
        return
    try:
        limits.forget(backend, queue_name, task_id, limit)
    except (BackendUnavailable, BackendRefused) as err:
        # Canceled it is all the same. Those who look after the line will notice.
        log.warning("Task %r is canceled, and may keep its place in a line: %s", task_id, err)


def _history_in(body: bytes) -> list[dict[str, Any]]:
    told: Any = (payloads.options_in(body) or {}).get("history") or ()
    try:
        return [entry for entry in told if hasattr(entry, "get")]
    except TypeError:
        return []


def key_of(queue_name: str, task_id: str) -> str:
    """Return the key under which it is kept that a task is to end."""
    return f"{keys.STOPS}/{keys.ref(queue_name, task_id)}"


def read(value: bytes | None) -> Stop | None:
    """Return what a record tells; None if that is nothing, or nothing that we know."""
    told = payloads.object_in(value or _FORGOTTEN)
    token, reason = told.get("token"), told.get("reason")
    if not isinstance(token, str) or not isinstance(reason, str):
        return None
    return Stop(token, reason) if moment_of(token) is not None else None


def moment_of(token: str) -> float | None:
    """Return when a hand-out was made, by its token; None: that is none, for anybody may have written it."""
    try:
        return reserved_at(token)
    except ValueError:
        return None
