"""A worker process as its parent sees it: starting it, telling it something, killing it, and how it ended."""

import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from alligator import registry
from alligator.backends.base import Reservation
from alligator.deaths import MAX_STACK
from alligator.descriptors import memory_file
from alligator.processes.activity import activity_of
from alligator.processes.board import BEGUN, Board, Posted
from alligator.processes.child import Settings, canceling
from alligator.processes.inquiry import Inquiry
from alligator.utils import new_id


@dataclass(slots=True, eq=False)
class Process:
    """A worker process."""

    popen: subprocess.Popen[bytes]
    control: int
    stacks: int
    """The file that it writes stacks to."""
    board: Board
    presence: registry.Presence
    began_at: float
    kill_at: float | None = None
    """When its time is over to leave by itself, if it was told to while the others stay."""
    killed_for: dict[Reservation, str] = field(default_factory=dict[Reservation, str])
    """The tasks that it was killed for, because they did not end, and why they were to."""
    hang: Inquiry | None = None
    """The inquiry into why a task in it does not end."""
    inquiry: Inquiry | None = None
    """The last one into what runs there."""
    usage: resource.struct_rusage | None = None
    """What it has used in all, once it has ended."""

    @property
    def is_ours_to_blame(self) -> bool:
        """Whether we ended it while the others stay. That says nothing about what it held but those tasks."""
        return bool(self.killed_for) or self.kill_at is not None

    def tell(self, line: bytes) -> None:
        """Write a line to it; one that reads none any more is not told."""
        try:
            os.write(self.control, line)
        except (BrokenPipeError, BlockingIOError):
            pass  # it has just ended; or it is deaf, and will be killed

    def cancel(self, held: Reservation) -> None:
        """Tell it that a task which runs there was canceled."""
        self.tell(canceling(held.queue_name, held.task_id, held.token))

    def inquire(self) -> Inquiry:
        """Ask what runs there, unless that is being asked already."""
        if self.inquiry is None or self.inquiry.is_over:
            look = partial(activity_of, self.popen.pid)
            self.inquiry = Inquiry(self.stacks, self.board, self.tell, self.send, look)
        return self.inquiry

    def has_told_where_it_hangs(self) -> bool:
        """Ask what runs there, and return whether all has been told that can be."""
        if self.hang is None:
            self.hang = self.inquire()
        return self.hang.tick()

    def stack_of(self, task: Posted) -> str:
        """Return where a task is, as was told last."""
        return self.inquiry.stacks.get(task.number, "")[-MAX_STACK:] if self.inquiry else ""

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        # Not by popen: that would wait for it first, and its usage would be lost.
        if self.popen.returncode is None:
            # A signal's handler may ask for it right when it was waited for, and nobody knows that yet.
            with suppress(ProcessLookupError):
                os.kill(self.popen.pid, number)

    def wait(self) -> None:
        """Wait for its end."""
        self._wait(0)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        self._wait(os.WNOHANG)
        return self.popen.returncode is not None

    @property
    def is_busy(self) -> bool:
        """Whether a task runs in it."""
        return not self.has_ended and any(task.state in BEGUN for task in self.board.read())

    def _wait(self, options: int) -> None:
        if self.popen.returncode is not None:
            return
        try:
            pid, status, usage = os.wait4(self.popen.pid, options)
        except ChildProcessError:  # somebody else has waited for it
            self.popen.returncode = 0
            return
        if pid:
            self.popen.returncode = os.waitstatus_to_exitcode(status)
            self.usage = usage

    def close(self) -> None:
        """Close what it had in common with us."""
        if self.inquiry is not None:
            self.inquiry.is_over = True
        os.close(self.control)
        os.close(self.stacks)


def started(settings: Settings) -> Process:
    """Start a process. It is new, not forked: nothing that this one has loaded or opened can disturb it."""
    settings = replace(settings, worker_id=new_id())
    theirs, ours = os.pipe()
    memory = stacks = -1
    try:
        memory = memory_file(Board.size())
        board = Board(mmap.mmap(memory, Board.size()))
        stacks = memory_file()
        files = (theirs, memory, stacks)
        popen = subprocess.Popen(
            [sys.executable, "-m", "alligator.processes.child", *map(str, files)],
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            process_group=0,  # ^C in a terminal is for the parent, which tells its children
        )
    except BaseException:
        os.close(ours)
        if stacks >= 0:
            os.close(stacks)
        raise
    finally:
        os.close(theirs)
        if memory >= 0:
            os.close(memory)
    # Only now, for many queues are more than a pipe holds. One that has died at once is seen to as any other.
    with suppress(BrokenPipeError), open(ours, "wb", closefd=False) as file:
        file.write(settings.line())
    os.set_blocking(ours, False)
    presence = registry.Presence.of(settings.worker_id, popen.pid, settings.queues)
    return Process(popen, ours, stacks, board, presence, time.monotonic())
