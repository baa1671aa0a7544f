"""The parent of some worker processes: starts them, keeps their leases, and picks up after one that dies."""

import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from alligator import registry, retries
from alligator.backends.base import Ack, Backend
from alligator.bell import Bell
from alligator.board import Board, End, Mark, Posted, State, Tally
from alligator.child import STOP, Settings
from alligator.exceptions import AlligatorException
from alligator.keeper import BEATS_PER_LEASE, TICK, Keeper
from alligator.utils import new_id

log = logging.getLogger("alligator.supervisor")

SETTLED_LIFE = 1.0
"""Seconds a process has to live for its death not to count as a failed start."""
LATE_RESERVE = 1.0
"""Seconds after a process died in which the store may still carry out what it asked last."""

_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Child:
    """A worker process."""

    process: subprocess.Popen[bytes]
    control: int
    board: Board
    presence: registry.Presence
    began_at: float


@dataclass(slots=True)
class _Ended:
    """A worker process that has ended, and what of it may still lie in the store."""

    worker: str
    done: list[Ack]
    started: list[str]
    recover_at: float = 0.0
    is_recovered: bool = False


class Supervisor:
    """Runs ``count`` worker processes until told to leave.

    Args:
        backend: The store.
        settings: For each process; ``worker_id`` is its own.
        count: How many.
        on_look: Called every ``TICK`` seconds with what came of all attempts so far.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        count: int,
        on_look: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._wanted = count
        self._on_look = on_look
        self._keeper = Keeper(backend, settings.lease)
        self._bell = Bell()
        self._children: list[_Child] = []
        self._dead: list[_Ended] = []
        self._tally = Tally()
        self._signals = 0
        self._kill_at: float | None = None
        self._failed_starts = 0
        self._start_at = 0.0
        self._announce_at = 0.0
        self._is_cut_off = False

    @property
    def tally(self) -> Tally:
        """What came of all attempts so far."""
        return sum((child.board.tally for child in self._children), self._tally)

    def run(self) -> None:
        """Work until told to leave, or in a burst until nothing is left."""
        with self._heeding_signals():
            while self._look():
                self._bell.wait(TICK)

    def _look(self) -> bool:
        """Do what is due. Returns whether there is anything left to wait for."""
        if self._signals and self._kill_at is None:
            self._wanted, self._kill_at = 0, time.monotonic() + self._settings.grace
            self._tell_to_leave()
        if self._kill_at is not None and (self._signals > 1 or time.monotonic() > self._kill_at):
            self._kill()
        self._wanted -= self._reap()
        self._start()
        self._keeper.tick([child.board for child in self._children])
        self._recover()
        self._announce()
        self._on_look(self.tally)
        return self._wanted > 0 or bool(self._children)

    def _start(self) -> None:
        """Start the processes that are missing, slower if they die as soon as they are started."""
        while len(self._children) < self._wanted and time.monotonic() >= self._start_at:
            try:
                self._children.append(_start_child(self._settings))
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
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._children.remove(child)
            self._tally += child.board.tally
            self._note_end(child)
            if child.board.end == End.FINISHED and self._settings.burst:
                finished += 1
            elif child.board.end == End.NONE and not self._signals:
                self._judge(child, child.process.returncode)
        return finished

    def _judge(self, child: _Child, status: int) -> None:
        """Say that a process died, and whether that was a failed start."""
        lived = time.monotonic() - child.began_at
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        log.error("Worker process %s died (%s): replacing it", child.process.pid, how)
        has_worked = child.board.tally != Tally() or bool(child.board.read())
        self._failed_starts = 0 if has_worked or lived > SETTLED_LIFE else self._failed_starts + 1
        if not self._failed_starts:
            self._start_at = 0.0

    def _note_end(self, child: _Child) -> None:
        os.close(child.control)
        posted = child.board.read()
        self._dead.append(
            _Ended(
                child.presence.worker,
                [Ack(task.reservation) for task in posted if task.state == State.DONE],
                [task.reservation.task_id for task in posted if self._counts(task)],
            )
        )

    def _counts(self, task: Posted) -> bool:
        """Whether a task may be what its process died of; not when it was we who killed it."""
        return task.state == State.STARTED and task.mark != Mark.GONE and not self._signals

    def _recover(self) -> None:
        """Give back what dead processes held; again a moment later, for what they asked last."""
        for dead in [dead for dead in self._dead if time.monotonic() >= dead.recover_at]:
            dead.recover_at = time.monotonic() + LATE_RESERVE
            try:
                self._backend.settle(dead.done)
                self._backend.recover(self._settings.queues, dead.worker, dead.started)
                registry.withdraw(self._backend, dead.worker)
            except AlligatorException as err:
                if not self._is_cut_off:
                    log.warning("Cannot give back what a dead process held, trying on: %s", err)
                self._is_cut_off = True
                return  # the others would only wait as long for no answer
            self._is_cut_off = False
            if dead.is_recovered:
                self._dead.remove(dead)
            dead.is_recovered, dead.done, dead.started = True, [], []

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

    def _tell_to_leave(self) -> None:
        for child in self._children:
            try:
                os.write(child.control, STOP)
            except BrokenPipeError:  # it has just ended
                pass

    def _kill(self) -> None:
        """End what was told to leave and has not: then its tasks are ours to give back."""
        for child in self._children:
            child.process.kill()
            child.process.wait()

    @contextmanager
    def _heeding_signals(self) -> Generator[None]:
        def leave(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 1:  # now, even while a call to the store is waiting
                for child in self._children:
                    child.process.kill()
            self._bell.ring()

        def look(number: int, frame: FrameType | None) -> None:
            self._bell.ring()

        # What was ignored before stays so: nohup lets a program outlive its terminal.
        heeded = [number for number in _LEAVE if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, leave) for number in heeded}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, look)
        try:
            yield
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)


def _start_child(settings: Settings) -> _Child:
    """Start a process. It is new, not forked: nothing that this one has loaded or opened can disturb it."""
    settings = replace(settings, worker_id=new_id())
    theirs, ours = os.pipe()
    memory = -1
    try:
        os.write(ours, settings.line())  # a pipe holds that much, whether or not anyone reads it
        memory = _shared_memory(Board.size())
        board = Board(mmap.mmap(memory, Board.size()))
        process = subprocess.Popen(
            [sys.executable, "-m", "alligator.child", str(theirs), str(memory)],
            pass_fds=(theirs, memory),
            stdin=subprocess.DEVNULL,
            process_group=0,  # ^C in a terminal is for the parent, which tells its children
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        if memory >= 0:
            os.close(memory)
    presence = registry.Presence.of(settings.worker_id, process.pid, settings.queues)
    return _Child(process, ours, board, presence, time.monotonic())


def _shared_memory(size: int) -> int:
    """Return the descriptor of some memory that has no name and goes when nobody uses it."""
    if sys.platform == "linux":
        file = os.memfd_create("alligator-board")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.truncate(file, size)
    return file
