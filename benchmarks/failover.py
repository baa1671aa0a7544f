"""What a server's death costs while tasks are pushed and run: how many are lost, how many run twice.

    python benchmarks/failover.py [--tasks N] [--store NAME ...]

A producer pushes tasks one by one; a push that is not answered is repeated under its id. Workers run them, and
each run is noted in a file. After a third of the pushes the server that has the queue is killed (SIGKILL). Of a
cluster or a pair that a Sentinel watches, the replica takes over; a single server is started anew.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' servers and scenes serve here, too

from stores import folder

from alligator.backends.base import Counts
from alligator.exceptions import BackendUnavailable
from tests.integration import jobs
from tests.integration.scenes import Scene
from tests.support.clusters import by_cluster, by_sentinel
from tests.support.kinds import ON_DISK, Mortal
from tests.support.postgres import SAFE, PostgresServer
from tests.support.servers import Server

PACE = 0.001
"""Seconds between two pushes."""
WORK = 0.01
"""Seconds that a task takes: two workers are slower than the producer, so some wait all the time."""
AWAY = 1.0
"""Seconds until a single server is started again."""
DONE_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Doomed:
    """A store, what is to happen to its server, and what happens then."""

    dsn: str
    kill: Callable[[], None]
    then: Callable[[], None] = lambda: None
    fate: str = "its replica takes over"


@contextmanager
def redis_cluster() -> Generator[Doomed]:
    with folder() as path, by_cluster(path / "servers") as pair:
        yield Doomed(pair.dsn, pair.primary.kill)


@contextmanager
def redis_sentinel() -> Generator[Doomed]:
    with folder() as path, by_sentinel(path / "servers") as pair:
        yield Doomed(pair.dsn, pair.primary.kill)


@contextmanager
def redis() -> Generator[Doomed]:
    with folder() as path, Server.redis(path, *ON_DISK) as server:
        yield restarted(server)


@contextmanager
def valkey() -> Generator[Doomed]:
    with folder() as path, Server.valkey(path, *ON_DISK) as server:
        yield restarted(server)


@contextmanager
def postgres() -> Generator[Doomed]:
    with PostgresServer.debian(*SAFE) as server:
        yield restarted(server)


def restarted(server: Mortal) -> Doomed:
    """Return what happens to a single server."""
    start = threading.Timer(AWAY, server.start)
    return Doomed(server.dsn, server.kill, start.start, f"back after {AWAY:g} s")


STORES = {
    "redis-cluster": redis_cluster,
    "redis-sentinel": redis_sentinel,
    "redis": redis,
    "valkey": valkey,
    "postgres": postgres,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--store", action="append", choices=list(STORES))
    options = parser.parse_args()
    for name in options.store or STORES:
        try:
            with STORES[name]() as doomed, folder() as path:
                show(name, Scene(doomed.dsn, path), doomed, options.tasks)
        except pytest.skip.Exception as err:
            print(f"{name} is left out: {err}\n")


def show(name: str, scene: Scene, doomed: Doomed, count: int) -> None:
    """Let the server die during a run, and print what came of it."""
    print(f"{name}: killed after {count // 3} of {count} pushes; {doomed.fate}", flush=True)
    workers = scene.latergator("--workers", "2", "--lease", "4")
    workers.says("starting")
    names = [f"t{number}" for number in range(count)]
    repeated, longest = 0, 0.0
    for number, task_id in enumerate(names):
        if number == count // 3:
            doomed.kill()
            print(f"  run when it was killed   {len(set(scene.journal.names('finish')))}")
            doomed.then()
        asked_at = time.monotonic()
        tries = patiently(lambda: scene.push(task_id, jobs.work, WORK))  # noqa: B023
        longest = max(longest, time.monotonic() - asked_at)
        repeated += tries > 1
        time.sleep(PACE)
    settled = comes_to_rest(scene)
    workers.end()
    runs = Counter(scene.journal.names("finish"))
    print(f"  pushed                   {count}, {repeated} of them again; waited {longest:.1f} s")
    print(f"  run                      {len(runs)}")
    print(f"  lost                     {len(set(names) - set(runs))}")
    print(f"  run more than once       {sum(times > 1 for times in runs.values())}")
    print(f"  left in the queue        {settled.waiting + settled.delayed + settled.running}")
    print(f"  dead letters             {settled.dead}\n", flush=True)


def comes_to_rest(scene: Scene) -> Counts:
    """Wait until nothing is queued; return what there is then."""
    deadline = time.monotonic() + DONE_WITHIN
    while True:
        counts: list[Counts] = []
        patiently(lambda: counts.append(scene.counts))  # noqa: B023
        if counts[0]._replace(dead=0) == Counts() or time.monotonic() > deadline:
            return counts[0]
        time.sleep(0.1)


def patiently(call: Callable[[], object]) -> int:
    """Call until the store answers; return how often that was."""
    tries = 1
    while True:
        try:
            call()
        except BackendUnavailable:
            tries += 1
            time.sleep(0.05)
        else:
            return tries


if __name__ == "__main__":
    main()
