"""Workers that die, or are told to leave."""

import signal
import time
from itertools import count

from alligator.verify.findings import batch_of
from chaos.campaign import scenario
from chaos.stage import POISON, Stage
from tests.features import coroutine_work
from tests.integration import jobs
from tests.integration.scenes import Program, until

EVERY = 0.2
"""Seconds between two kills."""
TASKS = 10_000
MOMENTS, FEW_MOMENTS = 2000, 500
"""Milliseconds that a latergator works at the most until it is killed: less than it has work for."""
BREAKS_OFF = 0.25
"""The part of all deaths that must meet a run: most do, but for those of who has just started."""
TREES_BREAK_OFF = 0.1
"""As much where all die: also parents, and whole crews that wait in the end for the leases of the last ones."""
FOUR = "--workers", "4"
TASK = 0.004
"""Seconds that a task takes."""
LONGER = 0.02
"""As much where workers come and go all the time: what that costs is to be most of what is done."""
ROUNDS = 100
CREWS = 3
LEFT = 200
"""Tasks that wait at the least while any latergator is told to leave, so that each finds work."""
COROUTINES = "--workers", "2", "--concurrency", "200", "--threads", "4"


@scenario(quick=0.05)
def children_killed(stage: Stage) -> None:
    """A worker process is killed every 0.2 s."""
    stage.batch, stage.breaks_off = batch_of(TASK), BREAKS_OFF
    with stage.producing(stage.names(TASKS), jobs.work, TASK):
        _kill_children(stage, *FOUR)


@scenario(["sqlite", "redis", "postgres"], quick=0.2, quick_on=["redis"])
def children_of_coroutines_killed(stage: Stage) -> None:
    """A worker process with some 200 tasks in flight is killed at 20 moments."""
    stage.breaks_off = BREAKS_OFF
    stage.push_batch(stage.names(10_000), coroutine_work.work, 0.02)
    _kill_children(
        stage, *COROUTINES, kills=stage.many(20, 5), target="tests.features.coroutine_gator:gator"
    )


def _kill_children(stage: Stage, *options: str, kills: int | None = None, **settings: str) -> None:
    program = stage.start(*options, **settings)
    done = 0
    while not stage.is_over() and done != kills:
        time.sleep(EVERY)
        # Mostly one that works; else one that was just started.
        victims = stage.at_work(program) if stage.rng.random() < 0.9 else program.children
        if victims:
            stage.kill(stage.rng.choice(victims))
            done += 1
    stage.expect(program.runs, "latergator has ended")


@scenario(quick=0.02, quick_on=["sqlite", "postgres"])
def trees_killed(stage: Stage) -> None:
    """A latergator is killed with all its processes soon after its first task, and another is started."""
    stage.batch, stage.breaks_off = batch_of(TASK), TREES_BREAK_OFF
    # Who takes a task up may die before it begins: each time, a lease more.
    stage.recovers_within *= POISON
    with stage.producing(stage.names(TASKS), jobs.work, TASK):
        program = stage.start(*FOUR)
        while not stage.is_over():
            until(lambda: stage.at_work(program) or stage.is_over(), "somebody works")  # noqa: B023
            time.sleep(stage.rng.uniform(0.0, stage.many(MOMENTS, FEW_MOMENTS) / 1000))
            stage.kill_tree(program)
            program = stage.start(*FOUR)


@scenario(quick=0.03, quick_on=["sqlite", "beanstalk"], patience=0.3)
def told_to_leave(stage: Stage) -> None:
    """A latergator beside two others gets SIGTERM at any moment, and another takes its place: 100 times."""
    numbers = count()
    met = 0
    rounds = stage.many(ROUNDS)
    crews: list[Program] = []
    left: list[Program] = []
    for number in range(rounds):
        if stage.counts.waiting < LEFT:
            stage.push_batch([f"t{next(numbers)}" for _ in range(5 * LEFT)], jobs.work, LONGER)
        while len(crews) < CREWS:
            crews.append(stage.start("--workers", f"{1 + number % 2}"))
        program = crews.pop(-1 if number % 4 == 0 else 0)  # now and then one that is about to start
        until(lambda: program.children, "it has started a process")  # noqa: B023 -- by then it heeds signals
        if number % 4:
            until(lambda: stage.at_work(program), "somebody works")  # noqa: B023
        time.sleep(stage.rng.uniform(0.0, 0.2))
        met += bool(stage.at_work(program))
        program.signal(signal.SIGTERM)
        left.append(program)
    for program in left:
        stage.expect(program.wait() == 0, "latergator did not exit with 0")
        stage.expect(not program.stderr, f"latergator logged: {program.stderr:.200}")
    stage.expect(met >= rounds // 2, f"only {met} of {rounds} met somebody at work")
    stage.show(f"{met} of {rounds} met somebody at work")
