"""Tasks that wait for others to succeed: what they need, and what lets them start.

For each task that another one depends on there are two records: in ``needs:`` of the one that waits, and in
``dependents:`` of the one that is waited for. The needs alone decide whether a task may start (``verdict``);
the rest is about waking it in time. It is queued delayed. In the very step in which a task that it needs is
over, the store queues a task of ours, which takes away what was needed, or marks it as failed, and lets the
dependents be due that need nothing more (``released``). What needs one that failed is due too, to be buried.

Whoever dies between two steps is followed by another who repeats them all, and each does no harm when repeated.
Should that task of ours be lost (dropped with its queue, say), those that wait look by themselves now and then.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from alligator import notes, payloads, results
from alligator.backends.base import Backend, Follow, Records
from alligator.dependencies.edges import (
    Edge,
    Name,
    dependent,
    dependents_of,
    edges_in,
    failed_by,
    need,
    needs_in,
    needs_of,
    records_of,
    unlink,
)
from alligator.exceptions import UnknownTask, UnreadableTask
from alligator.results import Outcome
from alligator.retries import chance
from alligator.running import current_task
from alligator.tasks import GivenBack, Task
from alligator.utils import new_id

LOOK = 300.0
"""Seconds after which a task that waits for others looks by itself for the first time."""
LONGEST_LOOK = 6 * 3600.0
"""Seconds that the time to the next look grows to: thousands may wait for days, and looking is not free."""
PATIENCE = 3600.0
"""Seconds until a task is given up that waits for one of which nothing is known: its end may be on its way."""
REMEMBERED = 86400.0
"""Seconds that it is kept what a task would have failed for that does not seem to be there."""
PAGE = 500
"""Dependents to let go at a time: the store is free for others in between."""
MANY = 10_000
"""Dependents to read at a time: more than a page, for in some stores each reading costs by their number."""
RETRIES = 30
"""Attempts at telling the dependents; with the backoff, they go on for hours."""

CANCELED = "which was canceled"
UNKNOWN = "of which nothing is known"
MAX_WHY = 500
"""Characters of what a dependent is told: it may have been handed on through many tasks."""

_MARK = b'{"alligator":"released",'
_OPTIONS = {"backoff", "max_backoff", "attempt", "history"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a task may start, as far as what it depends on goes."""

    is_free: bool
    failed: str = ""
    """What it depends on and has failed, and why; empty: nothing has."""
    look_in: float = LOOK
    """If it may not: seconds after which to look again."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a task ended."""

    succeeded: bool
    why: str = ""
    """If it has not: as in ``Edge.failed``."""


class OurTask(Task):
    """A task that Alligator queues for itself. Its form is its own, whatever a user's class makes of theirs."""

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        """Read it; and nothing but it, for what a user's class refuses must not come in by this door."""
        payload = payloads.decode(data)
        calls = payload["module"], payload["callable"]
        options = payload.get("options", {}).keys()
        # Hooks, too, would be calls.
        if calls != (released.__module__, released.__name__) or options - _OPTIONS:
            raise UnreadableTask("The payload says that it is one of Alligator's own; it is not.")
        return super().deserialize(data)


def class_for(body: bytes, task_class: type[Task]) -> type[Task]:
    """Return the class that reads a task: ``task_class``, unless it is one of our own."""
    return OurTask if is_our_own(body) else task_class


def is_our_own(body: bytes) -> bool:
    """Return whether a queued task says that it is one of our own."""
    return body.startswith((_MARK, payloads.MARK)) and payloads.plain(body).startswith(_MARK)


def follow_of(name: Name) -> Follow:
    """Return what a store is to queue when a task is over that others depend on."""
    task_id = new_id()
    # Its priority is above all others'. It must not fail for good while there is hope.
    backoff = {"backoff": 1.0, "max_backoff": LOOK}
    payload = {
        "alligator": "released",
        "task_id": task_id,
        "retries": RETRIES,
        "async": True,
        "module": released.__module__,
        "callable": released.__name__,
        "kwargs": {},
        "options": backoff,
    }
    told = (payloads.encode({**payload, "args": [*name, succeeded]}) for succeeded in (True, False))
    return Follow(task_id, *(text.encode() for text in told))


# Before a task starts.


def verdict(backend: Backend, name: Name, depends_on: Collection[Name]) -> Verdict:
    """Return whether a task that was pushed with dependencies may start now.

    If not, it is made sure that it will be told when it may.
    """
    needs = _needs(backend, name, depends_on)
    if needs and not _failure(name, needs):
        needs = _cared_for(backend, name, needs)
    if not needs:
        return Verdict(is_free=True)
    return Verdict(False, _failure(name, needs), _next_look(backend, needs))


def look_again(
    backend: Backend, name: Name, depends_on: Collection[Name], due_at: float = 0.0
) -> None:
    """Let a task be due if it needs nothing more, or something that failed.

    For one that was not there, or held, in the moment in which it was told so.
    """
    needs = _needs(backend, name, depends_on)
    if not needs:
        backend.reschedule(name[0], [name[1]], due_at)
    elif _failure(name, needs):
        backend.reschedule(name[0], [name[1]])


def _needs(backend: Backend, name: Name, depends_on: Collection[Name]) -> dict[Name, Edge]:
    """Return what a task still needs."""
    needs = edges_in(backend, needs_of(name))
    # Another of its id, before it or refused just now, may have left something.
    return {on: edge for on, edge in needs.items() if on in depends_on}


def first_look() -> float:
    """Return the seconds until the first look of a task that is queued now; not the same for all."""
    return LOOK * (1.0 + chance())


def _next_look(backend: Backend, needs: Mapping[Name, Edge]) -> float:
    if any(edge.missing_since for edge in needs.values()):
        return LOOK
    age = backend.now() - min(edge.at for edge in needs.values())
    return min(max(LOOK, 2 * age), LONGEST_LOOK) * (1.0 + chance())


def _cared_for(backend: Backend, name: Name, needs: Mapping[Name, Edge]) -> dict[Name, Edge]:
    """Return what a task needs, after a look at each: will it be told of its end?"""
    left = dict(needs)
    for on, edge in needs.items():
        if backend.watch(*on, follow_of(on)):
            left[on] = _missing(backend, name, on, edge, since=0.0)
            continue
        fate = fate_of(backend, on)
        now = backend.now()
        if fate is None and edge.missing_since and now - edge.missing_since > PATIENCE:
            fate = Fate(succeeded=False, why=UNKNOWN)
        if fate is None:
            left[on] = _missing(backend, name, on, edge, since=edge.missing_since or now)
        elif fate.succeeded:
            free(backend, on, {name: edge})
            del left[on]
        else:
            fail(backend, on, {name: edge}, fate.why)
            left[on] = replace(edge, failed=fate.why)
    return left


def _missing(backend: Backend, name: Name, on: Name, edge: Edge, since: float) -> Edge:
    """Note since when there has been no trace of a task that another needs; 0: there is one."""
    if since == edge.missing_since:
        return edge
    noted = replace(edge, missing_since=since)
    records, key = records_of(backend), need(name, on)
    # In one step: the need may be taken away in this moment.
    if (old := records.get(key)) is not None:
        records.swap(key, old, noted.written())
    return noted


def _failure(name: Name, needs: Mapping[Name, Edge]) -> str:
    """Return what a task needs and has failed, and why; empty: nothing has."""
    said = (f"{called(on, name[0])}, {edge.failed}" for on, edge in needs.items() if edge.failed)
    return next(said, "")


def called(name: Name, from_queue: str) -> str:
    """Return how a task is called by one of some queue."""
    queue_name, task_id = name
    return repr(task_id) + (f" of queue {queue_name!r}" if queue_name != from_queue else "")


# When a task is over.


def released(queue_name: str, task_id: str, succeeded: bool) -> None:
    """Let those be due that depended on a task which is over. It is itself a task, which the store queues.

    Args:
        queue_name: The queue of what is over.
        task_id: What is over.
        succeeded: Whether it succeeded.
    """
    running, name = current_task(), (queue_name, task_id)
    backend = running.backend
    if backend is None:
        raise UnknownTask("released() is a task of Alligator's own: only a worker can run it.")
    if succeeded:
        _note_success(backend, name)
    elif backend.watch(*name, follow_of(name)):
        return  # It is queued anew, by this name: what comes of that counts.
    why = "" if succeeded else _why_failed(backend, name)
    while edges := edges_in(backend, dependents_of(name), MANY):
        for page in _pages(edges):
            if running.leaving:
                raise GivenBack
            if succeeded:
                free(backend, name, page)
            else:
                fail(backend, name, page, why)


def free(backend: Backend, on: Name, edges: Mapping[Name, Edge]) -> None:
    """Take away from dependents what they needed of a task, and let those be due that need no more."""
    records = records_of(backend)
    records.delete(*(need(of, on) for of in edges))
    due = {
        of: edge.due_at
        for of, edge in edges.items()
        if not _needs_more(backend, of, edge) and _waits(backend, of, on, edge)
    }
    wake(backend, due)
    # Last: by these one who was killed before is followed.
    records.delete(*(dependent(of, on) for of in edges))


def _needs_more(backend: Backend, of: Name, edge: Edge) -> bool:
    """Return whether a task needs more than what it has just got."""
    if edge.of == 1:
        return False
    first = edges_in(backend, needs_of(of), limit=1)
    if all(other.at == edge.at for other in first.values()):
        return bool(first)
    # There is something of another task of its id.
    return any(other.at == edge.at for other in edges_in(backend, needs_of(of)).values())


def _waits(backend: Backend, of: Name, on: Name, edge: Edge) -> bool:
    """Return whether what is queued under a dependent's id, if anything, is the one that waits.

    That one may have been canceled, replaced or dropped. Another one of its id is not to start by its edges.
    """
    found = None if edge.own_id else backend.find(*of)
    needs = None if found is None else needs_in(found.body)
    return needs is None or on in needs


def fail(backend: Backend, on: Name, edges: Mapping[Name, Edge], why: str) -> None:
    """Mark what dependents needed of a task as failed, and let them be due, to be buried by their workers."""
    records = records_of(backend)
    known = records.get_many([need(of, on) for of in edges])
    needs = {of: Edge.read(known[key]) for of in edges if (key := need(of, on)) in known}
    failed = {
        of: replace(edge, failed=why) for of, edge in needs.items() if _waits(backend, of, on, edge)
    }
    unlink(backend, [(of, on) for of in needs if of not in failed])
    _write_failed(backend, on, failed)
    woken = wake(backend, dict.fromkeys(failed, 0.0))
    # One is queued a moment later, and looks then, or is there no more: of that nothing is to stay for ever.
    absent = {of: failed[of] for of in failed if of not in woken and not _is_there(backend, of)}
    _write_failed(backend, on, absent, REMEMBERED)
    records.delete(*(dependent(of, on) for of in edges))


def _is_there(backend: Backend, name: Name) -> bool:
    """Return whether a task is queued, or dead: then it may be queued again, to wait for the same."""
    queue_name, task_id = name
    if backend.find(queue_name, task_id) is not None:
        return True
    return bool(backend.dead(queue_name, task_id=task_id, limit=1))


def wake(backend: Backend, due: Mapping[Name, float]) -> set[Name]:
    """Let delayed tasks be due at some moments. Returns those that were delayed."""
    groups: dict[tuple[str, float], list[str]] = {}
    for (queue_name, task_id), due_at in due.items():
        groups.setdefault((queue_name, due_at), []).append(task_id)
    woken: set[Name] = set()
    for (queue_name, due_at), ids in groups.items():
        done = backend.reschedule(queue_name, ids, due_at)
        woken |= {(queue_name, id) for id, was in zip(ids, done, strict=True) if was}
    return woken


def fate_of(backend: Backend, name: Name, kept_in: Records | None = None) -> Fate | None:
    """Return how a task that is not queued ended; None: that is not known, or not yet.

    Args:
        backend: The store.
        name: The task.
        kept_in: Where results are kept, if that is elsewhere.
    """
    queue_name, task_id = name
    outcome = results.last_outcome([records_of(backend), kept_in], queue_name, task_id)
    letters = backend.dead(queue_name, task_id=task_id, limit=1)
    # The same id may have ended more than once: the last time counts.
    if letters and (outcome is None or outcome.at <= letters[0].buried_at):
        return Fate(False, _failed(notes.error_line(notes.read(letters[0].note))))
    if outcome is None:
        return None
    if outcome.state == results.SUCCESS:
        return Fate(True)
    return Fate(False, CANCELED if outcome.state == results.CANCELED else _failed(outcome.error))


def _failed(error: str) -> str:
    why = f"which failed: {error.removeprefix(notes.OUR_OWN + ': ')}"
    if len(why) > MAX_WHY:
        why = f"{why[: MAX_WHY // 2]} ... {why[-MAX_WHY // 2 :]}"  # at the end is where it began
    return why


def _note_success(backend: Backend, name: Name) -> None:
    """Note that a task has succeeded, so that what is pushed within a day may depend on it."""
    records = records_of(backend)
    known = results.outcome_of(records, *name)
    if known is None or fate_of(backend, name) != Fate(succeeded=True):
        known = Outcome(results.SUCCESS, backend.now())
    # One that is known tells more, of a result that is kept: it is only to be known for longer.
    results.note_outcome(records, *name, known)


def _why_failed(backend: Backend, name: Name) -> str:
    fate = fate_of(backend, name)
    if fate is None:
        outcome = Outcome(results.CANCELED, backend.now())
        results.note_outcome(records_of(backend), *name, outcome)
    # What is known of a success is of one before.
    return CANCELED if fate is None or fate.succeeded else fate.why


def _write_failed(
    backend: Backend, on: Name, failed: Mapping[Name, Edge], ttl: float | None = None
) -> None:
    values = {need(of, on): edge.written() for of, edge in failed.items()}
    values |= {failed_by(of, on): edge.written() for of, edge in failed.items()}
    if values:
        records_of(backend).set_many(values, ttl)


def _pages(edges: Mapping[Name, Edge]) -> Iterator[dict[Name, Edge]]:
    rest = iter(sorted(edges.items(), key=lambda item: item[1].at))  # first in, first out
    while page := dict(islice(rest, PAGE)):
        yield page
