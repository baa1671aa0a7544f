"""Stores whose clock a test turns, also in processes that it forks; and schedulers on them."""

import mmap
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from alligator import Gator, Task
from alligator.backends import locmem_backend, postgres_backend, redis_backend, sqlite_backend
from alligator.backends.base import Backend
from alligator.schedules import Scheduler
from alligator.testing.stores import drain
from tests.features import work

START = datetime.fromisoformat("2026-11-22T12:00:00+00:00").timestamp()
"""What the clock of a store shows in the beginning."""


class Clock:
    """A clock that stands still until it is turned; forked processes see it turn."""

    def __init__(self, moment: float = START) -> None:
        self._memory = mmap.mmap(-1, 8)
        self.turn_to(moment)

    def __call__(self) -> float:
        shown: float = struct.unpack("d", self._memory[:])[0]
        return shown

    def turn_to(self, moment: float) -> None:
        self._memory[:] = struct.pack("d", moment)

    def turn(self, seconds: float) -> None:
        self.turn_to(self() + seconds)


class TurnedRedis(redis_backend.Client):
    """A Redis that is taken to have the time of a clock of ours."""

    def __init__(self, conn_string: str, clock: Callable[[], float]) -> None:
        super().__init__(conn_string)
        self._turned = clock

    def now(self) -> float:
        return self._turned()


class TurnedPostgres(postgres_backend.Client):
    """A PostgreSQL that is taken to have the time of a clock of ours."""

    def __init__(self, conn_string: str, clock: Callable[[], float]) -> None:
        super().__init__(conn_string)
        self._turned = clock

    def now(self) -> float:
        return self._turned()


def client(dsn: str, clock: Callable[[], float]) -> Backend:
    """A client of a store, with that clock."""
    scheme = dsn.partition(":")[0]
    classes: dict[str, Callable[[str, Callable[[], float]], Backend]] = {
        "locmem": locmem_backend.Client,
        "sqlite": sqlite_backend.Client,
        "redis": TurnedRedis,
        "postgres": TurnedPostgres,
    }
    return classes[scheme](dsn, clock)


class Scene:
    """A store whose clock is turned, and several clients of it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.clock = Clock()
        self._stack = ExitStack()
        self.backend = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Backend:
        """A further client of the store: where there can be only one, the same."""
        return self._open() if self.backend.spans_processes else self.backend

    def gator(self, queue_name: str = "all", **kwargs: Any) -> Gator:
        """A Gator with a client of its own."""
        return Gator(self.dsn, queue_name, backend_class=lambda _: self.client(), **kwargs)

    def scheduler(self, *queue_names: str, task_class: type[Task] = Task) -> Scheduler:
        """A scheduler with a client of its own."""
        return Scheduler(self.client(), queue_names or ["all"], task_class)

    def is_past(self, moment: float) -> bool:
        """Whether the clock has been turned so far."""
        return self.clock() >= moment

    @contextmanager
    def forked(self) -> Generator[Backend]:
        """A client for a process that has just been forked."""
        backend = client(self.dsn, self.clock)
        try:
            yield backend
        finally:
            backend.close()

    def queued(self, queue_name: str = "all") -> list[str]:
        """Take what is queued; return its ids."""
        return drain(self.backend, limit=1000, of=queue_name)

    def _open(self) -> Backend:
        backend = client(self.dsn, self.clock)
        self._stack.callback(backend.close)
        return backend


def run(name: str, *moments: float) -> list[str]:
    """Return the ids of the runs of a schedule at these whole seconds since START."""
    return [f"{name}@{iso(START + seconds)}" for seconds in moments]


def iso(moment: float) -> str:
    """Return a moment as ids have it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class OddTask(Task):
    """A task in a form of its own, which is no text."""

    def serialize(self) -> bytes:
        text = super().serialize()
        return b"\xff" + (text.encode() if isinstance(text, str) else text)[::-1]

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        assert isinstance(data, bytes)
        return super().deserialize(data[:0:-1])


def note_id(task: Task, _: object = None) -> None:
    """Note the id of a task; a hook."""
    work.done.append(task.task_id)


def names(schedules: Sequence[Any]) -> list[str]:
    """Return the names of schedules."""
    return [schedule.name for schedule in schedules]
