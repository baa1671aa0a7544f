"""Machines whose clocks are wrong."""

import os
import time
from pathlib import Path

from chaos import producer
from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import LEASE
from tests.integration import jobs
from tests.integration.scenes import until

OFF = {"ahead": 120.0, "right": 0.0, "behind": -120.0}
"""Seconds."""
EARLY, LATE = 1.0, 5.0
"""Seconds that a task may start before it is due; and after, though others are due then."""
TASKS = 300
TARGET = "chaos.clocked:gator"
NEARLY = 1.0
"""Seconds."""
SHIFTED = Path(producer.__file__).with_name("shifted")
"""Whose sitecustomize.py changes what the clock of a program says, and of those that it starts."""


@scenario(["redis", "postgres", "beanstalk"], quick=0.05, quick_on=["redis"], patience=0.5)
def clocks_off(stage: Stage) -> None:
    """Of three workers and three producers one each is two minutes ahead, and one as much behind."""
    stage.push_batch([f"long{number}" for number in range(len(OFF))], jobs.work, 2 * LEASE)
    for who, seconds in OFF.items():
        clock = _clock(seconds)
        stage.start("--workers", "2", target=TARGET, **clock, JOURNAL=stage.journal.path)
        words = stage.dsn, stage.journal.path, who, f"{stage.many(TASKS)}"
        stage.python("-m", "chaos.producer", *words, **clock)
    workers, producers = stage.programs[0::2], stage.programs[1::2]
    until(lambda: all(len(one.children) == 2 for one in workers), "all are started")
    for seconds, *programs in zip(OFF.values(), workers, producers, strict=True):
        for pid in (one for program in programs for one in (program.pid, *program.children)):
            _look_at_clock(stage, pid, seconds)
    stage.expect(
        all(program.wait(60) == 0 for program in producers),
        f"a producer failed: {''.join(program.stderr for program in producers):.1000}",
    )
    stage.come_to_rest()
    stage.expect(not stage.dead, f"dead letters: {stage.names_of_dead()}")
    _look_at_starts(stage)


def _clock(seconds: float) -> dict[str, str]:
    """Return the environment of a program whose clock is off."""
    paths = filter(None, [str(SHIFTED), os.environ.get("PYTHONPATH")])
    return {"CHAOS_CLOCK": str(seconds), "PYTHONPATH": os.pathsep.join(paths)}


def _look_at_clock(stage: Stage, pid: int, seconds: float) -> None:
    """Take note if the clock of a process is not off by so much: then nothing would be tried."""

    def told() -> list[float]:
        return [float(one.name) for one in stage.journal.entries("clock") if one.pid == pid]

    until(told, f"process {pid} tells its clock")
    off = told()[0] - (time.time() - time.monotonic())
    stage.expect(abs(off - seconds) < NEARLY, f"a clock is off by {off:.1f} s, not {seconds:g} s")


def _look_at_starts(stage: Stage) -> None:
    starts = {entry.name: entry.at for entry in stage.journal.entries("start")}
    waited = [
        # By the machine's own clock, that is right: the store's server has it, too.
        (starts[entry.name] - entry.at - producer.delay_of(entry.name), entry.name)
        for entry in stage.journal.entries("pushed")
        if entry.name.partition("-")[0] in OFF and entry.name in starts
    ]
    (first, early), (last, late) = min(waited), max(waited)
    stage.show(f"started from {first:+.2f} to {last:+.2f} s of when they were due")
    stage.expect(first > -EARLY, f"{early} started {-first:.2f} s early")
    stage.expect_measured(last < LATE, f"{late} started {last:.2f} s late")
