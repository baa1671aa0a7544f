"""Processes to be killed, one after the other, each forked from one that has imported what they need.

So they are there in some milliseconds, and begin with what matters.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from alligator import Gator, inline
from alligator.backends import beanstalk_backend, postgres_backend, redis_backend, sqlite_backend
from alligator.processes import keeper
from alligator.verify.journal import Journal
from chaos.steps import STEPS
from chaos.stores import LEASE
from tests.integration.scenes import ROOT

ANSWERS_WITHIN = 60.0
"""Seconds for a step, which takes some milliseconds."""
IMPORTED = beanstalk_backend, postgres_backend, redis_backend, sqlite_backend


class ForkServer:
    """Another process, which forks. It ends when ``orders`` is closed, if only by our death."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders = orders
        self._answers = answers

    def fork(self, step: str, dsn: str, queue: str, ids: list[str], journal: str) -> int:
        """Make a process that is going to take a step, in a queue with these tasks; return its process id."""
        self._order(json.dumps([step, dsn, queue, ids, journal]))
        return self._answer()

    def go(self) -> int:
        """Let the process take it, and end; return its exit status."""
        self._order("go")
        return self._answer()

    def _order(self, text: str) -> None:
        self._orders.write(f"{text}\n")
        self._orders.flush()

    def _answer(self) -> int:
        # Each order has one line for an answer: none is read already, and waits in our own buffer.
        if not select.select([self._answers], [], [], ANSWERS_WITHIN)[0]:
            pytest.fail(f"no answer within {ANSWERS_WITHIN:g} s: the process has not ended")
        return int(self._answers.readline())


@contextmanager
def fork_server(log: Path) -> Generator[ForkServer]:
    """Start one; what its processes complain of goes to a file."""
    words = [sys.executable, "-m", "chaos.forking"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            process_group=0,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield ForkServer(process.stdin, process.stdout)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with what has not ended


def main() -> None:
    """Fork a process for each order, which has two lines: what to do, and to do it now."""
    logging.disable()  # what tasks log is in the way: it takes many system calls
    inline.LEASE = LEASE  # type: ignore[attr-defined]  # pop() has no argument for it
    keeper.LEASE = LEASE
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(_carry_out(*json.loads(line)))
        os.close(read)
        print(pid, flush=True)
        sys.stdin.readline()
        with suppress(BrokenPipeError):  # killed before it has read that
            os.write(write, b"!")
        os.close(write)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _carry_out(step: str, dsn: str, queue: str, ids: list[str], journal: str) -> int:
    try:
        STEPS[step].does(Gator(dsn, queue), ids, Journal(journal))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
