"""A worker process as its parent sees it: starting it, telling it something, killing it."""

import mmap
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from alligator import registry
from alligator.backends.base import Reservation
from alligator.processes.board import Board
from alligator.processes.child import Settings, canceling
from alligator.utils import new_id


@dataclass(slots=True, eq=False)
class Process:
    """A worker process."""

    popen: subprocess.Popen[bytes]
    control: int
    board: Board
    presence: registry.Presence
    began_at: float
    kill_at: float | None = None
    """When its time is over to leave by itself, if it was told to while the others stay."""
    killed_for: list[Reservation] = field(default_factory=list[Reservation])
    """The tasks that it was killed for, because they did not end."""

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
        self.tell(canceling(held.token, held.task_id))

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()


def started(settings: Settings) -> Process:
    """Start a process. It is new, not forked: nothing that this one has loaded or opened can disturb it."""
    settings = replace(settings, worker_id=new_id())
    theirs, ours = os.pipe()
    memory = -1
    try:
        memory = _shared_memory(Board.size())
        board = Board(mmap.mmap(memory, Board.size()))
        popen = subprocess.Popen(
            [sys.executable, "-m", "alligator.processes.child", str(theirs), str(memory)],
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
    # Only now, for many queues are more than a pipe holds. One that has died at once is seen to as any other.
    with suppress(BrokenPipeError), open(ours, "wb", closefd=False) as file:
        file.write(settings.line())
    os.set_blocking(ours, False)
    presence = registry.Presence.of(settings.worker_id, popen.pid, settings.queues)
    return Process(popen, ours, board, presence, time.monotonic())


def _shared_memory(size: int) -> int:
    """Return the descriptor of some memory that has no name and goes when nobody uses it."""
    if sys.platform == "linux":
        file = os.memfd_create("alligator-board")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.truncate(file, size)
    return file
