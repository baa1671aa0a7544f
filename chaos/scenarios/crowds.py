"""Many processes at once: of one file, and of one Gator."""

import time

from alligator import notes
from chaos.campaign import scenario
from chaos.files import check_file
from chaos.stage import POISON, Stage
from chaos.stores import LEASE
from tests.integration import jobs
from tests.integration.scenes import Program, until

ROUNDS = 20
FULL_LOAD = 15
"""Seconds: so many leases that one too short would be seen."""
LONG = 10
"""Tasks of two leases: in this crowd, too, theirs must be extended."""
WITHOUT_END = 0
TASK = 0.008
"""Seconds that a task takes, so that who works is mostly met at it."""
BREAKS_OFF = 0.03
"""The part of all deaths that must meet a run: of eleven that die, two run tasks."""
HELD_ON = 1.5
"""Seconds that a finished task may wait for its settlement: who settles it takes turns with eight who push."""


@scenario(["sqlite"], quick=0.05)
def all_of_one_file_killed(stage: Stage) -> None:
    """Of one file, 8 who push and 2 who work are all killed in one moment: 20 times."""
    stage.breaks_off, stage.held_on = BREAKS_OFF, HELD_ON
    stage.recovers_within *= POISON  # as in trees_killed
    for number in range(stage.many(ROUNDS)):
        stage.push(f"round{number}")
        workers = stage.start("--workers", "2")
        until(lambda: stage.at_work(workers), "one is at work")  # noqa: B023 -- called before the next
        producers = pushing(stage, f"round{number}", processes=8, seconds=TASK)
        # That it is run is not waited for: those who push are faster than those who work.
        until(lambda: f"round{number}-first" in stage.journal.names("pushed"), "it is pushed")  # noqa: B023
        time.sleep(stage.rng.uniform(0.0, 0.5))
        stage.kill_tree(producers, workers)
        check_file(stage)
    stage.start("--workers", "4")
    stage.come_to_rest()
    _retry_poison(stage)


def _retry_poison(stage: Stage) -> None:
    """Retry what was held by three who died: which task has killed them, nobody could tell."""
    stage.look_at_dead()
    letters = [one for one in stage.dead if notes.read(one.note).get("reason") == "poison"]
    stage.gator.backend.retry_dead(stage.gator.queue_name, [one.letter_id for one in letters])
    stage.show(f"{len(letters)} taken for poison, and retried")


@scenario(["sqlite"])
def full_load(stage: Stage) -> None:
    """On one file, 8 push and 4 work as fast as they can, with short leases; nothing is done to them."""
    workers = stage.start("--workers", "4")
    producers = pushing(stage, "t", processes=8)
    stage.produce(stage.names(LONG, "long"), jobs.work, 2 * LEASE)
    time.sleep(stage.many(FULL_LOAD))
    producers.end()
    stage.come_to_rest()
    stage.expect(workers.runs, "latergator has ended")
    check_file(stage)


@scenario(quick=0.1, quick_on=["sqlite", "redis"], patience=0.1)
def forks_and_threads(stage: Stage) -> None:
    """A process that has used a Gator forks four, and all of them push and ask over it with threads."""
    producers = pushing(stage, "t", processes=5, threads=4, tasks=stage.many(100))
    status = producers.wait(within=60.0)
    stage.expect(status == 0, f"{status} threads or processes failed: {producers.stderr:.1000}")
    stage.start("--workers", "2")


def pushing(
    stage: Stage,
    name: str,
    processes: int,
    threads: int = 1,
    tasks: int = WITHOUT_END,
    seconds: float = 0.0,
) -> Program:
    """Start processes that push, all forked by one that has used the Gator."""
    numbers = processes - 1, threads, tasks, seconds
    words = stage.dsn, stage.journal.path, name, *map(str, numbers)
    return stage.python("-m", "chaos.pushing", *words)
