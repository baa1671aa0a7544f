"""Moving tasks from or to a store that cannot list them (beanstalk, sqs): at least once.

They are reserved, pushed to the other store, and acknowledged; those that are delayed are pushed, and then
canceled. Who is killed between the last two leaves them in both. What is delayed in a store that cannot list
it stays until it is due.
"""

from collections.abc import Iterator, Sequence

from alligator import payloads
from alligator.backends.base import Ack, Backend, Listed, Message, Release, Reservation, State
from alligator.commands.moved import Moved, Tell
from alligator.utils import new_id

AT_ONCE = 10
"""Tasks to carry at a time: what a call of such a store takes."""
LEASE = 60.0
"""Seconds that they are held for."""
LOOK = 1.0
"""Seconds to wait for more: a quick look at SQS sees a part of it only."""


def why_not(target: Backend, task: Listed) -> str:
    """Return why a store cannot take a task; empty: it can."""
    options = payloads.options_in(task.body) or {}
    knows_tasks = target.can_find and target.records is not None
    for what, is_asked, is_possible in (
        ("delay_by and delay_until", bool(task.due_at), target.can_delay),
        ("priority", bool(task.priority), target.can_prioritize),
        ("depends_on", bool(task.follow or options.get("depends_on")), knows_tasks),
        ("limit", bool(options.get("limit")), knows_tasks),
    ):
        if is_asked and not is_possible:
            return f"{type(target).__module__} cannot do what {what} needs."
    if target.max_bytes is not None and len(task.body) > target.max_bytes:
        return f"it has {len(task.body):,} bytes; {type(target).__module__} takes {target.max_bytes:,}."
    return ""


class Carrying:
    """The carrying over of a queue.

    Args:
        source: Where it is.
        target: Where it is to be.
        queue_name: The queue.
        moved: Where to note what was done.
        tell: Is called after each step.
    """

    def __init__(
        self, source: Backend, target: Backend, queue_name: str, moved: Moved, tell: Tell
    ) -> None:
        self._source, self._target = source, target
        self._queue = queue_name
        self._moved = moved
        self._tell = tell
        self._worker = new_id()
        self._stay = {task_id for name, task_id in moved.skipped if name == queue_name}

    def carry(self) -> None:
        """Carry over what can be."""
        if self._source.can_walk:
            self._carry_delayed()
            self._carry_waiting()
        else:
            self._carry_ready()
        if self._target.can_walk:
            self._carry_dead()

    def _carry_delayed(self) -> None:
        # Not by a hand-out: what lapses is due.
        for page in self._pages("delayed"):
            for task in self._pushed(page):
                self._source.cancel(self._queue, task.task_id)
                self._moved.delayed += 1
            self._tell(self._moved)

    def _carry_waiting(self) -> None:
        for page in self._pages("waiting"):
            taken = (
                self._source.reserve_task(self._queue, task.task_id, self._worker, LEASE)
                for task in page
            )
            self._hand_over(
                [
                    (held, task._replace(body=held.body))
                    for held, task in zip(taken, page, strict=True)
                    if held is not None
                ]
            )

    def _pages(self, state: State) -> Iterator[list[Listed]]:
        """Return the tasks of a state that do not have to stay."""
        cursor = None
        while cursor != "":
            listed, cursor = self._source.walk(self._queue, state, cursor or "", AT_ONCE)
            yield [task for task in listed if task.task_id not in self._stay]

    def _carry_ready(self) -> None:
        """Carry over what is handed out; in the end give back what has to stay."""
        back: list[Reservation] = []
        try:
            while found := self._source.reserve(
                [self._queue], self._worker, limit=AT_ONCE, lease=LEASE, wait=LOOK
            ).reservations:
                tasks = [Listed(one.task_id, one.body, 0.0, _priority(one.body)) for one in found]
                fit = [not why_not(self._target, task) for task in tasks]
                back += [held for held, is_fit in zip(found, fit, strict=True) if not is_fit]
                pairs = zip(found, tasks, fit, strict=True)
                self._hand_over([(held, task) for held, task, is_fit in pairs if is_fit])
                if self._stay:
                    break  # what clashes would be handed out again and again
        finally:
            self._moved.skipped += [(self._queue, held.task_id) for held in back]
            self._source.settle([Release(held) for held in back])

    def _hand_over(self, pairs: Sequence[tuple[Reservation, Listed]]) -> None:
        """Push what is held here, and acknowledge it."""
        done: set[str] = set()
        try:
            done = {task.task_id for task in self._pushed([task for _, task in pairs])}
        finally:
            self._source.settle(
                [Ack(held) if held.task_id in done else Release(held) for held, _ in pairs]
            )
        self._moved.waiting += len(done)
        self._tell(self._moved)

    def _pushed(self, tasks: Sequence[Listed]) -> list[Listed]:
        """Push tasks to the other store; return those that are there now."""
        messages = [
            Message(one.task_id, one.body, due_at=one.due_at, priority=one.priority)
            for one in tasks
        ]
        queued = self._target.push_many(self._queue, messages) if messages else []
        there = [
            task
            for task, is_new in zip(tasks, queued, strict=True)
            if is_new or self._is_there(task)
        ]
        others = {task.task_id for task in tasks} - {task.task_id for task in there}
        self._moved.clashing += [(self._queue, task_id) for task_id in sorted(others)]
        self._stay |= others
        return there

    def _is_there(self, task: Listed) -> bool:
        """Whether one who was killed has pushed it before."""
        found = self._target.find(self._queue, task.task_id) if self._target.can_find else None
        return found is not None and found.body == task.body

    def _carry_dead(self) -> None:
        while letters := self._source.dead(self._queue):
            self._target.put_dead(self._queue, letters[::-1])
            purged = self._source.purge_dead(self._queue, [one.letter_id for one in letters])
            self._moved.dead += len(purged)
            self._tell(self._moved)
            if not purged:
                return


def _priority(body: bytes) -> int:
    given = (payloads.options_in(body) or {}).get("priority", 0)
    return given if isinstance(given, int) else 0
