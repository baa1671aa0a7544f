"""Who works on this store: each worker says so, again and again, in its records."""

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from alligator.backends.base import Backend
from alligator.payloads import encode

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
        return cls(worker, socket.gethostname(), pid, list(queue_names), time.time())


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
    """Return the workers that are alive."""
    if backend.records is None:
        return []
    told = [json.loads(value) for value in backend.records.list(FAMILY).values()]
    known = {field.name for field in fields(Presence)}  # another version may tell more
    return [Presence(**{key: one[key] for key in known}) for one in told if known <= one.keys()]
