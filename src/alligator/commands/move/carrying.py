"""Moving tasks from or to a store that cannot list them (beanstalk, sqs): at least once.

They are pushed to the other store while they are held here, and then acknowledged. What is delayed here for
longer than a lease is not held, for it would be due when that lapses: it is pushed, and then taken out. Who is
killed in between leaves some in both. What is delayed in a store that cannot list it stays until it is due.
"""

import time
from collections.abc import Iterator, Sequence

from alligator import keys, payloads
from alligator.backends.base import (
    Ack,
    Backend,
    DeadLetter,
    Listed,
    Message,
    Records,
    Release,
    Reservation,
    State,
)
from alligator.commands.move.movable import overtaken, why_not
from alligator.commands.move.moved import Moved, Tell
from alligator.exceptions import InvalidOption, TaskTooBig
from alligator.signed_store import bare, can_sign, resigned
from alligator.utils import new_id

AT_ONCE = 10
"""Tasks to carry at a time: what a call of such a store takes."""
LEASE = 60.0
"""Seconds that they are held for, unless the store has them for less."""
DEAD_AT_ONCE = 1000
"""Dead letters to carry at a time: what SQS lists; and to find the oldest, beanstalkd reads all."""
LOOK = 1.0
"""Seconds to wait for more: a quick look at SQS sees a part of it only."""

Held = tuple[Reservation, Listed]
"""A task that is held, and as it is to be pushed."""


class Carrying:
    """The carrying over of a queue.

    Args:
        source: Where it is.
        target: Where it is to be.
        queue_name: The queue.
        moved: Where to note what was done.
        tell: Is called after each step.
        keeps_results: Whether results can be kept of what is in the other store.
    """

    def __init__(
        self,
        source: Backend,
        target: Backend,
        queue_name: str,
        moved: Moved,
        tell: Tell,
        *,
        keeps_results: bool = True,
    ) -> None:
        self._signers = source, target
        self._source, self._target = bare(source), bare(target)
        self._queue = queue_name
        self._moved = moved
        self._tell = tell
        self._keeps_results = keeps_results
        self._id = new_id().encode()
        self._worker = new_id()
        self._stay = {task_id for name, task_id, _ in moved.skipped if name == queue_name}
        self._first: dict[str, bytes] = {}
        """The first ones that were pushed to a store that names tasks: what it calls them, and their bodies."""

    def carry(self) -> None:
        """Carry over what can be.

        Raises:
            InvalidOption: Both are the same store; which two that list nothing only show in the end.
            BackendRefused: Another move of the queue has begun meanwhile.
        """
        records = self._source.records
        if self._source.can_walk and self._source.can_pick and records is not None:
            self._carry_listed(records)
        else:
            self._carry_ready()
        if self._target.can_walk:
            self._carry_dead()

    def _carry_listed(self, records: Records) -> None:
        mover = f"{keys.MOVES}:{keys.with_queue(self._queue)}/mover"
        records.set(mover, self._id)
        for page in self._pages("delayed"):
            held_until = self._source.now() + LEASE
            self._moved.delayed += self._hold_and_push([t for t in page if t.due_at < held_until])
            self._push_and_take_out([t for t in page if t.due_at >= held_until], records, mover)
            self._tell(self._moved)
        for page in self._pages("waiting"):
            self._moved.waiting += self._hold_and_push(page)
            self._tell(self._moved)
        if records.get(mover) == self._id:
            records.delete(mover, *(f"{mover}:{number}" for number in range(AT_ONCE)))

    def _pages(self, state: State) -> Iterator[list[Listed]]:
        """Return the tasks of a state that do not have to stay."""
        cursor = None
        while cursor != "":
            listed, cursor = self._source.walk(self._queue, state, cursor or "", AT_ONCE)
            yield [task for task in listed if task.task_id not in self._stay]

    def _hold_and_push(self, tasks: Sequence[Listed]) -> int:
        """Carry over tasks that a worker may be about to take; return how many."""
        taken = (
            self._source.reserve_task(self._queue, task.task_id, self._worker, LEASE)
            for task in tasks
        )
        pairs = [
            (held, task._replace(body=held.body))
            for held, task in zip(taken, tasks, strict=True)
            if held is not None
        ]
        due_at = {held: task.due_at for held, task in pairs}
        staying = [held for held, _ in pairs]
        try:
            staying = self._hand_over(pairs)
        finally:
            now = self._source.now()
            # What was delayed is not to run early.
            self._source.settle([Release(held, max(0.0, due_at[held] - now)) for held in staying])
        return len(pairs) - len(staying)

    def _push_and_take_out(self, tasks: Sequence[Listed], records: Records, mover: str) -> None:
        """Carry over tasks that no worker will take for as long as that takes."""
        there = self._pushed(tasks)
        if not there:
            return
        notes = [f"{mover}:{number}" for number, _ in enumerate(there)]
        taken = self._source.take_out(self._queue, there, mover, self._id, notes)
        self._moved.delayed += sum(taken)
        if not all(taken) and records.get(mover) != self._id:
            raise overtaken(self._queue)

    def _carry_ready(self) -> None:
        """Carry over what is handed out. What has to stay is held until the end: it would come again."""
        kept: list[Reservation] = []
        extended_at = time.monotonic()
        try:
            while found := self._source.reserve(
                [self._queue], self._worker, limit=AT_ONCE, lease=LEASE, wait=LOOK
            ).reservations:
                before = len(kept)
                kept += found
                if any(self._first.get(held.task_id) == held.body for held in found):
                    raise InvalidOption("Both are the same store: there is nothing to move.")
                kept[before:] = self._hand_over([(held, _as_listed(held)) for held in found])
                self._moved.waiting += before + len(found) - len(kept)
                self._tell(self._moved)
                lease = min(LEASE, self._source.shortest_lease())
                if kept and time.monotonic() > extended_at + lease / 3:
                    self._source.extend(kept, LEASE)
                    extended_at = time.monotonic()
        finally:
            self._source.settle([Release(held) for held in kept])

    def _hand_over(self, pairs: Sequence[Held]) -> list[Reservation]:
        """Push what is held here, and acknowledge it; return what has to stay."""
        there = {task.task_id for task in self._pushed([task for _, task in pairs])}
        # Not as a success: if something has come to depend on it just now, that is not to start.
        self._source.settle(
            [Ack(held, succeeded=False) for held, task in pairs if task.task_id in there]
        )
        return [held for held, task in pairs if task.task_id not in there]

    def _pushed(self, tasks: Sequence[Listed]) -> list[Listed]:
        """Push tasks to the other store; return those that are there now."""
        fit = [task for task in tasks if self._may_go(task)]
        messages = [
            Message(one.task_id, self._signed(one), due_at=one.due_at, priority=one.priority)
            for one in fit
        ]
        try:
            queued = self._queued(messages)
        except TaskTooBig:
            if len(fit) > 1:
                return [one for task in fit for one in self._pushed([task])]
            self._leave(fit[0], "it is bigger than the other store takes.")
            return []
        there = [
            task
            for task, message, is_new in zip(fit, messages, queued, strict=True)
            if is_new or self._is_there(message)
        ]
        others = {task.task_id for task in fit} - {task.task_id for task in there}
        self._moved.clashing += [(self._queue, task_id) for task_id in sorted(others)]
        self._stay |= others
        return there

    def _signed(self, task: Listed) -> bytes:
        return resigned(*self._signers, self._queue, task.task_id, task.body)

    def _queued(self, messages: Sequence[Message]) -> list[bool]:
        if not messages:
            return []
        if self._target.keeps_ids:
            return self._target.push_many(self._queue, messages)
        ids = self._target.push_named(self._queue, messages)
        if not self._first:
            self._first = {id: message.body for id, message in zip(ids, messages, strict=True)}
        return [True] * len(ids)

    def _may_go(self, task: Listed) -> bool:
        why = why_not(self._target, task, keeps_results=self._keeps_results)
        if not why and not can_sign(*self._signers, task.body):
            why = (
                "it is to be signed anew for that store, and here are no keys: set ALLIGATOR_KEYS."
            )
        if why:
            self._leave(task, why)
        return not why

    def _leave(self, task: Listed, why: str) -> None:
        if task.task_id not in self._stay:
            self._stay.add(task.task_id)
            self._moved.skipped.append((self._queue, task.task_id, why))

    def _is_there(self, task: Message) -> bool:
        """Whether one who was killed has pushed it before."""
        found = self._target.find(self._queue, task.task_id) if self._target.can_find else None
        return found is not None and found.body == task.body

    def _carry_dead(self) -> None:
        while letters := self._oldest_dead():
            self._target.put_dead(self._queue, [self._letter(one) for one in letters])
            purged = self._source.purge_dead(self._queue, [one.letter_id for one in letters])
            self._moved.dead += len(purged)
            self._tell(self._moved)
            if not purged:
                return

    def _letter(self, letter: DeadLetter) -> DeadLetter:
        """Return a dead letter as the other store is to have it."""
        if not can_sign(*self._signers, letter.body):
            return letter  # it does nothing there; if it is retried, its signature does not fit
        body = resigned(*self._signers, self._queue, letter.task_id, letter.body)
        return letter._replace(body=body)

    def _oldest_dead(self) -> list[DeadLetter]:
        """Return the oldest dead letters, in order, for each becomes the newest there; empty: none is left."""
        # Counted first, for SQS refuses to list them where no queue is named for them. It counts more than it
        # lists, and those of other queues, too.
        left = self._source.count(self._queue).dead
        while left > 0:
            left = max(0, left - DEAD_AT_ONCE)
            if letters := self._source.dead(self._queue, limit=DEAD_AT_ONCE, skip=left):
                return letters[::-1]
        return []


def _as_listed(held: Reservation) -> Listed:
    given = (payloads.options_in(held.body) or {}).get("priority", 0)
    return Listed(held.task_id, held.body, 0.0, given if isinstance(given, int) else 0)
