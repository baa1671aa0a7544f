"""The stores that benchmarks measure, each empty, with a server of its own where it needs one; and floors."""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' servers serve here, too

from tests.support.beanstalkd import Beanstalkd
from tests.support.clusters import cluster
from tests.support.postgres import SAFE, PostgresServer
from tests.support.servers import Server
from tests.support.sqs import Sqs

BODY = b"x" * 150
LOGGED = "--appendonly", "yes", "--save", ""
"""For a Redis: as docs/stores.md tells to set it up, with its default of writing to the disk once a second."""
Floor = Callable[[str, int], float]


# Each says, for those who read its figures, how safe it keeps what is pushed.


@contextmanager
def redis() -> Generator[str]:
    """On the disk within a second (appendonly yes, appendfsync everysec)."""
    with folder() as path, Server.redis(path, *LOGGED) as server:
        yield server.dsn


@contextmanager
def valkey() -> Generator[str]:
    """On the disk within a second (appendonly yes, appendfsync everysec)."""
    with folder() as path, Server.valkey(path, *LOGGED) as server:
        yield server.dsn


@contextmanager
def redis_cluster() -> Generator[str]:
    """Three nodes; on the disk within a second (appendonly yes, appendfsync everysec)."""
    with folder() as path, cluster(path, *LOGGED) as servers:
        yield servers.dsn


@contextmanager
def postgres() -> Generator[str]:
    """On the disk when a push returns (fsync on, synchronous_commit on)."""
    with PostgresServer.debian(*SAFE) as server:
        yield server.dsn


@contextmanager
def beanstalk() -> Generator[str]:
    """On the disk when a push returns (-b, -f0)."""
    with folder() as path, Beanstalkd.installed(path, "-f0") as server:
        yield server.dsn


@contextmanager
def sqs() -> Generator[str]:
    """At a server that only speaks as Amazon's does: what the client costs, and not what SQS takes."""
    with folder() as path, Sqs(path) as server:
        yield server.emptied()


@contextmanager
def sqlite() -> Generator[str]:
    """On the disk when a push returns (synchronous FULL)."""
    with folder() as path:
        yield f"sqlite://{path}/queue.db"


@contextmanager
def locmem() -> Generator[str]:
    """In this process alone."""
    yield "locmem://"


@contextmanager
def folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


STORES = {
    "redis": redis,
    "valkey": valkey,
    "redis-cluster": redis_cluster,
    "sqlite": sqlite,
    "postgres": postgres,
    "beanstalk": beanstalk,
    "sqs": sqs,
    "locmem": locmem,
}

FINDING = [name for name in STORES if name not in ("beanstalk", "sqs")]
"""Those that find a task by the id that it was pushed under."""
LARGE = ["sqlite", "redis", "postgres"]
"""Those in which a million tasks are shown, unless others are named."""


@contextmanager
def opened(names: list[str] | None) -> Generator[dict[str, str]]:
    """Give the DSN of each of some stores, or of all whose servers are not simulated, if they are installed."""
    with ExitStack() as stack:
        dsns: dict[str, str] = {}
        for name in names or [name for name in STORES if name != "sqs"]:
            try:
                dsns[name] = stack.enter_context(STORES[name]())
            except pytest.skip.Exception as err:
                print(f"{name} is left out: {err}\n")
        yield dsns


def rate(count: int, work: Callable[[], Any]) -> float:
    """Return how many of the things that a call does are done in a second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def redis_floor(dsn: str, count: int) -> float:
    """Return how often a second a bare connection can send a body and read the answer."""
    import redis

    client: Any = redis.Redis
    connection = client.from_url(dsn).connection_pool.get_connection()

    def write() -> None:
        for number in range(count):
            connection.send_command("HSET", "floor", number, BODY)
            connection.read_response()

    result = rate(count, write)
    connection.send_command("DEL", "floor")
    connection.read_response()
    connection.disconnect()
    return result


def sqlite_floor(dsn: str, count: int) -> float:
    """Return how many bare durable inserts a second a file takes."""
    with tempfile.TemporaryDirectory(dir=Path(dsn.partition("://")[2]).parent) as place:
        db = sqlite3.connect(Path(place) / "floor.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE tasks (id INTEGER PRIMARY KEY, body BLOB)")

        def write() -> None:
            for _ in range(count):
                db.execute("INSERT INTO tasks (body) VALUES (?)", (BODY,))

        result = rate(count, write)
        db.close()
    return result


def postgres_floor(dsn: str, count: int) -> float:
    """Return how many bare durable inserts a second a connection can make."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE floor (id bigserial PRIMARY KEY, body bytea)")

        def write() -> None:
            for _ in range(count):
                connection.execute("INSERT INTO floor (body) VALUES (%s)", (BODY,))

        result = rate(count, write)
        connection.execute("DROP TABLE floor")
    return result


FLOORS: dict[str, Floor] = {
    "redis": redis_floor,
    "valkey": redis_floor,
    "sqlite": sqlite_floor,
    "postgres": postgres_floor,
}


def redis_bytes(dsn: str) -> int:
    """Return how much memory a server uses."""
    import redis

    client: Any = redis.Redis
    with client.from_url(dsn) as connection:
        used: int = connection.info("memory")["used_memory"]
    return used


def sqlite_bytes(dsn: str) -> int:
    """Return how big a file is."""
    path = Path(dsn.partition("://")[2])
    return path.stat().st_size if path.exists() else 0


def postgres_bytes(dsn: str) -> int:
    """Return how big a database is."""
    import psycopg

    with psycopg.connect(dsn) as connection:
        [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or [0]
    return int(size)


def size_of(name: str, dsn: str) -> int:
    """Return how many bytes all takes that is in a store; 0: there is no telling."""
    return SIZES[name](dsn) if name in SIZES else 0


SIZES: dict[str, Callable[[str], int]] = {
    "redis": redis_bytes,
    "valkey": redis_bytes,
    "sqlite": sqlite_bytes,
    "postgres": postgres_bytes,
}
