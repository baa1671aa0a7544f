"""A worker's board: what it holds, written where its keeper can read it at any moment.

A worker may be deep in a task that lets no other thread run, or dead. So its keeper, in the parent process,
never asks it, but reads this piece of shared memory. Each field has one writer. The list of what is held is
written to one of two slots in turn, and a counter then says which is current, so that neither a reader nor a
death half-way meets half a list; all that changes from task to task is one byte a task::

    header   number of the current list | outcomes so far | when leases were last extended | its end | thread |
             how often it has turned to its parent
    marks    the keeper's, each with the number of its task
    runs     since when the task of that number runs, and in which thread
    slot     how many, how long | since when | until when | numbers | what is done with each | names

A task has a number of its own while it is held, and the number says where its mark is. So a mark stays where it
is when the list is replaced, and one that comes too late lands on no other task.
"""

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Protocol

from alligator.backends.base import MAX_ID_BYTES, MAX_NAME_BYTES, MAX_TOKEN_BYTES, Reservation

CAPACITY = 1280
"""Tasks that one process may hold."""

_NO_DEADLINES: Mapping[int, float] = MappingProxyType({})

_HEADER = 64
_COUNTS = 16
_MARK_BITS = 2
_MAX_LINE = MAX_NAME_BYTES + MAX_ID_BYTES + MAX_TOKEN_BYTES + 3  # and what separates them
_ZEROS = memoryview(bytes(8 * CAPACITY)).cast("d")
_GENERATION = 0
_EXTENDED_AT = 4
_END = 5
_THREAD = 6
_TURNS = 7


class Buffer(Protocol):
    """Memory: a bytearray, or a mmap that two processes share."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class State(IntEnum):
    """What the worker does with a task."""

    HELD = 0
    STARTED = 1
    DONE = 2
    """Succeeded, and waits to be acknowledged with the tasks after it."""
    SENT = 3
    """Its settlement is on the way."""
    SUBMITTED = 4
    """Begun, but the event loop has run nothing of it yet: if the process dies, it was not that."""


BEGUN = (State.SUBMITTED, State.STARTED)
UNFINISHED = (State.HELD, *BEGUN)


class Mark(IntEnum):
    """What the keeper does with a task."""

    NONE = 0
    GIVE_BACK = 1
    """To be released at the keeper's next look, unless started by then; not to be started."""
    GONE = 2
    """Released, or lost to another worker."""
    SETTLED = 3
    """Acknowledged in the worker's place."""


class Outcome(IntEnum):
    """What came of an attempt; and where on the board such are counted."""

    DONE = 1
    FAILED = 2
    RETRIED = 3


class End(IntEnum):
    """How a worker process ended, as it said itself. Its exit status is no such sign: a task may set it."""

    NONE = 0
    """It runs, or it died."""
    FINISHED = 1
    """It was told to leave, or in a burst nothing was left."""
    USED_UP = 2
    """``max_tasks`` are done: another process shall go on."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A task on the board."""

    number: int
    reservation: Reservation
    since: float
    state: State
    mark: Mark
    deadline: float = 0.0
    """When it is to have ended, by the monotonic clock; 0: it has no timeout."""
    began_at: float = 0.0
    """When it was begun, by the monotonic clock; 0: it was not."""
    thread: int = 0
    """The thread that has begun it, as ``threading.get_ident`` says; 0: that is not known."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many attempts came to what."""

    done: int = 0
    failed: int = 0
    retried: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.done + other.done, self.failed + other.failed, self.retried + other.retried
        )


class Board:
    """What one worker process holds.

    The number of a task is from 1 on, and no two tasks held have numbers that are equal modulo ``capacity``.

    Args:
        memory: Where to write it: ``Board.size(capacity)`` bytes, all zero at first.
        capacity: The most tasks.
    """

    def __init__(self, memory: Buffer | None = None, capacity: int = CAPACITY) -> None:
        view = memoryview(_own_memory(self.size(capacity)) if memory is None else memory)
        self.capacity = capacity
        self._numbers = view[:_HEADER].cast("Q")
        self._moments = view[:_HEADER].cast("d")
        runs = _HEADER + 8 * capacity
        threads = runs + 8 * capacity
        slots = threads + 8 * capacity
        self._marks = view[_HEADER:runs].cast("Q")
        self._began_at = view[runs:threads].cast("d")
        self._threads = view[threads:slots].cast("Q")
        middle = slots + _slot_size(capacity)
        self._slots = (
            _Slot(view[slots:middle], capacity),
            _Slot(view[middle : middle + _slot_size(capacity)], capacity),
        )
        self._slot = self._current()

    @staticmethod
    def size(capacity: int = CAPACITY) -> int:
        """Return the bytes that a board takes."""
        return _HEADER + 3 * 8 * capacity + 2 * _slot_size(capacity)

    # The worker writes:

    def post(
        self,
        tasks: Sequence[tuple[int, Reservation, float, State]],
        deadlines: Mapping[int, float] = _NO_DEADLINES,
    ) -> None:
        """Replace the list.

        Args:
            tasks: Each with its number, the moment it was reserved, and what is done with it.
            deadlines: By place, of those that have one.
        """
        slot = self._slots[(self._numbers[_GENERATION] + 1) & 1]
        slot.write(tasks, deadlines)
        self._slot = slot
        self._numbers[_GENERATION] += 1

    def set_state(self, place: int, state: State) -> None:
        """Say what is done with the task at a place of the list."""
        self._slot.states[place] = state

    def set_deadline(self, place: int, moment: float) -> None:
        """Say when the task at a place of the list is to have ended; 0: no more is said of that."""
        self._slot.deadlines[place] = moment

    def begin(self, number: int, moment: float) -> None:
        """Say since when the code of a task runs."""
        self._began_at[number % self.capacity] = moment

    def set_thread(self, number: int, ident: int) -> None:
        """Say in which thread a task runs; 0: in the only one, which ``thread`` names."""
        self._threads[number % self.capacity] = ident

    @property
    def thread(self) -> int:
        """The thread that runs all tasks, one after the other; 0: there is no such."""
        return self._numbers[_THREAD]

    @thread.setter
    def thread(self, ident: int) -> None:
        self._numbers[_THREAD] = ident

    def turn(self) -> None:
        """Say that the thread which heeds the parent begins to wait for it, or waits no more."""
        self._numbers[_TURNS] += 1

    @property
    def turns(self) -> int:
        """How often it has begun to wait, or ceased to: odd while it waits."""
        return self._numbers[_TURNS]

    def count(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self._numbers[outcome] += 1

    @property
    def end(self) -> int:
        """How the process ended."""
        return self._numbers[_END]

    @end.setter
    def end(self, end: End) -> None:
        self._numbers[_END] = end

    # The keeper writes:

    def mark(self, number: int, mark: Mark) -> None:
        """Mark the task of a number, held or not."""
        self._marks[number % self.capacity] = number << _MARK_BITS | mark

    @property
    def extended_at(self) -> float:
        """When all leases on the board were last extended, by the monotonic clock that both share."""
        return self._moments[_EXTENDED_AT]

    @extended_at.setter
    def extended_at(self, moment: float) -> None:
        self._moments[_EXTENDED_AT] = moment

    # Both read:

    def mark_of(self, number: int) -> int:
        """Return the keeper's mark of a task."""
        mark = self._marks[number % self.capacity]
        return mark & Mark.SETTLED if mark >> _MARK_BITS == number else Mark.NONE

    def read(self) -> list[Posted]:
        """Return the current list."""
        while True:
            generation = self._numbers[_GENERATION]
            copy = self._slots[generation & 1].copy()
            if self._numbers[_GENERATION] == generation:
                return copy.read(self.mark_of, self.run_of)
            # The worker has posted meanwhile. It does so once a batch, so the next look is whole.

    def run_of(self, number: int) -> tuple[float, int]:
        """Return since when a task runs, and in which thread."""
        place = number % self.capacity
        return self._began_at[place], self._threads[place] or self.thread

    @property
    def has_deadlines(self) -> bool:
        """Whether any task on the list has one; cheaper than to read it."""
        slot = self._current()
        return any(slot.deadlines[: slot.counts[0]])

    @property
    def tally(self) -> Tally:
        """The outcomes counted so far."""
        return Tally(*(self._numbers[outcome] for outcome in Outcome))

    def _current(self) -> "_Slot":
        return self._slots[self._numbers[_GENERATION] & 1]


def _own_memory(size: int) -> mmap.mmap:
    # The system gives it as it is written to. Of a board's megabytes most never are.
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _slot_size(capacity: int) -> int:
    size = _COUNTS + capacity * (8 + 8 + 8 + 1 + _MAX_LINE)
    return size + -size % 8


class _Slot:
    """One list of tasks held."""

    def __init__(self, view: memoryview, capacity: int) -> None:
        self._view = view
        self._capacity = capacity
        limits = _COUNTS + 8 * capacity
        numbers = limits + 8 * capacity
        states = numbers + 8 * capacity
        self.counts = view[:_COUNTS].cast("Q")
        self.since = view[_COUNTS:limits].cast("d")
        self.deadlines = view[limits:numbers].cast("d")
        self.numbers = view[numbers:states].cast("Q")
        self.states = view[states : states + capacity]
        self.names = view[states + capacity :]

    def write(
        self,
        tasks: Sequence[tuple[int, Reservation, float, State]],
        deadlines: Mapping[int, float],
    ) -> None:
        # Names have no control characters, so these separators are free.
        lines = [f"{task.queue_name}\0{task.token}\0{task.task_id}" for _, task, _, _ in tasks]
        names = "\n".join(lines).encode()
        self.names[: len(names)] = names
        for place, (number, _, since, state) in enumerate(tasks):
            self.numbers[place] = number
            self.since[place] = since
            self.states[place] = state
        self.deadlines[: len(tasks)] = _ZEROS[: len(tasks)]
        for place, moment in deadlines.items():
            self.deadlines[place] = moment
        self.counts[0], self.counts[1] = len(tasks), len(names)

    def copy(self) -> "_Slot":
        # Not the names beyond those in use: the slot is half a megabyte of mostly nothing.
        used = len(self._view) - len(self.names) + min(self.counts[1], len(self.names))
        return _Slot(memoryview(bytes(self._view[:used])), self._capacity)

    def read(
        self, mark_of: Callable[[int], int], run_of: Callable[[int], tuple[float, int]]
    ) -> list[Posted]:
        count, length = self.counts
        if not count:
            return []
        posted: list[Posted] = []
        for place, line in enumerate(bytes(self.names[:length]).decode().split("\n")):
            queue_name, token, task_id = line.split("\0")
            task = Reservation(queue_name, task_id, b"", token)
            number, state = self.numbers[place], State(self.states[place])
            mark, limit, since = Mark(mark_of(number)), self.deadlines[place], self.since[place]
            began_at, thread = run_of(number) if state in BEGUN else (0.0, 0)
            if began_at < since:  # that of the number's task before: this one is not quite begun
                began_at = 0.0
            posted.append(Posted(number, task, since, state, mark, limit, began_at, thread))
        return posted
