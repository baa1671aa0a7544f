"""Tasks in this process's memory: for development and tests. They end with the process.

Each client is a store of its own, so that one test cannot find another's tasks. One lock guards it all.
Pushing, reserving and settling cost O(log n) of the tasks waiting, or delayed; leases are looked through.
"""

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from alligator.backends.base import (
    Ack,
    Backend,
    Batch,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
)


@dataclass(slots=True, eq=False)
class _Entry:
    """A task; it is in exactly one of its queue's waiting, delayed and leased."""

    task_id: str
    body: bytes
    order: int
    lapses: int = 0
    token: str = ""
    due_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Lease:
    worker: str
    lapses_at: float
    entries: dict[str, _Entry] = field(default_factory=dict[str, _Entry])


@dataclass(slots=True, eq=False)
class _Queue:
    entries: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    waiting: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    delayed: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    # Heaps over these two, by order and by time. What leaves a dict early stays on its heap until it is
    # popped, and is passed over then. The second of the three keeps entries from being compared.
    in_order: list[tuple[int, int, _Entry]] = field(default_factory=list[tuple[int, int, _Entry]])
    by_time: list[tuple[float, int, _Entry]] = field(
        default_factory=list[tuple[float, int, _Entry]]
    )
    leases: dict[str, _Lease] = field(default_factory=dict[str, _Lease])
    dead: dict[str, DeadLetter] = field(default_factory=dict[str, DeadLetter])


class Client(Backend):
    """A store in memory.

    Args:
        conn_string: ``locmem://``.
        clock: Seconds since 1970; the store's clock.
    """

    in_process = True

    def __init__(self, conn_string: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count(1)
        # One for each who waits. SimpleQueue.put is the one wake-up that a signal handler may call.
        self._bells: set[queue.SimpleQueue[None]] = set()
        self._interrupts: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.records = _Records(clock)

    def push_many(self, queue_name: str, messages: Sequence[Message]) -> list[bool]:
        """Queue tasks, all in one step."""
        with self._lock:
            target = self._queue(queue_name)
            queued = [self._push(target, message) for message in messages]
        self._wake()
        return queued

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
        """Hand out tasks; a push in this process wakes who waits."""
        late = self.settle(settlements)
        until = time.monotonic() + wait
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._bells.add(bell)  # before the look: what comes after it rings
        try:
            while True:
                with self._lock:
                    reservations = list(self._reserve(queue_names, worker, limit, lease))
                    next_at = min(
                        (self._next_at(self._queue(name)) for name in queue_names), default=0
                    )
                left = min(until - time.monotonic(), next_at - self._clock())
                if reservations or until <= time.monotonic() or self._interrupted():
                    return Batch(reservations, late)
                _wait(bell, max(left, 0.001))
        finally:
            self._bells.discard(bell)

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        """Hand out one task by its id."""
        with self._lock:
            found = self._queue(queue_name)
            entry = self._take(found, task_id)
            return None if entry is None else self._lease(queue_name, [entry], worker, lease)[0]

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Carry out settlements."""
        with self._lock:
            late = [settlement for settlement in settlements if not self._settle(settlement)]
        if any(isinstance(settlement, Release) for settlement in settlements):
            self._wake()
        return late

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """Extend leases."""
        lapses_at = self._clock() + lease
        with self._lock:
            lost = [held for held in reservations if self._held(held) is None]
            for held in reservations:
                if held not in lost:
                    self._queue(held.queue_name).leases[held.token].lapses_at = lapses_at
            return lost

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        """Give back what a dead worker holds."""
        count = 0
        with self._lock:
            for name in queue_names:
                found = self._queue(name)
                for token in [t for t, held in found.leases.items() if held.worker == worker]:
                    count += self._end_lease(found, token, started)
        self._wake()
        return count

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out a task that no worker holds."""
        with self._lock:
            found = self._queue(queue_name)
            entry = self._take(found, task_id)
            return found.entries.pop(task_id).body if entry else None

    def drop_all(self, queue_name: str) -> None:
        """Take out all that wait or are delayed."""
        with self._lock:
            found = self._queue(queue_name)
            for task_id in [*found.waiting, *found.delayed]:
                del found.entries[task_id]
            found.waiting.clear()
            found.delayed.clear()
            found.in_order.clear()
            found.by_time.clear()

    def count(self, queue_name: str) -> Counts:
        """Count tasks by state."""
        with self._lock:
            found = self._queue(queue_name)
            free = len(found.waiting) + len(found.delayed)
            return Counts(
                len(found.waiting), len(found.delayed), len(found.entries) - free, len(found.dead)
            )

    def queues(self) -> list[str]:
        """Return the names of the queues."""
        with self._lock:
            return sorted(
                name for name, found in self._queues.items() if found.entries or found.dead
            )

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        """Return dead letters, the newest first."""
        with self._lock:
            letters = reversed(self._queue(queue_name).dead.values())
            found = (letter for letter in letters if task_id in (None, letter.task_id))
            return list(itertools.islice(found, skip, skip + max(0, limit)))

    def retry_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Queue dead letters again."""
        with self._lock:
            found = self._queue(queue_name)
            letters = [found.dead[letter_id] for letter_id in letter_ids if letter_id in found.dead]
            moved = [
                letter.letter_id
                for letter in letters
                if self._push(found, Message(letter.task_id, letter.body))
            ]
            self.purge_dead(queue_name, moved)
        self._wake()
        return moved

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Remove dead letters."""
        with self._lock:
            dead = self._queue(queue_name).dead
            return [letter_id for letter_id in letter_ids if dead.pop(letter_id, None)]

    def interrupt(self) -> None:
        """Wake up a reserve that waits."""
        self._interrupts.put(None)
        self._wake()

    def close(self) -> None:
        """Nothing to close."""

    def _queue(self, name: str) -> _Queue:
        if name not in self._queues:
            self._queues[name] = _Queue()
        return self._queues[name]

    def _push(self, target: _Queue, message: Message) -> bool:
        if message.task_id in target.entries:
            return False
        entry = _Entry(message.task_id, message.body, next(self._numbers))
        target.entries[entry.task_id] = entry
        self._make_ready(target, entry, max(self._clock() + message.delay, message.due_at))
        return True

    def _make_ready(self, target: _Queue, entry: _Entry, due_at: float) -> None:
        if due_at > self._clock():
            entry.due_at = due_at
            target.delayed[entry.task_id] = entry
            heapq.heappush(target.by_time, (due_at, next(self._numbers), entry))
        else:
            target.waiting[entry.task_id] = entry
            heapq.heappush(target.in_order, (entry.order, next(self._numbers), entry))

    def _reserve(
        self, queue_names: Sequence[str], worker: str, limit: int, lease: float
    ) -> Iterator[Reservation]:
        for name in queue_names:
            found = self._queue(name)
            self._bring_up_to_date(found)
            entries: list[_Entry] = []
            while found.waiting and len(entries) < limit:
                order, _, entry = heapq.heappop(found.in_order)
                if found.waiting.get(entry.task_id) is entry and entry.order == order:
                    entries.append(found.waiting.pop(entry.task_id))
            if entries:
                yield from self._lease(name, entries, worker, lease)
                limit -= len(entries)

    def _bring_up_to_date(self, found: _Queue) -> None:
        """Make ready what is due, and take back what lapsed."""
        now = self._clock()
        while found.by_time and found.by_time[0][0] <= now:
            due_at, _, entry = heapq.heappop(found.by_time)
            if found.delayed.get(entry.task_id) is entry and entry.due_at == due_at:
                entry.order = next(self._numbers)  # it joins the end
                self._make_ready(found, found.delayed.pop(entry.task_id), now)
        for token in [token for token, held in found.leases.items() if held.lapses_at <= now]:
            self._end_lease(found, token, found.leases[token].entries.keys())

    def _next_at(self, found: _Queue) -> float:
        moments = [held.lapses_at for held in found.leases.values()]
        return min([*moments, found.by_time[0][0] if found.by_time else float("inf")])

    def _take(self, found: _Queue, task_id: str) -> _Entry | None:
        return found.waiting.pop(task_id, None) or found.delayed.pop(task_id, None)

    def _lease(
        self, queue_name: str, entries: Sequence[_Entry], worker: str, lease: float
    ) -> list[Reservation]:
        token = f"{worker}.{next(self._numbers)}"
        self._queue(queue_name).leases[token] = _Lease(
            worker, self._clock() + lease, {entry.task_id: entry for entry in entries}
        )
        for entry in entries:
            entry.token = token
        self._wake()  # who waits must know when this lapses
        return [
            Reservation(queue_name, entry.task_id, entry.body, token, entry.lapses + 1)
            for entry in entries
        ]

    def _held(self, reservation: Reservation) -> _Entry | None:
        held = self._queue(reservation.queue_name).leases.get(reservation.token)
        return held.entries.get(reservation.task_id) if held else None

    def _settle(self, settlement: Settlement) -> bool:
        held = settlement.reservation
        entry = self._held(held)
        if entry is None:
            return False
        found = self._queue(held.queue_name)
        lease = found.leases[held.token]
        del lease.entries[held.task_id]
        if not lease.entries:
            del found.leases[held.token]
        if isinstance(settlement, Release):
            self._release(found, entry, settlement)
        else:
            del found.entries[held.task_id]
            if not isinstance(settlement, Ack):
                letter_id = str(next(self._numbers))
                found.dead[letter_id] = DeadLetter(
                    held.queue_name,
                    letter_id,
                    entry.task_id,
                    entry.body,
                    settlement.note,
                    self._clock(),
                )
        return True

    def _release(self, found: _Queue, entry: _Entry, release: Release) -> None:
        if release.body is not None:
            entry.body, entry.lapses, entry.order = release.body, 0, next(self._numbers)
        entry.lapses += release.lapsed
        self._make_ready(found, entry, self._clock() + release.delay)

    def _end_lease(self, found: _Queue, token: str, started: Collection[str]) -> int:
        entries = list(found.leases.pop(token).entries.values())
        for entry in entries:
            entry.lapses += entry.task_id in started
            self._make_ready(found, entry, due_at=0.0)
        return len(entries)

    def _wake(self) -> None:
        for bell in list(self._bells):
            if bell.empty():
                bell.put(None)

    def _interrupted(self) -> bool:
        try:
            self._interrupts.get_nowait()
        except queue.Empty:
            return False
        return True


def _wait(bell: "queue.SimpleQueue[None]", timeout: float) -> None:
    try:
        bell.get(timeout=timeout)
    except queue.Empty:
        pass


class _Records:
    """Small values in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, tuple[bytes, float]] = {}

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._get(key)

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        with self._lock:
            self._set(key, value, ttl)

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        with self._lock:
            if self._get(key) != old:
                return False
            self._set(key, new, ttl)
            return True

    def delete(self, key: str) -> None:
        with self._lock:
            self._values.pop(key, None)

    def list(self, family: str) -> dict[str, bytes]:
        with self._lock:
            keys = sorted(key for key in self._values if key.partition("/")[0] == family)
            return {key: value for key in keys if (value := self._get(key)) is not None}

    def _get(self, key: str) -> bytes | None:
        value, expires_at = self._values.get(key, (None, 0.0))
        if value is not None and expires_at <= self._clock():
            del self._values[key]
            return None
        return value

    def _set(self, key: str, value: bytes, ttl: float | None) -> None:
        expires_at = float("inf") if ttl is None else self._clock() + ttl
        self._values[key] = value, expires_at
