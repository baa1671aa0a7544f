"""The loop: reserve, run, settle; signals; leaving."""

import logging
import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from alligator import checkpoints, registry, stops
from alligator.attempts import Runner, impossible
from alligator.backends.base import Ack, Batch, Release, Reservation, Settlement
from alligator.bell import Bell
from alligator.constants import ALL
from alligator.exceptions import BackendRefused, BackendUnavailable
from alligator.gator import Gator, allowed_by
from alligator.patience import Patience
from alligator.printable import printable
from alligator.processes.board import CAPACITY, Board
from alligator.processes.complaints import Complaints, warn_of, warn_of_strangers
from alligator.processes.crew import Crew
from alligator.processes.executor import Executor
from alligator.processes.holdings import Held, Holdings
from alligator.processes.keeper import LEASE, Keeper, keeper_thread
from alligator.processes.memory import resident_mib
from alligator.processes.pacing import Pace, in_turn
from alligator.processes.stacks import stacks_of
from alligator.processes.suspects import Turns
from alligator.processes.unsupervised import leaving_at_signals, looked_after
from alligator.reading import reading_by
from alligator.settling import say_late
from alligator.tasks import Abandoned
from alligator.utils import new_id
from alligator.worker_options import (
    GRACE,
    MAX_CONCURRENCY,
    SHORTEST_LEASE,
    queue_names,
    seconds,
    weights,
    whole,
)

if TYPE_CHECKING:
    from alligator.processes.async_crew import AsyncCrew
    from alligator.schedules import Scheduler

log = logging.getLogger("alligator.worker")

IDLE_WAIT = 5.0
"""Seconds to block in the store at a time: every so often an idle worker looks around."""
FLUSH = 0.1
"""Seconds after which what is finished is settled, though the batch is not."""
OTHERS_FIRST = 0.2
"""Seconds for other workers to take what went back because it would have to wait here for a thread."""


class Worker:
    """Takes tasks off a queue and runs them.

    It can be stopped by SIGINT and SIGTERM, when it runs in the main thread: it takes no more, finishes what
    runs, and gives back the rest; what runs longer than ``grace``, or at a second signal, is given back
    too. Its leases are extended by a thread, which a task that holds Python's global lock for a whole lease
    (one long call into C) would starve: ``latergator`` extends them from a process of its own, and does not
    have that weakness. Nor can a Worker alone end a task that does not hear that its ``timeout`` is over, or
    that it is canceled: it tells it, and waits. (A sleep hears of a timeout in the main thread only.) Should
    its process die, nobody sees how.

    Args:
        gator: Where to take tasks from, and what reads them.
        max_tasks: Leave after so many; 0: never.
        to_consume: The name of a queue; a list of names in strict order (the second when the first is empty);
            or a dict of names and weights, which say how often each comes first. ALL is the gator's own queue.
        nap_time: The longest time between two looks, in seconds, where a store cannot wake a worker.
        lease: Seconds after which the tasks of a dead worker go to others.
        grace: Seconds for running tasks to finish when the worker is told to leave.
        burst: Leave when nothing is ready.
        threads: Tasks to run at the same time.
        concurrency: Tasks to run at the same time if they are ``async def`` functions, which share an event
            loop; others run in ``threads`` beside it. Up to 1,000.
        schedule: Whether to queue what ``Gator.every`` and ``Gator.cron`` have put down for these queues.
        outbox: The DSN of a database, or several: what was queued in transactions there is forwarded.
        max_memory: MiB of memory beyond which the worker leaves, after what runs; 0: none.
        allow: Patterns of what may run here, as of a Gator; by default, those of the Gator.
        code_wait: Seconds before a task that cannot be read or imported is tried again; doubling.
        board: Where a supervising process reads what this one holds, and does what is said above
            of threads and signals. For ``latergator``.
        worker_id: Who it is to the store; a new UUID by default. For ``latergator``.

    Raises:
        InvalidOption: A value makes no sense.

    Example:
        >>> from operator import add
        >>> gator = Gator("locmem://")
        >>> task = gator.task(add, 1, 2)
        >>> Worker(gator, max_tasks=1).run_forever()  # doctest: +ELLIPSIS
        Alligator worker #... starting, consuming 'all'.
        It leaves after 1 task.
        3
        Alligator worker #... leaving. It consumed 1 task.
    """

    def __init__(
        self,
        gator: Gator,
        max_tasks: int = 0,
        to_consume: str | Sequence[str] | Mapping[str, int] = ALL,
        nap_time: float = 0.1,
        *,
        lease: float = LEASE,
        grace: float = GRACE,
        burst: bool = False,
        threads: int = 1,
        concurrency: int = 1,
        schedule: bool = False,
        outbox: str | Sequence[str] = (),
        max_memory: int = 0,
        allow: str | Sequence[str] | None = None,
        code_wait: float = 10.0,
        board: Board | None = None,
        worker_id: str | None = None,
    ) -> None:
        self.gator = gator
        self.max_tasks = whole(0, "max_tasks", max_tasks)
        self.to_consume = gator.queue_name if to_consume == ALL else to_consume
        self.nap_time = seconds("nap_time", nap_time)
        self.lease = seconds("lease", lease, SHORTEST_LEASE)
        self.grace = seconds("grace", grace)
        self.burst = burst
        self.threads = whole(1, "threads", threads)
        self.concurrency = whole(1, "concurrency", concurrency, MAX_CONCURRENCY)
        self.schedule = schedule
        self.outbox = [outbox] if isinstance(outbox, str) else list(outbox)
        self.max_memory = whole(0, "max_memory", max_memory)
        self.allowed = gator.allowed if allow is None else allowed_by(allow)
        self._reading = reading_by(self.allowed, gator.aliases)
        self.code_wait = seconds("code_wait", code_wait)
        self.worker_id = worker_id or new_id()
        self.queue_names = queue_names(self.to_consume)
        self._weights = weights(self.to_consume)
        self._is_too_big = False
        self.is_supervised = board is not None
        self._backend = gator.backend
        self._bell = Bell()
        # Not through a stop: leaving, too, needs the store.
        self._patiently = Patience(self._bell.wait, lambda: self._has_waited_enough)
        self._holdings = Holdings(board or Board(), CAPACITY)
        runner = Runner(
            gator.backend,
            gator.task_class,
            results=gator.results,
            code_wait=self.code_wait,
            patiently=self._patiently,
            coming=self._holdings.coming,
            reading=self._reading,
        )
        self._executor = Executor(
            runner,
            self._holdings,
            self.lease,
            is_leaving=lambda: self._leave_by is not None,
            tell=self.result,
        )
        self._pace = Pace()
        self._others_until = 0.0
        # How many tasks may run at a time.
        self._slots = max(self.threads, self.concurrency)
        self._turns = Turns(share=self._slots > 1 and not burst)
        self._leave_by: float | None = None
        self._may_have_lost = False
        self._is_being_left = threading.Lock()
        self._has_left = False
        self._runs_here = False
        self._flushed_at = 0.0

    # What a subclass overrides to speak otherwise than on standard output:

    def ident(self) -> str:
        """Return a name for the worker, with its process id; the messages use it."""
        return f"Alligator worker #{os.getpid()}"

    def starting(self) -> None:
        """Print that the worker starts."""
        names = ", ".join(repr(name) for name in self.queue_names)
        _say(f"{self.ident()} starting, consuming {names}.")
        if self.max_tasks:
            _say(f"It leaves after {_tasks(self.max_tasks)}.")

    def interrupt(self) -> None:
        """Print that a signal told the worker to leave."""
        _say(
            f"{self.ident()} was told to leave. It finishes what runs, for {self.grace:g} s at most."
        )

    def stopping(self) -> None:
        """Print that the worker leaves."""
        _say(f"{self.ident()} leaving. It consumed {_tasks(self.tasks_complete)}.")

    def result(self, result: object) -> None:
        """Print what a task returned, in one line: none of it passes for a line of ours."""
        _say(printable(str(result)))

    def run_forever(self) -> None:
        """Run tasks until told to leave, or until ``max_tasks`` are done, or in a ``burst`` none is ready.

        Example:
            >>> Worker(Gator("locmem://"), burst=True).run_forever()  # doctest: +ELLIPSIS
            Alligator worker #... starting, consuming 'all'.
            Alligator worker #... leaving. It consumed 0 tasks.
        """
        self._has_left = False
        self.starting()
        with ExitStack() as stack:
            if not self.is_supervised:
                warn_of(self._backend, log)
                warn_of_strangers(self.gator, self.allowed, log)
                stack.enter_context(self._looked_after())
                stack.enter_context(self._leaving_at_signals())
                stack.enter_context(self._forwarding())
            elif not (self._backend.shares_leases and self._backend.can_recover):
                stack.enter_context(self._kept())
            try:
                self._work()
            except Abandoned:
                self._runs_here = False
            except (BackendUnavailable, BackendRefused) as err:
                log.error("Leaving without the store: %s", err)
            self._leave()
        self.stopping()
        self._leave_by = None

    def stop(self) -> None:
        """Tell the worker to leave. May be called from another thread, and from a signal handler."""
        if self._leave_by is None:
            self._leave_by = time.monotonic() + self.grace
        self._backend.interrupt()
        self._bell.interrupt()

    def hurry(self) -> None:
        """Tell the worker to leave, and that its grace is over; as ``stop``."""
        self._leave_by = 0.0
        self._backend.interrupt()
        self._bell.interrupt()

    def give_back(self, *, started: bool) -> None:
        """Give back, uncounted, what is not started, or whatever is not finished; from any thread.

        Raises:
            BackendUnavailable, BackendRefused: The store did not take it back; its lease will.
        """
        self._settle_with(self._holdings.give_back(started=started), [])

    def _settle_with(self, back: list[Release], finished: Sequence[Settlement]) -> list[Settlement]:
        """Give tasks back, and settle others; return those of the others that came too late."""
        back = self._patiently(lambda: stops.warned(self._backend, back))
        back = self._patiently(lambda: checkpoints.resuming(self._backend, back))
        late = self._patiently(lambda: self._backend.settle([*finished, *back]))
        released = [release.reservation for release in back]
        self._patiently(lambda: self._executor.heed_stops(released))
        # What is late of those given back has just ended: nothing is lost by that.
        return [settlement for settlement in late if settlement not in back]

    @property
    def tasks_complete(self) -> int:
        """How many attempts it has made, whatever came of them."""
        return self._executor.completed

    @property
    def is_used_up(self) -> bool:
        """Whether it has done its ``max_tasks``, or has grown beyond its ``max_memory``."""
        has_done_all = self.max_tasks > 0 and self.tasks_complete >= self.max_tasks
        return has_done_all or self._is_too_big

    def cancel(self, queue_name: str, task_id: str, token: str) -> None:
        """Ask a task of a queue to end, if that hand-out of it is held here; from any thread.

        A token alone may name many hand-outs, and an id a task in each queue: it takes all three.
        """
        self._holdings.cancel(queue_name, task_id, token)

    def stacks(self) -> dict[int, str]:
        """Return the stacks of what runs here now, by the tasks' numbers on the board; from any thread."""
        return stacks_of(self._holdings.begun())

    @property
    def _has_waited_enough(self) -> bool:
        return self._leave_by is not None and time.monotonic() > self._leave_by

    @property
    def _is_leaving(self) -> bool:
        return self._leave_by is not None or self.is_used_up

    def _work(self) -> None:
        if self._slots == 1:
            self._holdings.board.thread = threading.get_ident()
            while self._cycle():
                self._run_held()
            return
        with self._crew() as crew:
            while self._cycle():
                crew.work()
            self.give_back(started=False)
            while crew.is_running and not self._has_waited_enough:
                crew.work()
                self._flush()

    def _crew(self) -> "Crew | AsyncCrew":
        if self.concurrency == 1:
            return Crew(self.threads, self._holdings, self._run, self._pace.ran)
        from alligator.processes.async_crew import AsyncCrew  # here, for few need it

        return AsyncCrew(self.threads, self._slots, self._holdings, self._executor, self._pace.ran)

    def _cycle(self) -> bool:
        """Settle what is finished, and take what there is room for. Returns False when it is time to leave."""
        self._is_too_big = self._has_grown()
        if self._is_leaving:
            return False
        self._executor.park()
        finished = self._holdings.send()
        limit = self._limit()
        busy, took_some = self._holdings.is_busy, False
        if limit:
            wait = 0.0 if self.burst else FLUSH if busy else IDLE_WAIT
            asked_at = time.monotonic()
            batch = self._patiently(lambda: self._reserve(limit, wait, finished))
            self._sent(batch.late)
            took_some = bool(batch.reservations)  # if only to bury them: there may be more behind
            # Whether it was handed out at once or in the end, the answer does not say, nor whether we slept
            # before we had it: its lease counts from when we asked.
            since = min(time.monotonic(), asked_at + wait)
            self._holdings.add(self._admitted(batch.reservations), since, asked_at)
        elif finished:
            self._sent(self._patiently(lambda: self._backend.settle(finished)))
        # What was held before may have been given back since, to be run again.
        return busy or took_some or not self.burst or not limit

    def _has_grown(self) -> bool:
        """Whether it takes more than its ``max_memory``; not before it has run anything, or none ever would."""
        if not self.max_memory or not self.tasks_complete:
            return False
        taken = resident_mib()
        if taken > self.max_memory and not self._is_too_big:
            log.info(
                "%s takes %.0f MiB of memory, and is to take no more than %s: leaving",
                self.ident(),
                taken,
                self.max_memory,
            )
        return self._is_too_big or taken > self.max_memory

    def _limit(self) -> int:
        """How many tasks to take now: as many as are free to start at once, or as are little work in all."""
        if self._holdings.yields():
            self._others_until = time.monotonic() + OTHERS_FIRST
        if self._holdings.todo >= self._slots:
            return 0
        # First: what ends meanwhile may be counted twice below, but is not left out.
        unfinished = self._holdings.unfinished
        if unfinished and time.monotonic() < self._others_until:
            return 0
        # What waits for a thread leaves room for as much again: a coroutine may be behind it.
        waiting = min(self._holdings.postponed, self._slots)
        free = self._slots - unfinished + waiting
        limit = max(free, self._pace.limit if self._pace.limit > self._slots else 0)
        limit = min(limit, self._holdings.room)
        if self.max_tasks:
            limit = min(limit, self.max_tasks - self.tasks_complete - unfinished)
        return self._turns.limit(max(limit, 0), unfinished)

    def _reserve(self, limit: int, wait: float, settlements: Sequence[Settlement]) -> Batch:
        late: list[Settlement] = []
        if self._may_have_lost:
            wait = 0.0  # for an answer at once: then we can say that the store is back
        if self._may_have_lost and not self._holdings.is_busy:
            # What was handed out in an answer that never came is ours to the store alone.
            late = self._backend.settle(settlements)
            self._backend.recover(self.queue_names, self.worker_id)
            settlements, self._may_have_lost = (), False
        try:
            batch = self._backend.reserve(
                self._queues_in_turn(),
                self.worker_id,
                limit=limit,
                lease=self.lease,
                wait=wait,
                nap=self.nap_time,
                settlements=settlements,
            )
        except (BackendUnavailable, BackendRefused):
            self._may_have_lost = True
            raise
        return Batch(batch.reservations, [*late, *batch.late])

    def _queues_in_turn(self) -> list[str]:
        return in_turn(self._weights) if self._weights else self.queue_names

    def _admitted(self, reservations: list[Reservation]) -> Sequence[Reservation]:
        """Bury what got into the store under an impossible id, and part suspects from the others."""
        possible: list[Reservation] = []
        buried: list[Settlement] = []
        for held in reservations:
            if (burial := impossible(held)) is not None:
                buried.append(burial.settlement)
            else:
                possible.append(held)
        if buried:
            self._patiently(lambda: self._backend.settle(buried))
        again = [held for held in possible if held.deliveries > 1]
        stopped = self._patiently(lambda: stops.left(self._backend, again)) if again else []
        kept, back = self._turns.parted(possible, self._holdings.unfinished, stopped)
        if back:
            self._patiently(lambda: self._backend.settle(back))
        return kept

    def _run_held(self) -> None:
        """Run what is held, one after the other, in this thread."""
        began, ran = time.monotonic(), 0
        self._flushed_at = began
        while not self._is_leaving and (held := self._holdings.start()) is not None:
            self._run(held)
            ran += 1
            # A success may wait for its settlement: the keeper can make it. Anything else cannot.
            # What is to be parked may wait for others: each line is then gone to once for them all.
            settled = held.settlement is None or isinstance(held.settlement, Ack)
            if not settled or time.monotonic() - self._flushed_at > FLUSH:
                self._flush()
        if ran:
            self._pace.ran(ran, time.monotonic() - began)

    def _run(self, held: Held) -> None:
        """Run one task in this thread; its settlement goes out with the next exchange."""
        self._runs_here = self._slots == 1
        try:
            self._executor.run(held)
        finally:
            self._runs_here = False

    def _flush(self) -> None:
        self._executor.park()
        finished = self._holdings.send()
        self._sent(self._patiently(lambda: self._backend.settle(finished)))
        self._flushed_at = time.monotonic()

    def _sent(self, late: Sequence[Settlement]) -> None:
        for settlement in self._holdings.sent(late):
            say_late(settlement.reservation, is_unclear=self._patiently.has_asked_again)

    def _leave(self) -> None:
        """Settle what is finished, and give back the rest."""
        with self._is_being_left:
            self._give_all_back()
            self._has_left = True

    def _give_all_back(self) -> None:
        back = self._holdings.give_back(started=True)
        finished = self._holdings.send()
        try:
            self._sent(self._settle_with(back, finished))
        except (BackendUnavailable, BackendRefused) as err:
            log.error("Left without settling %s tasks: %s", len(finished) + len(back), err)

    def _looked_after(self) -> AbstractContextManager[None]:
        queue_what_is_due = self._scheduler().tick if self.schedule else None
        complaints = Complaints(log)

        def also() -> None:
            if queue_what_is_due is not None and self._leave_by is None:
                complaints.try_to("queue what is due", queue_what_is_due)

        return looked_after(
            self._backend,
            self._keeper(),
            self._holdings.board,
            registry.Presence.of(self.worker_id, os.getpid(), self.queue_names),
            self.lease,
            cancel=lambda held: self.cancel(held.queue_name, held.task_id, held.token),
            also=also,
            stacks=self.stacks,
        )

    def _keeper(self, *, extends: bool = True) -> Keeper:
        return Keeper(
            self._backend, self.lease, given_back=self._executor.heed_stops, extends=extends
        )

    @contextmanager
    def _kept(self) -> Generator[None]:
        """Do from a thread what the parent cannot: it holds nothing here, or has no body to send anew."""

        def also() -> None:
            # With coroutines, the main thread breaks them off by itself.
            if self._has_waited_enough and self.concurrency == 1:
                self._break_off()

        keeper = self._keeper(extends=not self._backend.shares_leases)
        with keeper_thread(keeper, self._holdings.board, also):
            yield

    def _break_off(self) -> None:
        """Give back what has not finished within the grace, and end the process: what runs hears of nothing."""
        if not self._has_left and self._is_being_left.acquire(blocking=False):
            try:
                self._give_all_back()
            finally:
                os._exit(0)

    def _forwarding(self) -> AbstractContextManager[None]:
        if not self.outbox:
            return nullcontext()
        from alligator.outbox.forwarding import forwarding  # here, for few need it

        return forwarding(
            self.gator,
            self.outbox,
            first=self.burst,
            is_leaving=lambda: self._leave_by is not None,
        )

    def _scheduler(self) -> "Scheduler":
        from alligator.schedules import Scheduler  # here, for few need it

        return Scheduler(
            self._backend, self.queue_names, self.gator.task_class, reading=self._reading
        )

    def _leaving_at_signals(self) -> AbstractContextManager[None]:
        def leave() -> None:
            self.stop()
            self.interrupt()

        def hurry() -> None:
            self._leave_by = 0.0
            if self._runs_here:
                raise Abandoned

        return leaving_at_signals(self.grace, lambda: self._leave_by is not None, leave, hurry)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(ascii(text), flush=True)
    except OSError:  # whoever read it has gone; the work goes on
        pass


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
