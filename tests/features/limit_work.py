"""What tasks under a limit call, and a worker's dealings with limits, one step at a time."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from alligator import Gator, limits
from alligator.backends.base import Ack, Backend, Reservation
from alligator.backends.locmem_backend import Client
from alligator.exceptions import BackendUnavailable
from alligator.limits import Limit
from alligator.utils import new_id

T = TypeVar("T")

FULL_TIME = 0.02
"""Seconds that a task takes in which others are to run."""

inside: list[Any] = []
most: list[int] = []
lock = threading.Lock()
gates: dict[str, threading.Event] = {}


def be_inside(name: Any, seconds: float = FULL_TIME) -> None:
    """Note how many are inside at the same time."""
    with lock:
        inside.append(name)
        most.append(len(inside))
    time.sleep(seconds)
    with lock:
        inside.remove(name)


async def be_inside_soon(name: Any, seconds: float = FULL_TIME) -> None:
    """As ``be_inside``, and let others run meanwhile."""
    import asyncio  # here: it takes long, and the first of the others would wait for it

    inside.append(name)
    most.append(len(inside))
    await asyncio.sleep(seconds)
    inside.remove(name)


def wait_at(gate: str) -> None:
    """Run until another one opens a gate."""
    assert gates.setdefault(gate, threading.Event()).wait(20.0)


def open_gate(gate: str) -> None:
    """Let them go on."""
    gates.setdefault(gate, threading.Event()).set()


def fail_first(name: str, seen: list[str] = []) -> None:  # noqa: B006 -- to be seen by the next attempt
    """Fail, and not the next time."""
    seen.append(name)
    if seen.count(name) == 1:
        raise ValueError(name)


class Clock:
    """Seconds since 1970, at a standstill until a test turns it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def patiently(call: Callable[[], T]) -> T:
    """Call the store until it answers, as a worker does."""
    while True:
        try:
            return call()
        except BackendUnavailable:
            pass


class Steps:
    """What workers do with limited tasks, by hand.

    Args:
        backend: The store, perhaps one that is on the point of breaking.
        limit: The limit of all tasks.
        lease: Seconds.
    """

    def __init__(self, backend: Backend, limit: Limit, lease: float = 60.0) -> None:
        self.backend = backend
        self.limit = limit
        self.lease = lease

    def push(self, *task_ids: str, queue_name: str = "all") -> None:
        """Queue tasks, in this order."""
        for task_id in task_ids:
            self.backend.push(queue_name, task_id, "{}")

    def begin(self, limit: int = 1000, queue_name: str = "all") -> list[Reservation]:
        """Take what is ready; park what may not start, and return what may."""
        batch = self.backend.reserve([queue_name], new_id(), limit=limit, lease=self.lease)
        started: list[Reservation] = []
        waiting: list[tuple[Reservation, Limit]] = []
        for held in batch.reservations:
            entry = patiently(partial(limits.enter, self.backend, [held], self.limit)).get(held)
            if entry is not None and patiently(partial(entry.begin, held)):
                started.append(held)
            else:
                waiting.append((held, self.limit))
        if waiting:
            self.park(waiting)
        return started

    def park(self, waiting: list[tuple[Reservation, Limit]]) -> None:
        """Let tasks wait, as a worker does."""
        parked = patiently(lambda: limits.park(self.backend, waiting))
        patiently(lambda: self.backend.settle(parked.releases))
        patiently(parked.then)

    def end(self, held: Reservation) -> None:
        """Let a task end."""
        patiently(lambda: limits.leave(self.backend, held, self.limit))
        patiently(lambda: self.backend.settle([Ack(held)]))

    def names(self, limit: int = 1000) -> list[str]:
        """Take what is ready; return the ids of those that may start."""
        return [held.task_id for held in self.begin(limit)]


class Sudden(Exception):
    """What happens to a worker that is killed."""


class Fragile:
    """A store, or its records, whose caller is killed at a certain call: before it, or when it was carried out.

    Args:
        to: What is called.
        left: In how many calls; shared with that of the records.
    """

    def __init__(self, to: Any, left: list[int], *, is_done: bool) -> None:
        self._to = to
        self._left = left
        self._is_done = is_done
        if hasattr(to, "records"):
            self.records = Fragile(to.records, left, is_done=is_done)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._to, name)
        if not callable(method) or name == "now":
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left[0] -= 1
            if self._left[0] == 0 and not self._is_done:
                raise Sudden
            answer = method(*args, **kwargs)
            if self._left[0] == 0:
                raise Sudden
            return answer

        return call


def patient(backend: Backend, left: list[int]) -> Backend:
    """Return a store to which each call is repeated until there is an answer; once there is none."""
    return cast(Backend, Patient(backend, left))


def fragile(backend: Backend, calls: int, *, is_done: bool) -> Backend:
    """Return a store whose caller is killed at the call of this number."""
    return cast(Backend, Fragile(backend, [calls], is_done=is_done))


class Patient:
    """A store, or its records, that once does what it is asked for, and does not say so."""

    def __init__(self, to: Any, left: list[int]) -> None:
        self._to = to
        self._left = left
        if hasattr(to, "records"):
            self.records = Patient(to.records, left)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._to, name)
        if not callable(method) or name in ("now", "reserve"):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            self._left[0] -= 1
            if self._left[0] == 0:
                raise BackendUnavailable("No answer")
            return answer

        return call


class Counted:
    """A store, or its records, that notes what it is asked for."""

    def __init__(self, to: Any, calls: list[str]) -> None:
        self._to = to
        self._calls = calls
        if hasattr(to, "records"):
            self.records = Counted(to.records, calls)

    def __getattr__(self, name: str) -> Any:
        if name != "now":
            self._calls.append(name)
        return getattr(self._to, name)


def counted(backend: Backend, calls: list[str]) -> Backend:
    """Return a store that notes the names of the calls made to it."""
    return cast(Backend, Counted(backend, calls))


class Store(Client):
    """A store in memory, by a clock of the test's own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("locmem://", clock)

    @property
    def next_at(self) -> float:
        """When the first delayed task is due, or the first lease lapses."""
        return self._next_at(self._queue("all"))

    @property
    def is_empty(self) -> bool:
        """Whether no task is left."""
        return not self._queue("all").entries


def queue_of(gator: Gator) -> tuple[int, int, int]:
    """Return how many tasks wait, are delayed, and run."""
    counts = gator.backend.count(gator.queue_name)
    return counts.waiting, counts.delayed, counts.running
