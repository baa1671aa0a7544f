"""Dead letters queued again together with what failed because of them, which waits for them once more."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from alligator.backends.base import Backend
from alligator.commands import letters
from alligator.commands.letters import Outcome, Ref
from alligator.commands.tables import counted
from alligator.dependencies import LOOK, first_look, follow_of, wake
from alligator.dependencies.edges import (
    Edge,
    Name,
    edges_in,
    failed_by,
    failed_of,
    link,
    needs_of,
    records_of,
    unlink,
)
from alligator.exceptions import InvalidOption

HELD_BACK = 3 * LOOK
"""Seconds that what failed first is held back, should we die: by then those that wait for it have looked by
themselves, and so are told of its end."""


def retry(backend: Backend, refs: Sequence[Ref], *, with_expired: bool = True) -> Outcome:
    """Queue dead letters again, and what failed because of them, in whatever queue.

    Each waits for those that it failed for, if they are queued again too. What failed for others as well stays
    dead, unless it is named.

    Args:
        backend: The store.
        refs: What is named; of several dead letters that a task has, the last counts.
        with_expired: As in ``letters.retry``; what failed because of such a one then stays dead, too.

    Raises:
        InvalidOption: They are signed, and here are no keys: what is to wake those that wait has to be signed,
            too. Nothing was changed.
    """
    named = {ref.task: ref for ref in refs}
    free = {task: ref for task, ref in named.items() if backend.find(*task) is None}
    dead, because_of = _reached(backend, named, free)
    needs = {task: edges_in(backend, needs_of(task)) for task in dead}
    failed = {task: {on for on, edge in needs[task].items() if edge.failed} for task in dead}
    late = set[Name]() if with_expired else _late(dead, failed, backend.now())
    gone = _gone(dead, failed, because_of, free.keys() - late, late)
    found = {task: ref for task, ref in (named | dead).items() if task not in gone}
    if because_of:
        _check_keys(found.values())
    # Also what stays dead is to know of it if something that it needs succeeds now.
    again = {
        task: {on for on in needs[task] if on in because_of and on not in gone} for task in dead
    }
    waiting = {task for task in found if again.get(task)}
    first = [ref for task, ref in found.items() if task not in waiting]

    unlink(backend, [(task, on) for task in waiting for on in failed[task] - again[task]])
    _link_again(backend, needs, failed, again)
    # First those that wait, so that nothing ends before they are there; the others are held back for a moment.
    later = partial(backend.retry_dead, due_at=backend.now() + first_look())
    done = letters.in_pages(later, [found[task] for task in waiting])
    letters.forget_needs(backend, first)
    soon = partial(backend.retry_dead, due_at=backend.now() + HELD_BACK)
    done |= letters.in_pages(soon, first)
    letters.let_run(backend, done)
    for on in because_of:
        backend.watch(*on, follow_of(on))
    wake(backend, {ref.task: 0.0 for ref in first if ref in done})
    _forget_failures(backend, because_of, {task: failed[task] - again[task] for task in dead})

    others = [ref for task, ref in found.items() if task not in named]
    asked = [ref for ref in refs if ref.task not in late]
    outcome = letters.outcome_of(backend, [*asked, *others], done)
    waits = [ref for ref in outcome.done if ref.task in waiting]
    return replace(outcome, waiting=waits, expired=[dead[task] for task in dead if task in late])


def _check_keys(refs: Collection[Ref]) -> None:
    if unchecked := [ref for ref in refs if ref.is_unchecked]:
        raise InvalidOption(
            f"{counted(len(unchecked), 'dead letter')} of these, such as {unchecked[0].task_id!r:.200}, are "
            "signed, and here are no keys to sign what will tell those that wait: set ALLIGATOR_KEYS, or name "
            "a module:gator that has them. (Without --with-dependents it takes no keys.)"
        )


def _reached(
    backend: Backend, named: Collection[Name], free: Mapping[Name, Ref]
) -> tuple[dict[Name, Ref], dict[Name, list[Name]]]:
    """Return what failed because of some tasks, directly or not: the dead letters, and which because of which.

    Some may be queued again, by one like us who has died: these, too, are to be told.
    """
    dead = dict(free)
    because_of: dict[Name, list[Name]] = {}
    met = set(named)
    todo = list(named)
    while todo:
        on = todo.pop()
        if tasks := list(edges_in(backend, failed_of(on))):
            because_of[on] = tasks
        for task in tasks:
            if task not in met:
                met.add(task)
                todo.append(task)
                if (ref := _dead(backend, task)) is not None:
                    dead[task] = ref
    return dead, because_of


def _late(
    dead: Mapping[Name, Ref], failed: Mapping[Name, Collection[Name]], now: float
) -> set[Name]:
    """Return what has expired, and what failed because of that, directly or not."""
    late = {task for task, ref in dead.items() if ref.has_expired(now)}
    while more := [task for task in dead if task not in late and not late.isdisjoint(failed[task])]:
        late.update(more)
    return late


def _gone(
    dead: Collection[Name],
    failed: Mapping[Name, Collection[Name]],
    because_of: Collection[Name],
    named: Collection[Name],
    late: Collection[Name],
) -> set[Name]:
    """Return what stays dead: what is late, and what is not named and failed for others too that stay dead."""
    gone = set(late)
    while more := [
        task
        for task in dead
        if task not in named
        and task not in gone
        and any(on in gone or on not in because_of for on in failed[task])
    ]:
        gone.update(more)
    return gone


def _dead(backend: Backend, task: Name) -> Ref | None:
    """Return the dead letter of a task that failed for others, if it is not queued again."""
    queue_name, task_id = task
    found = backend.dead(queue_name, task_id=task_id, limit=1)
    if not found or backend.find(queue_name, task_id) is not None:
        return None
    ref = Ref.to(found[0])
    return ref if ref.is_dependent else None


def _link_again(
    backend: Backend,
    needs: Mapping[Name, Mapping[Name, Edge]],
    failed: Mapping[Name, Collection[Name]],
    again: Mapping[Name, Collection[Name]],
) -> None:
    """Let tasks need again what they failed for, beside what they still need."""
    now = backend.now()
    edges = {
        (task, on): replace(edge, failed="", at=now, missing_since=0.0)
        for task, of_it in needs.items()
        for on, edge in of_it.items()
        if on not in failed[task] or on in again[task]
    }
    link(backend, edges)


def _forget_failures(
    backend: Backend,
    because_of: Mapping[Name, Sequence[Name]],
    still: Mapping[Name, Collection[Name]],
) -> None:
    """Forget who failed because of which, but for those of which it is still so."""
    keys = [
        failed_by(task, on)
        for on, tasks in because_of.items()
        for task in tasks
        if on not in still.get(task, ())
    ]
    for at in range(0, len(keys), letters.PAGE):
        records_of(backend).delete(*keys[at : at + letters.PAGE])
