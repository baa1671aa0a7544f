"""A file that programs write to as they go: what really happened, whatever the store and the workers say."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One line: something that happened, to whom or what, and when.

    ``at`` is of the monotonic clock, which all processes of a machine share.
    """

    kind: str
    name: str
    pid: int
    at: float


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
    ``stop``, ``go``      A process is about to be stopped (SIGSTOP); it goes on.
    ``down``, ``up``      The store's server is about to be killed; it answers again.
    ``cut``               The network is about to fail for a moment.
    ====================  ====================================================================

    Args:
        path: The file; it need not exist.

    Example:
        >>> journal = Journal(tmp_path / "journal")
        >>> journal.note("start", "t1")
        >>> [entry.name for entry in journal.entries("start")]
        ['t1']
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def note(self, kind: str, name: str = "", pid: int | None = None) -> None:
        """Add a line. It is there, whole, whatever happens to this process next."""
        line = json.dumps([kind, name, pid or os.getpid(), round(time.monotonic(), 6)]) + "\n"
        file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def entries(self, kind: str | None = None, name: str | None = None) -> list[Entry]:
        """Return what was noted so far, in order; of one kind or name if so asked."""
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]  # of the last line, there may be half so far
        entries = [Entry(*json.loads(line)) for line in whole.splitlines()]
        return [one for one in entries if kind in (None, one.kind) and name in (None, one.name)]

    def names(self, kind: str) -> list[str]:
        """Return the tasks' names of all entries of a kind, in order."""
        return [entry.name for entry in self.entries(kind)]
