"""What a process does that is to be killed in the midst of it.

It has a queue of its own, and its tasks have names that begin with the queue's.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from alligator import Gator, Worker, current_task
from alligator.constants import RETRYING
from alligator.verify.journal import Journal
from chaos.stores import LEASE
from tests.integration import jobs


class FailedOnPurpose(Exception):
    """As tasks raise it."""


WORKERS: set[int] = set()
"""Processes that heed a signal to leave."""

# What the tasks do:


def fail_at_first(journal: str, name: str) -> None:
    """Fail at the first attempt."""
    note = Journal(journal).note
    note("start", name)
    if current_task().attempt == 1:
        note("fail", name)
        raise FailedOnPurpose
    note("finish", name)


def fail(journal: str, name: str) -> NoReturn:
    """Fail at every run."""
    Journal(journal).note("start", name)
    Journal(journal).note("fail", name)
    raise FailedOnPurpose


def leave_at_first(journal: str, name: str) -> None:
    """Tell the worker to leave, at the first run; if there is one who heeds it."""
    Journal(journal).note("start", name)
    is_first = len(Journal(journal).entries("start", name)) == 1
    if is_first and os.getpid() in WORKERS:
        os.kill(os.getpid(), signal.SIGTERM)
    Journal(journal).note("finish", name)


# What is done to a queue, with tasks of these ids:


def push(gator: Gator, ids: Sequence[str], journal: Journal) -> None:
    """Push a task."""
    name = f"{gator.queue_name}-new"
    journal.note("push", name)
    with gator.options(task_id=name) as opts:
        opts.task(jobs.work, journal.path, name)
    journal.note("pushed", name)


def push_many(gator: Gator, ids: Sequence[str], journal: Journal) -> None:
    """Push some tasks in one step."""
    names = [f"{gator.queue_name}-new{number}" for number in range(3)]
    for name in names:
        journal.note("push", name)
    with gator.batch() as batch:
        for name in names:
            with batch.options(task_id=name) as opts:
                opts.task(jobs.work, journal.path, name)
    for name in names:
        journal.note("pushed", name)


def run(gator: Gator, ids: Sequence[str], journal: Journal) -> None:
    """Reserve a task, run it, and settle it as it comes: acknowledge, release or bury."""
    is_over = True
    with suppress(FailedOnPurpose):
        task = gator.pop()
        is_over = task is not None and task.status != RETRYING
    if is_over:
        journal.note("settled", f"{gator.queue_name}-0")


def cancel(gator: Gator, ids: Sequence[str], journal: Journal) -> None:
    """Cancel a task."""
    name = f"{gator.queue_name}-0"
    journal.note("cancel", name)
    assert gator.cancel(ids[0]) is not None
    journal.note("canceled", name)


def work(gator: Gator, ids: Sequence[str], journal: Journal) -> None:
    """Work until a task says to leave: settle what has run, give back the rest."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 -- what the worker says is of no interest
    WORKERS.add(os.getpid())
    Worker(gator, lease=LEASE).run_forever()


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a process does.

    Args:
        does: What it does.
        tasks: What its queue holds before.
        options: Of those tasks.
    """

    does: Callable[[Gator, Sequence[str], Journal], None]
    tasks: tuple[Callable[..., Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


STEPS = {
    "push": Step(push),
    "push_many": Step(push_many),
    "ack": Step(run, (jobs.work,)),
    "release": Step(run, (fail_at_first,), {"retries": 1}),
    "bury": Step(run, (fail,)),
    "cancel": Step(cancel, (jobs.work,)),
    "stop": Step(work, (jobs.work, leave_at_first, jobs.work, jobs.work)),
    # What a worker does by other ways than a Gator that pops a task:
    "work_release": Step(work, (fail_at_first, leave_at_first), {"retries": 1}),
    "work_bury": Step(work, (fail, leave_at_first)),
    "work_batch": Step(work, (*[jobs.work] * 12, leave_at_first, jobs.work, jobs.work)),
}
