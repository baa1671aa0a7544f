"""A file that tasks write to as they run: what really happened, whatever the store and the workers say."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``at`` is of the monotonic clock, which all processes of a machine share."""

    kind: str
    name: str
    pid: int
    at: float


class Journal:
    """A journal in a file; any number of processes may write to it.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def note(self, kind: str, name: str, pid: int | None = None) -> None:
        """Add a line. It is there, whole, whatever happens to this process next."""
        line = f"{kind} {name} {pid or os.getpid()} {time.monotonic():.6f}\n"
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
        lines = text[: text.rfind("\n") + 1].splitlines()  # of the last, there may be half so far
        fields = [line.split() for line in lines]
        entries = [Entry(kind, name, int(pid), float(at)) for kind, name, pid, at in fields]
        return [one for one in entries if kind in (None, one.kind) and name in (None, one.name)]

    def names(self, kind: str) -> list[str]:
        """Return the tasks' names of all entries of a kind, in order."""
        return [entry.name for entry in self.entries(kind)]
