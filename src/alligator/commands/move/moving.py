"""Moving what is queued from one store to another: ``alligator move``.

Each task runs in one of the two, and once, wherever this is killed. For some tasks at a time:

1. In the new store it is written what is about to come (``moving:``), and by whom.
2. The tasks are put there, *parked*: delayed for centuries. Nobody runs them yet.
3. They are taken out of the old store, those that are still as they were listed; in the same step that is
   noted there (``moved:``). What a worker has got hold of meanwhile stays its own, and is withdrawn from the
   new store.
4. In the new store they get back what follows them, and become due.
5. What was written is deleted, in the new store first.

So where something is being moved, the note in the old store says which of the two has the task. Who begins
anew writes itself into both stores (``moves:``), from which moment nobody else can take anything out of
either; and then brings to an end what it finds.
"""

import math
import secrets
from collections.abc import Mapping, Sequence

from alligator import keys, limits
from alligator.backends.base import (
    NEVER,
    Backend,
    Listed,
    Message,
    Records,
    Release,
    State,
)
from alligator.checkpoints import KEPT_FOR
from alligator.commands.move import schedules
from alligator.commands.move.carrying import Carrying
from alligator.commands.move.edges import Edges, tell_dependents
from alligator.commands.move.intents import Intent
from alligator.commands.move.movable import (
    FAR_AWAY,
    MOMENTS,
    PAGE,
    Name,
    check,
    is_exact,
    is_parked,
    overtaken,
    unfit,
)
from alligator.commands.move.moved import Moved, Tell
from alligator.exceptions import InvalidOption
from alligator.signed_store import bare
from alligator.utils import new_id

A_MOMENT = 5.0
"""Seconds that a task is held for which is given back at once."""


def fit(
    source: Backend,
    target: Backend,
    queue_names: Sequence[str],
    *,
    skip: bool = False,
    keeps_results: bool = True,
) -> Mapping[Name, str]:
    """Check that queues can be moved; return the tasks that are to stay, and why.

    Args:
        source: Where they are.
        target: Where they are to be.
        queue_names: The queues.
        skip: Leave tasks that cannot be moved, rather than move nothing.
        keeps_results: Whether results can be kept of what is in the other store.

    Raises:
        InvalidOption: The stores are one, or cannot do this; or a task cannot be moved.
        BackendRefused: A queue has to be made first.
    """
    source, target = bare(source), bare(target)
    check(source, target, queue_names)
    staying = unfit(source, target, queue_names, keeps_results=keeps_results)
    if staying and not skip:
        (queue_name, task_id), why = next(iter(staying.items()))
        raise InvalidOption(
            f"Task {task_id!r} of queue {queue_name!r} cannot be moved: {why} Nothing was moved; "
            f"--skip leaves such tasks ({len(staying):,}) where they are."
        )
    return staying


def move(
    source: Backend,
    target: Backend,
    queue_names: Sequence[str],
    *,
    skip: bool = False,
    keeps_results: bool = True,
    tell: Tell = lambda moved: None,
) -> Moved:
    """Move what waits, is delayed or dead, and the schedules, of some queues to another store.

    What is signed goes with its signature; also what no signature fits, for the workers there to refuse.

    Args:
        source: As of ``fit``, and all before ``tell``.
        target: Where to.
        queue_names: The queues.
        skip: Whether to leave what cannot be moved.
        keeps_results: Whether results can be kept there.
        tell: See ``Tell``.

    Raises:
        InvalidOption: As ``fit``: nothing was moved.
        BackendRefused: As ``fit``; or another move of one of these queues has begun meanwhile.
    """
    for name in queue_names:
        _take_back_lapsed(bare(source), name)
        tell_dependents(source, name)
    staying = fit(source, target, queue_names, skip=skip, keeps_results=keeps_results)
    moved = Moved(
        skipped=[(*name, why) for name, why in staying.items()],
        at_least_once=not is_exact(bare(source), bare(target)),
    )
    if moved.at_least_once:
        for name in queue_names:
            Carrying(source, target, name, moved, tell, keeps_results=keeps_results).carry()
    else:
        _move_all([Move(source, target, name, moved, tell) for name in queue_names], moved)
    source = bare(source)
    for name in queue_names:
        counts = source.count(name)
        moved.running += counts.running
        moved.stay += counts.waiting + counts.delayed
        moved.dead_stay += counts.dead
        if source.records is not None:
            moved.schedules_stay += schedules.count(source.records, name)
    return moved


def _take_back_lapsed(source: Backend, queue_name: str) -> None:
    """Let the store take back what dead workers held: it does so for who reserves, and that may be nobody."""
    running = math.inf
    while 0 < (now_running := source.count(queue_name).running) < running:
        running = now_running
        held = source.reserve([queue_name], new_id(), lease=A_MOMENT).reservations
        source.settle([Release(one) for one in held])


def _move_all(moves: Sequence["Move"], moved: Moved) -> None:
    for one in moves:
        one.begin()
    for one in moves:
        one.move_dead()
        one.move_schedules()
    # What depends on others goes after these: so once more, until there is nothing that can go.
    before = -1
    while moved.tasks > before:
        before, moved.blocked = moved.tasks, 0
        for one in moves:
            one.tell_dependents()
        for one in moves:
            # What waits in line for a limit is the older.
            one.move_tasks("delayed")
            one.move_tasks("waiting")
    for one in moves:
        one.end()


class Move:
    """The move of a queue.

    Args:
        source: Where it is.
        target: Where it is to be.
        queue_name: The queue.
        moved: Where to note what was done.
        tell: See ``Tell``.
    """

    def __init__(
        self, source: Backend, target: Backend, queue_name: str, moved: Moved, tell: Tell
    ) -> None:
        self._told = source
        self._source, self._target = source, target = bare(source), bare(target)
        self._there, self._here = _records(source), _records(target)
        self._queue = queue_name
        self._moved = moved
        self._tell = tell
        self._edges = Edges(source, target, queue_name)
        self._homes = home, home_here = _home(self._there), _home(self._here)
        self._id = new_id().encode()
        self._parked_until = float(FAR_AWAY + secrets.randbelow(MOMENTS))
        with_queue = keys.with_queue(queue_name)
        self._mover = f"{keys.MOVES}:{with_queue}/mover"
        # Moves from several stores may come here at a time.
        self._mover_here = f"{self._mover}:{home}"
        self._moving = f"{keys.MOVING}:{with_queue}/{home}:"
        # Which store it goes to, too: what a move to a third one has noted, only that one may touch.
        self._moved_to = f"{keys.MOVED}:{with_queue}/{home_here}:"
        self._stay = {task_id for name, task_id, _ in moved.skipped if name == queue_name}

    def begin(self) -> None:
        """Stop any other move of this queue, and bring to an end what it has left."""
        self._here.set(self._mover_here, self._id)
        self._there.set(self._mover, self._id)
        # Of two that begin at once, one may be written here and the other one there: then none may go on.
        if self._here.get(self._mover_here) != self._id:
            raise overtaken(self._queue)
        self._finish()
        # Of what has been brought to an end before.
        if left := _beginning_with(self._moved_to, self._there):
            self._there.delete(*left)

    def end(self) -> None:
        """Leave no trace."""
        if self._there.get(self._mover) == self._id:
            self._finish()
            self._there.delete(self._mover)
            notes = _beginning_with(self._mover_here, self._here)
            self._here.delete(*notes)

    def tell_dependents(self) -> None:
        """See ``moving_edges.tell_dependents``."""
        tell_dependents(self._told, self._queue)

    def _finish(self) -> None:
        """Bring to an end what moves before this one have begun."""
        left = _beginning_with(self._moving, self._here)
        for at in range(0, len(left), PAGE):
            self._finish_some(dict(list(left.items())[at : at + PAGE]))

    def _finish_some(self, left: dict[str, bytes]) -> None:
        intents = {key: (_task_of(key), Intent.read(value)) for key, value in left.items()}
        ids = list({task_id for task_id, _ in intents.values()})
        noted = self._there.get_many([self._moved_key(task_id) for task_id in ids])
        gone: dict[str, Intent] = {}
        for task_id, intent in intents.values():
            if intent is None:
                continue
            if noted.get(self._moved_key(task_id)) == intent.move:
                gone[task_id] = intent
            elif found := self._parked(task_id, intent.parked_until):
                self._edges.read(self._target, [task_id])
                self._withdraw([found])
        self._edges.read(self._source, list(gone))
        # Some may be due already, or have run.
        self._release(
            {
                task_id: intent
                for task_id, intent in sorted(gone.items(), key=lambda item: item[1].number)
                if self._parked(task_id, intent.parked_until)
            }
        )
        # Of the same id there may be another one by now.
        self._clean_up([id for id in gone if self._source.find(self._queue, id) is None])
        self._forget(list(intents), list(gone))

    def _parked(self, task_id: str, until: float) -> Listed | None:
        """Return a task that stands in the new store, and waits to be told there."""
        found = self._target.find(self._queue, task_id)
        if found is None or found.due_at != until:
            return None
        return Listed(task_id, found.body, until, found.priority)

    def move_tasks(self, state: State) -> None:
        """Move those of a state that can go now."""
        cursor = None
        while cursor != "":
            listed, cursor = self._source.walk(self._queue, state, cursor or "", PAGE)
            fit = [one for one in listed if one.task_id not in self._stay]
            free = self._edges.movable(fit)
            self._moved.blocked += len(fit) - len(free)
            if free:
                self._move(free, state)
                self._tell(self._moved)

    def _move(self, tasks: Sequence[Listed], state: State) -> None:
        intents = {
            task.task_id: Intent(
                self._id, self._parked_until, number, self._due_at(task), task.follow
            )
            for number, task in enumerate(tasks)
        }
        self._here.set_many(
            {self._moving_key(task_id): intent.written() for task_id, intent in intents.items()}
        )
        put = self._put(tasks)
        self._edges.copy([task.task_id for task in put])
        self._copy_progress([task.task_id for task in put])
        notes = [self._moved_key(task.task_id) for task in put]
        taken = self._source.take_out(self._queue, put, self._mover, self._id, notes)
        gone = {
            task.task_id: intents[task.task_id] for task, was in zip(put, taken, strict=True) if was
        }
        late = [task for task in put if task.task_id not in gone]
        if len(gone) < len(tasks):
            self._check_that_it_is_ours()
        if late:
            self._withdraw([self._as_parked(task) for task in late])
        self._release(gone)
        self._clean_up(list(gone))
        self._forget([self._moving_key(task.task_id) for task in tasks], list(gone))
        if state == "waiting":
            self._moved.waiting += len(gone)
        else:
            self._moved.delayed += len(gone)

    def _put(self, tasks: Sequence[Listed]) -> list[Listed]:
        """Put tasks into the new store, where they wait to be told. Returns those that are there now."""
        put: list[Listed] = []
        for task, is_new in zip(tasks, self._push(tasks), strict=True):
            if is_new or self._is_here(task):
                put.append(task)
            else:
                self._stay.add(task.task_id)
                self._moved.clashing.append((self._queue, task.task_id))
        return put

    def _push(self, tasks: Sequence[Listed]) -> list[bool]:
        return self._target.push_many(
            self._queue,
            [
                Message(one.task_id, one.body, due_at=self._parked_until, priority=one.priority)
                for one in tasks
            ],
        )

    def _as_parked(self, task: Listed) -> Listed:
        """Return a task as it is in the new store before it is due."""
        return task._replace(due_at=self._parked_until, follow=None)

    def _is_here(self, task: Listed) -> bool:
        """Whether a task that is there already was put there by this move; it is if another left it parked."""
        found = self._target.find(self._queue, task.task_id)
        if found is None or found.body != task.body:
            return False
        if is_parked(found.due_at) and found.due_at != self._parked_until:
            self._withdraw([Listed(task.task_id, found.body, found.due_at, found.priority)])
            return self._push([task]) == [True]
        return found.due_at == self._parked_until

    def _withdraw(self, tasks: Sequence[Listed]) -> None:
        """Take tasks out of the new store that were not taken out of the old one."""
        # What is noted with it tells nobody anything.
        notes = [f"{self._mover_here}:{number}" for number, _ in enumerate(tasks)]
        taken = self._target.take_out(self._queue, tasks, self._mover_here, self._id, notes)
        if not all(taken) and self._here.get(self._mover_here) != self._id:
            raise overtaken(self._queue)
        self._edges.withdraw([task.task_id for task in tasks])

    def _release(self, gone: dict[str, Intent]) -> None:
        """Let tasks be due that are in the new store alone now."""
        for task_id, intent in gone.items():
            if intent.follow:
                self._target.watch(self._queue, task_id, intent.follow)
        by_moment: dict[float, list[str]] = {}
        for task_id, intent in gone.items():
            by_moment.setdefault(intent.due_at, []).append(task_id)
        for due_at, task_ids in by_moment.items():
            self._target.reschedule(self._queue, task_ids, due_at)

    def _clean_up(self, task_ids: Sequence[str]) -> None:
        """Delete from the old store what belonged to tasks that are gone."""
        self._edges.forget(task_ids)
        if task_ids:
            self._there.delete(*(_progress(self._queue, task_id) for task_id in task_ids))

    def _forget(self, intents: Sequence[str], task_ids: Sequence[str]) -> None:
        # In this order, so that nothing is written of here that is not noted there.
        self._here.delete(*intents)
        if task_ids:
            self._there.delete(*map(self._moved_key, task_ids))

    def _check_that_it_is_ours(self) -> None:
        if self._there.get(self._mover) != self._id:
            raise overtaken(self._queue)

    def _due_at(self, task: Listed) -> float:
        """Return when a task is to be due in the new store."""
        if not task.due_at:
            return 0.0
        needed_until = self._edges.due_at(task.task_id)
        if needed_until is not None:
            return needed_until  # it looks by itself then, whether it may start
        limit = limits.limit_in(task.body) if b'"limit"' in task.body else None
        if limit is not None and task.due_at != NEVER:
            line = limits.standing(self._source, self._queue, task.task_id, task.due_at, limit)
            if line is not None:
                return 0.0  # it lines up anew
        return task.due_at

    def _copy_progress(self, task_ids: Sequence[str]) -> None:
        known = self._there.get_many([_progress(self._queue, task_id) for task_id in task_ids])
        if known:
            self._here.set_many(known, KEPT_FOR)

    def move_dead(self) -> None:
        """Move dead letters, the oldest first. Each is in both stores for a moment: it does nothing there."""
        left = self._source.count(self._queue).dead
        while left > 0:
            skip = max(0, left - PAGE)
            page = self._source.dead(self._queue, limit=left - skip, skip=skip)[::-1]
            self._target.put_dead(self._queue, page)
            self._edges.copy_failed(page)
            # Of one that is not there any more, nobody can say whether it was retried just now, or another move
            # has it: so it stays in the new store, too.
            purged = self._source.purge_dead(self._queue, [letter.letter_id for letter in page])
            self._moved.dead += len(purged)
            self._tell(self._moved)
            left = skip

    def move_schedules(self) -> None:
        """See ``schedules.move_schedules``."""
        schedules.move_schedules(self._there, self._here, self._homes, self._queue, self._moved)

    def _moving_key(self, task_id: str) -> str:
        return f"{self._moving}{self._id.decode()}:{keys.escaped(task_id)}"

    def _moved_key(self, task_id: str) -> str:
        return f"{self._moved_to}{keys.escaped(task_id)}"


def _home(records: Records) -> str:
    """Return what tells a store from others. It is made up by the first move, and stays."""
    key = f"{keys.MOVES}/home"
    records.swap(key, None, new_id().encode())
    return (records.get(key) or b"").decode()


def _beginning_with(start: str, records: Records) -> dict[str, bytes]:
    """Return the records whose keys begin with a family and more."""
    family = records.list(start.partition("/")[0])
    return {key: value for key, value in family.items() if key.startswith(start)}


def _task_of(intent: str) -> str:
    """Return the id of the task that an intent is about."""
    return keys.unescaped(intent.rpartition(":")[2])


def _progress(queue_name: str, task_id: str) -> str:
    return f"{keys.PROGRESS}/{keys.ref(queue_name, task_id)}"


def _records(backend: Backend) -> Records:
    if backend.records is None:
        raise InvalidOption("A store that keeps no records can be no part of a move.")
    return backend.records
