"""Many tasks at once, and many in the course of time."""

import time
from collections.abc import Callable
from typing import Any

from alligator import Task
from alligator.verify.journal import Journal
from chaos.campaign import scenario
from chaos.footprint import Footprint, footprint
from chaos.stage import Stage
from chaos.steps import fail, fail_at_first
from tests.integration import jobs
from tests.integration.scenes import PATIENCE, Program, until

FLOOD = 100_000
AT_ONCE = 1000
"""Tasks in one step."""
LONG = 300.0
"""Seconds to work off a flood."""
ROUNDS = 15
WARM = 5
"""Rounds until everything has been imported, connected and cached."""
EACH = 20
"""Tasks of each kind in a round."""
PLAIN = 500
"""Of those that nothing happens to."""
SOON = 0.2
SPARE_MEMORY = 3.0
"""MiB that three processes may have more in the end: after some 8,000 tasks, that is less than half a KiB for
each. They grow by up to 1 MiB without a leak: memory is in pieces, and so is not all given back."""
SPARE_FILES = 3
"""As many more may be open: each process may open a further connection when it first needs one."""


def tick(ticks: str) -> None:
    """Note that this was run."""
    Journal(ticks).note("tick")


@scenario(patience=0.1)
def flood(stage: Stage) -> None:
    """A hundred thousand tasks come before anybody works; then they are worked off."""
    names = stage.names(FLOOD)
    for start in range(0, len(names), AT_ONCE):
        stage.push_batch(names[start : start + AT_ONCE])
    workers = stage.start("--workers", "2")
    stage.come_to_rest(within=LONG)
    stage.expect(workers.runs, "latergator has ended")


@scenario(patience=0.3)
def long_service(stage: Stage) -> None:
    """Round after round tasks run, fail, are retried, delayed, canceled and scheduled; nothing may pile up."""
    records = stage.gator.backend.records
    schedule = ["--schedule"] if records else []
    workers = stage.start("--workers", "2", *schedule)
    rounds = stage.many(ROUNDS, WARM + 1)
    ticks = Journal(f"{stage.journal.path}-ticks")
    if records:
        stage.gator.every(1, tick, ticks.path)
        until(ticks.entries, "what is scheduled runs")
    for number in range(WARM):
        _round(stage, number)
    first = footprint(stage, workers)
    for number in range(WARM, rounds):
        _round(stage, number)
    last = _lean(stage, workers, first.rows)
    stage.expect(last.rows <= first.rows, "the store has more rows")
    stage.expect(last.memory <= first.memory + SPARE_MEMORY, "they have grown")
    stage.expect(last.files <= first.files + SPARE_FILES, "they have more files open")
    stage.expect(workers.runs, "latergator has ended")
    stage.show(f"{rounds} rounds, {_told(first)}, then {_told(last)}")


def _lean(stage: Stage, program: Program, rows: int) -> Footprint:
    """Return what is taken up when what comes and goes has gone, or after some seconds."""
    deadline = time.monotonic() + PATIENCE
    taken = footprint(stage, program)
    while taken.rows > rows and time.monotonic() < deadline:
        taken = footprint(stage, program)
    return taken


def _told(taken: Footprint) -> str:
    return f"{taken.memory:.1f} MiB, {taken.files} files, {taken.rows} rows"


def _round(stage: Stage, number: int) -> None:
    """Let tasks of each kind come and go."""
    gator, backend = stage.gator, stage.gator.backend
    kept = [_push(stage, number, f"result{n}", jobs.work, keep_result=LONG) for n in _each(stage)]
    stage.push_batch(stage.names(PLAIN, f"round{number}-plain"))
    for n in _each(stage):
        _push(stage, number, f"fail{n}", fail)
        _push(stage, number, f"retry{n}", fail_at_first, retries=1)
        _push(stage, number, f"delay{n}", jobs.work, delay_by=SOON)
        canceled = _push(stage, number, f"cancel{n}", jobs.work, delay_by=LONG)
        stage.journal.note("cancel", str(canceled.func_args[1]))
        gator.cancel(canceled.task_id)
        stage.journal.note("canceled", str(canceled.func_args[1]))
    if backend.records is not None:
        for task in kept:
            task.wait(PATIENCE)
    stage.come_to_rest()
    letters = stage.dead
    stage.expect(len(letters) == len(_each(stage)), f"{len(letters)} dead letters")
    for n in _each(stage):
        stage.journal.note("cancel", f"round{number}-fail{n}")
    backend.purge_dead(gator.queue_name, [letter.letter_id for letter in letters])


def _each(stage: Stage) -> range:
    return range(stage.many(EACH))


def _push(stage: Stage, number: int, kind: str, func: Callable[..., Any], **options: Any) -> Task:
    """Push a task under the id that it had in the round before: what became of that is known for a day."""
    if stage.gator.backend.records is None:
        options.pop("keep_result", None)
    name = f"round{number}-{kind}"
    stage.journal.note("push", name)
    with stage.gator.options(task_id=kind, **options) as opts:
        task = opts.task(func, stage.journal.path, name)
    stage.journal.note("pushed", name)
    return task
