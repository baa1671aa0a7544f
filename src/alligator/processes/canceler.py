"""The canceler: tells tasks that run here that they were canceled, and hears who asks where they are.

Whoever cancels a task that runs writes that down (stops.py). Beside the keeper, and from the same boards, this
one sees which tasks run, and looks what is written of them; but only while one runs for a while: short ones are
over before anybody could tell them. Who asks for stacks writes beside it (stack_records.py).
"""

import logging
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from alligator import stack_records, stops
from alligator.backends.base import Backend, Reservation
from alligator.processes.board import BEGUN, Board, Posted, State
from alligator.processes.complaints import Complaints

log = logging.getLogger("alligator.processes.canceler")

LONG = 1.0
"""Seconds after which a task has run for long enough to look whether it was canceled."""
LOOK_EVERY = 1.0
"""Seconds between two such looks."""
AFTERMATH = 2.0
"""Seconds after its end in which a canceled task is settled; then what was asked of it is forgotten, too."""

Name = tuple[str, str, str]


@dataclass(slots=True)
class _Told:
    """A task that was told to end."""

    board: Board
    reservation: Reservation
    at: float
    over_at: float | None = None


class Canceler:
    """Looks after the tasks on some boards; call ``tick`` every fraction of a second.

    Args:
        backend: The store that the tasks are held in.
        tell: Told once of each task that was canceled, with the board that it is on.
        clock: The monotonic clock that the boards' moments are of.
        asked: Told once of each question where tasks are.
    """

    def __init__(
        self,
        backend: Backend,
        tell: Callable[[Board, Reservation], None],
        clock: Callable[[], float] = time.monotonic,
        asked: Callable[[str], None] = lambda question: None,
    ) -> None:
        self._backend = backend
        self._tell = tell
        self._clock = clock
        self._next_look = 0.0
        self._told: dict[Name, _Told] = {}
        self._tell_asked = asked
        self._heard: set[str] = set()
        self._complaints = Complaints(log)

    def tick(self, boards: Iterable[Board]) -> None:
        """Do what is due."""
        now, boards = self._clock(), set(boards)
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        posted = [(board, task) for board in boards for task in board.read()]
        running = {
            _name(task.reservation): (board, task) for board, task in posted if task.state in BEGUN
        }
        if not self._told and all(now - task.since < LONG for _, task in running.values()):
            return
        self._complaints.try_to("see whether tasks were canceled", lambda: self._look(running, now))
        waiting = {_name(task.reservation) for _, task in posted if task.state == State.HELD}
        self._complaints.try_to(
            "forget that tasks were canceled", lambda: self._clear_up(running, waiting, boards, now)
        )

    def has_told(self, board: Board) -> bool:
        """Whether a task on this board was told to end."""
        return any(told.board is board for told in self._told.values())

    def told_at(self, reservation: Reservation) -> float | None:
        """Return when a task was told to end; None: it was not."""
        told = self._told.get(_name(reservation))
        return told.at if told is not None else None

    def _look(self, running: dict[Name, tuple[Board, Posted]], now: float) -> None:
        values = stops.values_in(self._backend) if running else {}
        asked = stops.read_all(values)
        questions = set(stack_records.questions_in(values))
        for question in questions - self._heard:
            self._tell_asked(question)
        self._heard = questions
        for name, (board, task) in running.items():
            held = task.reservation
            stop = stops.Stop(held.token, stops.CANCELED)
            if name in self._told or asked.get((held.queue_name, held.task_id)) != stop:
                continue
            # Should the worker die before the task has ended, the next one is to know.
            if stops.keep(self._backend, held.queue_name, held.task_id, stop):
                log.info("Task %r was canceled: telling it", held.task_id)
                self._told[name] = _Told(board, held, now)
                self._tell(board, held)

    def _clear_up(
        self,
        running: Container[Name],
        waiting: Container[Name],
        boards: Container[Board],
        now: float,
    ) -> None:
        """Forget what is over: as a rule the worker has done so; but it may have ended before it was told."""
        for name, told in list(self._told.items()):
            if told.board not in boards:  # its process is gone: what comes next is for the next one
                del self._told[name]
            elif name in running:
                told.over_at = None
            elif name in waiting:  # for a thread, and hears of it when it has one
                told.at, told.over_at = now, None
            elif told.over_at is None:
                told.over_at = now
            elif now - told.over_at > AFTERMATH:
                held = told.reservation
                stops.forget(self._backend, held.queue_name, held.task_id, held.token)
                del self._told[name]


def _name(held: Reservation) -> Name:
    return held.queue_name, held.task_id, held.token
