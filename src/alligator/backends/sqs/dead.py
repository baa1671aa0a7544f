"""Dead letters in SQS: messages of another queue. To see them is to receive them, and to let them go again."""

import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager

from alligator import payloads
from alligator.backends.base import DeadLetter
from alligator.backends.sqs.messages import Received
from alligator.backends.sqs.queues import Queue, Queues
from alligator.backends.sqs.sending import Sender
from alligator.backends.sqs.service import AT_ONCE
from alligator.exceptions import BackendRefused

MOST = 1000
"""Dead letters to look at in one go: each is received."""
HIDDEN_FOR = 60
"""Seconds for which they are hidden meanwhile from whoever else looks."""
SURE_AFTER = 1
"""Seconds to wait for another one: a look that does not wait sees a part of SQS only."""


class Dead:
    """The dead letters of some queues.

    Args:
        queues: The queues.
        sender: Sends messages there.
    """

    def __init__(self, queues: Queues, sender: Sender) -> None:
        self._queues = queues
        self._sender = sender

    def letters(self, queue_name: str) -> list[DeadLetter]:
        """Return the dead letters of a queue, the newest first; of the thousand that SQS gives first."""
        with self._seen(self._queues.named(queue_name)) as (_, seen):
            letters = [_letter(queue_name, one) for one in seen]
        letters.sort(key=lambda letter: letter.buried_at)
        return letters[::-1]

    def retry(self, queue_name: str, letter_ids: Sequence[str], wait: float) -> list[str]:
        """Send dead letters back to the queue of their tasks; return the ids of those that were."""
        queue = self._queues.named(queue_name)
        with self._seen(queue, letter_ids) as (dead, seen):
            chosen = _chosen(seen, letter_ids)
            for at in range(0, len(chosen), AT_ONCE):
                ten = chosen[at : at + AT_ONCE]  # no more are in both queues, if it breaks off
                self._sender.revive(queue, ten, wait)
                self._remove(dead, seen, ten)
        return [one.message_id for one in chosen]

    def purge(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Delete dead letters; return the ids of those that were."""
        with self._seen(self._queues.named(queue_name), letter_ids) as (dead, seen):
            chosen = _chosen(seen, letter_ids)
            self._remove(dead, seen, chosen)
        return [one.message_id for one in chosen]

    @contextmanager
    def _seen(
        self, queue: Queue, letter_ids: Sequence[str] | None = None
    ) -> Generator[tuple[Queue, list[Received]]]:
        """Receive the dead letters of a queue, all or until some are among them.

        In the end, those that are still in the list are let go.
        """
        dead = self._queues.dead_of(queue)
        if dead is None:
            raise BackendRefused(
                f"Queue {queue.name!r} has no queue for its dead letters, and those that it keeps itself are "
                "hidden. Name one: ?dead=NAME in the DSN, or a redrive policy of the queue."
            )
        seen: list[Received] = []
        others: list[Received] = []
        missing = set(letter_ids or ())
        try:
            began = time.monotonic()
            while len(seen) + len(others) < MOST and time.monotonic() - began < HIDDEN_FOR / 2:
                came = self._queues.receive(dead, AT_ONCE, HIDDEN_FOR, SURE_AFTER)
                if not came:
                    break
                for one in came:
                    (
                        seen if (one.queue or one.source or queue.name) == queue.name else others
                    ).append(one)
                missing -= {one.message_id for one in came}
                if letter_ids is not None and not missing:
                    break
            yield dead, seen
        finally:
            self._queues.hide(dead, [(one.handle, 0) for one in (*seen, *others)])

    def _remove(self, dead: Queue, seen: list[Received], chosen: Collection[Received]) -> None:
        self._queues.delete(dead, [one.handle for one in chosen])
        gone = {one.handle for one in chosen}
        seen[:] = [one for one in seen if one.handle not in gone]


def _chosen(seen: Sequence[Received], letter_ids: Sequence[str]) -> list[Received]:
    known = {one.message_id: one for one in seen}
    return [known[letter_id] for letter_id in dict.fromkeys(letter_ids) if letter_id in known]


def _letter(queue_name: str, one: Received) -> DeadLetter:
    note = one.note if one.buried_at else _moved_by_sqs()
    buried_at = one.buried_at or one.sent_at
    return DeadLetter(queue_name, one.message_id, one.task_id, one.body, note, buried_at)


def _moved_by_sqs() -> str:
    error = (
        "SQS itself moved it here: it was received as often as the queue's redrive policy allows"
    )
    return payloads.encode({"reason": "poison", "error": error})
