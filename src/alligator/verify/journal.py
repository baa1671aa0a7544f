"""A file that programs write to as they go: what really happened, whatever the store and the workers say."""

import json
import os
import threading
import time
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from alligator.running import current_task

HELD_UP = 5.0
"""Seconds that a line may come after a later one."""


class Entry(NamedTuple):
    """One line: something that happened, to whom or what, and when.

    ``at`` is of the monotonic clock, which all processes of a machine share; ``attempt`` is that of the task
    which has noted this, and 0 where none of Alligator's has.
    """

    kind: str
    name: str
    pid: int
    at: float
    attempt: int = 0


class Journal:
    """A journal in a file; any number of processes may write to it.

    ====================  ====================================================================
    ``push``, ``pushed``  A task is about to be queued; the call has returned.
    ``refused``           It is not queued, and the error said so.
    ``cancel``,           A task is about to be taken out; the call has returned.
    ``canceled``
    ``settled``           The call that settled a task's last run has returned: it is over.
    ``start``             A task's code begins, in this process.
    ``finish``, ``fail``  It ends, by itself: with a result, or to be tried again.
    ``kill``              A process is about to be killed.
    ``leave``             A process is about to be told to leave, and gives back what it has not done.
    ``stop``, ``go``      A process is about to be stopped (SIGSTOP); it goes on.
    ``down``, ``up``      The store's server is about to be killed; it answers again.
    ``cut``               The network is about to fail for a moment.
    ====================  ====================================================================

    Args:
        path: The file; it need not exist.

    Example:
        >>> from tempfile import mkdtemp
        >>> journal = Journal(f"{mkdtemp()}/journal")
        >>> journal.note("start", "t1")
        >>> [entry.name for entry in journal.entries("start")]
        ['t1']
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._known: list[Entry] = []
        self._read_up_to = 0
        self._is_read = threading.Lock()

    def note(self, kind: str, name: str = "", pid: int | None = None) -> None:
        """Add a line. It is there, whole, whatever happens to this process next."""
        task = current_task()
        attempt = task.attempt if task.task_id else 0
        fields = kind, name, pid or os.getpid(), round(time.monotonic(), 6), attempt
        line = json.dumps(fields) + "\n"
        file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def entries(self, kind: str | None = None, name: str | None = None) -> list[Entry]:
        """Return what was noted so far, in order; of one kind or name if so asked."""
        with self._is_read:
            self._read_on()
            entries = self._known.copy()
        return [one for one in entries if kind in (None, one.kind) and name in (None, one.name)]

    def since(self, moment: float) -> list[Entry]:
        """Return what was noted since a moment, the newest first."""
        with self._is_read:
            self._read_on()
            # Who notes something may be held up before it is written: hence a little further back.
            new = takewhile(lambda one: one.at > moment - HELD_UP, reversed(self._known))
            return [one for one in new if one.at > moment]

    def started_since(self, moment: float) -> list[int]:
        """Return the processes that have started a task since a moment, in their order."""
        return sorted({entry.pid for entry in self.since(moment) if entry.kind == "start"})

    def names(self, kind: str) -> list[str]:
        """Return the tasks' names of all entries of a kind, in order."""
        return [entry.name for entry in self.entries(kind)]

    def _read_on(self) -> None:
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self._read_up_to)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]  # of the last line, there may be half so far
        self._known += [Entry(*json.loads(line)) for line in whole.splitlines()]
        self._read_up_to += len(whole)
