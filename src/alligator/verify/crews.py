"""The crews of a trial: two that work at all times, and whatever is done to them."""

import random
import time
from collections.abc import Callable

from alligator.verify.crew import Crew
from alligator.verify.journal import Journal

CREWS = 2
LOOK = 0.05
"""Seconds between two signals, for two at once may be one."""


class Crews:
    """Some crews. Each method does something to one of them by chance, and returns what, in words.

    Args:
        make: Makes another crew, which is not started yet.
        journal: The journal of what they run.
    """

    def __init__(self, make: Callable[[], Crew], journal: Journal) -> None:
        self._make = make
        self._journal = journal
        self._rng = random.Random()
        self._active = [make() for _ in range(CREWS)]
        self._leaving: list[Crew] = []
        self._faults: list[str] = []
        """Of those that have left."""
        self._stopped: tuple[Crew, float] | None = None
        self.stops = 0
        """How many times one was stopped."""

    @property
    def active(self) -> list[Crew]:
        """Those that are to work."""
        return self._active

    @property
    def faults(self) -> list[str]:
        """What they did that they were not to do, in words."""
        there = [fault for crew in (*self._active, *self._leaving) for fault in crew.faults]
        return self._faults + there

    def start(self) -> None:
        """Start all."""
        for crew in self._active:
            crew.start()

    def at_work(self, crew: Crew) -> list[int]:
        """Return the processes of a crew that have started a task."""
        started = self._journal.started_since(0.0)
        return [pid for pid in crew.children if pid in started]

    def kill_one(self) -> str:
        """Kill a worker process, one that works if there is one."""
        crew = self._awake()
        victims = self.at_work(crew) or crew.children
        if not victims:
            return "found no worker process to kill"
        crew.kill_one(self._rng.choice(victims))
        return "killed a worker process"

    def kill_all(self) -> str:
        """Kill a crew with all its processes, and start another."""
        crew = self._awake()
        count = crew.kill()
        crew.start()
        return f"killed a latergator with its processes, {count} in all, and started another"

    def replace(self) -> str:
        """Tell a crew to leave, and start another beside it."""
        self._see_off()
        crew = self._awake()
        crew.tell_to_leave()
        self._leaving.append(crew)
        self._active[self._active.index(crew)] = successor = self._make()
        successor.start()
        return "told a latergator to leave, and started another"

    def stop(self, seconds: float) -> str:
        """Stop a crew for so long."""
        if self._stopped is not None:
            return "left a latergator stopped"
        crew = self._awake()
        count = crew.stop()
        if not count:
            return "found a latergator that writes at all times, and did not stop it"
        self.stops += 1
        self._stopped = crew, time.monotonic() + seconds
        return f"stopped a latergator with its processes, {count} in all, for {seconds:g} s"

    @property
    def wakes_in(self) -> float:
        """Seconds until one that is stopped is to go on."""
        return 0.0 if self._stopped is None else max(0.0, self._stopped[1] - time.monotonic())

    def wake(self) -> None:
        """Let one go on that was stopped for long enough."""
        if self._stopped is not None and not self.wakes_in:
            crew, _ = self._stopped
            self._stopped = None
            crew.go()

    def end(self, *, at_once: bool = False) -> None:
        """Tell all to leave, and wait for it."""
        every = [*self._active, *self._leaving]
        for _ in range(2 if at_once else 1):
            for crew in every:
                crew.tell_to_leave()
            time.sleep(LOOK)
        for crew in every:
            crew.end()

    def _see_off(self) -> None:
        """Keep nothing of those that have left, but for their faults: a trial may be long."""
        for crew in [one for one in self._leaving if not one.runs]:
            crew.end()
            self._faults += crew.faults
            self._leaving.remove(crew)

    def _awake(self) -> Crew:
        """Return a crew that is not stopped; one that works, if there is one."""
        stopped = self._stopped[0] if self._stopped else None
        awake = [crew for crew in self._active if crew is not stopped]
        return self._rng.choice([crew for crew in awake if self.at_work(crew)] or awake)
