"""Attempts at reserved tasks: whether one can be read and run, and what becomes of it if not."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from alligator import checkpoints, deaths, dependencies, limits, notes, results, retries
from alligator.backends.base import (
    MAX_ID_BYTES,
    Backend,
    Bury,
    Records,
    Release,
    Reservation,
    check_name,
)
from alligator.deaths import Death
from alligator.exceptions import InvalidOption, QueueFull, TaskFailed, TaskRefused
from alligator.payloads import plain
from alligator.raised import line_of, log_raised
from alligator.runs import Run
from alligator.settling import Attempt, at_once
from alligator.tasks import Abandoned, Task

if TYPE_CHECKING:
    from alligator.limits.gates import Entry
    from alligator.reading import Reading

log = logging.getLogger("alligator.task")


def impossible(held: Reservation) -> Attempt | None:
    """Return the burial of what got into the store under an impossible id; None: its id can be.

    No board could carry it: nothing else may be done with it before.
    """
    try:
        check_name("task_id", held.task_id, MAX_ID_BYTES)
    except InvalidOption as err:
        log.error("Task %a is buried: %s", held.task_id, err)
        return Attempt(Bury(held, notes.write("unreadable", err)), error=err)
    return None


class Runner:
    """Makes attempts: decides whether a reserved task may start, runs it, and decides how to settle it.

    Args:
        backend: The store.
        task_class: What reads tasks.
        results: Where results are kept; None: nowhere.
        code_wait: Seconds before the first look again for code that is missing; doubling.
        patiently: Calls the store for us, and may try again.
        gives_back: An exception that is no failure: the task goes back to its queue.
        coming: Returns the tasks that are about to be attempted next.
        reading: How names lead to functions; None: as anywhere.
        heeds_time: Whether a task whose time has not come is put off, though the store has handed it out.
    """

    def __init__(
        self,
        backend: Backend,
        task_class: type[Task],
        *,
        results: Records | None = None,
        code_wait: float = 10.0,
        patiently: Callable[[Callable[[], Any]], Any] = at_once,
        gives_back: type[BaseException] | tuple[()] = (),
        coming: Callable[[], Sequence[Reservation]] = tuple,
        reading: "Reading | None" = None,
        heeds_time: bool = True,
    ) -> None:
        self.backend = backend
        self.task_class = task_class
        self.results = results
        self.code_wait = code_wait
        self.patiently = patiently
        self.gives_back = gives_back
        self.coming = coming
        self.reading = reading
        self.heeds_time = heeds_time
        self._let_in: dict[Reservation, Entry] = {}
        self._entering = threading.Lock()
        # A store without leases cannot count, and must not loop.
        self.max_deliveries = retries.MAX_DELIVERIES if backend.can_lease else 1

    def attempt(self, reservation: Reservation) -> Attempt:
        """Run a reserved task once, in this thread, and decide how to settle it."""
        run = self.begin(reservation)
        if isinstance(run, Run):
            run.running.begin()
            return run.complete()
        if run.waits_for is None:
            return run
        waiting = [(reservation, run.waits_for)]
        parked = self.patiently(lambda: limits.park(self.backend, waiting))
        return Attempt(parked.releases[0], run.task, then=parked.then)

    def begin(self, reservation: Reservation) -> "Run | Attempt":
        """Read a reserved task; return the run to be made of it, or what becomes of it without one."""
        run = self.read(reservation)
        return run if isinstance(run, Attempt) else run.obstacle() or run

    def read(self, reservation: Reservation) -> "Run | Attempt":
        """Read a reserved task; return its run, which may have an ``obstacle`` yet, or what becomes of it."""
        held = reservation
        if retries.is_poison(held.deliveries, self.max_deliveries):
            return self._poison(held)
        try:
            task = self.task_in(held.body)
        except Abandoned:
            raise
        except TaskRefused as err:
            log.error("Task %r is refused, and buried: %s", held.task_id, line_of(err))
            return self.buried(held, None, err, "refused")
        except BaseException as err:
            return self._unreadable(held, err)
        task.queue_name = held.queue_name
        return Run(self, held, task)

    def task_in(self, body: bytes) -> Task:
        """Read a payload, and import what it names.

        Raises:
            TaskRefused: It calls what is not allowed.
            BaseException: Whatever the class of the task, or the modules of what it calls, have to say.
        """
        body = plain(body)  # that it fits is known, where there are keys
        kind = dependencies.class_for(body, self.task_class)
        if self.reading is None or kind is dependencies.OurTask:
            return kind.deserialize(body)
        return self.reading.read(kind, body)

    def enter(self, held: Reservation, limit: limits.Limit) -> "Entry | None":
        """Let a task in under its limit, and with it some that come next; None: it may not start."""
        others = limits.together(limit) - 1
        if not others:
            return limits.enter(self.backend, [held], limit).get(held)
        with self._entering:  # what comes next is for other threads, too
            if held not in self._let_in:
                coming = self.coming()
                new = (one for one in coming if one not in self._let_in)
                like = (one for one in new if limits.limit_in(one.body) == limit)
                entries = limits.enter(self.backend, [held, *islice(like, others)], limit)
                # What does not come any more is forgotten.
                kept = self._let_in.keys() & coming
                self._let_in = {one: self._let_in[one] for one in kept} | entries
            return self._let_in.pop(held, None)

    def _poison(self, held: Reservation) -> Attempt:
        death: Death | None = self.patiently(lambda: deaths.found(self.backend, self.results, held))
        how = f". The last process {death.how()}" if death else ""
        times = held.deliveries - 1
        error = TaskFailed(
            f"Handed out {times} times, and no worker lived to tell the outcome{how}"
        )
        log.error("Task %r is buried as poison: %s", held.task_id, error)
        if (limit := limits.limit_in(held.body)) is not None:
            self.patiently(
                lambda: limits.forget(self.backend, held.queue_name, held.task_id, limit)
            )
        return self.buried(held, None, error, "poison", death)

    def _unreadable(self, held: Reservation, err: BaseException) -> Attempt:
        wait = retries.wait_for_code(
            held.deliveries, base=self.code_wait, limit=self.max_deliveries
        )
        if wait is None:
            log_raised(log, "Task %r cannot be read or imported: buried", held.task_id, err=err)
            return self.buried(held, None, err, "unreadable")
        log.warning(
            "Task %r cannot be read or imported, next try in %s s: %s",
            held.task_id,
            wait,
            line_of(err),
        )
        return Attempt(Release(held, delay=wait, lapsed=True), error=err)

    def buried(
        self,
        held: Reservation,
        task: Task | None,
        err: BaseException,
        reason: str,
        death: Death | None = None,
    ) -> Attempt:
        """Return the burial of a task; who waits for its result is told.

        Args:
            held: The reservation.
            task: The task read from it, if it could be.
            err: What it failed with.
            reason: In one word.
            death: How the process ended that ran it before, if one has.
        """
        progress = self._last_said(held, death) if death else None
        told = notes.write(reason, err, death, progress)
        keep_for = task.keep_result if task else results.kept_for(held.body)
        if keep_for is not None and (kept_in := self.results) is not None:
            name = held.queue_name, held.task_id
            push = (task and task.push) or ""
            self.keep(
                held, lambda at: results.keep_failure(kept_in, *name, told, keep_for, *at, push)
            )
        forget = partial(self.forget_death, held) if death else None
        return Attempt(Bury(held, told), task, err, forget=forget)

    def _last_said(self, held: Reservation, death: Death) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.patiently(
            lambda: checkpoints.last_said(self.backend, held, death.token)
        )
        return found

    def forget_death(self, held: Reservation, *, is_over: bool = True) -> None:
        """Forget how the process ended that ran a task; and, if that is over, how far it was."""
        deaths.forget(self.backend, self.results, held.queue_name, held.task_id)
        if is_over and self.backend.records is not None:
            self.backend.records.delete(checkpoints.key_of(held.queue_name, held.task_id))

    def keep(self, held: Reservation, call: Callable[[tuple[float, str]], None]) -> None:
        """Keep what came of a task: call with when it ended, and which hand-out of it.

        Where the store has no room for that, the task is over all the same.
        """

        def keep() -> None:
            try:
                call((self.backend.now(), held.token))
            except QueueFull as err:
                log.error("What came of task %r is not kept: %s", held.task_id, err)

        self.patiently(keep)
