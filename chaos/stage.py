"""Where a scenario plays: a store, producers, workers, whoever disturbs them, and the journal of it all."""

import copy
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from alligator import Gator, Task
from alligator.backends.base import Counts, DeadLetter
from alligator.exceptions import BackendUnavailable
from alligator.processes.pacing import LARGEST_BATCH
from alligator.verify.findings import HELD_ON, Findings, broken_off, found_in
from alligator.verify.journal import Entry
from chaos.stores import LEASE, Place
from tests.integration import jobs
from tests.integration.scenes import Program, Scene, kill, until

PATIENCE = 0.05
"""Seconds until a call is repeated that the store did not answer."""
LONGEST = 90.0
"""Seconds after which nobody is disturbed any more, so that what is left can be done."""
MANY = 1_000_000
"""Dead letters to look at, at the most: all."""
BACK_TO_WORK = 5.0
"""Seconds from a server's return until each worker begins a task that it had not held before, at the most."""
BACKLOG = 30.0
"""Seconds for what waits to be run, at the most."""
AWHILE = 0.02
"""Seconds that a task takes which is to show that each process works: time for the others to take one, too."""
SWEEP = 1.0
"""Seconds between two looks of an idle worker for hand-outs whose lease is over, at the most."""
SPARE = 1.0
"""Seconds more that a machine may take which does much else."""
POISON = 3
"""Deaths after which a task is rightly a dead letter."""
BUSY = 2.0
"""Seconds that a finished task may wait for its settlement, or one that is held for its beginning, in a short
campaign, beside other tests."""
UNBEGUN = POISON - 1
"""As many of them may have met a task that had not begun, where all died or stood still: nobody lived to tell,
and each counts. Only the last time is it held alone, and so begins at once."""


class Stage(Scene):
    """A scene of the campaign.

    Args:
        place: The store.
        folder: For the journal, gates and output.
        seed: Of all that is left to chance.
        size: How much of it: 1.0 is all.
    """

    def __init__(self, place: Place, folder: Path, seed: int, size: float) -> None:
        super().__init__(place.dsn, folder)
        self.place = place
        self.rng = random.Random(seed)
        self.remarks: list[str] = []
        """What was not as it should be, beside what the journal tells."""
        self.rightly_dead: set[str] = set()
        """Names of tasks that are to end as dead letters."""
        self.shown: list[str] = []
        """What the table shows beside the figures."""
        self.back_to_work = BACK_TO_WORK
        """As much in this scenario, in seconds."""
        self.recovers_within = LEASE + SWEEP + SPARE
        """Seconds from a death that broke off a run to the next start of its task, at the most."""
        self.batch = LARGEST_BATCH
        """How many finished tasks a process may hold that are not settled, at the most."""
        self.held_on = HELD_ON
        """Seconds that a finished task may wait for its settlement, at the most."""
        self.breaks_off = 0.0
        """The part of all deaths which must have broken off a run: else they tried little."""
        self.pushed = 0
        """How many pushes have returned."""
        self._poison = POISON
        self._size = size
        self._producers = 0
        self._began_at = time.monotonic()

    def many(self, count: int, at_least: int = 1) -> int:
        """Return how many that is in a campaign of this size."""
        return max(at_least, round(count * self._size))

    def names(self, count: int, prefix: str = "t") -> list[str]:
        """Return names for so many tasks, in a campaign of this size."""
        return [f"{prefix}{number}" for number in range(self.many(count))]

    def show(self, fact: str) -> None:
        """Let the table show a figure, or what else one should know of the trial."""
        self.shown.append(fact)

    def expect(self, holds: object, otherwise: str) -> None:
        """Take note of what is not as it should be."""
        if not holds:
            self.remarks.append(otherwise)

    def expect_measured(self, holds: object, otherwise: str) -> None:
        """As ``expect``, of what depends on the machine: beside other tests, nothing is measured."""
        if self._is_whole:
            self.expect(holds, otherwise)

    # Those who push:

    def push(
        self, name: str, func: Callable[..., Any] = jobs.work, *args: Any, **options: Any
    ) -> Task:
        """As a scene does, and counted."""
        task = super().push(name, func, *args, **options)
        self.pushed += 1
        return task

    def produce(
        self, names: Iterable[str], func: Callable[..., Any] = jobs.work, *args: Any, **options: Any
    ) -> None:
        """Push tasks one by one, each until the store answers.

        A store that does not know tasks by their ids is asked only once: it could not tell a second push.
        """
        for name in names:
            if self.gator.backend.keeps_ids:
                self.patiently(lambda: self.push(name, func, *args, **options))  # noqa: B023
                continue
            try:
                self.push(name, func, *args, **options)
            except BackendUnavailable:
                self.patiently(lambda: self.counts)

    @contextmanager
    def producing(self, names: Iterable[str], *args: Any, **options: Any) -> Generator[None]:
        """As ``produce``, in a thread, which is waited for at the end of the block."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                self.produce(names, *args, **options)
            except BaseException as err:
                failed.append(err)
            finally:
                self._producers -= 1

        thread = threading.Thread(target=run)
        self._producers += 1
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def other(self, queue: str) -> Gator:
        """Return a Gator of another queue, over the same connection."""
        gator = copy.copy(self.gator)
        gator.queue_name = queue
        return gator

    def push_batch(
        self, names: Iterable[str], func: Callable[..., Any] = jobs.work, *args: Any, **options: Any
    ) -> None:
        """Push tasks in one step."""
        names = list(names)
        for name in names:
            self.journal.note("push", name)
        with self.gator.batch(**options) as batch:
            for name in names:
                with batch.options(task_id=name) as opts:
                    opts.task(func, self.journal.path, name, *args)
        for name in names:
            self.journal.note("pushed", name)
        self.pushed += len(names)

    def patiently(self, call: Callable[[], Any], within: float = 60.0) -> Any:
        """Call until the store answers."""
        deadline = time.monotonic() + within
        while True:
            try:
                return call()
            except BackendUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PATIENCE)

    # Those who work:

    def start(
        self, *options: str, target: str = "tests.integration.gators:plain", **environment: str
    ) -> Program:
        """Start ``latergator`` with the tasks' code at hand: what it starts is in the journal at once."""
        lease = "--lease", f"{LEASE:g}", "--quiet"
        environment = {"SCENE_DSN": self.dsn} | environment
        return self.latergator(*lease, *options, target=target, **environment)

    def at_work(self, program: Program, since: float = 0.0) -> list[int]:
        """Return the processes of a program that have started a task; since some moment, if so asked."""
        started = self.journal.started_since(max(since, program.began_at))
        return [pid for pid in started if program.has_child(pid)]

    def come_back(self, program: Program, since: float) -> None:
        """Push tasks until each process of a program has begun one of them."""
        numbers = count()
        prefix = f"back{len(self.journal.entries('up'))}"

        def all_work() -> bool:
            # No more than can be done: what piled up would come first the next time.
            time.sleep(AWHILE)
            self.produce([f"{prefix}-{next(numbers)}"], jobs.work, AWHILE)
            ours = {entry.pid for entry in self._starts(f"{prefix}-") if entry.at > since}
            return len(program.children) > 0 and ours >= {*program.children}

        # How soon is judged by the journal: what was pushed before may be much, and comes first.
        until(all_work, "all work again", within=self.back_to_work + BACKLOG)

    def _starts(self, prefix: str) -> list[Entry]:
        return [one for one in self.journal.entries("start") if one.name.startswith(prefix)]

    # Those who disturb them:

    def kill(self, pid: int) -> None:
        """Kill a process."""
        self.journal.note("kill", pid=pid)
        kill(pid)

    def kill_tree(self, *programs: Program) -> None:
        """Kill programs with all their processes, in one moment."""
        self._poison = POISON - UNBEGUN
        for program in programs:
            program.freeze()
        for program in programs:
            for pid in program.members:
                self.journal.note("kill", pid=pid)
            program.end()

    def stop(self, pid: int) -> None:
        """Stop a process, as a machine does that sleeps."""
        self._poison = POISON - UNBEGUN
        self.journal.note("stop", pid=pid)
        self.pause(pid)

    def go(self, pid: int) -> None:
        """Let a stopped process go on."""
        kill(pid, signal.SIGCONT)
        self.journal.note("go", pid=pid)

    def pause(self, pid: int) -> None:
        """Stop a process so that nobody notices, if what is promised is kept: no run may be doubled by it."""
        kill(pid, signal.SIGSTOP)
        while self.is_locked:  # not while it writes to a file that nobody else could then write to
            kill(pid, signal.SIGCONT)
            kill(pid, signal.SIGSTOP)

    @contextmanager
    def asleep(self, program: Program) -> Generator[None]:
        """Stop a program with all its processes; at the end of the block they go on."""
        self._poison = POISON - UNBEGUN
        pids = program.members
        for pid in pids:
            self.journal.note("stop", pid=pid)
        self.freeze(program)
        yield
        program.thaw()
        for pid in pids:
            self.journal.note("go", pid=pid)

    def restart_server(self, away: float = 0.0) -> None:
        """Kill the store's server, and start it anew after some seconds."""
        assert self.place.server is not None
        self.journal.note("down")
        self.place.server.kill()
        time.sleep(away)
        self.place.server.start()
        self.journal.note("up")

    # How it ends, in all queues:

    @property
    def counts(self) -> Counts:
        """How many tasks are in which state."""
        backend = self.gator.backend
        return Counts(*map(sum, zip(Counts(), *map(backend.count, backend.queues()), strict=True)))

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters."""
        backend = self.gator.backend
        return [one for queue in backend.queues() for one in backend.dead(queue, limit=MANY)]

    def is_done(self) -> bool:
        """Whether nothing is queued, or running."""
        counts: Counts = self.patiently(lambda: self.counts)
        return counts._replace(dead=0) == Counts()

    def is_over(self) -> bool:
        """Whether nobody pushes any more, and all is done; or it takes too long."""
        is_too_late = time.monotonic() > self._began_at + LONGEST
        return is_too_late or (not self._producers and self.is_done())

    def come_to_rest(self, within: float = 60.0) -> None:
        """Wait until all is done."""
        deadline = time.monotonic() + within
        while not self.is_done():
            if time.monotonic() > deadline:
                self.remarks.append(f"not at rest within {within:g} s: {self.counts}")
                return
            time.sleep(0.02)

    def look_at_dead(self) -> dict[str, str]:
        """Take note of each dead letter that none should be; return all their names and notes."""
        dead = {_name_of(letter.body): letter.note for letter in self.dead}
        is_rough = any(self.journal.entries(kind) for kind in ("kill", "stop"))
        for name, note in dead.items():
            if name in self.rightly_dead or broken_off(self.journal, name) >= self._poison:
                continue
            # On a busy machine, who takes a task up may die three times before it begins.
            expect = self.expect_measured if is_rough else self.expect
            expect(False, f"{name} is a dead letter: {note:.300}")
        return dead

    def names_of_dead(self) -> list[str]:
        """Return the names of the tasks that are dead letters."""
        return [_name_of(letter.body) for letter in self.dead]

    def findings(self) -> Findings:
        """Judge what happened."""
        if self._is_whole:  # does anything still start that is done?
            time.sleep(LEASE + SWEEP)
        dead = self.look_at_dead()
        found = found_in(
            self.journal,
            dead,
            retries_anew=not self.gator.backend.keeps_ids,
            batch=self.batch,
            held_on=self.held_on if self._is_whole else max(self.held_on, BUSY),
            goes_on=HELD_ON if self._is_whole else BUSY,
        )
        self._judge_times(found)
        return found

    @property
    def _is_whole(self) -> bool:
        return self._size >= 1.0

    def _judge_times(self, found: Findings) -> None:
        """Expect what depends on the machine: how soon all goes on, and how much was broken off."""
        slowest = max(found.revivals, default=0.0)
        self.expect_measured(
            slowest <= self.back_to_work, f"back to work only after {slowest:.1f} s"
        )
        self.expect_measured(
            found.slowest <= self.recovers_within,
            f"recovered only after {found.slowest:.1f} s: more than {self.recovers_within:g} s",
        )
        self.expect_measured(
            len(found.recoveries) >= int(found.kills * self.breaks_off),
            f"{found.kills} were killed, which broke off no more than {len(found.recoveries)} runs",
        )


def _name_of(body: bytes) -> str:
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        return str(json.loads(body)["args"][1])
    return repr(body)
