"""Queueing tasks that depend on others, so that neither a crash nor a race leaves one that nobody starts.

First what they need is written down; then the others are watched; only then are they queued, delayed. So
whatever becomes of the others, it is told to somebody, or it is seen by the look that comes last.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from alligator.backends.base import MAX_ID_BYTES, Backend, Message, Records, check_name
from alligator.constants import CANCELED, FAILED, SUCCESS
from alligator.dependencies import Fate, called, fate_of, first_look, follow_of, look_again
from alligator.dependencies.edges import (
    Edge,
    Name,
    dependents_of,
    edges_in,
    link,
    needs_in,
    needs_of,
    unlink,
)
from alligator.exceptions import (
    AlligatorException,
    BackendUnavailable,
    InvalidOption,
    TaskFailed,
    UnknownTask,
)
from alligator.payloads import plain
from alligator.tasks import Task

IN_ONE_STEP = 1000
"""Messages that every store queues in one step, so that nobody sees some of them without the others."""
IN_FLIGHT = 60.0
"""Seconds that a push may take."""


class Push(Protocol):
    """``Backend.push_many``, or what does its work."""

    def __call__(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        """Queue tasks."""
        ...


def resolve(task: Task, queue_name: str) -> None:
    """Let a task depend on queues and ids, and not on what the user gave; and on nothing that has succeeded.

    Args:
        task: The task.
        queue_name: The queue that it is to be pushed to: ids are of the same.

    Raises:
        InvalidOption: It cannot depend on that.
        TaskFailed: It depends on one that has failed.
    """
    if task.if_exists == "replace":
        raise InvalidOption(
            'A task with depends_on cannot have if_exists="replace": what waits for it would be lost. '
            "Cancel the old one first."
        )
    names = [_name_of(one, queue_name) for one in task.depends_on or ()]
    if (queue_name, task.task_id) in names:
        raise InvalidOption(f"Task {task.task_id!r} cannot depend on itself.")
    task.depend_on([name for name in dict.fromkeys(names) if name is not None])


def _name_of(one: Any, queue_name: str) -> Name | None:
    """Return the name of what a task depends on; None if that has succeeded."""
    if isinstance(one, str):
        return queue_name, check_name("depends_on", one, MAX_ID_BYTES)
    if isinstance(one, tuple):  # it was pushed before
        queue_name, task_id = cast(Name, one)
        return queue_name, task_id
    if not isinstance(one, Task):
        raise InvalidOption(f"depends_on lists tasks, or their ids; {one!r:.100} is neither.")
    if one.status == SUCCESS:
        return None
    if one.status in (FAILED, CANCELED):
        raise TaskFailed(f"Task {one.task_id!r} has not succeeded: nothing can depend on it.")
    if not one.is_async and one.queue_name is not None:
        return None  # in the same batch: it runs before, or nothing else does
    if one.queue_name is None:
        raise InvalidOption(
            f"Task {one.task_id!r} has not been queued: push it before what depends on it."
        )
    return one.queue_name, one.task_id


def pushing(backend: Backend, kept_in: Records | None, tasks: Sequence[Task]) -> Push:
    """Return what queues these tasks, some of which depend on others.

    Args:
        backend: The store.
        kept_in: Where results are kept, and so it is known what has succeeded.
        tasks: The tasks.
    """

    def push(
        queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        return _Pushing(backend, kept_in, queue_name, tasks, messages).done(max_length)

    return push


@dataclass(slots=True, eq=False)
class _Dependent:
    """One of the tasks to push that depends on others."""

    place: int
    name: Name
    needs: dict[Name, Edge]
    due_at: float

    @property
    def pairs(self) -> list[tuple[Name, Name]]:
        return [(self.name, on) for on in self.needs]


class _Pushing:
    """One push of some tasks, in one queue.

    Args:
        backend: The store.
        kept_in: Where results are kept.
        queue_name: Where to.
        tasks: The tasks.
        messages: What is to be queued of each.
    """

    def __init__(
        self,
        backend: Backend,
        kept_in: Records | None,
        queue_name: str,
        tasks: Sequence[Task],
        messages: Sequence[Message],
    ) -> None:
        self._backend = backend
        self._kept_in = kept_in
        self._queue_name = queue_name
        self._tasks = tasks
        self._messages = list(messages)
        # By id: the first of them counts.
        self._places = {one.task_id: at for at, one in reversed(list(enumerate(messages)))}
        self._existing: set[int] = set()
        self._dependents: list[_Dependent] = []

    def done(self, max_length: int | None) -> list[bool]:
        """Push them all; return for each whether it was queued, as ``Backend.push_many``.

        Raises:
            InvalidOption: They cannot depend on each other so, or their form in the queue has no room for that.
            TaskFailed: One depends on a task that has failed.
            UnknownTask: One depends on a task of which nothing is known.
        """
        self._check()
        self._prepare()
        inside, outside = self._needed()
        link(self._backend, {(d.name, on): d.needs[on] for d in self._dependents for on in d.needs})
        try:
            self._watch(outside)
            self._delay(inside)
            queued = self._push(max_length)
        except BackendUnavailable:
            # It may have happened. What is written does no harm, and serves when it is pushed again.
            raise
        except AlligatorException:
            self._undo()
            raise
        self._push_again(queued, inside)
        self._look_after(queued, inside, outside)
        return queued

    def _check(self) -> None:
        """Refuse what cannot be, before anything is done."""
        for place, task in enumerate(self._tasks):
            for on in task.depends_on or ():
                its_place = self._place_of(on)
                if its_place is not None and its_place >= place:
                    raise InvalidOption(
                        f"Task {task.task_id!r} depends on {on[1]!r}, which comes later in the same batch: "
                        "put it before."
                    )
            if task.depends_on:
                _check_form(task, self._messages[place].body)

    def _prepare(self) -> None:
        """Find out which of the tasks there are already, and what the others need."""
        now = self._backend.now()
        for place, task in enumerate(self._tasks):
            name = self._queue_name, task.task_id
            if not task.depends_on:
                continue
            is_first = self._places[task.task_id] == place
            own_id = is_first and task.is_first_push()
            if not is_first or not (own_id or self._is_new(name, task.depends_on)):
                self._existing.add(place)
                continue
            due_at = max(task.due_at, now + task.delay_by if task.delay_by else 0.0)
            # A little later than the one before it: they are let go in this order.
            edge = Edge(len(task.depends_on), now + place * 1e-6, due_at, own_id=own_id)
            needs = dict.fromkeys(task.depends_on, edge)
            self._dependents.append(_Dependent(place, name, needs, due_at))

    def _is_new(self, name: Name, needs: Collection[Name]) -> bool:
        """Return whether no task has this id; then what one before it may have left is removed."""
        if self._backend.find(*name) is not None:
            return False
        long_ago = self._backend.now() - IN_FLIGHT
        left = edges_in(self._backend, needs_of(name))
        # What is new may be of another who is about to push the same id.
        old = [on for on, edge in left.items() if edge.at < long_ago and on not in needs]
        unlink(self._backend, [(name, on) for on in old])
        return True

    def _needed(self) -> tuple[dict[Name, list[_Dependent]], dict[Name, list[_Dependent]]]:
        """Return what is needed, and by which: what is pushed with them, and what is not."""
        inside: dict[Name, list[_Dependent]] = {}
        outside: dict[Name, list[_Dependent]] = {}
        for dependent in self._dependents:
            for on in dependent.needs:
                place = self._place_of(on)
                is_inside = place is not None and place not in self._existing
                (inside if is_inside else outside).setdefault(on, []).append(dependent)
        return inside, outside

    def _watch(self, outside: Mapping[Name, Sequence[_Dependent]]) -> None:
        """See to it that the end of what is queued already is told. What has succeeded is needed no more."""
        for on, dependents in outside.items():
            if self._backend.watch(*on, follow_of(on)):
                continue
            fate = self._end_of(on)
            if fate is None:
                continue
            if not fate.succeeded:
                which = called(on, self._queue_name)
                raise TaskFailed(
                    f"A task cannot depend on {which}, {fate.why}: it would never run.",
                    reason="dependency",
                )
            unlink(self._backend, [(one.name, on) for one in dependents])
            for one in dependents:
                del one.needs[on]

    def _end_of(self, on: Name) -> Fate | None:
        """Return how what is not queued has ended; None: its dependents are just being told."""
        fate = fate_of(self._backend, on, self._kept_in)
        if fate is not None:
            return fate
        ours = {one.name for one in self._dependents}
        if edges_in(self._backend, dependents_of(on), len(ours) + 1).keys() - ours:
            return None
        fate = fate_of(self._backend, on, self._kept_in)  # They may have been told just now.
        if fate is None:
            raise UnknownTask(
                f"Nothing is known of task {called(on, self._queue_name)}, which another is to depend on: it "
                "was never queued in this store, or it is done, and it is not known how it ended. Push both in "
                "one batch, or let it have keep_result."
            )
        return fate

    def _delay(self, inside: Mapping[Name, Sequence[_Dependent]]) -> None:
        """Let the messages say what keeps a task from running, and what tells of its end."""
        now = self._backend.now()
        for one in self._dependents:
            if one.needs:
                # Not for ever: should we die now, it looks by itself.
                due_at = max(now + first_look(), one.due_at)
                message = self._messages[one.place]
                self._messages[one.place] = message._replace(delay=0.0, due_at=due_at)
            elif not one.due_at:
                self._tasks[one.place].to_waiting()
        for on in inside:
            place = self._places[on[1]]
            self._messages[place] = self._messages[place]._replace(follow=follow_of(on))

    def _push(self, max_length: int | None) -> list[bool]:
        to_send = [one for at, one in enumerate(self._messages) if at not in self._existing]
        answers = iter(
            self._backend.push_many(self._queue_name, to_send, max_length=max_length)
            if to_send
            else ()
        )
        return [at not in self._existing and next(answers) for at in range(len(self._messages))]

    def _push_again(self, queued: list[bool], inside: Collection[Name]) -> None:
        """Queue what others wait for, was there before, and has ended by now: of that end nobody would tell."""
        for on in inside:
            place = self._places[on[1]]
            while not queued[place] and not self._backend.watch(*on, follow_of(on)):
                [queued[place]] = self._backend.push_many(on[0], [self._messages[place]])

    def _undo(self) -> None:
        """Forget what was written of those that are not queued; of many, some may be."""
        try:
            absent = (one for one in self._dependents if self._backend.find(*one.name) is None)
            unlink(self._backend, [pair for one in absent for pair in one.pairs])
        except AlligatorException:
            pass  # The first error counts. What is left is cleaned up when what was needed is over.

    def _look_after(
        self,
        queued: Sequence[bool],
        inside: Mapping[Name, Sequence[_Dependent]],
        outside: Mapping[Name, Sequence[_Dependent]],
    ) -> None:
        """See to those of which something that they need may have ended before they were there to be told."""
        for one in self._dependents:
            if not queued[one.place]:
                self._give_way(one)
        doubtful = self._doubtful(outside)
        if len(self._messages) > IN_ONE_STEP:
            waiting = {one.name for one in self._dependents if one.needs}
            first = {on: by for on, by in inside.items() if on not in waiting}
            # If none of those has ended that need nothing, nothing has.
            if self._doubtful(first):
                doubtful = self._dependents
        for one in doubtful:
            if one.needs:
                look_again(self._backend, one.name, one.needs, one.due_at)

    def _doubtful(self, needed: Mapping[Name, Sequence[_Dependent]]) -> list[_Dependent]:
        """Return which of the dependents something needed may have ended before, by the fewest questions."""
        by_name = {one.name: one for dependents in needed.values() for one in dependents}
        if len(by_name) > len(needed):
            by_name = {
                one.name: one
                for on, dependents in needed.items()
                if not self._backend.watch(*on, follow_of(on))
                for one in dependents
            }
        return list(by_name.values())

    def _give_way(self, one: _Dependent) -> None:
        """Leave the place to a task of the same id that another has pushed at the same time."""
        found = self._backend.find(*one.name)
        if found is not None and plain(found.body) == self._messages[one.place].body:
            return  # It is this one: the store was asked twice, for its first answer was lost.
        theirs = () if found is None else needs_in(found.body)
        if theirs is not None:
            unlink(self._backend, [(one.name, on) for on in one.needs if on not in theirs])
        one.needs.clear()

    def _place_of(self, name: Name) -> int | None:
        return self._places.get(name[1]) if name[0] == self._queue_name else None


def _check_form(task: Task, body: bytes) -> None:
    """Refuse a class of tasks whose form in the queue loses what they depend on: they would run too early."""
    kind = type(task)
    if _form(kind) != _form(Task) and kind.deserialize(body).depends_on != task.depends_on:
        raise InvalidOption(
            f"{kind.__name__} has a form of its own in the queue, which says nothing of depends_on: let its "
            "serialize and deserialize carry it, or build on those of Task."
        )


def _form(kind: type[Task]) -> tuple[object, object]:
    """Return what gives a class of tasks its form in the queue."""
    return kind.serialize, getattr(kind.deserialize, "__func__", None)
