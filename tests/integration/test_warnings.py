"""Workers say at their start, once, what is wrong with how their store is set up."""

import logging

import pytest

from alligator import Gator, Worker
from tests.integration.scenes import Scene
from tests.support.servers import Server

EVICTS = "its maxmemory-policy is allkeys-lru"


pytestmark = pytest.mark.parametrize("own_server", ["redis"], indirect=True)


def test_latergator_warns_once_however_many_processes_it_has(
    lost_scene: Scene, own_server: Server
) -> None:
    own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    program = lost_scene.latergator("--workers", "2", "--burst")

    assert program.wait(within=20) == 0
    assert program.stderr.count(EVICTS) == 1


def test_a_worker_of_ones_own_warns_too(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    Worker(Gator(own_server.dsn), burst=True).run_forever()

    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [EVICTS in text for text in warnings] == [True]
