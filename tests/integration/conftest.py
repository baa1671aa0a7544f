"""The scene of a test: a store of each kind that several processes can share, and programs that work on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scenes import Scene, played
from tests.support.servers import Server


@pytest.fixture(params=["sqlite", "redis"])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of an empty store. Valkey's scripts are Redis's: the contract suite has them both."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/queue.db"
    server: Server = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return server.dsn


@pytest.fixture
def scene(dsn: str, tmp_path: Path) -> Iterator[Scene]:
    """A store, workers on it, and a journal that their tasks write to."""
    with played(dsn, tmp_path) as scene:
        yield scene


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, to be killed and started again: it writes each change to disk at once."""
    with Server.redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def lost_scene(own_server: Server, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose store is a server of its own, to be killed."""
    with played(own_server.dsn, tmp_path) as scene:
        yield scene
