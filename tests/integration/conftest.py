"""The scene of a test: a store of each kind that several processes can share, and programs that work on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scenes import Scene, played
from tests.support.kinds import ON_DISK, Mortal, empty_store
from tests.support.postgres import SAFE, PostgresServer
from tests.support.servers import Server


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store. Valkey's scripts are Redis's: the contract suite has them both."""
    return empty_store(request.param, request)


@pytest.fixture
def scene(dsn: str, tmp_path: Path) -> Iterator[Scene]:
    """A store, workers on it, and a journal that their tasks write to."""
    with played(dsn, tmp_path) as scene:
        yield scene


@pytest.fixture(params=["redis", "postgres"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mortal]:
    """A server for one test, to be killed and started again: it writes each change to disk at once."""
    is_redis = request.param == "redis"
    with Server.redis(tmp_path, *ON_DISK) if is_redis else PostgresServer.debian(*SAFE) as server:
        yield server


@pytest.fixture
def lost_scene(own_server: Mortal, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose store is a server of its own, to be killed."""
    with played(own_server.dsn, tmp_path) as scene:
        yield scene
