"""The parent of some worker processes: starts them, keeps their leases, and picks up after one that dies.

It also ends a process whose task does not end: one that has a timeout, or was canceled, and hears nothing.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from alligator import checkpoints, deaths, registry, retries, stack_records, stops
from alligator.backends.base import Ack, Backend, Records, Release, Reservation
from alligator.bell import Bell
from alligator.deaths import Death
from alligator.exceptions import AlligatorException
from alligator.processes.board import BEGUN, UNFINISHED, Board, End, Mark, Posted, State, Tally
from alligator.processes.canceler import Canceler
from alligator.processes.child import HURRY, LEAVE, STOP, Settings
from alligator.processes.complaints import Complaints, warn_of
from alligator.processes.crew import END_WITHIN
from alligator.processes.inquiry import ANSWERS_WITHIN, Inquiry, crash_in
from alligator.processes.keeper import BEATS_PER_LEASE, TICK, Keeper
from alligator.processes.memory import peak_of
from alligator.processes.process import Process, started
from alligator.processes.recovery import recover
from alligator.processes.reload import Reloader
from alligator.processes.stacks import told_of
from alligator.timeouts import KILL_AFTER

if TYPE_CHECKING:
    from alligator.schedules import Scheduler

log = logging.getLogger("alligator.processes.supervisor")

SETTLED_LIFE = 1.0
"""Seconds a process has to live for its death not to count as a failed start."""
LATE_RESERVE = 1.0
"""Seconds after a process died in which the store may still carry out what it asked last."""
BREAK_OFF = END_WITHIN + 1.0
"""Seconds for a process, after the grace, to break off its coroutines, and to give back what it holds."""
A_MOMENT = 0.02
"""Seconds between two looks whether they are there."""
CRASHES = ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL")
"""The signals that faulthandler sees."""
RELOAD_GRACE = 1.0
"""Seconds for running tasks to finish, at the most, when their code has changed."""


@dataclass(slots=True)
class _Ended:
    """A worker process that has ended, and what of it may still lie in the store."""

    worker: str
    done: list[Ack]
    counted: list[Reservation]
    """Tasks that it may have died of."""
    uncounted: list[Reservation]
    """Tasks that it held, and did not die of."""
    not_stopped: list[Reservation]
    """Tasks that it was killed for, but which had ended by then."""
    deaths: dict[Reservation, Death] = field(default_factory=dict[Reservation, Death])
    """How it ended, for those that count."""
    recover_at: float = 0.0
    is_recovered: bool = False


class Supervisor:
    """Runs ``count`` worker processes until told to leave.

    Args:
        backend: The store.
        settings: For each process; ``worker_id`` is its own.
        count: How many.
        on_look: Called every ``TICK`` seconds with what came of all attempts so far.
        results: Where it is kept how tasks ended; None: nowhere.
        scheduler: Queues what is due to be queued again; None: nothing is.
        reloader: Sees when code has changed, and the processes are to be started anew; None: never.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        count: int,
        on_look: Callable[[Tally], None] = lambda tally: None,
        *,
        results: Records | None = None,
        scheduler: "Scheduler | None" = None,
        reloader: Reloader | None = None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._wanted = count
        self._on_look = on_look
        self._results = results
        self._scheduler = scheduler
        self._reloader = reloader
        self._keeper = Keeper(
            backend, settings.lease, given_back=self._heed_stops, frees=backend.can_recover
        )
        self._canceler = Canceler(backend, self._cancel, asked=self._asked)
        self._inquiries: dict[str, list[tuple[Process, Inquiry]]] = {}
        self._bell = Bell()
        self._children: list[Process] = []
        self._dead: list[_Ended] = []
        self._tally = Tally()
        self._signals = 0
        self._kill_at: float | None = None
        self._hurry_at = math.inf
        self._has_said_what_hangs = False
        self._failed_starts = 0
        self._start_at = 0.0
        self._announce_at = 0.0
        self._complaints = Complaints(log)

    @property
    def tally(self) -> Tally:
        """What came of all attempts so far."""
        return sum((child.board.tally for child in self._children), self._tally)

    def run(self) -> None:
        """Work until told to leave, or in a burst until nothing is left."""
        with self._heeding_signals():
            warn_of(self._backend, log)
            while self._look():
                self._bell.wait(TICK)

    def _look(self) -> bool:
        """Do what is due. Returns whether there is anything left to wait for."""
        if self._signals and self._kill_at is None:
            breaks_off = self._settings.concurrency > 1 or not self._backend.can_recover
            grace = self._settings.grace + (BREAK_OFF if breaks_off else 0.0)
            self._wanted, self._kill_at = 0, time.monotonic() + grace
            self._tell_to_leave()
        if self._kill_at is not None:
            if self._signals == 1 and time.monotonic() > self._kill_at:
                self._say_what_hangs()
            self._kill_at = min(self._kill_at, self._hurry_at)
            self._end_since(self._kill_at, self._children)
        self._reload()
        self._end_overdue()
        self._wanted -= self._reap()
        self._start()
        self._beat()
        self._canceler.tick([child.board for child in self._children])
        self._answer()
        self._recover()
        self._announce()
        self._schedule()
        self._on_look(self.tally)
        return self._wanted > 0 or bool(self._children)

    def _beat(self) -> None:
        """Look after what the processes hold; due at each look, and amid what takes long."""
        if self._backend.shares_leases:  # else each process keeps its own leases
            self._keeper.tick([child.board for child in self._children])

    def _start(self) -> None:
        """Start the processes that are missing, slower if they die as soon as they are started."""
        while len(self._children) < self._wanted and time.monotonic() >= self._start_at:
            try:
                self._children.append(started(self._settings))
            except OSError as err:  # no memory, no descriptors, or a Python that is being replaced
                log.error("Cannot start a worker process, trying on: %s", err)
                self._failed_starts += 1
            self._announce_at = 0.0
            if self._failed_starts:
                wait = retries.backoff(self._failed_starts, base=0.5, cap=30.0)
                self._start_at = time.monotonic() + wait

    def _reap(self) -> int:
        """Take note of processes that ended. Returns how many of them are not to be replaced."""
        finished = 0
        for child in [child for child in self._children if child.has_ended]:
            self._children.remove(child)
            self._tally += child.board.tally
            death, stacks = _autopsy(child)
            self._note_end(child, death, stacks)
            child.close()
            if child.is_ours_to_blame:
                self._announce_at = 0.0
            elif child.board.end != End.NONE:
                self._failed_starts, self._start_at = 0, 0.0
                if child.board.end == End.FINISHED and self._settings.burst:
                    finished += 1
            elif not self._signals:
                self._judge(child, death)
        return finished

    def _judge(self, child: Process, death: Death) -> None:
        """Say that a process died, and whether that was a failed start."""
        lived = time.monotonic() - child.began_at
        log.error(
            "Worker process %s died (%s)%s: replacing it",
            child.popen.pid,
            death.cause(),
            death.peak(),
            extra={"below": death.stack},
        )
        has_worked = child.board.tally != Tally() or bool(child.board.read())
        self._failed_starts = 0 if has_worked or lived > SETTLED_LIFE else self._failed_starts + 1
        if not self._failed_starts:
            self._start_at = 0.0

    def _note_end(self, child: Process, death: Death, stacks: Mapping[int, str]) -> None:
        posted, now = child.board.read(), time.monotonic()
        died = {
            task.reservation: death._replace(
                reason=child.killed_for.get(task.reservation, ""),
                seconds=round(now - (task.began_at or task.since), 3),
                stack=stacks.get(task.number, ""),
                token=task.reservation.token,
            )
            for task in posted
            if self._counts(child, task)
        }
        counted = list(died)
        held = [task.reservation for task in posted if task.state in UNFINISHED]
        self._dead.append(
            _Ended(
                child.presence.worker,
                done=[Ack(task.reservation) for task in posted if task.state == State.DONE],
                counted=counted,
                uncounted=[reservation for reservation in held if reservation not in counted],
                not_stopped=[one for one in child.killed_for if one not in counted],
                deaths=died,
            )
        )

    def _counts(self, child: Process, task: Posted) -> bool:
        """Whether a task may be what its process died of; not when it was we who killed it, but for another."""
        if task.state not in BEGUN or task.mark == Mark.GONE:
            return False
        if child.is_ours_to_blame:
            return task.reservation in child.killed_for
        return task.state == State.STARTED and not self._signals

    def _recover(self) -> None:
        """Give back what dead processes held; again a moment later, for what they asked last."""
        for dead in [dead for dead in self._dead if time.monotonic() >= dead.recover_at]:
            dead.recover_at = time.monotonic() + LATE_RESERVE
            if not self._complaints.try_to(
                "give back what a dead process held", partial(self._give_back, dead)
            ):
                return  # the others would only wait as long for no answer
            if dead.is_recovered:
                self._dead.remove(dead)
            dead.is_recovered, dead.done, dead.counted = True, [], []
            dead.uncounted, dead.not_stopped, dead.deaths = [], [], {}

    def _give_back(self, dead: _Ended) -> None:
        self._backend.settle(dead.done)
        if dead.deaths:  # before others can take what it held
            self._complaints.try_to("keep how a process died", partial(self._keep, dead.deaths))
        # What was canceled counts, too: so whoever takes it looks first, even before we heed it below.
        canceled = stops.canceled(self._backend, dead.uncounted)
        counted = [*dead.counted, *canceled]
        others = [Release(held) for held in dead.uncounted if held not in canceled]
        resuming = checkpoints.resuming(self._backend, others, meanwhile=self._beat)
        self._backend.settle([release for release in resuming if release.body is not None])
        if not self._backend.can_recover:
            uncounted = [Release(held) for held in dead.uncounted if held not in canceled]
            self._backend.settle([*uncounted, *(Release(held, lapsed=True) for held in counted)])
        recover(self._backend, self._settings.queues, dead.worker, counted)
        for held in dead.not_stopped:
            stops.forget(self._backend, held.queue_name, held.task_id, held.token)
        self._heed_stops(dead.uncounted)
        registry.withdraw(self._backend, dead.worker)

    def _keep(self, died: Mapping[Reservation, Death]) -> None:
        now = self._backend.now()
        told = {held: death._replace(at=now) for held, death in died.items()}
        deaths.keep(self._backend, self._results, told)

    def _announce(self) -> None:
        now = time.monotonic()
        if now < self._announce_at:
            return
        self._announce_at = now + self._settings.lease / BEATS_PER_LEASE
        try:
            for child in self._children:
                registry.announce(self._backend, child.presence, self._settings.lease)
        except AlligatorException as err:
            log.debug("Cannot announce workers: %s", err)

    def _schedule(self) -> None:
        if self._scheduler is not None and not self._signals:
            self._complaints.try_to("queue what is due", self._scheduler.tick)

    # Tasks that are to end:

    def _cancel(self, board: Board, held: Reservation) -> None:
        """Tell the process whose board it is on that a task was canceled."""
        for child in self._children:
            if child.board is board:
                child.cancel(held)

    def _asked(self, question: str) -> None:
        """Begin to see where the tasks are, for somebody who asks."""
        busy = [child for child in self._children if child.is_busy]
        self._inquiries[question] = [(child, child.inquire()) for child in busy]

    def _answer(self) -> None:
        """Tell those who have asked, once all processes have answered that can."""
        for question, inquiries in list(self._inquiries.items()):
            over = [inquiry.tick() for _, inquiry in inquiries]
            if not all(over):
                continue
            del self._inquiries[question]
            told = [
                (child.presence, told_of(child.board, inquiry.stacks))
                for child, inquiry in inquiries
            ]
            if (records := self._backend.records) is not None:
                call = partial(stack_records.answer, records, question, told)
                self._complaints.try_to("tell where tasks are", call)

    def _heed_stops(self, released: list[Reservation]) -> None:
        stops.heed(self._backend, self._results, released)

    def _end_overdue(self) -> None:
        """End each process with a task in it that is told to end, and does not."""
        for child in self._children:
            overdue = [] if child.killed_for else self._overdue(child)
            if not overdue:
                child.hang = None
            # First, where it hangs: there is nothing to be asked afterwards.
            elif child.has_told_where_it_hangs() and not self._complaints.try_to(
                "end a task", partial(self._end, child, overdue)
            ):
                return

    def _end(self, child: Process, overdue: list[tuple[Reservation, str]]) -> None:
        # First the store is told: should we end here, or the host, then who takes the task next knows.
        for held, reason in overdue:
            stops.ask(self._backend, held.queue_name, held.task_id, held.token, reason)
        still = [one for one in self._overdue(child) if one in overdue]
        if still:
            child.killed_for = dict(still)
            child.kill()
        stacks = {task.reservation: child.stack_of(task) for task in child.board.read()}
        for held, reason in still:
            what = "was canceled" if reason == stops.CANCELED else "has run for longer than it may"
            log.warning(
                "Task %r %s, and does not end: replacing its worker process %s",
                held.task_id,
                what,
                child.popen.pid,
                extra={"below": stacks.get(held, "")},
            )
        for held, _ in [one for one in overdue if one not in still]:  # it has just ended
            stops.forget(self._backend, held.queue_name, held.task_id, held.token)

    def _overdue(self, child: Process) -> list[tuple[Reservation, str]]:
        """Return the tasks that should have ended by now, and why."""
        if not child.board.has_deadlines and not self._canceler.has_told(child.board):
            return []
        now = time.monotonic()
        found: list[tuple[Reservation, str]] = []
        for task in child.board.read():
            if task.state not in BEGUN:
                continue
            told_at = self._canceler.told_at(task.reservation)
            if told_at is not None and now > told_at + self._settings.grace:
                found.append((task.reservation, stops.CANCELED))
            elif task.deadline and now > task.deadline + KILL_AFTER:
                found.append((task.reservation, stops.TIMEOUT))
        return found

    # Processes that are to end:

    def _reload(self) -> None:
        """Start the processes anew if code has changed."""
        now = time.monotonic()
        changed = self._reloader.changed() if self._reloader and not self._signals else []
        if changed:
            log.warning("Starting workers anew, for there is new code: %s", _listed(changed))
            self._failed_starts, self._start_at = 0, 0.0
            # Those that are told already keep their time: code may change again every second.
            for child in [child for child in self._children if child.kill_at is None]:
                child.tell(STOP)
                child.kill_at = now + min(RELOAD_GRACE, self._settings.grace)
        for child in self._children:
            if child.kill_at is not None:
                self._end_since(child.kill_at, [child])

    def _tell_to_leave(self) -> None:
        for child in self._children:
            child.tell(STOP)

    def _end_since(self, moment: float, children: Sequence[Process]) -> None:
        """End, from a moment on, what was told to leave and has not: then its tasks are ours to give back.

        Where they are not, because the store counts a delivery when a process dies, it is first to do that.
        """
        now = time.monotonic()
        if now >= moment + (0.0 if self._backend.shares_leases else BREAK_OFF):
            self._kill(children)
        elif now >= moment:
            for child in children:
                child.tell(HURRY)

    def _kill(self, children: Sequence[Process]) -> None:
        for child in children:
            child.kill()
            child.wait()

    def _say_what_hangs(self) -> None:
        """Say once where the tasks are that do not end within the grace. Unless told to hurry meanwhile."""
        if self._has_said_what_hangs:
            return
        self._has_said_what_hangs = True
        asked = [(child, child.inquire()) for child in self._children if child.is_busy]
        until = time.monotonic() + ANSWERS_WITHIN
        while (left := until - time.monotonic()) > 0 and self._signals == 1:
            # Who is about to leave, for its tasks have just ended, may hear of nothing any more.
            answered = [inquiry.tick() or not child.is_busy for child, inquiry in asked]
            if all(answered):
                break
            self._beat()
            self._bell.wait(min(left, A_MOMENT))
        for child, _ in asked:
            for task in child.board.read():
                if task.state in BEGUN:
                    log.warning(
                        "Task %r does not end within the grace: giving it back",
                        task.reservation.task_id,
                        extra={"below": child.stack_of(task)},
                    )

    @contextmanager
    def _heeding_signals(self) -> Generator[None]:
        def leave(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 1:
                self._hurry_at = min(self._hurry_at, time.monotonic())
                for child in self._children:  # now, even while a call to the store is waiting
                    if self._backend.shares_leases or self._signals > 2:
                        child.kill()
                    else:
                        child.tell(HURRY)
            self._bell.ring()

        def look(number: int, frame: FrameType | None) -> None:
            self._bell.ring()

        heeded = [number for number in LEAVE if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, leave) for number in heeded}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, look)
        try:
            yield
        finally:
            self._kill(self._children)
            for number, handler in before.items():
                signal.signal(number, handler)


def _autopsy(child: Process) -> tuple[Death, dict[int, str]]:
    """Return how a process ended, and the stacks of its tasks, by their numbers, if it hung or crashed."""
    death = deaths.of_status(child.popen.returncode)._replace(
        peak_memory=peak_of(child.usage) if child.usage else None,
        host=child.presence.host,
        pid=child.popen.pid,
    )
    posted = child.board.read()
    if child.killed_for:
        return death, {task.number: child.stack_of(task) for task in posted}
    if (
        death.signal not in CRASHES
    ):  # what stands in the file may be of a copy that a task has forked
        return death, {}
    crash, stacks = crash_in(child.stacks, posted)
    return death._replace(stack=crash), stacks


def _listed(paths: list[str]) -> str:
    more = len(paths) - 3
    return ", ".join(paths[:3]) + (f" and {more} more" if more > 0 else "")
