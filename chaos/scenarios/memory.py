"""Redis servers without memory: one refuses what is pushed, one throws out what it holds."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from alligator.exceptions import QueueFull
from chaos.campaign import scenario
from chaos.jobs import carry
from chaos.stage import Stage
from chaos.stores import Place
from tests.integration.scenes import until
from tests.support.kinds import ON_DISK
from tests.support.servers import Server

LOAD = "x" * 4000
"""What each task carries, so that a server is full of some hundred."""
MEMORY = 6
"""MiB that the server may take; without any task it takes less than two."""


def _limited(policy: str) -> Callable[[Path], AbstractContextManager[Place]]:
    @contextmanager
    def place(folder: Path) -> Generator[Place]:
        options = "--maxmemory", f"{MEMORY}mb", "--maxmemory-policy", policy
        with Server.redis(folder, *ON_DISK, *options) as server:
            yield Place("redis", server.dsn, server)

    return place


@scenario(["redis"], places={"redis": _limited("noeviction")}, quick=0.02, patience=0.5)
def redis_full(stage: Stage) -> None:
    """The server is full: it takes no more until workers have made room, and they can."""
    early = iter(range(10_000))
    until(lambda: not _is_taken(stage, f"early{next(early)}"), "the server is full", within=60)
    held = stage.pushed
    stage.start("--workers", "2")
    for name in stage.names(2000, "late"):
        until(lambda: _is_taken(stage, name), "there is room again", within=60)  # noqa: B023 -- called at once
    stage.show(f"{len(stage.journal.names('refused'))} pushes refused, the first after {held}")


@scenario(["redis"], places={"redis": _limited("allkeys-lru")}, loses=True, patience=0.1)
def redis_evicting(stage: Stage) -> None:
    """The server makes room for another program's keys: it throws out what was not used of late."""
    assert isinstance(stage.place.server, Server)
    with _connected(stage.place.server) as other:
        stage.push_batch(stage.names(500), carry, LOAD)
        for number in range(2 * MEMORY * 10):
            other.mset({f"other:{number}:{part}": LOAD for part in range(25)})
        program = stage.start("--workers", "2")
        program.says("maxmemory-policy")
        evicted = other.info("stats")["evicted_keys"]
        stage.come_to_rest()
        other.delete(*other.keys("other:*"))
    later = stage.names(500, "later")
    stage.push_batch(later, carry, LOAD)
    # Not by its counts: the list of queues may be among what was thrown out, for up to a minute.
    until(lambda: set(later) <= set(stage.journal.names("finish")), "it goes on when there is room")
    stage.show(f"{evicted} keys evicted; workers warned of it at their start")


def _connected(server: Server) -> Any:
    return redis.Redis(port=server.port)  # Any: its types leave much unsaid


def _is_taken(stage: Stage, name: str) -> bool:
    try:
        stage.push(name, carry, LOAD)
    except QueueFull:
        stage.journal.note("refused", name)
        return False
    return True
