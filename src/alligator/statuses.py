"""What is known of a task, wherever it is: where it waits, and for what; who runs it; how it ended."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from alligator import deaths, keys, limits, notes, registry, results, stops
from alligator.backends.abilities import refusal
from alligator.backends.base import (
    NEVER,
    Backend,
    DeadLetter,
    Found,
    Records,
    Reservation,
    worker_of,
)
from alligator.deaths import Death
from alligator.dependencies import called
from alligator.dependencies.edges import Edge, Name, edges_in, need, needs_of
from alligator.exceptions import InvalidOption
from alligator.limits import Limit
from alligator.payloads import Refused, mark_of, number, object_in
from alligator.peeks import Peek
from alligator.stops import Stop

MANY = 100
"""Tasks to name as reasons, at the most."""
AT_ONCE = 500
"""Needs to read in one round trip."""
LOOKS = 10
"""How often to look for a task that is on the move."""
PAUSE = 0.01
"""Seconds between two looks for one that has just gone: what became of it is noted a moment later."""
GAP = 1.0
"""Seconds that a failure may be noted before its dead letter is there, by a clock that is a little ahead."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task is, as it said itself."""

    done: float
    total: float | None
    note: str
    at: float
    """When it said so, by its worker's clock."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a task. What does not apply to its state is None, or empty. Moments are timestamps."""

    task_id: str
    queue_name: str
    state: str
    """One of "waiting", "delayed", "retrying", "blocked", "limited", "running", "succeeded", "failed",
    "canceled" and "unknown": never queued, or done and forgotten."""
    callable: str = ""
    """What it calls, such as "myapp.tasks.send"; empty if that is not known."""
    attempt: int = 1
    """Which attempt runs, or comes next; of one that failed, which was the last."""
    retries: int | None = None
    """How many more may follow that one."""
    priority: int = 0
    deliveries: int = 0
    """How often this attempt was handed out, the present time included."""
    position: int | None = None
    """When it waits: how many come before it, if the store can tell."""
    due_at: float | None = None
    """When it may start: of one that is delayed or retrying, and, if known, of one that is blocked or limited.
    Of one that waits: since when it is due, if no worker has looked since."""
    expires_at: float | None = None
    """When it fails if it was not started before."""
    blocked_by: tuple[tuple[str, str], ...] = ()
    """When it is blocked: the queues and ids of tasks that it waits for (a hundred of them at most)."""
    limit: Limit | None = None
    """When it is limited: the limit that is reached."""
    held_by: tuple[tuple[str, str], ...] = ()
    """When it is limited by a Concurrency: the queues and ids of tasks that have the places (some, of many)."""
    since: float | None = None
    """When it runs: since when its worker has it."""
    lease_until: float | None = None
    """When it runs: until when its worker has it, unless that is extended; past: the next one takes it."""
    worker: registry.Presence | None = None
    """When it runs: in which process of which host, if that one is registered as a worker and alive."""
    stop_asked: str = ""
    """When it is to end though it runs, or as soon as it is taken: "canceled" or "timeout"."""
    progress: Progress | None = None
    """When it is queued, or its process died: how far it is."""
    death: Death | None = None
    """How the process ended that had it last, if one did, and a parent saw that."""
    ended_at: float | None = None
    """When it ended, the last time that is known of: a success without ``keep_result`` leaves no trace."""
    reason: str = ""
    """When it failed: "failed", "poison", "unreadable", "refused", "expired", "timeout" or "dependency"."""
    error: str = ""
    """When it failed, or is about to: with what. When it succeeded: why its result could not be kept."""
    kept_until: float | None = None
    """When it succeeded: until when its result is kept, if it is."""
    history: tuple[dict[str, Any], ...] = ()
    """Of the last attempts before this one, each: its "attempt", its "error", and "at" which moment."""
    consumers: int | None = None
    """How many workers that are alive take from this queue, if the store knows."""
    signature: str = ""
    """Of what is queued or dead: "fits"; "refused", no key fits; "unchecked", there are no keys here. Empty: it
    is not signed, and need not be."""
    at: float = 0.0
    """When all this was so, by the store's clock."""


def status_of(
    store: object, backend: Backend, kept_in: Records | None, queue_name: str, task_id: str
) -> Status:
    """Return what is known of a task.

    Args:
        store: The store, as the user knows it.
        backend: Its client.
        kept_in: Where results are kept, and how tasks ended.
        queue_name: The task's queue.
        task_id: The task.

    Raises:
        InvalidOption: The store knows no single tasks, and how this one ended is not known.
    """
    name = queue_name, task_id
    if not backend.can_find:
        return _without_find(store, backend, kept_in, name)
    # Between two reads it may move: from its queue to the dead letters, and be nowhere; or from there to the
    # queue, and seem to have failed. So what was read counts if it is where it was before.
    seen_at: float | None = None
    status = Status(task_id, queue_name, "unknown")
    for look in range(LOOKS):
        found = backend.find(*name)
        if found is not None:
            status = _queued(backend, kept_in, name, found)
            if not found.due_at or _is_delayed_still(backend, name, found):
                break
            seen_at = status.at
            continue
        status = _ended(backend, kept_in, name)
        if seen_at is None:
            is_told = status.state != "unknown" or look > 0
        else:
            is_told = status.ended_at is not None and status.ended_at > seen_at - GAP
        if is_told and backend.find(*name) is None:
            break
        if seen_at is not None:
            time.sleep(PAUSE)  # whoever ends it tells of that in a moment: nothing rings then
    return status


def _is_delayed_still(backend: Backend, name: Name, found: Found) -> bool:
    again = backend.find(*name)
    return again is not None and again.due_at == found.due_at


def _without_find(store: object, backend: Backend, kept_in: Records | None, name: Name) -> Status:
    status = _ended(backend, kept_in, name)
    if status.state == "unknown":
        raise InvalidOption(refusal(store, "status()"))
    return status


# While it is queued:


def _queued(backend: Backend, kept_in: Records | None, name: Name, found: Found) -> Status:
    task = Peek.into(found.body)
    status = _of_task(name, task, backend.now())
    if found.token:
        # That it is over is noted before it is settled. If it never is, it will be run again.
        outcome = _outcome(backend, kept_in, name)
        if outcome and outcome.token == found.token and found.lapses_at > status.at:
            return _with_outcome(status, outcome)
    workers = registry.present(backend)
    consumers = sum(name[0] in one.queues for one in workers)
    status = replace(
        status,
        priority=found.priority,
        deliveries=found.deliveries,
        stop_asked=_stop_asked(backend, name, found, status),
        progress=_progress(backend, name, found, task),
        death=_death(backend, kept_in, name, found, task),
        consumers=None if backend.records is None else consumers,
    )
    if found.token:
        return replace(
            status,
            state="running",
            since=stops.moment_of(found.token),
            lease_until=found.lapses_at,
            worker=next((one for one in workers if one.worker == worker_of(found.token)), None),
        )
    return _waiting(backend, name, found, task, status)


def _waiting(backend: Backend, name: Name, found: Found, task: Peek, status: Status) -> Status:
    """Return what a task waits for that nobody holds."""
    if isinstance(found.body, Refused):
        return replace(status, state="waiting", position=found.position, error=found.body.why)
    needs = _needs(backend, name, task)
    failed = next((on for on, edge in needs.items() if edge.failed), None)
    if failed is not None:
        error = f"It depends on {called(failed, name[0])}, {needs[failed].failed}"
        return replace(status, state="waiting", position=found.position, error=error)
    if needs:
        due_at = max(edge.due_at for edge in needs.values())
        return replace(
            status,
            state="blocked",
            blocked_by=tuple(needs),
            due_at=due_at if due_at > status.at else None,
        )
    if not found.due_at:
        return replace(status, state="waiting", position=found.position)
    if task.limit is not None and backend.records is not None:
        standing = limits.standing(backend, *name, found.due_at, task.limit)
        if standing is not None:
            return replace(
                status,
                state="limited",
                limit=task.limit,
                held_by=standing.holders,
                due_at=standing.due_at,
            )
    if found.due_at <= status.at:
        return replace(status, state="waiting", due_at=found.due_at)
    state = "retrying" if status.attempt > 1 else "delayed"
    return replace(status, state=state, due_at=None if found.due_at == NEVER else found.due_at)


def _needs(backend: Backend, name: Name, task: Peek) -> dict[Name, Edge]:
    """Return what a task still needs to succeed, or some of that."""
    if backend.records is None:
        return {}
    if not task.is_readable:
        return edges_in(backend, needs_of(name), MANY)
    # Not all that is noted for its id: another one before it may have left something.
    names = iter(task.depends_on)
    needs: dict[Name, Edge] = {}
    while len(needs) < MANY and (some := list(islice(names, AT_ONCE))):
        known = backend.records.get_many([need(name, on) for on in some])
        needs |= {on: Edge.read(known[key]) for on in some if (key := need(name, on)) in known}
    return dict(islice(needs.items(), MANY))


def _stop_asked(backend: Backend, name: Name, found: Found, status: Status) -> str:
    """Return why a task is to end."""
    stop: Stop | None = None
    if found.token:
        stop = stops.asked(backend, *name)
        if stop is not None and stop.token != found.token:
            return ""
    elif found.deliveries or status.attempt > 1:
        # As the worker will do it that takes it next.
        next_one = Reservation(*name, found.body, token="")
        stop = stops.found(backend, next_one, status.history)
    return stop.reason if stop else ""


def _progress(backend: Backend, name: Name, found: Found, task: Peek) -> Progress | None:
    """Return how far a task is, or was when it was given back; and not what another one of its id has left."""
    if backend.records is None:
        return None
    told = object_in(backend.records.get(f"{keys.PROGRESS}/{keys.ref(*name)}") or b"")
    # Of one whose worker died, nobody could tell under which hand-out it had come so far.
    has_died = found.deliveries > bool(found.token)
    is_same = has_died and told.get("body") == mark_of(found.body)
    token = told.get("token")
    if not is_same and (not token or token not in (found.token, *task.resumes)):
        return None
    return progress_in(told)


def progress_in(told: Mapping[str, Any]) -> Progress | None:
    """Read how far a task is, as a record or a note tells it; None if that is nothing."""
    done, at = number(told.get("done")), number(told.get("at"))
    if done is None or at is None:
        return None
    return Progress(done, number(told.get("total")), str(told.get("note", "")), at)


def _death(
    backend: Backend, kept_in: Records | None, name: Name, found: Found, task: Peek
) -> Death | None:
    """Return how the process ended that had a task before."""
    if found.deliveries <= bool(found.token) and task.attempt == 1:
        return None
    next_one = Reservation(*name, found.body, "", found.deliveries + (not found.token))
    return deaths.found(backend, kept_in, next_one, task.history)


# When it is over:


def _ended(backend: Backend, kept_in: Records | None, name: Name) -> Status:
    """Return how a task ended that is not queued."""
    now = backend.now()
    outcome = _outcome(backend, kept_in, name)
    letters = backend.dead(name[0], task_id=name[1], limit=1)
    if letters and (outcome is None or _is_of(letters[0], outcome)):
        return _dead(letters[0], now)
    status = _of_task(name, Peek(), now)
    return status if outcome is None else _with_outcome(status, outcome)


def _is_of(letter: DeadLetter, outcome: results.Outcome) -> bool:
    """Whether a dead letter tells of the same end as an outcome, or of a later one."""
    return letter.buried_at >= outcome.at - (GAP if outcome.state == results.FAILED else 0.0)


def _dead(letter: DeadLetter, now: float) -> Status:
    note = notes.read(letter.note)
    return replace(
        _of_task((letter.queue_name, letter.task_id), Peek.into(letter.body), now),
        state="failed",
        ended_at=letter.buried_at,
        reason=str(note.get("reason", "")),
        error=notes.error_line(note),
        progress=progress_in(notes.progress_in(note)),
        death=notes.death_in(note),
    )


_ENDS = {results.SUCCESS: "succeeded", results.FAILED: "failed", results.CANCELED: "canceled"}


def _with_outcome(status: Status, outcome: results.Outcome) -> Status:
    is_success = outcome.state == results.SUCCESS
    is_kept = is_success and not outcome.error and outcome.kept_until > outcome.at
    return replace(
        status,
        state=_ENDS.get(outcome.state, "unknown"),
        ended_at=outcome.at,
        reason=outcome.reason,
        error=outcome.error,
        kept_until=outcome.kept_until if is_kept else None,
    )


def _outcome(backend: Backend, kept_in: Records | None, name: Name) -> results.Outcome | None:
    """Return how a task ended the last time, if that is known."""
    # The store's own records have it of those that others depend on.
    return results.last_outcome([kept_in, backend.records], *name)


def _of_task(name: Name, task: Peek, now: float) -> Status:
    """Return what is known of a task by what is told of it in its queue, or among the dead."""
    return Status(
        name[1],
        name[0],
        "unknown",
        callable=task.callable,
        attempt=task.attempt,
        retries=task.retries,
        expires_at=task.expires_at,
        history=task.history,
        signature=task.signature,
        at=now,
    )
