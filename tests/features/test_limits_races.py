"""Limits under workers that race, and under workers that are killed at any moment."""

import random
from collections.abc import Callable
from itertools import count

import pytest

from alligator import Concurrency, Rate
from alligator.backends.base import Message, Reservation
from alligator.limits import Limit
from alligator.limits.lines import CHUNK
from alligator.limits.record import SAFETY
from alligator.verify.journal import Journal
from tests.features import stop_work
from tests.features.limit_work import Clock, Steps, Store, Sudden, fragile
from tests.integration import jobs
from tests.integration.scenes import Scene, kill, until

TWO = Concurrency("api", 2)
LEASE = 2.0
OPTIONS = ("--lease", f"{LEASE:g}", "--quiet")


def most_at_a_time(journal: Journal, names: set[str]) -> int:
    """Return how many of some tasks ran at the same time, at most; those of a process until it was killed."""
    inside: set[tuple[str, int]] = set()
    most = 0
    for entry in sorted(journal.entries(), key=lambda entry: entry.at):
        if entry.kind == "kill":
            inside = {run for run in inside if run[1] != entry.pid}
        elif entry.name in names and entry.kind == "start":
            inside.add((entry.name, entry.pid))
        else:
            inside.discard((entry.name, entry.pid))
        most = max(most, len(inside))
    return most


def test_never_more_than_may_in_all_processes_together(scene: Scene) -> None:
    limited = {f"limited-{number}" for number in range(80)}
    other = {f"other-{number}" for number in range(20)}
    free = {f"free-{number}" for number in range(20)}
    for name in sorted(limited):
        scene.push(name, jobs.work, 0.01, limit=TWO)
    for name in sorted(other):
        scene.push(name, jobs.work, 0.01, limit=Concurrency("other", 1))
    for name in sorted(free):
        scene.push(name, jobs.work)

    for _ in range(2):
        scene.latergator("--workers", "2", "--threads", "2", *OPTIONS)

    until(lambda: {*limited, *other, *free} <= set(scene.journal.names("finish")), "all are done")
    assert most_at_a_time(scene.journal, limited) == 2
    assert most_at_a_time(scene.journal, other) == 1
    assert len(scene.journal.names("start")) == 120
    until(lambda: scene.counts.waiting + scene.counts.delayed + scene.counts.running == 0, "empty")


def test_a_killed_process_leaves_its_place(scene: Scene) -> None:
    limit = Concurrency("api", 1)
    scene.push("holder", jobs.wait_at_gate, str(scene.folder / "gate-holder"), limit=limit)
    scene.latergator("--workers", "2", *OPTIONS)
    first = scene.started("holder")
    for number in range(5):
        scene.push(f"next-{number}", jobs.work, limit=limit)
    until(lambda: scene.counts.delayed == 5, "the others wait")

    kill(first.pid)

    scene.started("holder", 2)
    assert scene.journal.names("start") == ["holder", "holder"]
    scene.open("holder")
    until(lambda: len(scene.journal.names("finish")) == 6, "the others went on")
    assert scene.journal.names("finish") == ["holder", *(f"next-{number}" for number in range(5))]


def test_one_that_is_ended_with_its_process_leaves_its_place(scene: Scene) -> None:
    limit = Concurrency("api", 1)
    scene.push("holder", stop_work.hold_the_lock, timeout=0.2, limit=limit)
    scene.latergator("--workers", "2", *OPTIONS)
    scene.started("holder")
    scene.push("next", jobs.work, limit=limit)

    scene.finished("next")  # the guard would come too late for that

    assert scene.counts.dead == 1


def test_a_killed_machine_leaves_its_place(scene: Scene) -> None:
    limit = Concurrency("api", 1)
    gate = str(scene.folder / "gate-holder")
    scene.push("holder", jobs.wait_at_gate, gate, limit=limit)
    dies = scene.latergator(*OPTIONS)
    scene.started("holder")
    scene.push("next", jobs.work, limit=limit)
    scene.latergator(*OPTIONS)
    until(lambda: scene.counts.delayed == 1, "the other one waits")

    dies.kill_all()
    scene.open("holder")

    scene.finished("holder")
    scene.finished("next")


def test_a_task_that_ends_its_process_each_time_leaves_its_place(scene: Scene) -> None:
    limit = Concurrency("api", 1)
    scene.push("deadly", jobs.end_process, limit=limit)
    scene.push("next", jobs.work, limit=limit)

    scene.latergator(*OPTIONS)

    scene.finished("next")
    until(lambda: [letter.task_id for letter in scene.dead] == ["deadly"], "it is buried")


def test_processes_are_killed_one_after_the_other(scene: Scene) -> None:
    names = {f"limited-{number}" for number in range(60)}
    for name in sorted(names):
        scene.push(name, jobs.work, 0.02, limit=TWO)
    program = scene.latergator("--workers", "3", *OPTIONS)
    scene.started("limited-0")
    rng = random.Random(5)
    for _ in range(6):
        before = len(scene.journal.names("finish"))
        until(
            lambda before=before: len(scene.journal.names("finish")) > before + 4,  # type: ignore[misc]
            "the work goes on",
        )
        children = program.children
        if children:
            victim = rng.choice(children)
            kill(victim)
            scene.journal.note("kill", "-", victim)

    until(lambda: names <= set(scene.journal.names("finish")), "all are done", 60.0)
    assert most_at_a_time(scene.journal, names) == 2


# At each single call of the store


def in_line(store: Store, limit: Limit, clock: Clock) -> list[Reservation]:
    """Let one task run, and others wait: so many that the next one makes a chunk of them."""
    steps = Steps(store, limit, lease=10.0)
    names = [f"t{number:03}" for number in range(2 * CHUNK)]
    store.push_many("all", [Message(name, b"{}") for name in names])
    started = steps.begin()
    store.push("all", "new", "{}")
    if isinstance(limit, Rate):
        clock.now += limit.per + 0.1  # the next one is due
    return started


def end_one(steps: Steps, started: list[Reservation]) -> None:
    for held in started:
        steps.end(held)


def begin_next(steps: Steps, started: list[Reservation]) -> None:
    steps.begin()


def forget_one(steps: Steps, started: list[Reservation]) -> None:
    end_one(steps, started)
    steps.begin()


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("act", [end_one, begin_next, forget_one])
@pytest.mark.parametrize(
    "limit", [Concurrency("api", 1), Concurrency("api", 3), Rate("api", 2, 1.0)]
)
def test_a_worker_is_killed_at_any_call(
    limit: Limit, act: Callable[[Steps, list[Reservation]], None], is_done: bool
) -> None:
    for calls in count(1):
        clock = Clock()
        store = Store(clock)
        started = in_line(store, limit, clock)
        try:
            act(Steps(fragile(store, calls, is_done=is_done), limit, lease=10.0), started)
        except Sudden:
            assert_all_get_through(store, clock, limit, calls)
        else:
            assert calls > 2
            return


def assert_all_get_through(store: Store, clock: Clock, limit: Limit, calls: int) -> None:
    """Let other workers go on, until nothing is left."""
    steps = Steps(store, limit, lease=10.0)
    moved_at = clock.now
    while not store.is_empty:
        for held in steps.begin():
            steps.end(held)
            moved_at = clock.now
        assert clock.now - moved_at <= SAFETY + 10.0 + 1.0, f"stuck after call {calls}"
        if not store.count("all").waiting:
            clock.now = max(clock.now, store.next_at)
