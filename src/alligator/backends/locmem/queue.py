"""What a queue in memory is made of."""

import heapq
import itertools
import math
from collections.abc import KeysView
from dataclasses import dataclass, field

from alligator.backends.base import DeadLetter, Follow, Message


@dataclass(slots=True, eq=False)
class Entry:
    """A task; it is in exactly one of its queue's waiting, delayed and leased."""

    task_id: str
    body: bytes
    order: int
    priority: int = 0
    follow: Follow | None = None
    lapses: int = 0
    token: str = ""
    # Of a delayed one: it was given back as it was, and returns to its place.
    keeps_place: bool = False
    # Of a held one: what takes its place when the hand-out ends, and when that is due.
    replacement: tuple[Message, float] | None = None


def place(entry: Entry) -> int:
    """Return where a task stands among those that wait: by its priority, and then by its order."""
    # No order comes near the factor.
    return entry.order - entry.priority * 2**64 if entry.priority else entry.order


@dataclass(slots=True, eq=False)
class Lease:
    """A hand-out, with what is left of it."""

    worker: str
    lapses_at: float
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])


class Line:
    """Tasks by their ids, of which the one with the lowest key is the first."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[float, int, Entry]] = {}
        # What leaves early stays on the heap until it is the first, or most of the heap is like it. The
        # second of the three keeps entries from being compared.
        self._heap: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: float, entry: Entry) -> None:
        """Put in a task that is not there."""
        item = key, next(self._numbers), entry
        self._items[entry.task_id] = item
        heapq.heappush(self._heap, item)

    def key(self, task_id: str) -> float | None:
        """Return a task's key; None when it is not there."""
        item = self._items.get(task_id)
        return item[0] if item else None

    def ids(self) -> KeysView[str]:
        """Return whose it is, in no order."""
        return self._items.keys()

    def first_key(self) -> float:
        """Return the first one's key; infinite when there is none."""
        heap, items = self._heap, self._items
        while heap and items.get(heap[0][2].task_id) is not heap[0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def take(self, limit: int) -> list[Entry]:
        """Take out the first ones."""
        heap, items = self._heap, self._items
        taken: list[Entry] = []
        while heap and len(taken) < limit:
            item = heapq.heappop(heap)
            entry = item[2]
            if items.get(entry.task_id) is item:
                del items[entry.task_id]
                taken.append(entry)
        return taken

    def remove(self, task_id: str) -> Entry | None:
        """Take out a certain one, if it is there."""
        item = self._items.pop(task_id, None)
        if item is None:
            return None
        if len(self._heap) > 2 * len(self._items) + 100:
            self._heap = list(self._items.values())
            heapq.heapify(self._heap)
        return item[2]

    def clear(self) -> list[Entry]:
        """Take out all."""
        entries = [entry for _, _, entry in self._items.values()]
        self._items.clear()
        self._heap.clear()
        return entries

    def count_before(self, key: float) -> int:
        """Count those with lower keys."""
        return sum(other < key for other, _, _ in self._items.values())


@dataclass(slots=True, eq=False)
class Letter:
    """A dead letter, and what queues it again where it belongs."""

    letter: DeadLetter
    priority: int


@dataclass(slots=True, eq=False)
class Queue:
    """All of a queue. ``entries`` has its tasks in whatever state."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    waiting: Line = field(default_factory=Line)
    delayed: Line = field(default_factory=Line)
    leases: dict[str, Lease] = field(default_factory=dict[str, Lease])
    dead: dict[str, Letter] = field(default_factory=dict[str, Letter])
