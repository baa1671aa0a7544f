"""A client with only the five documented methods, made to look like a full store.

Such a client has ``len, drop_all, push(queue_name, task_id, data), pop, get`` and need not inherit from
anything. It takes a task out before it runs, so it can promise *at most once*: a worker that dies loses what
it took. It cannot delay or prioritize, knows nothing of single tasks, and keeps no dead letters: what fails
for good is logged instead.

A task that puts itself off (``Snooze``, ``Retry(delay=...)``) is pushed again at once, so that it is safe, and
this process notes not to run it before its time: it takes it out, and pushes it to the end once more. Another
process knows nothing of that, and may run it early.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from alligator import payloads
from alligator.backends.base import (
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
    no_room,
)
from alligator.exceptions import UnreadableTask
from alligator.raised import line_of
from alligator.utils import new_id

log = logging.getLogger("alligator.backend")

LOOK = 1.0
"""Seconds between two looks, at the most, however many tasks are put off: each look goes through them all."""


class SimpleClient(Protocol):
    """The five documented methods. ``data`` is what a task's ``serialize`` returned."""

    def len(self, queue_name: str) -> int:
        """Count the tasks of a queue."""
        ...

    def drop_all(self, queue_name: str) -> Any:
        """Remove every task of a queue."""
        ...

    def push(self, queue_name: str, task_id: str, data: Any) -> Any:
        """Put a task in."""
        ...

    def pop(self, queue_name: str) -> Any:
        """Take the first task out and return its data; something false when there is none."""
        ...

    def get(self, queue_name: str, task_id: str) -> Any:
        """Take one task out by its id and return its data; something false when there is none."""
        ...


class SimpleBackend(Backend):
    """Moves tasks through a client of five methods.

    Args:
        client: What has the five methods.
        clock: A monotonic clock, for what is put off.
    """

    can_lease = False
    can_delay = False
    can_prioritize = False
    can_find = False
    can_walk = False
    limits_exactly = False

    def __init__(self, client: SimpleClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._interrupts: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._used: set[str] = set()
        self._lock = threading.Lock()
        # By queue and payload, for only its own class may be able to read an id in it.
        self._put_off: dict[tuple[str, bytes], float] = {}

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        """Hand each to ``push``. Whether an id is queued already is for the client to tell."""
        self._check_plain(messages)
        if (
            messages
            and max_length is not None
            and self.client.len(queue_name) + len(messages) > max_length
        ):
            raise no_room(queue_name, len(messages), max_length)
        self._used.add(queue_name)
        for message in messages:
            self._push(queue_name, message.task_id, message.body, message.delay)
        return [True] * len(messages)

    def reserve(
        self,
        queue_names: Sequence[str],
        worker: str,
        *,
        limit: int = 1,
        lease: float = 30.0,
        wait: float = 0.0,
        nap: float = 0.1,
        settlements: Sequence[Settlement] = (),
    ) -> Batch:
        """Take out one task, looking every ``nap`` seconds; more could be lost at once."""
        late = self.settle(settlements)
        until = time.monotonic() + wait
        while True:
            for queue_name in queue_names:
                if (held := self._next(queue_name)) is not None:
                    return Batch([held], late)
            left = until - time.monotonic()
            pause = max(nap, min(LOOK, nap * len(self._put_off)))
            if left <= 0 or self._interrupted(min(pause, left)):
                return Batch([], late)

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        """Take out one task by its id."""
        data = self.client.get(queue_name, task_id)
        return _reservation(queue_name, task_id, data) if data else None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Push again what is released; the rest is gone already."""
        for settlement in settlements:
            held = settlement.reservation
            if isinstance(settlement, Release):
                body = held.body if settlement.body is None else settlement.body
                self._push(held.queue_name, held.task_id, body, settlement.delay)
            elif isinstance(settlement, Bury):
                log.error(
                    "This store keeps no dead letters. Lost from queue %r: task %r of %s bytes, %s",
                    held.queue_name,
                    held.task_id,
                    len(held.body),
                    settlement.note,
                )
        return []

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """Nothing to extend: what was taken out is out."""
        return []

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        """Nothing to recover: what a dead worker had is lost."""
        return 0

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out one task by its id and return its body."""
        data = self.client.get(queue_name, task_id)
        return _as_body(data) if data else None

    def drop_all(self, queue_name: str) -> None:
        """Drop the whole queue."""
        self.client.drop_all(queue_name)

    def count(self, queue_name: str) -> Counts:
        """Count what waits; the client knows no other state."""
        return Counts(waiting=self.client.len(queue_name))

    def queues(self) -> list[str]:
        """Return the queues that this process has pushed to: the client cannot list them."""
        return sorted(self._used)

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        """None are kept."""
        return []

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        """None are kept."""
        return []

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """None are kept."""
        return []

    def interrupt(self) -> None:
        """Wake up a reserve that waits."""
        self._interrupts.put(None)

    def close(self) -> None:
        """Close the client, if it can be."""
        close = getattr(self.client, "close", None)
        if close is not None:
            close()

    def _push(self, queue_name: str, task_id: str, body: bytes, delay: float) -> None:
        with self._lock:
            now = self._clock()
            self._put_off.pop((queue_name, body), None)
            if delay > 0:
                # Without those whose time has come: another process may have taken them.
                self._put_off = {key: at for key, at in self._put_off.items() if at > now}
                self._put_off[queue_name, body] = now + delay
        self.client.push(queue_name, task_id, _as_pushed(body))

    def _next(self, queue_name: str) -> Reservation | None:
        """Take out the first task that is not put off."""
        met: set[bytes] = set()
        while data := self.client.pop(queue_name):
            held = _reservation(queue_name, _id_in(data), data)
            left = self._put_off.get((queue_name, held.body), -math.inf) - self._clock()
            if left <= 0:
                with self._lock:
                    self._put_off.pop((queue_name, held.body), None)
                return held
            try:
                self._push(queue_name, held.task_id, held.body, left)
            except Exception as err:  # whatever the client raises: better early than lost
                log.warning("Task %r runs before its time: %s", held.task_id, line_of(err))
                return held
            if held.body in met:  # there are no others
                return None
            met.add(held.body)
        return None

    def _interrupted(self, timeout: float) -> bool:
        try:
            self._interrupts.get(timeout=timeout)
        except queue.Empty:
            return False
        return True


def _reservation(queue_name: str, task_id: str, data: Any) -> Reservation:
    return Reservation(queue_name, task_id, _as_body(data), token="")


def _id_in(data: Any) -> str:
    """Return the id of a popped task, for pushing it again; a new one if only its class can read it."""
    try:
        task_id: str = payloads.decode(_as_body(data))["task_id"]
    except UnreadableTask:
        return new_id()
    return task_id


def _as_body(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)


def _as_pushed(body: bytes) -> str | bytes:
    """Return a body as ``serialize`` made it: text where it is text."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
