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

STOPPED_WITHIN = 2.0
"""Seconds for a signal to stop a process; one that waits for a disk may take longer."""
LEAVE_WITHIN = 10.0
"""Seconds for workers to leave that are told to; then they are killed."""


class Crew:
    """A ``latergator`` with its processes. What is done to them stands in the journal.

    Should this process be killed, they end as well.

    Args:
        words: Its command line, after ``latergator``.
        environment: Its environment.
        log: The file for what it says.
        journal: The journal.
    """

    def __init__(
        self, words: Sequence[str], environment: dict[str, str], log: Path, journal: Journal
    ) -> None:
        self._words = [sys.executable, "-m", "alligator.latergator", *words]
        self._environment = environment
        self._log = log
        self._journal = journal
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

    def start(self) -> None:
        """Start it."""
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
        pids = self._halt()
        for pid in pids:
            self._journal.note("kill", pid=pid)
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._end()
        return len(pids)

    def stop(self, is_in_the_way: Callable[[], bool]) -> int:
        """Stop it with all its processes, as a machine that sleeps; return how many those are.

        Not while that keeps all others from the store: of one machine, all of it sleeps.
        """
        for pid in self.pids:
            self._journal.note("stop", pid=pid)
        self._stopped = self._halt()
        while is_in_the_way():
            for pid in reversed(self._stopped):
                _signal(pid, signal.SIGCONT)
            self._stopped = self._halt()
        self._tell_guard()
        return len(self._stopped)

    def go(self) -> None:
        """Let it go on."""
        pids, self._stopped = self._stopped, []
        for pid in reversed(pids):
            _signal(pid, signal.SIGCONT)
            self._journal.note("go", pid=pid)
        self._tell_guard()

    def tell_to_leave(self) -> None:
        """Tell it to leave, when it has finished what it runs; if it was told already, at once."""
        self.go()
        if self.runs:
            self._signal_parent(signal.SIGTERM)

    def end(self) -> None:
        """Wait until it has left; if it does not, kill it."""
        if self._parent is None:
            return
        try:
            self._parent.wait(LEAVE_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        self._end()

    def _halt(self) -> list[int]:
        """Stop all processes, the parent first: it is not to see the others stop, nor to start new ones."""
        self._signal_parent(signal.SIGSTOP)
        deadline = time.monotonic() + STOPPED_WITHIN
        while running := [pid for pid in self.pids if _runs(pid)]:
            for pid in running:
                _signal(pid, signal.SIGSTOP)  # which takes effect a moment later
            if time.monotonic() > deadline:
                break
        return self.pids

    def _signal_parent(self, number: int) -> None:
        if self._parent is not None:
            self._parent.send_signal(number)

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


def _runs(pid: int) -> bool:
    return any(one == pid and state not in "TtZX" for one, _, state in _processes())


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
