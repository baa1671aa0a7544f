"""Sending messages of SQS: what is pushed, what has to be sent anew, and what is not to come yet."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from alligator import payloads
from alligator.backends.base import Message
from alligator.backends.sqs import messages
from alligator.backends.sqs.messages import Entry, Received, fair_id, fitted, size_of
from alligator.backends.sqs.queues import LONGEST_LEASE, Queue, Queues
from alligator.exceptions import BackendRefused

log = logging.getLogger("alligator.backend")

LONGEST_DELAY = 900
"""Seconds for which SQS delays a message."""
MOST_REMEMBERED = 5000
"""Messages of which is remembered that they were sent anew, and are yet to be deleted."""


@dataclass(frozen=True, slots=True)
class Anew:
    """What takes the place of a message that was received."""

    old: Received
    body: bytes
    wait: float = 0.0
    lapses: int = 0
    buried_at: float = 0.0
    """When it was buried: it is a dead letter. Else 0."""
    note: str = ""


class Sender:
    """Sends messages to queues.

    Args:
        queues: Which there are.
    """

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._sent: dict[str, None] = {}
        self._closed: set[str] = set()
        """Queues for dead letters that SQS may move messages to, and we may not."""

    def push(self, queue: Queue, pushed: Sequence[Message], now: float) -> list[str]:
        """Send tasks; return the ids that SQS gave them.

        Raises:
            TaskTooBig: One of them is; nothing was sent.
            BackendRefused: SQS did not take one of them; the others were sent.
        """
        entries = [
            _entry(
                queue, message.body, {}, max(message.delay, message.due_at - now), message.task_id
            )
            for message in pushed
        ]
        self._queues.check_sizes(queue, [message.task_id for message in pushed], entries)
        return [outcome["MessageId"] for outcome in self._send(queue, entries)]

    def anew(self, queue: Queue, several: Sequence[Anew]) -> list[bool]:
        """Send messages anew and delete the old; return for each whether SQS agreed that it was ours.

        If this breaks off, and this process repeats it, what was sent is not sent again.
        """
        unsent = [one for one in several if one.old.handle not in self._sent]
        targeted = [(*self._targeted(queue, one), one) for one in unsent]
        for target, group in groupby(targeted, lambda one: one[0]):
            _, entries, its = zip(*group, strict=True)
            try:
                self._send_anew(target, entries, its)
            except BackendRefused as err:
                if target == queue or target.name != queue.redrives_to.rpartition(":")[2]:
                    raise
                log.warning("Dead letters cannot go to %r: %s", target.name, err)
                self._closed.add(target.url)
                left = [one for one in its if one.old.handle not in self._sent]
                kept = [self._dead_letter(queue, one)[1] for one in left]
                self._send_anew(queue, kept, left)
        while len(self._sent) > MOST_REMEMBERED:
            del self._sent[next(iter(self._sent))]
        old = [one.old.handle for one in several]
        deleted = self._queues.delete(queue, old)
        for handle in old:
            self._sent.pop(handle, None)
        return deleted

    def revive(self, queue: Queue, letters: Sequence[Received], wait: float) -> None:
        """Send dead letters as tasks again."""
        entries = [
            _entry(queue, one.body, {messages.ID: one.task_id}, wait, one.message_id, one.group)
            for one in letters
        ]
        self._send(queue, entries)

    def put_off(self, queue: Queue, early: Sequence[Received], now: float) -> None:
        """Let messages that are not to come yet come later. They are no deliveries."""
        asleep = [one for one in early if self._sleeps(queue, one, now)]
        others = [one for one in early if one not in asleep]
        self.anew(queue, [_as_it_is(one, now) for one in others])
        self._queues.hide(queue, [(one.handle, _sleep_of(one, now)) for one in asleep])

    def _sleeps(self, queue: Queue, one: Received, now: float) -> bool:
        """Whether a message is best hidden for as long as can be: else it is sent anew."""
        # SQS deletes what has been in a queue for too long, hidden or not; sent anew it is new there.
        is_old = now - one.sent_at > queue.retention / 2
        if one.is_kept:
            return not is_old and self._queues.dead_of(queue) is None
        # To SQS, what is received and hidden has been delivered. So it is done only where nothing else can be.
        return queue.is_fifo and one.due_at > now and not is_old

    def _send_anew(self, target: Queue, entries: Sequence[Entry], its: Sequence[Anew]) -> None:
        """Send, and remember what has been sent, should it break off before the last."""
        outcomes: list[dict[str, Any]] = []
        for one, outcome in zip(its, self._queues.send(target, entries), strict=True):
            outcomes.append(outcome)
            if "Code" not in outcome:
                self._sent[one.old.handle] = None
        _check(target, outcomes)

    def _send(self, queue: Queue, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        return _check(queue, list(self._queues.send(queue, entries)))

    def _targeted(self, queue: Queue, one: Anew) -> tuple[Queue, Entry]:
        """Return what is to be sent anew, and where to."""
        if one.buried_at:
            return self._dead_letter(queue, one)
        notes: dict[str, str | bytes] = {messages.ID: one.old.task_id}
        if one.lapses:
            notes[messages.LAPSES] = str(one.lapses)
        entry = _entry(queue, one.body, notes, one.wait, one.old.message_id, one.old.group)
        if size_of(entry) > queue.max_bytes:
            # Its next attempt tells more than the one before, and it was near the limit.
            log.error("Task %r has grown too big to be tried again: buried", one.old.task_id)
            grown = f"It was to be tried again, and takes {size_of(entry)} bytes by now"
            note = payloads.encode({"reason": "failed", "error": grown})
            return self._dead_letter(
                queue, replace(one, body=one.old.body, buried_at=one.old.sent_at, note=note)
            )
        return queue, entry

    def _dead_letter(self, queue: Queue, one: Anew) -> tuple[Queue, Entry]:
        dead = self._queues.dead_of(queue)
        notes: dict[str, str | bytes] = {
            messages.ID: one.old.task_id,
            messages.BURIED: f"{one.buried_at:.3f}",
            messages.QUEUE: queue.name,
        }
        if dead is not None and dead.url not in self._closed:
            entry = _with_note(dead, one, notes)
            if size_of(entry) <= dead.max_bytes:
                return dead, entry
        log.warning(
            "Dead letter %r stays in queue %r, hidden, %s. Name a queue for dead letters: ?dead=NAME in the "
            "DSN, or a redrive policy of the queue",
            one.old.task_id,
            queue.name,
            "for it has nowhere to go" if dead is None else f"for {dead.name!r} does not take it",
        )
        return queue, _with_note(queue, one, {**notes, messages.KEPT: "1"})


def is_early(queue: Queue, one: Received, now: float) -> bool:
    """Whether a message that was received is not to be handed out, but put off."""
    if one.is_kept or (one.wait and one.due_at > now):
        return True
    # It slept, and each time it came counts as a delivery. Sent anew it has none.
    return queue.is_fifo and one.wait > 0 and one.receives > 1


def _check(queue: Queue, outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for outcome in outcomes:
        if "Code" in outcome:
            raise BackendRefused(
                f"Queue {queue.name!r} of SQS does not take a message: {outcome['Code']}: "
                f"{outcome.get('Message', '')}"
            )
    return outcomes


def _as_it_is(one: Received, now: float) -> Anew:
    wait = max(0.0, one.due_at - now) if one.wait else 0.0
    return Anew(one, one.body, wait, one.lapses, one.buried_at if one.is_kept else 0.0, one.note)


def _sleep_of(one: Received, now: float) -> int:
    left = one.due_at - now
    return LONGEST_LEASE if one.is_kept or left > LONGEST_LEASE else math.ceil(left)


def _with_note(queue: Queue, one: Anew, notes: dict[str, str | bytes]) -> Entry:
    """Return a dead letter, with as much of its note as there is room for."""
    least = size_of(_entry(queue, one.body, {**notes, messages.NOTE: b""}, 0.0, one.old.message_id))
    note = fitted(one.note, queue.max_bytes - least)
    if one.note and not note:
        log.error("What happened to task %r is not kept: %s", one.old.task_id, one.note)
    told = {**notes, messages.NOTE: note.encode()} if note else notes
    return _entry(queue, one.body, told, 0.0, one.old.message_id, one.old.group)


def _entry(
    queue: Queue,
    body: bytes,
    notes: dict[str, str | bytes],
    wait: float,
    unique: str,
    group: str = "",
) -> Entry:
    """Return a message for a queue.

    Args:
        queue: Which.
        body: The task's.
        notes: What is beside it.
        wait: Seconds until it is due.
        unique: What two messages have in common that FIFO queues are to take for one, within five minutes.
        group: The group of FIFO queues, which hand out a group's messages one after the other. By default each
            task is one of its own.
    """
    if wait > LONGEST_DELAY or (queue.is_fifo and wait > 0):
        notes = {**notes, messages.WAIT: f"{wait:.3f}"}
    entry = messages.entry(body, notes)
    if queue.is_fifo:
        return {
            **entry,
            "MessageGroupId": group or fair_id(unique),
            "MessageDeduplicationId": fair_id(unique),
        }
    if wait <= 0:
        return entry
    return {**entry, "DelaySeconds": LONGEST_DELAY if wait > LONGEST_DELAY else math.ceil(wait)}
