"""Workers that are killed, stopped and told to leave, to see what becomes of their tasks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from alligator.verify.journal import Journal

LEAVE_WITHIN = 10.0
"""Seconds for workers to leave that are told to; then they are killed."""
TRIES = 200
"""Times to look whether all have stopped, or to stop one anew that writes to a file just then."""
LOOK = 0.001
LINES = 4
"""Of its log, to be shown when it is at fault."""


class Crew:
    """A ``latergator`` with its processes. What is done to them stands in the journal.

    Should this process be killed, they end as well.

    Args:
        words: Its command line, after ``latergator``.
        environment: Its environment.
        log: The file for what it says.
        journal: The journal.
        is_busy: Whether somebody writes to the store just now, and so is not to be stopped.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        log: Path,
        journal: Journal,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._words = [sys.executable, "-m", "alligator.latergator", *words]
        self._environment = environment
        self._log = log
        self._journal = journal
        self._is_busy = is_busy
        self._is_told = False
        self.faults: list[str] = []
        """What it did that it was not to do, with the last lines of its log."""
        self._parent: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []

    @property
    def runs(self) -> bool:
        """Whether it has been started, and not ended."""
        return self._parent is not None and self._parent.poll() is None

    @property
    def children(self) -> list[int]:
        """The ids of its worker processes."""
        return children_of(self._parent.pid) if self._parent is not None and self.runs else []

    @property
    def pids(self) -> list[int]:
        """The ids of all its processes, its own first."""
        return [self._parent.pid, *self.children] if self._parent is not None and self.runs else []

    @property
    def said(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def last_words(self) -> str:
        """The end of what it has said, in one line."""
        return " ".join(self.said.split("\n")[-LINES:]).strip()

    def start(self) -> None:
        """Start it."""
        self._is_told = False
        with self._log.open("ab") as log:
            self._parent = subprocess.Popen(
                self._words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # ^C is for us, who then tell it
            )
        # Should we be killed, the guard's end of the pipe closes. Workers end with their parent, unless they
        # are stopped: the guard is told of those.
        script = f"while read pids; do stopped=$pids; done; kill -9 {self._parent.pid} $stopped"
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", script], stdin=subprocess.PIPE, process_group=0
        )

    def kill_one(self, pid: int) -> None:
        """Kill one of its processes."""
        self._journal.note("kill", pid=pid)
        _signal(pid, signal.SIGKILL)

    def kill(self) -> int:
        """Kill it with all its processes, as a machine that fails; return how many those were."""
        self.look()
        pids = self._halt()
        for pid in pids:
            self._journal.note("kill", pid=pid)
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._end()
        return len(pids)

    def stop(self) -> int:
        """Stop it with all its processes, as a machine that sleeps; return how many those are.

        Nobody is stopped who writes to a file, for that would stop all who use it. None are, and 0 is returned,
        where that is so at all times.
        """
        self.look()
        for pid in self.pids:
            self._journal.note("stop", pid=pid)
        for _ in range(TRIES):
            self._stopped = self._halt()
            self._tell_guard()
            if not self._is_busy():
                return len(self._stopped)
            self._wake()
        self.go()
        return 0

    def go(self) -> None:
        """Let it go on."""
        self._wake()
        pids, self._stopped = self._stopped, []
        for pid in pids:
            self._journal.note("go", pid=pid)
        self._tell_guard()

    def tell_to_leave(self) -> None:
        """Tell it to leave, when it has finished what it runs; if it was told already, at once."""
        self.look()
        self.go()
        self._is_told = True
        if self.runs:
            self._signal_parent(signal.SIGTERM)

    def look(self) -> None:
        """Look whether it has ended, though nobody has told it to."""
        if self._parent is not None and not self.runs and not self._is_told:
            self._blame(f"ended by itself, with status {self._parent.returncode}")
            self._is_told = True  # once is enough

    def end(self) -> None:
        """Wait until it has left; if it does not, kill it."""
        if self._parent is None:
            return
        try:
            status = self._parent.wait(LEAVE_WITHIN)
        except subprocess.TimeoutExpired:
            self._blame(f"did not leave within {LEAVE_WITHIN:g} s")
            self.kill()
        else:
            self.look()
            if status and not self.faults:
                self._blame(f"left with status {status}")
        self._end()

    def _blame(self, what: str) -> None:
        self.faults.append(f"a latergator {what}. {self.last_words}".rstrip())

    def _halt(self) -> list[int]:
        """Stop all processes, the parent first: it is not to see the others stop, nor to start new ones."""
        self._signal_parent(signal.SIGSTOP)
        for _ in range(TRIES):  # it takes effect a moment later
            pids = {*self.pids}
            running = [pid for pid, _, state in _processes() if pid in pids and state not in "TtZX"]
            if not running:
                break
            for pid in running:
                _signal(pid, signal.SIGSTOP)
            time.sleep(LOOK)
        return self.pids

    def _signal_parent(self, number: int) -> None:
        if self._parent is not None:
            self._parent.send_signal(number)

    def _wake(self) -> None:
        for pid in reversed(self._stopped):
            _signal(pid, signal.SIGCONT)

    def _tell_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(f"{' '.join(map(str, self._stopped))}\n".encode())
                self._guard.stdin.flush()

    def _end(self) -> None:
        if self._guard is not None:
            self._guard.kill()  # first: once the parent is gone, its process id may be another's
            self._guard.communicate()
            self._guard = None
        if self._parent is not None:
            self._parent.wait()
            self._parent = None
        self._stopped = []


def children_of(parent: int) -> list[int]:
    """Return the ids of the processes that a process has started, and that live."""
    return [pid for pid, its_parent, state in _processes() if its_parent == parent and state != "Z"]


def _processes() -> list[tuple[int, int, str]]:
    """Return the id, the parent's id and the state of each process: by proc(5), or else as ps(1) tells."""
    proc = Path("/proc/self/stat")
    if not proc.exists():
        command = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "state="]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in told.splitlines()]
        return [(int(pid), int(parent), state[0]) for pid, parent, state in rows]
    found: list[tuple[int, int, str]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                text = (entry / "stat").read_text(errors="replace")
                state, parent = text.rpartition(")")[2].split()[:2]
                found.append((int(entry.name), int(parent), state))
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
