"""Programs of the tests' own, and the scene that they play in: a store, a journal, gates."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.backends.base import Counts, DeadLetter, Message, as_bytes
from alligator.dsn import DSN
from alligator.verify.files import is_written_to
from alligator.verify.journal import Entry, Journal
from tests.examples.commands import clean_environment
from tests.integration import jobs

ROOT = Path(__file__).resolve().parents[2]
"""Where programs run, so that they find the tests' modules."""
PATIENCE = 20.0
"""Seconds until a test gives up on what should have happened."""
AT_ONCE = 4.0
"""Seconds that what happens at once may take on the busiest machine: less than the longest wait of a worker."""
SHORT = [f"short-{number}" for number in range(300)]
"""So many short tasks, and a worker has learned to take many at once."""
BEHIND = [f"behind-{number}" for number in range(40)]
"""Tasks that come in one batch with whatever is between them and the short ones."""
BEFORE_LEASE = 15.0
"""Seconds after which, on the busiest machine, nothing has waited for a lease or a grace: these take 30."""
ON_SQLITE = pytest.mark.parametrize("dsn", ["sqlite"], indirect=True)
"""For a test that looks at what no store has a part in."""


def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Not within {within:g} s: {what}")
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a session."""

    pid: int
    parent: int
    session: int
    state: str

    @classmethod
    def of(cls, pid: int) -> "Member | None":
        """Return what proc(5) tells of a process that lives."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, parent, _, session = text.rpartition(")")[2].split()[:4]
        return None if state in "ZX" else cls(pid, int(parent), int(session), state)


def members_of(session: int) -> list[Member]:
    """Return the processes of a session that live."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [one for one in map(Member.of, pids) if one and one.session == session]


def let_programs_hear() -> None:
    """Let programs hear signals that this process ignores, as under nohup(1), and go on ignoring them here."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _ignore)  # a handler ends where another program begins


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


ONCE_TOLD = 'read -r _ && exec "$@" <"$0"'
"""What a shell does until a program is to begin: it waits to be told, or ends with who was to tell it."""


class Program:
    """A Python program with all that it starts, in a session of its own; its output goes to files.

    Args:
        words: What follows ``python`` on the command line.
        output: The files' path, without their endings.
        environment: Variables besides our own.
        python: Which Python.
        typed: A file with what it is to read.
        among: The programs that somebody is going to end: it is one of them before it begins.
    """

    def __init__(
        self,
        words: Sequence[str],
        output: Path,
        environment: dict[str, str],
        python: str = sys.executable,
        typed: Path = Path(os.devnull),
        among: "list[Program] | None" = None,
    ) -> None:
        self.words = list(words)
        self.began_at = time.monotonic()
        self._out, self._err = output.with_suffix(".out"), output.with_suffix(".err")
        # A signal may raise an error here between any two steps: nothing begins that nobody would end.
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", ONCE_TOLD, str(typed.absolute()), python, *words],
                cwd=ROOT,
                env=clean_environment(**environment),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self._process.pid
        # Should this process be killed, the guard's end of the pipe closes. Who was forked to push is of the
        # program's group; workers are not, and end with their parent.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -9 -{self.pid}"],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        if among is not None:
            among.append(self)
        assert self._process.stdin is not None
        with self._process.stdin as told:
            told.write(b"\n")

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has logged."""
        return self._err.read_text(errors="replace")

    @property
    def logged_at(self) -> float:
        """When it has last logged, in seconds since 1970."""
        return self._err.stat().st_mtime

    @property
    def members(self) -> list[int]:
        """The ids of all its processes that live."""
        return [member.pid for member in members_of(self.pid)]

    @property
    def children(self) -> list[int]:
        """The ids of those that it has started itself."""
        return [member.pid for member in members_of(self.pid) if member.parent == self.pid]

    def has_child(self, pid: int) -> bool:
        """Whether it has started that process, which lives. To look at all of them takes long."""
        member = Member.of(pid)
        return member is not None and member.parent == self.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> float:
        """Send a signal to the program, not to what it has started; return when."""
        now = time.monotonic()
        os.kill(self.pid, number)
        return now

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end; return its exit status."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"Not ended within {within:g} s: {self.words}")

    def says(self, text: str, within: float = PATIENCE) -> None:
        """Wait until it has printed or logged a text."""
        until(lambda: text in self.stdout or text in self.stderr, f"it says {text!r}", within)

    def freeze(self) -> None:
        """Stop all its processes, the program first: it is not to see the others stop."""
        os.kill(self.pid, signal.SIGSTOP)
        while running := [one.pid for one in members_of(self.pid) if one.state != "T"]:
            for pid in running:
                kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all its processes go on."""
        for pid in self.members:
            kill(pid, signal.SIGCONT)

    def kill_all(self) -> float:
        """Kill all its processes in one moment; return when."""
        if self.runs:
            self.freeze()
        now = time.monotonic()
        self.end()
        return now

    def end(self) -> None:
        """Kill whatever of it still lives."""
        if self._guard.poll() is None:
            self._guard.kill()  # first: once the program is gone, its process id may be another's
            self._guard.communicate()
        while members := self.members:
            for pid in members:
                kill(pid, signal.SIGKILL)
            self._process.poll()
        self._process.wait()


def kill(pid: int, number: int = signal.SIGKILL) -> float:
    """Send a signal to a process that may have ended; return when."""
    now = time.monotonic()
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    return now


class Scene:
    """A store, workers on it, and a journal that their tasks write to.

    Args:
        dsn: The store, empty.
        folder: For the journal, gates and output.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.gator = Gator(dsn)
        self.journal = Journal(folder / "journal")
        self.environment: dict[str, str] = {}
        self.programs: list[Program] = []

    # Tasks:

    def push(
        self,
        name: str,
        func: Callable[..., Any] = jobs.work,
        *args: Any,
        gator: Gator | None = None,
        **options: Any,
    ) -> Task:
        """Queue a call of a job, with the name for its task's id; by another Gator if so asked."""
        self.journal.note("push", name)
        with (gator or self.gator).options(task_id=name, **options) as opts:
            task = opts.task(func, self.journal.path, name, *args)
        self.journal.note("pushed", name)
        return task

    def push_many(self, *names: str) -> None:
        """Queue short tasks, all in one step."""
        messages: list[Message] = []
        for name in names:
            self.journal.note("push", name)
            task = self.gator.task_class(task_id=name)
            task.to_call(jobs.work, self.journal.path, name)
            messages.append(Message(name, as_bytes(task.serialize())))
        self.gator.backend.push_many(self.gator.queue_name, messages)
        for name in names:
            self.journal.note("pushed", name)

    def push_gated(self, name: str, func: Callable[..., Any] = jobs.wait_at_gate) -> Task:
        """Queue a task that runs until ``open`` is called."""
        return self.push(name, func, str(self.folder / f"gate-{name}"))

    def open(self, name: str, pid: int | None = None) -> None:
        """Let a gated task end; only in one process if so asked."""
        ending = f".{pid}" if pid else ""
        (self.folder / f"gate-{name}{ending}").touch()

    # Programs:

    def latergator(self, *options: str, target: str | None = None, **environment: str) -> Program:
        """Start ``latergator`` on the store."""
        words = ["-m", "alligator.latergator", target or self.dsn, *options]
        return self.python(*words, **environment)

    def worker(self, variant: str = "worker", **settings: Any) -> Program:
        """Start a Worker in a script."""
        return self.python(
            "-m", "tests.integration.script", self.dsn, json.dumps(settings), variant
        )

    def shell(self, script: str) -> Program:
        """Run a shell's script, in which "{latergator}" and "{worker}" start those."""
        latergator = [sys.executable, "-m", "alligator.latergator", self.dsn]
        worker = [sys.executable, "-m", "tests.integration.script", self.dsn, "{}", "worker"]
        line = script.format(latergator=shlex.join(latergator), worker=shlex.join(worker))
        return self.python("-c", f"import os; os.execvp('sh', ['sh', '-c', {line!r}])")

    def python(self, *words: str, **environment: str) -> Program:
        """Start a Python program."""
        output = self.folder / f"program-{len(self.programs)}"
        return Program(words, output, self.environment | environment, among=self.programs)

    def freeze(self, program: Program) -> None:
        """Stop a program, but not while it writes to a file that nobody else could then write to."""
        program.freeze()
        while self.is_locked:
            program.thaw()
            program.freeze()

    @property
    def is_locked(self) -> bool:
        """Whether the store is a file, and somebody writes to it just now."""
        return is_written_to(DSN.parse(self.dsn))

    # What became of it all:

    @property
    def counts(self) -> Counts:
        """How many tasks are in which state."""
        return self.gator.backend.count(self.gator.queue_name)

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters."""
        return self.gator.backend.dead(self.gator.queue_name)

    def started(self, name: str, times: int = 1, within: float = PATIENCE) -> Entry:
        """Wait until a task has started so many times; return the last of them."""
        return self._noted("start", name, times, within)

    def finished(self, name: str, times: int = 1, within: float = PATIENCE) -> Entry:
        """Wait until a task has finished so many times; return the last of them."""
        return self._noted("finish", name, times, within)

    def deliveries(self) -> dict[str, int]:
        """Take all tasks that wait, and return how often each was handed out, this time included."""
        batch = self.gator.backend.reserve([self.gator.queue_name], "inspector", limit=1000)
        return {held.task_id: held.deliveries for held in batch.reservations}

    def _noted(self, kind: str, name: str, times: int, within: float) -> Entry:
        until(
            lambda: len(self.journal.entries(kind, name)) >= times,
            f"{times} times {kind} of {name!r}",
            within,
        )
        return self.journal.entries(kind, name)[times - 1]


@contextmanager
def played(dsn: str, folder: Path) -> Generator[Scene]:
    """A scene, with nothing of it left in the end; pytest shows the output if the test failed."""
    scene = Scene(dsn, folder)
    try:
        yield scene
    finally:
        for program in scene.programs:
            program.end()
        for program in scene.programs:
            print(f"--- {program.words}\n{program.stdout[-4000:]}{program.stderr[-8000:]}")
        scene.gator.backend.close()
