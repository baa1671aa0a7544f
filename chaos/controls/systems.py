"""Other task queues: how each is started as its documentation advises, and where it keeps what."""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.integration.scenes import ROOT

PYTHON = Path(os.environ.get("CHAOS_CONTROLS", Path(sys.prefix) / "controls")) / "bin" / "python"
"""That of an environment where they are installed: ``make chaos`` makes it."""


def are_installed() -> bool:
    """Return whether the other systems can be played."""
    return PYTHON.exists()


def environment_of(dsn: str) -> dict[str, str]:
    """Return the variables of programs of theirs, where nothing of ours is installed."""
    return {"CONTROL_DSN": dsn, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


class System(ABC):
    """Another task queue, on a Redis."""

    app: str
    """The module that queues its tasks, and has what its workers run."""
    leaves_orphans = False
    """Whether what its workers start goes on without them, and so is to be killed with them."""
    rest = 0.0
    """Seconds until it looks at what a worker has left behind: it is given that time, and another look."""

    def __init__(self, dsn: str) -> None:
        redis: Any = import_module("redis")
        self._redis: Any = redis.Redis.from_url(dsn)
        self._dsn = dsn

    @abstractmethod
    def workers(self, count: int) -> Sequence[str]:
        """Return what follows ``python`` on the command line of so many worker processes."""

    def let_time_pass(self) -> None:  # noqa: B027 -- most need none
        """Do to its store what further minutes would, where it would not be fair to spare them."""

    @abstractmethod
    def waiting(self) -> int:
        """Return how many tasks wait."""

    def kept(self) -> dict[str, set[str]]:
        """Return the names of the tasks that it still knows, by where: they wait, are held, or have failed."""
        return {}


class Huey(System):
    """Worker processes; one that died is replaced within a second, not within the ten that are its default."""

    app = "chaos.controls.huey_app"

    def workers(self, count: int) -> Sequence[str]:
        every_second = ["--health-check-interval", "1"]
        options = ["-w", f"{count}", "-k", "process", "--no-periodic", *every_second, "--quiet"]
        return [_script("huey_consumer"), *options, f"{self.app}.huey"]

    def waiting(self) -> int:
        return int(self._redis.llen("huey.redis.chaos") + self._redis.zcard("huey.schedule.chaos"))

    def kept(self) -> dict[str, set[str]]:
        # It reads them itself: what they are in is a matter of its own.
        words = [str(PYTHON), "-m", "chaos.controls.huey_waiting"]
        environment = os.environ | environment_of(self._dsn)
        told = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return {"waiting": set(told.stdout.split())} if told.stdout else {}


class RQ(System):
    """A pool of workers on one queue.

    A job whose worker died is found when its heartbeat is 90 s old, by the maintenance of a worker, which is
    each 10 minutes and when one starts; one that was not even begun, a minute after such a look has seen it.
    """

    app = "chaos.controls.rq_app"
    queues: Sequence[str] = ("default",)
    leaves_orphans = True
    rest = 95.0

    def workers(self, count: int) -> Sequence[str]:
        where = ["--url", self._dsn]
        return [_script("rq"), "worker-pool", *where, "-n", f"{count}", "--quiet", *self.queues]

    def let_time_pass(self) -> None:
        # A worker that is killed at its maintenance keeps others from theirs for a quarter of an hour.
        for queue in self.queues:
            self._redis.delete(f"rq:clean_registries:{queue}")

    def waiting(self) -> int:
        return int(self._redis.llen("rq:queue:default"))

    def kept(self) -> dict[str, set[str]]:
        places = {"waiting": "rq:queue:default", "not yet begun": "rq:queue:default:intermediate"}
        registries = {"failed": "rq:failed:default", "begun": "rq:wip:default"}
        found = {where: self._redis.lrange(key, 0, -1) for where, key in places.items()}
        found |= {where: self._redis.zrange(key, 0, -1) for where, key in registries.items()}
        # What was begun has the name of its run behind a colon.
        return {
            where: {name.decode().partition(":")[0] for name in names}
            for where, names in found.items()
            if names
        }


class RQByPriority(RQ):
    """As its documentation begins: ``rq worker high default low``."""

    queues = ("high", "default", "low")


def _script(name: str) -> str:
    return str(PYTHON.with_name(name))
