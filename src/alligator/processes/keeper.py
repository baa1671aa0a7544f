"""The keeper: extends the leases of what workers hold, and frees what is stuck behind a long task.

It reads the workers' boards. Under ``latergator`` it runs in the parent process, so that a task which lets no
other thread run cannot starve it; a ``Worker`` alone, and ``gator.pop()``, run it in a thread. So does a child
of ``latergator`` if nobody else can extend what it holds (``Backend.shares_leases``).
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from alligator import stops
from alligator.backends.base import Ack, Backend, Release, Reservation
from alligator.exceptions import AlligatorException
from alligator.processes.board import Board, Mark, Posted, State
from alligator.raised import log_raised
from alligator.settling import say_late

log = logging.getLogger("alligator.processes.keeper")

LEASE = 30.0
"""Seconds that a hand-out is good for, unless extended."""
BEATS_PER_LEASE = 3
"""Leases are extended every third: two beats may fail before one lapses."""
TICK = 0.25
"""Seconds between two looks at the boards."""
STUCK = 0.5
"""Seconds after which a task that waits in a process behind another is freed; a batch is about 0.05 s."""


class Keeper:
    """Looks after the boards of some workers; call ``tick`` every ``TICK`` seconds.

    Args:
        backend: The store that the tasks are held in.
        lease: Seconds to extend by.
        clock: The monotonic clock that the boards' moments are of.
        given_back: Told what was given back without having been started. It may call the store, and is told
            again if that does not answer.
        extends: Whether it extends leases.
        frees: Whether it frees what is stuck.
    """

    def __init__(
        self,
        backend: Backend,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
        given_back: Callable[[list[Reservation]], None] = lambda released: None,
        *,
        extends: bool = True,
        frees: bool = True,
    ) -> None:
        self._backend = backend
        self._lease = lease
        self._clock = clock
        self._tell_given_back = given_back
        self._last_beat = clock()
        self._done: set[Reservation] = set()
        self._marked: set[Reservation] = set()
        self._released: list[Reservation] = []
        self._is_cut_off = False
        self._extends = extends
        self._frees = frees

    def tick(self, boards: Iterable[Board]) -> None:
        """Do what is due."""
        now = self._clock()
        boards = list(boards)
        try:
            # First, and whatever comes of it: what is stuck may be at a node that is away, and takes its time.
            try:
                if self._extends and now >= self._last_beat + self._beat_after:
                    self._beat(boards, _posted(boards), now)
            finally:
                if self._frees:
                    self._free_stuck(_posted(boards), now)
            if self._released:
                self._tell_given_back(self._released)
                self._released = []
        except AlligatorException as err:
            if not self._is_cut_off:
                log.warning("Cannot extend leases, trying on: %s", err)
            self._is_cut_off = True
        else:
            self._is_cut_off = False

    def _beat(self, boards: list[Board], posted: list[tuple[Board, Posted]], now: float) -> None:
        """Extend all that is held and neither settled nor given back."""
        held = [(board, task) for board, task in posted if _is_held(task)]
        if held:
            lost = self._backend.extend([task.reservation for _, task in held], self._lease)
            for board, task in held:
                # Also what was started by now: it may not run yet. What is done may be lost to us alone.
                if task.reservation in lost and task.state != State.DONE:
                    board.mark(task.number, Mark.GONE)
        # After the marks: the worker takes this to mean that what has none is still its own.
        for board in boards:
            board.extended_at = now
        self._last_beat = now

    @property
    def _beat_after(self) -> float:
        return min(self._lease, self._backend.shortest_lease()) / BEATS_PER_LEASE

    def _free_stuck(self, posted: list[tuple[Board, Posted]], now: float) -> None:
        """Acknowledge what is done, and give back what is not started, where a long task holds them up."""
        done: list[tuple[Board, Posted]] = []
        given_back: list[tuple[Board, Posted]] = []
        were_done, self._done = self._done, set()
        for board, task in posted:
            if now - task.since < STUCK:
                continue
            if task.state == State.DONE and task.mark == Mark.NONE:
                # Done a tick ago: a worker that is not stuck would have sent it by now.
                if task.reservation in were_done:
                    board.mark(task.number, Mark.SETTLED)
                    done.append((board, task))
                else:
                    self._done.add(task.reservation)
            elif task.state == State.HELD and task.mark == Mark.NONE:
                board.mark(task.number, Mark.GIVE_BACK)
                self._marked.add(task.reservation)
            elif task.state == State.HELD and task.mark == Mark.GIVE_BACK:
                # Marked a tick ago and not started since: the worker has seen the mark, or will.
                given_back.append((board, task))
        if done or given_back:
            acks = [Ack(task.reservation) for _, task in done]
            back = [Release(task.reservation) for _, task in given_back]
            late = self._backend.settle([*acks, *stops.warned(self._backend, back)])
            self._say_void(done, [settlement.reservation for settlement in late])
        for board, task in given_back:
            board.mark(task.number, Mark.GONE)
        self._note_released({task.reservation for _, task in given_back}, posted)

    def _say_void(self, done: list[tuple[Board, Posted]], late: list[Reservation]) -> None:
        """Say which tasks had gone to another worker, unless ours may have acknowledged them itself."""
        suspects = [(board, task) for board, task in done if task.reservation in late]
        still_done = {
            task.reservation
            for board in {board for board, _ in suspects}
            for task in board.read()
            if task.state == State.DONE
        }
        for _, task in suspects:
            if task.reservation in still_done:
                say_late(task.reservation, is_unclear=False)

    def _note_released(
        self, released: set[Reservation], posted: list[tuple[Board, Posted]]
    ) -> None:
        """Note what was given back: by us, or by the worker itself, which has seen a mark first."""
        if self._marked:
            there = {task.reservation for _, task in posted if task.state != State.SENT}
            released |= self._marked - there
            self._marked -= released
            self._released += released


def _posted(boards: list[Board]) -> list[tuple[Board, Posted]]:
    return [(board, task) for board in boards for task in board.read()]


def _is_held(task: Posted) -> bool:
    # A task may have been marked in the moment it was started; and what was to be acknowledged for the
    # worker may not have been. Both are held, whatever the mark.
    return task.mark == Mark.NONE if task.state == State.HELD else task.state != State.SENT


@contextmanager
def keeper_thread(
    keeper: Keeper, board: Board, also: Callable[[], None] = lambda: None
) -> Generator[None]:
    """Run a keeper in a thread while the block runs, and ``also`` after each of its looks."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(TICK):
            try:
                keeper.tick([board])
                also()
            except Exception as err:
                # In a store of the user's own, perhaps. The next beat must come all the same.
                log_raised(log, "Cannot keep up leases, trying on", err=err)

    thread = threading.Thread(target=keep, name="alligator-keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def keeping(backend: Backend, reservation: Reservation) -> Generator[None]:
    """Keep up the lease of one task while the block runs it."""
    if not backend.can_lease:
        yield
        return
    board = Board(capacity=1)
    board.post([(1, reservation, time.monotonic(), State.STARTED)])
    with keeper_thread(Keeper(backend, LEASE), board):
        yield
