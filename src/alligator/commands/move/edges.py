"""What tasks depend on, as they are moved to another store."""

from collections.abc import Sequence

from alligator import results
from alligator.attempts import Runner
from alligator.backends.base import Backend, DeadLetter, Listed
from alligator.dependencies import fate_of, is_our_own
from alligator.dependencies.edges import (
    Edge,
    Name,
    dependents_of,
    edges_in,
    failed_by,
    link,
    need,
    needs_of,
    records_of,
    unlink,
)
from alligator.processes.keeper import LEASE, keeping
from alligator.settling import settle
from alligator.tasks import Task
from alligator.utils import new_id


class Edges:
    """The dependencies of a queue's tasks.

    Args:
        source: Where they are.
        target: Where they are to be.
        queue_name: The queue.
    """

    def __init__(self, source: Backend, target: Backend, queue_name: str) -> None:
        self._source, self._target = source, target
        self._queue = queue_name
        self._needs: dict[str, dict[Name, Edge]] = {}
        """Of those of the present page that wait for others."""

    def movable(self, tasks: Sequence[Listed]) -> list[Listed]:
        """Return those that depend on nothing which may still end in the old store."""
        self.read(self._source, [task.task_id for task in tasks if b'"depends_on"' in task.body])
        return [task for task in tasks if all(map(self._is_known, self._needs_of(task.task_id)))]

    def read(self, backend: Backend, task_ids: Sequence[str]) -> None:
        """Read what the tasks of a page need."""
        found = {id: edges_in(backend, needs_of((self._queue, id))) for id in task_ids}
        self._needs = {task_id: needs for task_id, needs in found.items() if needs}

    def _is_known(self, on: Name) -> bool:
        """Whether the new store knows a task that another one needs, or how it ended."""
        if self._source.find(*on) is not None:
            return False
        if self._target.find(*on) is not None or fate_of(self._target, on) is not None:
            return True
        ended = results.outcome_of(records_of(self._source), *on)
        if ended is None:
            return False  # that is just being told to those who wait for it
        results.note_outcome(records_of(self._target), *on, ended)
        return True

    def due_at(self, task_id: str) -> float | None:
        """Return when a task may start, should it need nothing more; None: it needs nothing."""
        needs = self._needs_of(task_id)
        return max(edge.due_at for edge in needs.values()) if needs else None

    def copy(self, task_ids: Sequence[str]) -> None:
        """Write in the new store what tasks of the page need."""
        link(
            self._target,
            {
                ((self._queue, task_id), on): edge
                for task_id in task_ids
                for on, edge in self._needs_of(task_id).items()
            },
        )

    def withdraw(self, task_ids: Sequence[str]) -> None:
        """Forget in the new store what tasks need that stay in the old one."""
        self._unlink(self._target, task_ids)

    def forget(self, task_ids: Sequence[str]) -> None:
        """Forget in the old store what tasks need that are gone."""
        self._unlink(self._source, task_ids)

    def copy_failed(self, letters: Sequence[DeadLetter]) -> None:
        """Move what dead letters failed for, so that they can be retried together."""
        for letter in letters:
            if not letter.note.startswith('{"reason":"dependency"'):
                continue
            of = (self._queue, letter.task_id)
            needs = edges_in(self._source, needs_of(of))
            values = {need(of, on): edge.written() for on, edge in needs.items()}
            values |= {failed_by(of, on): edge.written() for on, edge in needs.items()}
            if values:
                records_of(self._target).set_many(values)
            if self._source.find(*of) is None:
                unlink(self._source, [(of, on) for on in needs])

    def _needs_of(self, task_id: str) -> dict[Name, Edge]:
        return self._needs.get(task_id, {})

    def _unlink(self, backend: Backend, task_ids: Sequence[str]) -> None:
        pairs = [
            ((self._queue, task_id), on) for task_id in task_ids for on in self._needs_of(task_id)
        ]
        unlink(backend, pairs)


def needed(source: Backend, of: Name) -> list[Name]:
    """Return what a task waits for that is queued, or runs."""
    return [on for on in edges_in(source, needs_of(of)) if source.find(*on) is not None]


def dependents(source: Backend, on: Name) -> list[Name]:
    """Return what waits for a task."""
    return [of for of in edges_in(source, dependents_of(on)) if source.find(*of) is not None]


def tell_dependents(source: Backend, queue_name: str) -> None:
    """Let the tasks know whose wait is over: that is told in the old store, and to those that stay, too.

    What tells them is a task itself, and a worker would run it at once, if there still were one.
    """
    if not (source.can_walk and source.can_pick and source.can_find):
        return
    while True:
        # They stand above all priorities.
        listed, _ = source.walk(queue_name, "waiting")
        ours = [task.task_id for task in listed if is_our_own(task.body)]
        for task_id in ours:
            held = source.reserve_task(queue_name, task_id, new_id(), LEASE)
            if held is not None:
                with keeping(source, held):
                    outcome = Runner(source, Task).attempt(held)
                settle(source, outcome)
        if not ours:
            return
