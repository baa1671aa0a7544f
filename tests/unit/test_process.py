"""A worker process as its parent sees it."""

import mmap
import os
import signal
import subprocess
import sys

from alligator.processes.board import Board
from alligator.processes.process import Process
from alligator.registry import Presence


def test_one_that_was_just_waited_for_is_sent_no_signal() -> None:
    # As in the handler of a signal that comes right after the system has answered, before that is noted.
    popen = subprocess.Popen([sys.executable, "-c", ""])
    board = Board(mmap.mmap(-1, Board.size()))
    child = Process(popen, -1, -1, board, Presence.of("w1", popen.pid, ["all"]), 0.0)
    os.waitpid(popen.pid, 0)

    child.kill()
    child.send(signal.SIGTERM)

    assert child.has_ended
