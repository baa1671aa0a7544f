"""Worker processes whose latergator is killed alone."""

import signal
import time
from collections.abc import Collection

from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import BEANSTALK_LEASE
from tests.integration import jobs
from tests.integration.scenes import until

LONGEST_LIFE = BEANSTALK_LEASE + 5.0
"""Seconds that a worker process may outlive its latergator."""
TASKS = 4000


@scenario(quick=0.05, quick_on=["beanstalk"], patience=0.5)
def parents_killed(stage: Stage) -> None:
    """A latergator is killed, its worker processes are not, and another is started: 20 times."""
    stage.push_batch(stage.names(TASKS), jobs.work, 0.02)
    longest, met = 0.0, 0
    rounds = stage.many(20, at_least=2)
    for _ in range(rounds):
        program = stage.start("--workers", "4")
        until(lambda: stage.at_work(program) or stage.is_done(), "somebody works")  # noqa: B023
        time.sleep(stage.rng.uniform(0.0, 0.3))
        for pid in program.children:
            stage.journal.note("leave", pid=pid)
        stage.journal.note("kill", pid=program.pid)
        met += bool(_amid_runs(stage, program.children))
        killed_at = program.signal(signal.SIGKILL)
        until(lambda: not program.members, "no worker outlives it", within=LONGEST_LIFE)  # noqa: B023
        longest = max(longest, time.monotonic() - killed_at)
    stage.expect(met >= rounds / 2, f"only {met} of {rounds} left somebody amid a run")
    stage.show(f"none outlived it by {longest:.2f} s")
    stage.start("--workers", "4")


def _amid_runs(stage: Stage, pids: Collection[int]) -> list[int]:
    """Return which of some processes have begun a task, and not finished it."""
    last = {one.pid: one.kind for one in stage.journal.entries() if one.kind in ("start", "finish")}
    return [pid for pid in pids if last.get(pid) == "start"]
