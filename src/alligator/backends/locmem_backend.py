"""Tasks in this process's memory: for development and tests. They end with the process.

Each client is a store of its own, so that one test cannot find another's tasks. One lock guards it all.
Pushing, reserving and settling cost O(log n) of the tasks waiting, or delayed; leases are looked through.
"""

import heapq
import itertools
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from alligator.backends.base import (
    MAX_PRIORITY,
    Ack,
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Follow,
    Found,
    Listed,
    Message,
    Release,
    Reservation,
    Settlement,
    State,
    no_room,
    token_of,
)
from alligator.backends.locmem.queue import Entry, Lease, Letter, Queue, place
from alligator.backends.locmem.records import MemoryRecords


class Client(Backend):
    """A store in memory.

    Args:
        conn_string: ``locmem://``.
        clock: Seconds since 1970; the store's clock.
    """

    spans_processes = False

    def __init__(self, conn_string: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._queues: dict[str, Queue] = {}
        self._numbers = itertools.count(1)
        # One for each who waits. SimpleQueue.put is the one wake-up that a signal handler may call.
        self._bells: set[queue.SimpleQueue[None]] = set()
        self._interrupts: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.records = self._records = MemoryRecords(clock)

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        """Queue tasks, all in one step."""
        with self._lock:
            target = self._queue(queue_name)
            if max_length is not None:
                room = max_length - len(target.waiting) - len(target.delayed)
                new = sum(message.task_id not in target.entries for message in messages)
                if new and new > room:
                    raise no_room(queue_name, new, max_length)
            now = self._clock()
            queued = [self._push(target, message, now) for message in messages]
        self._wake()
        return queued

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        """Queue tasks and swap a record."""
        with self._lock:  # who sees the new record and looks for the task, waits until it is there
            if not self._records.swap(key, old, new):
                return False
            queue, now = self._queue(queue_name), self._clock()
            for message in messages:
                self._push(queue, message, now)
        self._wake()
        return True

    def find(self, queue_name: str, task_id: str) -> Found | None:
        """Return a task as it is."""
        with self._lock:
            found = self._queue(queue_name)
            entry = found.entries.get(task_id)
            if entry is None:
                return None
            place = found.waiting.key(task_id)
            due_at = found.delayed.key(task_id)
            held = found.leases[entry.token] if place is None and due_at is None else None
            return Found(
                entry.body,
                due_at=due_at or 0.0,
                token=entry.token if held else "",
                lapses_at=held.lapses_at if held else 0.0,
                position=None if place is None else found.waiting.count_before(place),
                deliveries=entry.lapses + (held is not None),
                priority=entry.priority,
            )

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        """Let delayed tasks be due at another moment, all in one step."""
        with self._lock:
            found = self._queue(queue_name)
            done = [self._reschedule(found, task_id, due_at) for task_id in task_ids]
        self._wake()
        return done

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        """Let a task be followed by another."""
        with self._lock:
            entry = self._queue(queue_name).entries.get(task_id)
            if entry is None:
                return False
            entry.follow = entry.follow or follow
            return True

    def now(self) -> float:
        """Return the time."""
        return self._clock()

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
                tokens = [t for t, held in found.leases.items() if held.worker == worker]
                count += self._end_leases(found, tokens, started)
        self._wake()
        return count

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out a task that no worker holds."""
        with self._lock:
            found = self._queue(queue_name)
            entry = self._take(found, task_id)
            if entry:
                del found.entries[task_id]
                if entry.follow:
                    self._queue_follow(found, entry.follow, succeeded=False)
                return entry.body
            if held := found.entries.get(task_id):
                held.replacement = None
            return None

    def drop_all(self, queue_name: str) -> None:
        """Take out all that wait or are delayed."""
        with self._lock:
            found = self._queue(queue_name)
            dropped = found.waiting.clear() + found.delayed.clear()
            for entry in dropped:
                del found.entries[entry.task_id]
            for held in found.entries.values():
                held.replacement = None
            for entry in sorted(dropped, key=_order):  # after the others: these are not dropped
                if entry.follow:
                    self._queue_follow(found, entry.follow, succeeded=False)

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
            letters = (one.letter for one in reversed(self._queue(queue_name).dead.values()))
            found = (letter for letter in letters if task_id in (None, letter.task_id))
            return list(itertools.islice(found, skip, skip + max(0, limit)))

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        """Queue dead letters again."""
        with self._lock:
            found = self._queue(queue_name)
            moved = [
                letter_id
                for letter_id in letter_ids
                if (dead := found.dead.get(letter_id)) and self._retry(found, dead, due_at)
            ]
            self.purge_dead(queue_name, moved)
        self._wake()
        return moved

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Remove dead letters."""
        with self._lock:
            dead = self._queue(queue_name).dead
            return [letter_id for letter_id in letter_ids if dead.pop(letter_id, None)]

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        """List some tasks of a state."""
        with self._lock:
            found = self._queue(queue_name)
            if state == "running":
                held = found.entries.keys() - found.waiting.ids() - found.delayed.ids()
                places: list[tuple[float, str]] = [(0.0, task_id) for task_id in held]
            else:
                line = found.waiting if state == "waiting" else found.delayed
                places = [(line.key(task_id) or 0.0, task_id) for task_id in line.ids()]
            after = tuple(json.loads(cursor)) if cursor else (-math.inf, "")
            page = heapq.nsmallest(limit, (place for place in places if place > after))
            listed = [_listed(found.entries[task_id], state, at) for at, task_id in page]
            return listed, json.dumps(page[-1]) if len(page) == limit else ""

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        """Take tasks out, if they are as listed."""
        with self._lock:
            if self._records.get(key) != value:
                return [False] * len(tasks)
            found = self._queue(queue_name)
            taken: list[bool] = []
            for task, note in zip(tasks, notes, strict=True):
                taken.append(self._is_as_listed(found, task))
                if taken[-1]:
                    self._take(found, task.task_id)
                    del found.entries[task.task_id]
                    self._records.set(note, value)
            return taken

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Put dead letters of another store."""
        with self._lock:
            dead = self._queue(queue_name).dead
            put: list[bool] = []
            for letter in letters:
                what = letter[2:]
                put.append(all(one.letter[2:] != what for one in dead.values()))
                if put[-1]:
                    new = letter._replace(queue_name=queue_name, letter_id=str(next(self._numbers)))
                    dead[new.letter_id] = Letter(new, new.priority)
            return put

    def interrupt(self) -> None:
        """Wake up a reserve that waits."""
        self._interrupts.put(None)
        self._wake()

    def close(self) -> None:
        """Nothing to close."""

    def _queue(self, name: str) -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue()
        return self._queues[name]

    def _push(self, target: Queue, message: Message, now: float) -> bool:
        due_at = max(now + message.delay, message.due_at)
        task_id = message.task_id
        if task_id in target.entries:
            return message.replaces and self._replace(target, message, due_at)
        entry = Entry(task_id, message.body, next(self._numbers), message.priority, message.follow)
        target.entries[task_id] = entry
        if due_at > now:
            target.delayed.add(due_at, entry)
        else:
            target.waiting.add(place(entry), entry)
        return True

    def _make_ready(self, target: Queue, entry: Entry, due_at: float) -> None:
        if due_at > self._clock():
            target.delayed.add(due_at, entry)
        else:
            target.waiting.add(place(entry), entry)

    def _replace(self, target: Queue, message: Message, due_at: float) -> bool:
        entry = target.entries[message.task_id]
        if self._take(target, message.task_id):
            self._renew(target, entry, message, due_at)
        else:
            entry.replacement = message, due_at
        entry.follow = entry.follow or message.follow
        return True

    def _renew(self, target: Queue, entry: Entry, message: Message, due_at: float) -> None:
        """Give a task that is nowhere now what a message brings, and a place at the end."""
        entry.body, entry.priority = message.body, message.priority
        entry.lapses, entry.order, entry.keeps_place = 0, next(self._numbers), False
        self._make_ready(target, entry, due_at)

    def _reschedule(self, found: Queue, task_id: str, due_at: float) -> bool:
        entry = found.delayed.remove(task_id)
        if entry is None:
            return False
        if due_at > self._clock():
            found.delayed.add(due_at, entry)
        else:
            self._fall_due(found, entry)
        return True

    def _fall_due(self, found: Queue, entry: Entry) -> None:
        """Let a task that was delayed wait: at its place if it has kept that, or else at the end."""
        if not entry.keeps_place:
            entry.order = next(self._numbers)
        found.waiting.add(place(entry), entry)

    def _retry(self, found: Queue, dead: Letter, due_at: float) -> bool:
        letter = dead.letter
        again = Message(letter.task_id, letter.body, due_at=due_at, priority=dead.priority)
        return self._push(found, again, self._clock())

    def _reserve(
        self, queue_names: Sequence[str], worker: str, limit: int, lease: float
    ) -> Iterator[Reservation]:
        for name in queue_names:
            found = self._queue(name)
            self._bring_up_to_date(found)
            entries = found.waiting.take(limit)
            if entries:
                yield from self._lease(name, entries, worker, lease)
                limit -= len(entries)

    def _bring_up_to_date(self, found: Queue) -> None:
        """Make ready what is due, and take back what lapsed."""
        now = self._clock()
        while found.delayed.first_key() <= now:
            for entry in found.delayed.take(1):
                self._fall_due(found, entry)
        lapsed = [token for token, held in found.leases.items() if held.lapses_at <= now]
        if lapsed:
            self._end_leases(found, lapsed)

    def _next_at(self, found: Queue) -> float:
        moments = [held.lapses_at for held in found.leases.values()]
        return min([*moments, found.delayed.first_key()])

    def _is_as_listed(self, found: Queue, task: Listed) -> bool:
        entry = found.entries.get(task.task_id)
        due_at = found.delayed.key(task.task_id)
        if entry is None or (due_at is None and found.waiting.key(task.task_id) is None):
            return False
        return _listed(entry, "delayed", due_at or 0.0) == task

    def _take(self, found: Queue, task_id: str) -> Entry | None:
        return found.waiting.remove(task_id) or found.delayed.remove(task_id)

    def _lease(
        self, queue_name: str, entries: Sequence[Entry], worker: str, lease: float
    ) -> list[Reservation]:
        now = self._clock()
        token = token_of(worker, next(self._numbers), now)
        self._queue(queue_name).leases[token] = Lease(
            worker, now + lease, {entry.task_id: entry for entry in entries}
        )
        for entry in entries:
            entry.token = token
        self._wake()  # who waits must know when this lapses
        return [
            Reservation(queue_name, entry.task_id, entry.body, token, entry.lapses + 1)
            for entry in entries
        ]

    def _held(self, reservation: Reservation) -> Entry | None:
        held = self._queue(reservation.queue_name).leases.get(reservation.token)
        return held.entries.get(reservation.task_id) if held else None

    def _settle(self, settlement: Settlement) -> bool:
        held = settlement.reservation
        found = self._queue(held.queue_name)
        lease = found.leases.get(held.token)
        entry = lease.entries.pop(held.task_id, None) if lease else None
        if lease is None or entry is None:
            return False
        if not lease.entries:
            del found.leases[held.token]
        if isinstance(settlement, Bury):
            self._bury(found, entry, settlement)
        if entry.replacement:
            self._put_replacement(found, entry, *entry.replacement)
        elif isinstance(settlement, Release):
            self._release(found, entry, settlement)
        else:
            del found.entries[held.task_id]
            if entry.follow:
                succeeded = isinstance(settlement, Ack) and settlement.succeeded
                self._queue_follow(found, entry.follow, succeeded)
        return True

    def _bury(self, found: Queue, entry: Entry, bury: Bury) -> None:
        letter = DeadLetter(
            bury.reservation.queue_name,
            str(next(self._numbers)),
            entry.task_id,
            entry.body,
            bury.note,
            self._clock(),
            entry.priority,
        )
        found.dead[letter.letter_id] = Letter(letter, entry.priority)

    def _queue_follow(self, found: Queue, follow: Follow, succeeded: bool) -> None:
        body = follow.on_success if succeeded else follow.on_failure
        message = Message(follow.task_id, body, priority=MAX_PRIORITY + 1)
        self._push(found, message, self._clock())
        self._wake()

    def _put_replacement(self, found: Queue, entry: Entry, message: Message, due_at: float) -> None:
        """Let what was kept aside be the task, now that the hand-out has ended."""
        entry.replacement = None
        self._renew(found, entry, message, due_at)
        self._wake()

    def _release(self, found: Queue, entry: Entry, release: Release) -> None:
        if release.body is not None:
            entry.body, entry.lapses, entry.order = release.body, 0, next(self._numbers)
        entry.keeps_place = release.body is None
        entry.lapses += release.lapsed
        self._make_ready(found, entry, self._clock() + release.delay)

    def _end_leases(
        self, found: Queue, tokens: Sequence[str], started: Collection[str] | None = None
    ) -> int:
        """Take back what was handed out. A delivery counts for what had been started; None: for all."""
        entries = [entry for t in tokens for entry in found.leases.pop(t).entries.values()]
        for entry in sorted(entries, key=_order):
            entry.lapses += started is None or entry.task_id in started
            if entry.replacement:
                self._put_replacement(found, entry, *entry.replacement)
            else:
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


def _listed(entry: Entry, state: State, at: float) -> Listed:
    return Listed(
        entry.task_id,
        entry.body,
        at if state == "delayed" else 0.0,
        entry.priority,
        entry.token if state == "running" else "",
        entry.follow,
    )


def _order(entry: Entry) -> int:
    return entry.order
