"""The kinds of stores: their servers, one a session, and an empty store of each."""

import functools
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.beanstalkd import Beanstalkd
from tests.support.clusters import Cluster, cluster
from tests.support.postgres import FAST, SAFE, PostgresServer
from tests.support.servers import Server
from tests.support.sqs import Sqs

Mortal = Server | PostgresServer
"""A server that a test may kill."""

DURABLE = ["sqlite", "redis", "postgres"]
STORES = ["locmem", *DURABLE]
NEWEST = "postgres-newest"
KINDS = [*STORES, NEWEST, "valkey", "redis-cluster", "beanstalk", "sqs"]
"""For the contract. What is above the stores sees no difference between those of one protocol."""
ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis of this session. What is in it goes with the next test that has an empty store."""
    with Server.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey of this session. What is in it goes with the next test that has an empty store."""
    with Server.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def sqs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sqs]:
    """A server of this session that speaks the protocol of SQS."""
    with Sqs(tmp_path_factory.mktemp("sqs")) as server, pytest.MonkeyPatch.context() as patched:
        # Each client reads megabytes of JSON about all of AWS anew, if it is not given what another has read.
        loaders: Any = import_module("botocore.loaders")  # it has no types
        patched.setattr("botocore.session.create_loader", functools.cache(loaders.create_loader))
        yield server


@pytest.fixture(scope="session")
def beanstalk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beanstalkd]:
    """A beanstalkd of this session. What is in it goes with the next test that has an empty store."""
    with Beanstalkd.installed(tmp_path_factory.mktemp("beanstalkd")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this session. What is in it goes with the next test that has an empty store."""
    with cluster(tmp_path_factory.mktemp("redis-cluster")) as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL of this session. What is in it goes with the next test that has an empty store."""
    with PostgresServer.debian(*FAST) as server:
        yield server


@pytest.fixture(scope="session")
def newest_postgres_server() -> Iterator[PostgresServer]:
    """The newest PostgreSQL, in the same way."""
    with PostgresServer.newest(*FAST) as server:
        yield server


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The DSN of an empty store, of each kind: for the contract."""
    if request.param == "sqs":
        return hasty_sqs(request.getfixturevalue("sqs_server"), monkeypatch)
    return empty_store(request.param, request)


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for one test, to be killed and started again: it writes each change to disk at once."""
    make = Server.redis if request.param == "redis" else Server.valkey
    with make(tmp_path, *ON_DISK) as server:
        yield server


@pytest.fixture(params=["redis", "valkey", "postgres", NEWEST])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mortal]:
    """A server of each kind for one test, to be killed and started again; what it has said is on disk."""
    servers: dict[str, Callable[[], Mortal]] = {
        "redis": lambda: Server.redis(tmp_path, *ON_DISK),
        "valkey": lambda: Server.valkey(tmp_path, *ON_DISK),
        "postgres": lambda: PostgresServer.debian(*SAFE),
        NEWEST: lambda: PostgresServer.newest(*SAFE),
    }
    with servers[request.param]() as server:
        yield server


def hasty_sqs(server: Sqs, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the DSN of an empty SQS that lets nobody wait for a second: of many tests they make minutes."""
    for module in ("sqs_backend", "sqs.dead"):  # moto sees all messages at each look
        monkeypatch.setattr(f"alligator.backends.{module}.SURE_AFTER", 0)
    return server.emptied(is_hasty=True)


def empty_store(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the DSN of an empty store of that kind."""
    if kind == "locmem":
        return "locmem://"
    if kind == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return f"sqlite://{folder}/queue.db"
    if kind == "redis-cluster":
        servers: Cluster = request.getfixturevalue("redis_cluster")
        servers.empty()
        return servers.dsn
    if kind.startswith("postgres"):
        name = "postgres_server" if kind == "postgres" else "newest_postgres_server"
        postgres: PostgresServer = request.getfixturevalue(name)
        postgres.empty()
        return postgres.dsn
    if kind == "sqs":
        sqs: Sqs = request.getfixturevalue("sqs_server")
        return sqs.emptied()
    server: Server = request.getfixturevalue(f"{kind}_server")
    server.clear()
    return server.dsn


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logged reach the process that reports it, whatever is in it: lone surrogates, for one."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
