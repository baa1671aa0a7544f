"""The stores of the campaign, each empty, with a server of its own that may be killed."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.beanstalkd import Beanstalkd
from tests.support.kinds import ON_DISK
from tests.support.postgres import SAFE, PostgresServer
from tests.support.servers import Server

LEASE = 2.0
"""Seconds that a hand-out is good for, unless extended: short, so that much can happen in a campaign."""
BEANSTALK_LEASE = 3.0
"""beanstalkd counts whole seconds, and warns of a lapse one second before it."""

Killable = Server | PostgresServer


@dataclass(frozen=True, slots=True)
class Place:
    """A store.

    Args:
        name: As in the table.
        dsn: Where it is.
        server: What may be killed and started anew; None: there is none, or it is not ours.
    """

    name: str
    dsn: str
    server: Killable | None = None


@contextmanager
def sqlite(folder: Path) -> Generator[Place]:
    """On the disk when a push returns (synchronous FULL)."""
    yield Place("sqlite", f"sqlite://{folder}/queue.db")


@contextmanager
def redis(folder: Path) -> Generator[Place]:
    """On the disk when a push returns (appendonly yes, appendfsync always)."""
    with Server.redis(folder, *ON_DISK) as server:
        yield Place("redis", server.dsn, server)


@contextmanager
def postgres(folder: Path) -> Generator[Place]:
    """On the disk when a push returns (fsync on, synchronous_commit on)."""
    with PostgresServer.debian(*SAFE) as server:
        yield Place("postgres", server.dsn, server)


@contextmanager
def beanstalk(folder: Path) -> Generator[Place]:
    """On the disk when a push returns (-b, -f0)."""
    with Beanstalkd.installed(folder, "-f0") as server:
        yield Place("beanstalk", f"{server.dsn}?ttr={BEANSTALK_LEASE:g}", server)


STORES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "postgres": postgres,
    "beanstalk": beanstalk,
}
