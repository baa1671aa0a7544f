"""Tasks in Amazon SQS, where a task is a message, and its lease the time for which that is hidden.

SQS has no step that puts a message in the place of another. What has to change (the body for a retry, a delay
longer than SQS has, a hand-out that is not to be counted) is *sent anew*: first the new message, then the old
one is deleted. A crash in between leaves both, so that a task may run twice, and none is lost.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from typing import TypeGuard, TypeVar

from alligator.backends.base import (
    Ack,
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
    reserved_at,
)
from alligator.backends.sqs.dead import Dead
from alligator.backends.sqs.messages import Received
from alligator.backends.sqs.queues import LONGEST_LEASE, RETENTION, Queue, Queues
from alligator.backends.sqs.sending import Anew, Sender, forget_oldest, is_early
from alligator.backends.sqs.service import AT_ONCE, Service
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable

log = logging.getLogger("alligator.backend")

POLL_AMONG = 1
"""Seconds to wait for a message of the last of several queues: then the first ones are looked at again."""
SURE_AFTER = 1
"""Seconds to wait before saying that there is none: a look that does not wait sees a part of SQS only."""
FEWEST_RECEIPTS = 4
"""For a redrive policy to allow: three hand-outs make a task poison, and some receipts are no hand-outs."""
MOST = 1000
"""Tasks to hand out at once: each ten take a request, and leases begin with the first."""

T = TypeVar("T")


class Client(Backend):
    """A store in Amazon SQS.

    Args:
        conn_string: ``sqs://region/``, and after a "?" any of ``endpoint``, ``access_key``, ``secret_key``,
            ``session_token`` and ``profile``, which boto3 otherwise finds where it always does; ``dead``, the
            queue for dead letters; ``prefix`` of the names of all queues; ``poll``, the seconds that one
            request waits for a message (2).

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    can_prioritize = False
    can_find = False
    can_walk = False
    can_pick = False
    can_recover = False
    keeps_ids = False
    keeps_order = False
    knows_fractions = False
    limits_exactly = False
    tells_late = False
    drop_spares_held = False
    makes_queues = False
    carries_any_name = False

    def __init__(self, conn_string: str) -> None:
        self._service = Service(DSN.parse(conn_string))
        self._queues = Queues(self._service)
        self._sender = Sender(self._queues)
        self._dead = Dead(self._queues, self._sender)
        self._bell = Bell()
        self._out: dict[str, Received] = {}
        self._latest: dict[str, str] = {}
        self._settled: dict[str, object] = {}
        self._over: set[str] = set()

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        return [True] * len(self.push_named(queue_name, messages, max_length=max_length))

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        self._check_plain(messages)
        if not messages:
            return []
        queue = self._queues.named(queue_name)
        if max_length is not None and self.len(queue_name) + len(messages) > max_length:
            raise no_room(queue_name, len(messages), max_length)
        now = self.now() if any(message.due_at for message in messages) else 0.0
        return self._sender.push(queue, messages, now)

    def risks(self, queue_name: str) -> list[str]:
        queue = self._queues.named(queue_name)
        found: list[str] = []
        if queue.retention < RETENTION:
            found.append(
                f"Queue {queue.name!r} keeps a task for {queue.retention / 86400:g} days, done or not: its "
                f"MessageRetentionPeriod can be {RETENTION // 86400} days."
            )
        if self._queues.dead_of(queue) is None:
            found.append(
                f"Queue {queue.name!r} has no queue for its dead letters: nobody sees them, and they are "
                "gone when it keeps them no longer. Name one: ?dead=NAME in the DSN, or a redrive policy."
            )
        if queue.max_receives < FEWEST_RECEIPTS:
            found.append(
                f"Queue {queue.name!r} sets a task aside that was received {queue.max_receives:g} times, and a "
                f"worker that leaves is one: let maxReceiveCount be {FEWEST_RECEIPTS} or more."
            )
        return found

    def now(self) -> float:
        return self._service.now()

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
        batch = Batch(late=self.settle(settlements))
        if limit <= 0 or not queue_names:
            return batch
        try:
            limit = min(limit, MOST)
            self._wait_for(batch, queue_names, worker, limit, lease, wait, nap)
            if not wait and not batch.reservations:
                for queue_name in queue_names:
                    self._take(batch, queue_name, worker, limit, lease, SURE_AFTER)
        except (BackendUnavailable, BackendRefused):
            if not batch.reservations and not settlements:
                raise
            # What was handed out and settled by then must not be lost. The next call will tell.
        return batch

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        raise self._cannot("reserve_task()", "can_pick")

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        late: set[int] = set()
        for queue_name, some in _by_queue(settlements, lambda one: one.reservation.queue_name):
            late |= self._settle(self._queues.named(queue_name), some)
        return [settlement for settlement in settlements if id(settlement) in late]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        lost: set[int] = set()
        now = self.now()
        for queue_name, some in _by_queue(reservations, lambda one: one.queue_name):
            extended: list[tuple[Reservation, int]] = []
            for held in some:
                left = _left(held.token, now)
                seconds = min(math.ceil(lease), int(left))
                if held.token in self._settled:
                    lost.add(id(held))
                elif seconds > 0:
                    extended.append((held, seconds))
                else:
                    lost.add(id(held))
                    if left > -LONGEST_LEASE:
                        self._say_that_it_is_over(held)
            handles = [(_handle(held.token), seconds) for held, seconds in extended]
            agreed = self._queues.hide(self._queues.named(queue_name), handles)
            lost |= {id(held) for (held, _), ok in zip(extended, agreed, strict=True) if not ok}
        return [held for held in reservations if id(held) in lost]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        return 0

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        raise self._cannot("cancel()", "can_pick")

    def drop_all(self, queue_name: str) -> None:
        self._queues.purge(self._queues.named(queue_name))

    def len(self, queue_name: str) -> int:
        waiting, delayed, _ = self._queues.count(self._queues.named(queue_name))
        return waiting + delayed

    def count(self, queue_name: str) -> Counts:
        queue = self._queues.named(queue_name)
        dead = self._queues.dead_of(queue)
        waiting, delayed, running = self._queues.count(queue)
        return Counts(waiting, delayed, running, sum(self._queues.count(dead)) if dead else 0)

    def queues(self) -> list[str]:
        return self._queues.names()

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        letters = self._dead.letters(queue_name)
        found = [one for one in letters if task_id in (None, one.task_id)]
        return found[skip : skip + limit]

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        wait = max(0.0, due_at - self.now()) if due_at else 0.0
        return self._dead.retry(queue_name, letter_ids, wait)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        return self._dead.purge(queue_name, letter_ids)

    def create_queue(self, queue_name: str) -> bool:
        """Make a queue, and that for dead letters if the DSN names one; return whether it was not there."""
        return self._queues.create(queue_name)

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._service.close()
        self._bell.close()

    def _wait_for(
        self,
        batch: Batch,
        queue_names: Sequence[str],
        worker: str,
        limit: int,
        lease: float,
        wait: float,
        nap: float,
    ) -> None:
        """Look until there is something, the time is over, or somebody interrupts."""
        longest = POLL_AMONG if len(queue_names) > 1 else self._service.address.poll
        until = time.monotonic() + wait
        while True:
            poll = max(0, min(int(until - time.monotonic()), longest))
            if self._bell.is_interrupted:
                poll = 0
            for queue_name in queue_names:
                is_last = queue_name == queue_names[-1] and not batch.reservations
                self._take(batch, queue_name, worker, limit, lease, poll if is_last else 0)
            left = until - time.monotonic()
            if batch.reservations or left <= 0:
                return
            if self._bell.wait(0.0 if poll else min(left, nap)) is Woken.BY_INTERRUPT:
                return

    def _take(
        self, batch: Batch, queue_name: str, worker: str, limit: int, lease: float, poll: int
    ) -> None:
        """Receive from a queue until the batch is full, or there is no more."""
        queue = self._queues.named(queue_name)
        hidden_for = min(math.ceil(lease), LONGEST_LEASE)
        while (room := limit - len(batch.reservations)) > 0:
            came = self._queues.receive(queue, min(room, AT_ONCE), hidden_for, poll)
            now = self.now()
            early = [one for one in came if is_early(queue, one, now)]
            for one in came:
                if one not in early:
                    batch.reservations.append(self._handed_out(queue_name, worker, one, now))
            if early:
                self._sender.put_off(queue, early, now)
            if len(came) < min(room, AT_ONCE):
                return
            poll = 0

    def _handed_out(self, queue_name: str, worker: str, one: Received, now: float) -> Reservation:
        token = f"{worker}.{one.handle}.{round(now * 1000)}"
        before = self._latest.get(one.message_id)
        if before is not None:  # what still runs here of an earlier hand-out is late
            self._settled[before] = None
        self._out[token], self._latest[one.message_id] = one, token
        forget_oldest(self._out)
        forget_oldest(self._latest)
        return Reservation(queue_name, one.task_id, one.body, token, one.deliveries)

    def _settle(self, queue: Queue, settlements: Sequence[Settlement]) -> set[int]:
        """Carry out the settlements of a queue. Returns what is late, by ``id``."""
        now = self.now()
        late = self._taken(settlements, now)
        timely = [one for one in settlements if id(one) not in late]
        acks: list[Ack] = []
        hidden: list[Release] = []
        again: list[Release | Bury] = []
        for one in timely:
            if isinstance(one, Ack):
                acks.append(one)
            elif self._stays(one, _left(one.reservation.token, now)):
                hidden.append(one)
            else:
                again.append(one)
        steps: list[tuple[Sequence[Settlement], Callable[[], list[bool]]]] = [
            (again, lambda: self._sender.anew(queue, [self._anew(one, now) for one in again])),
            (acks, lambda: self._queues.delete(queue, [_handle_of(one) for one in acks])),
            (
                hidden,
                lambda: self._queues.hide(
                    queue, [(_handle_of(one), math.ceil(one.delay)) for one in hidden]
                ),
            ),
        ]
        while steps:
            some, carry_out = steps[0]
            try:
                agreed = carry_out()
            except BaseException:  # what is left may be tried again; what is done must not be
                self._forget([one for left, _ in steps for one in left])
                raise
            late |= {id(one) for one, ok in zip(some, agreed, strict=True) if not ok}
            del steps[0]
        for one in timely:
            self._out.pop(one.reservation.token, None)
        return late

    def _forget(self, unsettled: Iterable[Settlement]) -> None:
        for one in unsettled:
            self._settled.pop(one.reservation.token, None)

    def _taken(self, settlements: Sequence[Settlement], now: float) -> set[int]:
        """Note what is to be settled now. Returns what is late, as far as this process can tell, by ``id``."""
        # SQS does not say that another thread of ours has settled it. Sent anew it would be there twice.
        late: set[int] = set()
        for one in settlements:
            token, by_us = one.reservation.token, object()
            # One step, and no lock that a fork could leave locked.
            if self._settled.setdefault(token, by_us) is not by_us or _left(token, now) <= 0:
                late.add(id(one))
        forget_oldest(self._settled)
        return late

    def _stays(self, one: Release | Bury, left: float) -> TypeGuard[Release]:
        """Whether a message may stay as it is, and is only to come back: so its delivery is counted."""
        if isinstance(one, Bury) or one.body is not None:
            return False
        # Not to be counted it would have to be sent anew. A keeper has no body that could be sent.
        is_known = one.reservation.token in self._out or one.reservation.body != b""
        return (one.lapsed or not is_known) and one.delay < left

    def _anew(self, one: Release | Bury, now: float) -> Anew:
        held = one.reservation
        old = self._out.get(held.token)
        if old is None:  # it was another process that reserved it
            handle = _handle(held.token)
            old = Received(
                sha256(handle.encode()).hexdigest(), handle, held.task_id, held.body, now
            )
            deliveries = held.deliveries
        else:
            deliveries = old.deliveries
        if isinstance(one, Bury):
            return Anew(old, old.body, buried_at=now, note=one.note)
        if one.body is not None:
            return Anew(old, one.body, one.delay)
        return Anew(old, old.body, one.delay, deliveries - (not one.lapsed))

    def _say_that_it_is_over(self, held: Reservation) -> None:
        if held.token not in self._over:
            self._over.add(held.token)
            log.error(
                "Task %r is held for %g hours, and SQS lets nobody hold a message for longer: it goes to "
                "another worker, though it still runs here, and what comes of it here is void. Cut such "
                "tasks into parts, or give them a timeout",
                held.task_id,
                LONGEST_LEASE / 3600,
            )


def _by_queue(several: Sequence[T], queue_of: Callable[[T], str]) -> Iterable[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for one in several:
        groups.setdefault(queue_of(one), []).append(one)
    return groups.items()


def _handle(token: str) -> str:
    """Return the receipt handle in a token: between who holds it and when it was handed out."""
    return token.rpartition(".")[0].partition(".")[2]


def _handle_of(settlement: Settlement) -> str:
    return _handle(settlement.reservation.token)


def _left(token: str, now: float) -> float:
    """Return for how many seconds a hand-out can still be held; 0 or less for what is no token of ours."""
    try:
        return reserved_at(token) + LONGEST_LEASE - now if _handle(token) else 0.0
    except ValueError:
        return 0.0
