"""Stores for tests: ``backend`` is each of them in turn, empty."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from alligator.backends.base import Backend, Records
from tests.support.servers import Server
from tests.support.sqs import Sqs
from tests.support.stores import opened

DURABLE = ["sqlite", "redis", "valkey"]
STORES = ["locmem", *DURABLE]


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
    with Sqs(tmp_path_factory.mktemp("sqs")) as server:
        yield server


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A client of an empty store, of each kind."""
    with opened(empty_store(request.param, request)) as backend:
        yield backend


@pytest.fixture
def records(backend: Backend) -> Records:
    """The records of an empty store, of each kind that keeps any."""
    if backend.records is None:
        pytest.skip("this store keeps no records")
    return backend.records


@pytest.fixture(params=DURABLE)
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that several processes can share."""
    return empty_store(request.param, request)


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[[], Backend]]:
    """Opens clients of one store. Each sees of the others what it would see of other processes."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(opened(dsn))


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for one test, to be killed and started again: it writes each change to disk at once."""
    make = Server.redis if request.param == "redis" else Server.valkey
    with make(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def empty_store(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the DSN of an empty store of that kind."""
    if kind == "locmem":
        return "locmem://"
    if kind == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return f"sqlite://{folder}/queue.db"
    if kind == "sqs":
        sqs: Sqs = request.getfixturevalue("sqs_server")
        return sqs.emptied()
    server: Server = request.getfixturevalue(f"{kind}_server")
    server.command("FLUSHALL")
    return server.dsn


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logged reach the process that reports it, whatever is in it: lone surrogates, for one."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
