"""Who works on this store: each worker says so, again and again, in its records.

One that is killed cannot take its entry back: it seems to be alive for up to a lease more. (Where
``latergator`` ran it, its parent does so at once.)
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from alligator.backends.base import MAX_NAME_BYTES, Backend, is_name
from alligator.payloads import encode, number, object_in

FAMILY = "workers"


@dataclass(frozen=True, slots=True)
class Presence:
    """A worker that is alive, or was a lease ago."""

    worker: str
    host: str
    pid: int
    queues: list[str]
    started_at: float

    @classmethod
    def of(cls, worker: str, pid: int, queue_names: Sequence[str]) -> "Presence":
        """Return that of a worker process on this machine, started just now."""
        return cls(worker, os.uname().nodename, pid, list(queue_names), time.time())


def announce(backend: Backend, presence: Presence, ttl: float) -> None:
    """Say that a worker is alive, for ``ttl`` seconds; a store without records is not told."""
    if backend.records is not None:
        key = f"{FAMILY}/{presence.worker}"
        backend.records.set(key, encode(asdict(presence)).encode(), ttl)


def withdraw(backend: Backend, worker: str) -> None:
    """Say that a worker has left."""
    if backend.records is not None:
        backend.records.delete(f"{FAMILY}/{worker}")


def present(backend: Backend) -> list[Presence]:
    """Return the workers that are alive, or were a lease ago."""
    if backend.records is None:
        return []
    return [one for value in backend.records.list(FAMILY).values() if (one := _read(value))]


def _read(value: bytes) -> Presence | None:
    """Read an entry; None: it is none, or only another version understands it. That one may tell more, too."""
    match object_in(value):
        case {
            "worker": str(worker),
            "host": str(host),
            "pid": int(pid),
            "queues": [*queues],
            "started_at": started_at,
        } if (moment := number(started_at)) is not None:
            # Of another one, not every store could be asked.
            names = [name for name in map(str, queues) if is_name(name, MAX_NAME_BYTES)]
            return Presence(worker, host, pid, names, moment)
        case _:
            return None
