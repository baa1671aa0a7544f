"""Processes that stand still for longer than their leases, and then go on as if nothing had been."""

import time
from collections.abc import Callable

from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import BEANSTALK_LEASE
from tests.integration import jobs
from tests.integration.scenes import until

CREW = "--workers", "2", "--threads", "4"
SHORTEST, LONGEST = BEANSTALK_LEASE, BEANSTALK_LEASE + 1.5
"""Seconds that a sleep lasts."""


@scenario(quick=0.1, quick_on=["beanstalk"], patience=0.5)
def trees_asleep(stage: Stage) -> None:
    """A latergator is stopped with all its processes for longer than the lease, beside another one."""
    stage.push_batch(stage.names(800), jobs.work, 0.3)
    steady, sleepy = stage.start(*CREW), stage.start(*CREW)
    until(lambda: stage.at_work(sleepy) and stage.at_work(steady), "both work")
    for _ in range(stage.many(4)):
        with stage.asleep(sleepy):
            time.sleep(stage.rng.uniform(SHORTEST, LONGEST))
        woken_at = time.monotonic()
        until(lambda: stage.is_done() or stage.at_work(sleepy, woken_at), "it works again")  # noqa: B023
        time.sleep(stage.rng.uniform(0.5, 1.0))
    stage.come_to_rest()
    # What the sleepy one did to a task that it had lost, the steady one would have complained of.
    stage.expect(not steady.stderr, f"the other one logged: {steady.stderr:.1000}")
    until(lambda: "void" in sleepy.stderr, "a run is void: somebody slept with a task")
    stage.show(f"void: {sleepy.stderr.count('void')} runs")


@scenario(quick=0.1, quick_on=["postgres"], patience=0.5)
def children_asleep(stage: Stage) -> None:
    """A worker process is stopped for longer than the lease, again and again; its tasks are kept for it."""
    stage.push_batch(stage.names(800), jobs.work, 0.1)
    program, hungry = stage.start("--workers", "3"), stage.start("--workers", "1")
    until(lambda: len(stage.at_work(program)) == 3 and stage.at_work(hungry), "all work")
    # On beanstalkd a child extends its leases itself: a stop may double what it runs. Elsewhere it may not.
    is_kept = stage.gator.backend.shares_leases
    for _ in range(stage.many(4)):
        pid = stage.rng.choice(program.children)
        _stop_amid_a_run(stage, pid, stage.pause if is_kept else stage.stop)
        time.sleep(stage.rng.uniform(SHORTEST, LONGEST))
        stage.go(pid)
        time.sleep(stage.rng.uniform(0.2, 0.5))
    stage.come_to_rest()
    stage.expect(program.runs and hungry.runs, "a latergator has ended")
    if is_kept:
        stage.expect(not hungry.stderr, f"the other one logged: {hungry.stderr:.1000}")


def _stop_amid_a_run(stage: Stage, pid: int, stop: Callable[[int], None]) -> None:
    """Stop a process that is then found to have begun a task, and not finished it."""

    def is_stopped_there() -> bool:
        stop(pid)
        mine = [one for one in stage.journal.entries() if one.pid == pid]
        runs = [one.kind for one in mine if one.kind in ("start", "finish")]
        if runs and runs[-1] == "start":
            return True
        stage.go(pid)
        return False

    until(is_stopped_there, "it runs a task")
