"""What a worker process holds: to be started, running, and finished but not settled yet."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alligator.backends.base import Ack, Bury, Release, Reservation, Settlement
from alligator.processes.board import BEGUN, UNFINISHED, Board, Mark, Outcome, State
from alligator.processes.stacks import Begun
from alligator.running import RunningTask

NOWHERE = -1
"""The place of a task that is not on the board: a thread may still run it that a worker has left behind."""


@dataclass(slots=True, eq=False)
class Held:
    """A task that this process holds."""

    number: int
    reservation: Reservation
    since: float
    leased_at: float
    """When it was asked for: its lease may have begun as early as that."""
    posted_at: float = 0.0
    """When the keeper could see it on the board: what was extended before did not mean it."""
    place: int = NOWHERE
    state: State = State.HELD
    settlement: Settlement | None = None
    running: RunningTask | None = None
    is_canceled: bool = False
    """Whether it was asked to end; its code may not run yet."""
    deadline: float = 0.0
    call: Callable[[], None] | None = None
    """How to go on with it, if it was postponed."""


class Holdings:
    """The tasks of one worker process, kept up on its board; for any number of threads.

    Args:
        board: Where the keeper reads them.
        capacity: The most tasks; at most the board's.
    """

    def __init__(self, board: Board, capacity: int) -> None:
        self.board = board
        self._capacity = capacity
        # A number that is free again comes back as the next that its mark's place is for.
        self._numbers = deque(range(1, board.capacity + 1))
        self._lock = threading.Lock()
        self._held: list[Held] = []
        self._todo: deque[Held] = deque()
        self._postponed: deque[Held] = deque()
        self._finished: list[Held] = []
        self._sending: list[Held] = []

    @property
    def room(self) -> int:
        """How many more tasks fit."""
        return self._capacity - sum(held.state != State.SENT for held in self._held)

    @property
    def todo(self) -> int:
        """How many tasks are not started."""
        return len(self._todo)

    @property
    def unfinished(self) -> int:
        """How many tasks are held and have no outcome yet."""
        return sum(held.state in UNFINISHED for held in self._held)

    @property
    def is_busy(self) -> bool:
        """Whether any task is held."""
        return any(held.state != State.SENT for held in self._held)

    def add(
        self, reservations: Sequence[Reservation], since: float, asked_at: float | None = None
    ) -> None:
        """Take in what was reserved, and is here since some moment; it may have been asked for before that."""
        leased_at = since if asked_at is None else asked_at
        with self._lock:
            self._todo += self._post(reservations, since, leased_at)

    def start(self, thread: int = 0) -> Held | None:
        """Return the next task to run; None when there is none. Leaves out what the keeper gave back.

        Args:
            thread: The one that runs it, if there are several.
        """
        with self._lock:
            return self._start_one_of(self._todo, thread)

    def coming(self) -> list[Reservation]:
        """Return what is not started, in order."""
        with self._lock:
            return [held.reservation for held in self._todo if not self._is_taken(held)]

    def postpone(self, held: Held, call: Callable[[], None]) -> None:
        """Note that a task was not started after all, and waits to be, by ``call``.

        The keeper may give it back meanwhile.
        """
        with self._lock:
            held.call = call
            self._set(held, State.HELD)
            self._postponed.append(held)

    @property
    def postponed(self) -> int:
        """How many tasks wait that were postponed."""
        return len(self._postponed)

    def yields(self) -> bool:
        """Return whether the keeper gives back what was postponed, or has done so since the last call."""
        with self._lock:
            marks = [self.board.mark_of(held.number) for held in self._postponed]
            waiting, self._postponed = self._postponed, deque()
            for held, mark in zip(waiting, marks, strict=True):
                if mark == Mark.GONE:
                    self._give_up(held)
                else:  # it is the keeper who releases it: with our exchange, it would come back to us
                    self._postponed.append(held)
        return any(marks)

    def resume(self, thread: int) -> Held | None:
        """Start the next task that was postponed, and return it, for its ``call``; None when there is none."""
        with self._lock:
            return self._start_one_of(self._postponed, thread)

    def _start_one_of(self, waiting: deque[Held], thread: int) -> Held | None:
        while waiting:
            held = waiting.popleft()
            if thread:
                self.board.set_thread(held.number, thread)
            # First say so, then look at the mark: the keeper marks, and looks again later. So one of the two
            # always sees the other.
            self._set(held, State.STARTED)
            if not self._is_taken(held):
                return held
            self._give_up(held)
        return None

    def _is_taken(self, held: Held) -> bool:
        return self.board.mark_of(held.number) in _TAKEN

    def _give_up(self, held: Held) -> None:
        # Not only the keeper releases it: it may have marked it, and seen it started a moment later.
        held.settlement = Release(held.reservation)
        self._finished.append(held)

    def is_gone(self, held: Held) -> bool:
        """Whether the keeper found, when it last extended leases, that a task is ours no more."""
        return self.board.mark_of(held.number) == Mark.GONE

    def drop(self, held: Held) -> None:
        """Forget a task that is ours no more."""
        with self._lock:
            self._set(held, State.SENT)

    def run(self, held: Held, running: RunningTask) -> None:
        """Note that a task's code is about to run, and must end with its timeout if it has one."""
        with self._lock:  # or it may be told twice that it is canceled
            held.running, is_canceled = running, held.is_canceled
        if is_canceled:
            running.cancel()
        self.board.begin(held.number, time.monotonic())
        if deadline := running.begin():
            running.on_end = lambda: self._end(held)
            with self._lock:
                self._set_deadline(held, deadline)

    def submit(self, held: Held) -> None:
        """Note that a task which was begun waits for the event loop: no end is set to that."""
        with self._lock:
            self.board.set_thread(held.number, 0)
            if held.deadline:
                self._set_deadline(held, 0.0)
            self._set(held, State.SUBMITTED)

    def go_on(self, held: Held, deadline: float = 0.0) -> None:
        """Note that the event loop runs what was submitted, in this thread; until when, if it has a timeout."""
        with self._lock:
            self.board.set_thread(held.number, threading.get_ident())
            self._set(held, State.STARTED)
            if deadline:
                self._set_deadline(held, deadline)

    def begun(self) -> list[Begun]:
        """Return the tasks that were begun and have no outcome yet, for a look at their stacks."""
        found: list[Begun] = []
        for held in self._held:
            if held.state in BEGUN:
                running = held.running
                coroutine = running.coroutine if running else None
                found.append(Begun(held.number, self.board.run_of(held.number)[1], coroutine))
        return found

    def _end(self, held: Held) -> None:
        # What follows, such as to tell the store, may take its time.
        with self._lock:
            self._set_deadline(held, 0.0)

    def put_off_deadline(self, held: Held) -> None:
        """Let a task whose deadline is over have it now: it could not be told yet."""
        now = time.monotonic()
        with self._lock:
            if 0.0 < held.deadline < now:
                self._set_deadline(held, now)

    def cancel(self, queue_name: str, task_id: str, token: str) -> None:
        """Ask a task to end, if it is held under that token: at once, or as soon as its code runs."""
        for held in self._held:
            one = held.reservation
            # A token alone may be that of many hand-outs, of several queues.
            if (one.queue_name, one.task_id, one.token) != (queue_name, task_id, token):
                continue
            with self._lock:
                held.is_canceled, running = True, held.running
            if running is not None:
                running.cancel()

    def finish(self, held: Held, settlement: Settlement, *, is_settled: bool = False) -> None:
        """Note how a task ended; it is to be settled with the next exchange, unless it is settled already."""
        with self._lock:
            held.settlement, held.running = settlement, None
            if is_settled:
                self._set(held, State.SENT)
            else:
                if isinstance(settlement, Ack):
                    # The rest the keeper cannot settle in our place: it has no body and no note.
                    self._set(held, State.DONE)
                self._finished.append(held)
            if isinstance(settlement, Ack):
                self.board.count(Outcome.DONE)
            elif isinstance(settlement, Bury):
                self.board.count(Outcome.FAILED)
            elif not _is_uncounted(settlement):
                self.board.count(Outcome.RETRIED)

    def send(self) -> list[Settlement]:
        """Return what is to be settled now; ``sent`` must follow."""
        with self._lock:
            # What was sent before and not answered goes out again.
            self._sending, self._finished = [*self._sending, *self._finished], []
            for held in self._sending:
                self._set(held, State.SENT)
            return [held.settlement for held in self._sending if held.settlement is not None]

    def sent(self, late: Sequence[Settlement]) -> list[Settlement]:
        """Forget what was sent. Returns those of the late settlements that come as a surprise.

        No surprise: the task has acknowledged itself; or the keeper has acknowledged it, or has given it back
        at the same moment as the worker.
        """
        with self._lock:
            sent, self._sending = self._sending, []
            expected = {
                id(held.settlement)
                for held in (sent if late else ())
                if self.board.mark_of(held.number) == Mark.SETTLED
                or held.settlement == Release(held.reservation)
            }
        return [settlement for settlement in late if id(settlement) not in expected]

    def give_back(self, *, started: bool) -> list[Release]:
        """Return the release of every task not started, or else of all not finished; none is counted."""
        states = UNFINISHED if started else (State.HELD,)
        with self._lock:
            back = [held for held in self._held if held.state in states and not held.settlement]
            for held in back:
                self._set(held, State.SENT)
            self._todo.clear()
            self._postponed.clear()
        return [Release(held.reservation) for held in back]

    def _set(self, held: Held, state: State) -> None:
        held.state = state
        if held.place != NOWHERE:
            self.board.set_state(held.place, state)

    def _set_deadline(self, held: Held, moment: float) -> None:
        held.deadline = moment
        if held.place != NOWHERE:
            self.board.set_deadline(held.place, moment)

    def _post(
        self, reservations: Sequence[Reservation], since: float, leased_at: float
    ) -> list[Held]:
        kept: list[Held] = []
        for held in self._held:
            if held.state == State.SENT:
                self._numbers.append(held.number + self.board.capacity)
                held.place = NOWHERE
            else:
                kept.append(held)
        new = [Held(self._numbers.popleft(), one, since, leased_at) for one in reservations]
        self._held = kept + new
        tasks = [(held.number, held.reservation, held.since, held.state) for held in self._held]
        deadlines = {place: held.deadline for place, held in enumerate(kept) if held.deadline}
        self.board.post(tasks, deadlines)
        for place, held in enumerate(self._held):
            held.place = place
        posted_at = time.monotonic()
        for held in new:
            held.posted_at = posted_at
        return new


_TAKEN = (Mark.GIVE_BACK, Mark.GONE)


def _is_uncounted(release: Release) -> bool:
    return release.body is None and not release.lapsed
