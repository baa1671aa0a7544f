"""Every order of two signals, at any moment."""

import signal
import time
from collections import Counter
from itertools import product

from chaos.campaign import scenario
from chaos.stage import Stage
from tests.integration import jobs
from tests.integration.scenes import until

HEEDED = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
GRACE = 1.0
"""Seconds that a program which gets one signal alone lets its tasks run."""
LEAVES_WITHIN = 2.0
"""Seconds for a program to leave, after its grace, or the second signal: 1 where nothing else runs."""
LONG = 4
"""Tasks that never end but in the last program: fewer than there are threads."""


@scenario(quick=0.17, quick_on=["sqlite", "beanstalk"])
def two_signals(stage: Stage) -> None:
    """Each signal that tells to leave, with each other one after it or none, at any moment; long tasks run."""
    long = [f"long{number}" for number in range(LONG)]
    for name in long:
        stage.push(name, jobs.wait_at_gate, str(stage.folder / "gate"))
    stage.push_batch(stage.names(3000), jobs.work, 0.005)
    orders = [*product(HEEDED, [*HEEDED, None])]
    stage.rng.shuffle(orders)
    took = [_told_to_leave(stage, *order) for order in orders[: stage.many(len(orders))]]
    stage.show(f"left within {max(took):.2f} s")
    stage.expect_measured(max(took) < LEAVES_WITHIN, f"left only after {max(took):.2f} s")
    (stage.folder / "gate").touch()
    stage.start("--workers", "2")
    stage.come_to_rest()
    stage.expect(not stage.dead, f"dead letters: {stage.names_of_dead()}")
    if stage.gator.backend.shares_leases:
        again = [
            name for name, count in Counter(stage.journal.names("finish")).items() if count > 1
        ]
        stage.expect(not again, f"finished more than once: {again}")


def _told_to_leave(stage: Stage, first: signal.Signals, second: signal.Signals | None) -> float:
    """Start a program, and tell it to leave; return how long it took beyond its grace."""
    grace = 30.0 if second else GRACE
    program = stage.start("--workers", "2", "--threads", "4", "--grace", f"{grace:g}")
    until(lambda: program.children, "it has started a process")  # by then it heeds signals
    if stage.rng.random() < 0.7:  # else it is told while it starts
        until(lambda: stage.at_work(program), "it works")
    time.sleep(stage.rng.uniform(0.0, 0.4))
    for pid in program.children:
        stage.journal.note("leave", pid=pid)
    told_at = program.signal(first)
    if second:
        time.sleep(stage.rng.uniform(0.05, 0.3))  # two of a kind at once may arrive as one
        told_at = program.signal(second)
    status = program.wait()
    left_at = time.monotonic()
    what = f"after {first.name} and {second.name if second else 'none'}"
    stage.expect(status == 0, f"latergator exited with {status} {what}")
    stage.expect(not program.members, f"processes are left behind {what}")
    stage.expect(not program.stderr, f"logged {what}: {program.stderr:.500}")
    return max(0.0, left_at - told_at - (0.0 if second else grace))
