"""Processes that stand still for longer than their leases, and then go on as if nothing had been."""

import time

from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import BEANSTALK_LEASE
from tests.integration import jobs
from tests.integration.scenes import until

CREW = "--workers", "2", "--threads", "4"
SHORTEST, LONGEST = BEANSTALK_LEASE, BEANSTALK_LEASE + 1.5
"""Seconds that a sleep lasts."""


@scenario(quick=0.1, quick_on=["beanstalk"])
def trees_asleep(stage: Stage) -> None:
    """A latergator is stopped with all its processes for longer than the lease, beside another one."""
    stage.push_batch(stage.names(800), jobs.work, 0.3)
    steady, sleepy = stage.start(*CREW), stage.start(*CREW)
    until(lambda: stage.at_work(sleepy) and stage.at_work(steady), "both work")
    for _ in range(stage.many(4)):
        with stage.asleep(sleepy):
            time.sleep(stage.rng.uniform(SHORTEST, LONGEST))
        until(lambda: stage.is_done() or stage.at_work(sleepy), "it works again")
        time.sleep(stage.rng.uniform(0.5, 1.0))
    stage.come_to_rest()
    # What the sleepy one did to a task that it had lost, the steady one would have complained of.
    stage.expect(not steady.stderr, f"the other one logged: {steady.stderr:.1000}")
    stage.show(f"void: {sleepy.stderr.count('void')} runs")


@scenario(quick=0.1, quick_on=["postgres"])
def children_asleep(stage: Stage) -> None:
    """A worker process is stopped for longer than the lease, again and again; its tasks are kept for it."""
    stage.push_batch(stage.names(800), jobs.work, 0.1)
    program, hungry = stage.start("--workers", "3"), stage.start("--workers", "1")
    until(lambda: len(stage.at_work(program)) == 3 and stage.at_work(hungry), "all work")
    # On beanstalkd a child extends its leases itself: a stop may double what it runs. Elsewhere it may not.
    is_kept = stage.gator.backend.shares_leases
    for _ in range(stage.many(4)):
        pid = stage.rng.choice(program.children)
        if is_kept:
            stage.pause(pid)
        else:
            stage.stop(pid)
        time.sleep(stage.rng.uniform(SHORTEST, LONGEST))
        stage.go(pid)
        time.sleep(stage.rng.uniform(0.2, 0.5))
    stage.come_to_rest()
    stage.expect(program.runs and hungry.runs, "a latergator has ended")
    if is_kept:
        stage.expect(not hungry.stderr, f"the other one logged: {hungry.stderr:.1000}")
