"""Sending messages of SQS: what is pushed, what has to be sent anew, and what is not to come yet."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

from alligator import payloads
from alligator.backends.base import Message
from alligator.backends.sqs import messages
from alligator.backends.sqs.messages import Entry, Received, fair_id, fitted, size_of
from alligator.backends.sqs.queues import LONGEST_LEASE, LOOK_EVERY, Queue, Queues
from alligator.exceptions import BackendRefused, InvalidOption

log = logging.getLogger("alligator.backend")

LONGEST_DELAY = 900
"""Seconds for which SQS delays a message."""
MOST_REMEMBERED = 5000
"""Messages of which is remembered what was done to them."""
AWAY_FOR = 3600
"""Seconds for which a message is hidden that ought to be sent anew, and cannot: others have sent it, and left
no room in it for an attribute."""


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
        self._closed: dict[str, float] = {}
        """Queues for dead letters that take none from us, perhaps from SQS alone; and since when."""
        self._undelayed: set[str] = set()
        """Queues of which was told that they delay nothing."""

    def push(self, queue: Queue, pushed: Sequence[Message], now: float) -> list[str]:
        """Send tasks; return the ids that SQS gave them.

        Raises:
            TaskTooBig: One of them is; nothing was sent.
            BackendRefused: SQS did not take one of them; the others were sent.
        """
        waits = [max(message.delay, message.due_at - now) for message in pushed]
        if not queue.can_delay and any(wait > 0 for wait in waits):
            raise InvalidOption(
                f"Queue {queue.name!r} of SQS cannot delay: what is delayed in a FIFO queue is received before "
                "it is due, and its redrive policy allows one receipt. Let its maxReceiveCount be 4 or more."
            )
        entries = [
            _entry(queue, message.body, {}, wait, message.task_id)
            for message, wait in zip(pushed, waits, strict=True)
        ]
        self._queues.check_sizes(queue, [message.task_id for message in pushed], entries)
        return [outcome["MessageId"] for outcome in self._send(queue, entries)]

    def anew(self, queue: Queue, several: Sequence[Anew]) -> list[bool]:
        """Send messages anew and delete the old; return for each whether SQS agreed that it was ours.

        If this breaks off, and this process repeats it, what was sent is not sent again.
        """
        unsent = [one for one in several if one.old.handle not in self._sent]
        stay = {one.old.handle: _away_for(one) for one in self._send_all(queue, unsent)}
        old = [one.old.handle for one in several if one.old.handle not in stay]
        agreed = dict(zip(old, self._queues.delete(queue, old), strict=True))
        agreed |= zip(stay, self._queues.hide(queue, list(stay.items())), strict=True)
        for handle in old:
            self._sent.pop(handle, None)
        forget_oldest(self._sent)
        return [agreed[one.old.handle] for one in several]

    def revive(self, queue: Queue, letters: Sequence[Received], wait: float) -> None:
        """Send dead letters as tasks again."""
        wait = self._wait_in(queue, wait)
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
        self._queues.hide(queue, [(one.handle, _sleep_of(queue, one, now)) for one in asleep])

    def _sleeps(self, queue: Queue, one: Received, now: float) -> bool:
        """Whether a message is best hidden for as long as can be: else it is sent anew."""
        # SQS deletes what has been in a queue for too long, hidden or not; sent anew it is new there.
        if now - one.sent_at > queue.retention / 2:
            return False
        if one.is_kept:
            return self._home_of(queue, _as_it_is(one, now)) is None
        # To SQS, what is received and hidden has been delivered, and a redrive policy allows that so often. So
        # it is done only where nothing else can be.
        return queue.is_fifo and one.due_at > now and one.receives < max(2, queue.max_receives)

    def _send_all(self, queue: Queue, several: Sequence[Anew]) -> list[Anew]:
        """Send messages anew. Returns those that stay as they are, for no message can carry them and more."""
        found = [(one, self._targeted(queue, one)) for one in several]
        going = [(*target, one) for one, target in found if target is not None]
        for target, group in groupby(going, lambda one: one[0]):
            _, entries, its = zip(*group, strict=True)
            try:
                self._send_anew(target, entries, its)
            except BackendRefused as err:
                if target == queue:
                    raise
                log.warning("Dead letters cannot go to %r: %s", target.name, err)
                self._closed[target.url] = time.monotonic()
                left = [one for one in several if one.old.handle not in self._sent]
                return self._send_all(queue, left)
        return [one for one, target in found if target is None]

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

    def _targeted(self, queue: Queue, one: Anew) -> tuple[Queue, Entry] | None:
        """Return what is to be sent anew, and where to; None: it stays as it is."""
        if one.buried_at:
            return self._dead_letter(queue, one)
        notes: dict[str, str | bytes] = {messages.ID: one.old.task_id}
        if one.lapses:
            notes[messages.LAPSES] = str(one.lapses)
        wait = self._wait_in(queue, one.wait)
        entry = _entry(queue, one.body, notes, wait, one.old.message_id, one.old.group)
        if size_of(entry) <= queue.max_bytes:
            return queue, entry
        if one.body == one.old.body:
            return None
        # Its next attempt tells more than the one before, and it was near the limit.
        log.error("Task %r has grown too big to be tried again: buried", one.old.task_id)
        grown = f"It was to be tried again, and takes {size_of(entry)} bytes by now"
        note = payloads.encode({"reason": "failed", "error": grown})
        return self._dead_letter(
            queue, replace(one, body=one.old.body, buried_at=one.old.sent_at, note=note)
        )

    def _wait_in(self, queue: Queue, wait: float) -> float:
        """Return for how long a task is to wait that is queued again: not at all, where it would never run."""
        if queue.can_delay or wait <= 0:
            return wait
        if queue.url not in self._undelayed:
            self._undelayed.add(queue.url)
            log.warning(
                "Queue %r of SQS cannot delay: what is to be tried again later is tried again at once. Let its "
                "maxReceiveCount be 4 or more",
                queue.name,
            )
        return 0.0

    def _dead_letter(self, queue: Queue, one: Anew) -> tuple[Queue, Entry] | None:
        home = self._home_of(queue, one)
        if home is not None:
            return home
        kept = _with_note(queue, queue, one, {messages.KEPT: "1"})
        if size_of(kept) > queue.max_bytes:
            log.error(
                "Task %r cannot be made a dead letter: others have sent it, and left no room in its message. "
                "It is run again in an hour. %s",
                one.old.task_id,
                one.note,
            )
            return None
        log.warning(
            "Dead letter %r stays in queue %r, hidden, for no other takes it. Name a queue for dead letters: "
            "?dead=NAME in the DSN, or a redrive policy of the queue",
            one.old.task_id,
            queue.name,
        )
        return queue, kept

    def _home_of(self, queue: Queue, one: Anew) -> tuple[Queue, Entry] | None:
        """Return a dead letter, and the queue for those; None: there is none that takes it."""
        try:
            dead = self._queues.dead_of(queue)
        except BackendRefused as err:  # to stop at this would stop all other tasks, too
            log.warning("%s", err)
            return None
        if dead is None or time.monotonic() - self._closed.get(dead.url, -math.inf) < LOOK_EVERY:
            return None
        entry = _with_note(queue, dead, one, {})
        return (dead, entry) if size_of(entry) <= dead.max_bytes else None


def is_early(queue: Queue, one: Received, now: float) -> bool:
    """Whether a message that was received is not to be handed out, but put off."""
    if one.is_kept or (one.wait and one.due_at > now):
        return True
    # It slept, and each time it came counts as a delivery. Sent anew it has none.
    return queue.is_fifo and one.wait > 0 and one.receives > 1


def forget_oldest(remembered: dict[str, Any]) -> None:
    """Forget what is too much to be remembered: other threads may change it meanwhile."""
    for key in list(islice(remembered, max(0, len(remembered) - MOST_REMEMBERED))):
        remembered.pop(key, None)


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


def _sleep_of(queue: Queue, one: Received, now: float) -> int:
    left = math.inf if one.is_kept else one.due_at - now
    return math.ceil(min(left, LONGEST_LEASE, queue.retention / 4))


def _away_for(one: Anew) -> int:
    """Return the seconds until a message is to come back that cannot be sent anew."""
    return AWAY_FOR if one.buried_at else min(math.ceil(one.wait), AWAY_FOR)


def _with_note(queue: Queue, target: Queue, one: Anew, more: dict[str, str | bytes]) -> Entry:
    """Return a dead letter of a queue, for another one, with as much of its note as there is room for."""
    notes: dict[str, str | bytes] = {
        messages.ID: one.old.task_id,
        messages.BURIED: f"{one.buried_at:.3f}",
        messages.QUEUE: queue.name,
        **more,
    }
    group = one.old.group if target.is_fifo else ""
    least = size_of(_entry(target, one.body, {**notes, messages.NOTE: b""}, 0.0, ""))
    note = fitted(one.note, target.max_bytes - least)
    if one.note and not note:
        log.error("What happened to task %r is not kept: %s", one.old.task_id, one.note)
    told = {**notes, messages.NOTE: note.encode()} if note else notes
    return _entry(target, one.body, told, 0.0, one.old.message_id, group)


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
        group: The group that it was received with. A FIFO queue hands out a group's messages one by one, so by
            default each task is one of its own. To a standard queue it tells whose messages they are.
    """
    longest = min(LONGEST_DELAY, queue.retention // 4)  # else SQS might delete it before it is due
    if wait > longest or (queue.is_fifo and wait > 0):
        notes = {**notes, messages.WAIT: f"{wait:.3f}"}
    entry = messages.entry(body, notes)
    if queue.is_fifo:
        return {
            **entry,
            "MessageGroupId": group or fair_id(unique),
            "MessageDeduplicationId": fair_id(unique),
        }
    if group:
        entry["MessageGroupId"] = group
    if wait > 0:
        entry["DelaySeconds"] = math.ceil(min(wait, longest))
    return entry
