"""Running tasks here and now, by hand, without a worker."""

import logging
from typing import TYPE_CHECKING

from alligator import notes, pushing
from alligator.attempts import Runner, impossible
from alligator.backends.base import Message, Reservation, as_bytes
from alligator.constants import RETRYING
from alligator.dependencies import OurTask
from alligator.exceptions import Snooze
from alligator.processes.keeper import LEASE, keeping
from alligator.running import CURRENT, RunningTask
from alligator.runs import take_retry
from alligator.settling import Attempt, settle
from alligator.tasks import Task
from alligator.timeouts import time_limit
from alligator.utils import new_id

if TYPE_CHECKING:
    from alligator.gator import Gator

log = logging.getLogger("alligator.gator")


def execute(gator: "Gator", task: Task) -> Task:
    """Run a task, retries included; see ``Gator.execute``."""
    while True:
        token = CURRENT.set(RunningTask(task))
        try:
            with time_limit(task.timeout):
                task.run()
        except Exception as err:
            if isinstance(err, Snooze) or not _try_again(gator, task, err):
                raise
            if task.is_async:
                return task
        else:
            return task
        finally:
            CURRENT.reset(token)


def pop(gator: "Gator") -> Task | None:
    """Run the first task of the queue; see ``Gator.pop``."""
    while held := gator.backend.reserve([gator.queue_name], new_id(), lease=LEASE).reservations:
        task = _run(gator, held[0])
        # One of ours lets those of the user start that waited for others: it is none of theirs.
        if not isinstance(task, OurTask):
            return task
    return None


def get(gator: "Gator", task_id: str) -> Task | None:
    """Run one task of the queue by its id; see ``Gator.get``."""
    reservation = gator.backend.reserve_task(gator.queue_name, task_id, new_id(), LEASE)
    return _run(gator, reservation, heeds_time=False) if reservation else None


def _try_again(gator: "Gator", task: Task, err: Exception) -> bool:
    """Take one of a failed task's retries, and queue it if it is async; False when none is left."""
    entry = {"attempt": task.attempt, "error": notes.describe(err), "at": gator.backend.now()}
    wait = take_retry(task, err, entry)
    if wait is None:
        return False
    if task.is_async:
        pushing.fix_expiry(gator, task)
        body = as_bytes(task.serialize())
        message = Message(task.task_id, body, wait, priority=task.priority)
        [task.task_id] = gator.backend.push_named(gator.queue_name, [message])
    return True


def _run(gator: "Gator", reservation: Reservation, *, heeds_time: bool = True) -> Task | None:
    outcome = impossible(reservation) or _attempt(gator, reservation, heeds_time=heeds_time)
    settle(gator.backend, outcome)
    if outcome.error is not None and (outcome.task is None or outcome.task.status != RETRYING):
        raise outcome.error
    return outcome.task


def _attempt(gator: "Gator", reservation: Reservation, *, heeds_time: bool) -> Attempt:
    runner = Runner(
        gator.backend,
        gator.task_class,
        results=gator.results,
        gives_back=KeyboardInterrupt,  # the person who waited stops waiting
        reading=gator.reading,
        heeds_time=heeds_time,
    )
    with keeping(gator.backend, reservation):
        return runner.attempt(reservation)
