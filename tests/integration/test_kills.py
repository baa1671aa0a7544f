"""Workers killed again and again: none of 1,000 tasks is lost, and every double run is a kill's doing."""

import os
import random
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from alligator.backends.base import Counts
from tests.integration import jobs
from tests.integration.journal import Entry, Journal
from tests.integration.scenes import Program, Scene, kill, until

TASKS = 1000
LEASE = 2.0
CHILDREN_TO_KILL = 25
TREES_TO_KILL = 5
DEPLOYS = 5
HELD_ON = LEASE
"""Seconds that a finished task may wait for its settlement; a kill then explains a second run."""
SEED = int(os.environ.get("KILLS_SEED", random.randrange(1_000_000)))
OPTIONS = ("--workers", "2", "--lease", f"{LEASE:g}", "--quiet")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task, and when the process that it was in was killed, if it was."""

    start: Entry
    finished_at: float | None
    killed_at: float | None

    @property
    def is_killed(self) -> bool:
        """Whether its process was killed before the task could be settled for sure."""
        if self.killed_at is None:
            return False
        return self.finished_at is None or self.killed_at < self.finished_at + HELD_ON


@dataclass(frozen=True, slots=True)
class Findings:
    """What the journal tells."""

    kills: int
    lost: list[str]
    explained: int
    unexplained: list[str]
    recoveries: list[float]
    """Seconds from each kill that broke off a task to the task's next start."""


def runs_by_task(journal: Journal) -> dict[str, list[Run]]:
    """Return each task's runs, in order."""
    killed = {entry.pid: entry.at for entry in journal.entries("kill")}
    finished = {(entry.name, entry.pid): entry.at for entry in journal.entries("finish")}
    runs: dict[str, list[Run]] = {}
    for start in journal.entries("start"):
        finished_at = finished.get((start.name, start.pid))
        runs.setdefault(start.name, []).append(Run(start, finished_at, killed.get(start.pid)))
    return runs


def found_in(journal: Journal, names: list[str]) -> Findings:
    """Judge what happened by the journal alone."""
    runs = runs_by_task(journal)
    again = {
        name: each[:-1] for name, each in runs.items()
    }  # all runs but the last were followed by one
    return Findings(
        kills=len(journal.entries("kill")),
        lost=sorted(set(names) - set(journal.names("finish"))),
        explained=sum(run.is_killed for each in again.values() for run in each),
        unexplained=[name for name, each in again.items() for run in each if not run.is_killed],
        recoveries=[
            later.start.at - run.killed_at
            for each in runs.values()
            for run, later in pairwise(each)
            if run.killed_at is not None and run.finished_at is None
        ],
    )


def broken_off(journal: Journal, name: str) -> int:
    """Return how many runs of a task a kill has ended, or may have."""
    return sum(run.is_killed for run in runs_by_task(journal).get(name, []))


@contextmanager
def figures(scene: Scene, names: list[str], capsys: pytest.CaptureFixture[str]) -> Generator[None]:
    """Print the figures when the block ends, however it ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        found = found_in(scene.journal, names)
        store = scene.dsn.partition(":")[0]
        with capsys.disabled():
            print(
                f"\n{store}: {len(names)} tasks, {found.kills} processes killed, "
                f"{len(found.lost)} lost, double runs: {found.explained} explained, "
                f"{len(found.unexplained)} unexplained; dead letters: {scene.counts.dead}; "
                f"slowest recovery {max(found.recoveries, default=0):.2f} s "
                f"of {len(found.recoveries)}; {time.monotonic() - began:.1f} s, seed {SEED}"
            )


def start(scene: Scene) -> Program:
    """Start workers that have the tasks' code at hand: what they start is in the journal at once."""
    return scene.latergator(*OPTIONS, target="tests.integration.gators:plain", SCENE_DSN=scene.dsn)


def push_all(scene: Scene) -> list[str]:
    """Queue the tasks, each of a few milliseconds; return their names."""
    names = [f"t{number}" for number in range(TASKS)]
    for name in names:
        scene.push(name, jobs.work, 0.004)
    return names


def is_done(scene: Scene) -> bool:
    """Whether the store has nothing left to do."""
    counts = scene.counts
    return counts == Counts(dead=counts.dead)


def check(scene: Scene, names: list[str]) -> Findings:
    """Wait for the end, and say what must hold then."""
    until(lambda: is_done(scene), "all is done", within=30)
    # A task on which its worker was killed three times is set aside, and that is right.
    poison = [letter.task_id for letter in scene.dead]
    assert [name for name in poison if broken_off(scene.journal, name) < 3] == []
    found = found_in(scene.journal, names)
    assert set(found.lost) - set(poison) == set()
    assert found.unexplained == []
    return found


def test_children_killed_at_random_lose_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    names = push_all(scene)
    with figures(scene, names, capsys):
        program = start(scene)
        for _ in range(CHILDREN_TO_KILL):
            kill_one_of(scene, program, rng)
        findings = check(scene, names)

    assert findings.kills >= CHILDREN_TO_KILL / 3  # the rest, if any, met nobody at work any more
    assert max(findings.recoveries, default=0) < 3  # 1 s is promised; a machine may be busy
    assert program.runs


def test_whole_trees_killed_at_random_lose_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    names = push_all(scene)
    with figures(scene, names, capsys):
        for _ in range(TREES_TO_KILL):
            program = start(scene)
            work_a_while(scene, program, rng)
            kill_tree(scene, program)
        start(scene)
        findings = check(scene, names)

    assert findings.kills >= TREES_TO_KILL
    # Whoever took over may have been killed, too, before it came to that task.
    assert max(findings.recoveries, default=0) < TREES_TO_KILL * LEASE + 5


def test_processes_told_to_leave_at_random_lose_and_repeat_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    names = push_all(scene)
    for _ in range(DEPLOYS):
        program = start(scene)
        work_a_while(scene, program, rng)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert program.stderr == ""

    left = scene.deliveries()
    done = scene.journal.names("finish")
    with capsys.disabled():
        print(f"\n{DEPLOYS} deploys: {len(done)} tasks done, {len(left)} left, seed {SEED}")
    assert sorted(scene.journal.names("start")) == sorted(done)
    assert sorted([*done, *left]) == sorted(names)
    assert set(left.values()) <= {1}
    assert scene.counts == Counts(running=len(left))  # taken just now, to be looked at


def workers_of(scene: Scene, program: Program) -> list[int]:
    """Return the processes of a latergator that have started a task."""
    at_work = {entry.pid for entry in scene.journal.entries("start")}
    return [pid for pid in program.children if pid in at_work]


def wait_for_work(scene: Scene, program: Program) -> None:
    """Wait until a process has started a task, or all is done."""
    until(lambda: is_done(scene) or workers_of(scene, program), "somebody works")


def work_a_while(scene: Scene, program: Program, rng: random.Random) -> None:
    """Let a latergator work until a moment that nobody can foresee: mostly after its first task."""
    until(lambda: program.children, "it has started a process")  # by then it heeds signals
    if rng.random() < 0.8:
        wait_for_work(scene, program)
    pause(scene, rng.uniform(0.0, 0.4))


def kill_one_of(scene: Scene, program: Program, rng: random.Random) -> None:
    """Kill a process of a latergator at some moment: mostly one that works, or else one just started."""
    wait_for_work(scene, program)
    pause(scene, rng.uniform(0.0, 0.2))
    victims = workers_of(scene, program) if rng.random() < 0.8 else program.children
    if victims:
        victim = rng.choice(victims)
        scene.journal.note("kill", "-", victim)
        kill(victim)


def kill_tree(scene: Scene, program: Program) -> None:
    """Kill a latergator with all its processes, and note which they were."""
    program.freeze()
    for pid in program.members:
        scene.journal.note("kill", "-", pid)
    program.end()


def pause(scene: Scene, seconds: float) -> None:
    """Let the workers work for so long, or until all is done."""
    moment = time.monotonic() + seconds
    while time.monotonic() < moment and not is_done(scene):
        time.sleep(0.002)
