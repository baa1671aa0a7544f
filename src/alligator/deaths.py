"""How the process ended that ran a task: kept until the task has ended, for its dead letter and who looks.

A parent writes it when it gives back what a dead process held; so only where something has died, and where
there is a parent: a ``Worker`` alone dies unobserved. Whoever ends the task removes it.
"""

import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alligator import keys
from alligator.backends.base import MAX_TOKEN_BYTES, Backend, Records, Reservation
from alligator.exceptions import BackendRefused
from alligator.payloads import encode, mark_of, number, object_in
from alligator.printable import printable

log = logging.getLogger("alligator.task")

KEPT_FOR = 7 * 86400.0
"""Seconds that this is kept, should nothing ever come of the task."""
FEW = 20
"""Tasks of a process, at the most, for which it is kept how that ended. Each takes a round trip before anything
goes back; and of more, nobody could say which it was that it died of."""
MAX_STACK = 16_384
"""Characters of a stack to keep: its end, where the process was."""
MAX_NAME = 255
"""Characters of a name to keep, such as a host's."""

_REASONS = {
    "timeout": "its parent ended it, for the task ran for longer than it may",
    "canceled": "its parent ended it, for the task was canceled and did not end",
}


class Death(NamedTuple):
    """How a process ended with a task in it, which may be what it died of."""

    signal: str = ""
    """The signal that has killed it, such as "SIGSEGV"; empty: none has."""
    exit_status: int | None = None
    """What it ended with by itself."""
    reason: str = ""
    """Why it was the parent that killed it: "timeout" or "canceled"; empty: it was not."""
    at: float = 0.0
    """When, by the store's clock."""
    seconds: float = 0.0
    """For how long the task had run."""
    peak_memory: int | None = None
    """Bytes of memory that the process had in use at the most, as the system tells (``ru_maxrss``)."""
    host: str = ""
    pid: int = 0
    stack: str = ""
    """Where the task was, the most recent call last, if it hung or the process crashed: without arguments."""
    token: str = ""
    """The hand-out of the task that this was the end of."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Death | None":
        """Read what a record or a note tells; None if that is nothing."""
        if not told.get("signal") and number(told.get("exit_status")) is None:
            return None
        status, peak = number(told.get("exit_status")), number(told.get("peak_memory"))
        return cls(
            signal=printable(str(told.get("signal") or "")[:MAX_NAME]),
            exit_status=None if status is None else int(status),
            reason=str(told.get("reason", ""))[:MAX_NAME],
            at=number(told.get("at")) or 0.0,
            seconds=number(told.get("seconds")) or 0.0,
            peak_memory=None if peak is None else int(peak),
            host=printable(str(told.get("host", ""))[:MAX_NAME]),
            pid=int(number(told.get("pid")) or 0),
            stack=str(told.get("stack", ""))[-MAX_STACK:],
            token=str(told.get("token", ""))[:MAX_TOKEN_BYTES],
        )

    def is_in(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether it ended one of these attempts."""
        return any(entry.get("token") == self.token for entry in history)

    def cause(self) -> str:
        """Return what ended it: a signal, or the status that it ended with.

        Example:
            >>> Death(exit_status=3).cause()
            'exit status 3'
        """
        if not self.signal:
            return f"exit status {self.exit_status}"
        if self.signal == "SIGKILL" and not self.reason:
            return "SIGKILL, perhaps for lack of memory"
        return self.signal

    def peak(self) -> str:
        """Return how much memory it had, to follow something else; empty if that is not known."""
        return "" if self.peak_memory is None else f" (peak {self.peak_memory / 2**20:,.0f} MiB)"

    def how(self) -> str:
        """Return what became of it.

        Example:
            >>> Death(signal="SIGKILL", peak_memory=2**29).how()
            'was killed by SIGKILL, perhaps for lack of memory (peak 512 MiB)'
        """
        how = "was killed by" if self.signal else "ended with"
        why = f": {_REASONS[self.reason]}" if self.reason in _REASONS else ""
        return f"{how} {self.cause()}{self.peak()}{why}"


def of_status(status: int) -> Death:
    """Return the death of a process with that exit status, or minus the signal that killed it.

    Example:
        >>> of_status(-11).signal, of_status(3).exit_status
        ('SIGSEGV', 3)
    """
    if status >= 0:
        return Death(exit_status=status)
    try:
        return Death(signal=signal.Signals(-status).name)
    except ValueError:  # most of the real-time signals have no name
        return Death(signal=f"signal {-status}")


def keep(backend: Backend, kept_in: Records | None, deaths: Mapping[Reservation, Death]) -> None:
    """Keep how the process ended that held some tasks, if they are few.

    Args:
        backend: The store of the tasks.
        kept_in: Where results are kept, for a store without records.
        deaths: By the hand-outs that the process had.
    """
    records = _place(backend, kept_in)
    if records is None or len(deaths) > FEW:
        return
    values: dict[str, bytes] = {}
    for held, death in deaths.items():
        told: dict[str, Any] = death._asdict()
        if backend.can_find:
            task = backend.find(held.queue_name, held.task_id)
            if task is None or task.token != held.token:
                continue  # over, or another's: told late, it would be there for a later one of that id
            told["body"] = mark_of(task.body)
        values[key_of(held.queue_name, held.task_id)] = encode(told).encode()
    if values:
        records.set_many(values, KEPT_FOR)


def found(
    backend: Backend,
    kept_in: Records | None,
    held: Reservation,
    history: Sequence[Mapping[str, Any]] = (),
) -> Death | None:
    """Return how the process ended that had a task last; None: none has, or nobody saw it.

    Args:
        backend: The store of the task.
        kept_in: Where results are kept.
        held: The present hand-out of the task.
        history: What went before, with the token of each attempt.
    """
    if (records := _place(backend, kept_in)) is None:
        return None
    try:
        value = records.get(key_of(held.queue_name, held.task_id))
    except BackendRefused as err:  # to know more is not worth that a task is not ended
        log.warning("Cannot read how the process of task %r ended: %s", held.task_id, err)
        return None
    return found_in(value, held, history)


def found_in(
    value: bytes | None, held: Reservation, history: Sequence[Mapping[str, Any]] = ()
) -> Death | None:
    """Return what a record tells of the process that had a task last; as ``found``."""
    told = object_in(value or b"")
    death = Death.read(told)
    if death is None or death.is_in(history):
        return death
    # Else it was in this attempt; unless what is kept is that of a former task of the same id.
    mark = mark_of(held.body)
    return death if held.deliveries > 1 and told.get("body", mark) == mark else None


def forget(backend: Backend, kept_in: Records | None, queue_name: str, task_id: str) -> None:
    """Forget how a process ended: its task is over."""
    if (records := _place(backend, kept_in)) is None:
        return
    try:
        records.delete(key_of(queue_name, task_id))
    except BackendRefused as err:  # it expires
        log.debug("Cannot forget how the process of task %r ended: %s", task_id, err)


def key_of(queue_name: str, task_id: str) -> str:
    """Return the key under which it is kept how the process of a task ended."""
    return f"{keys.DEATHS}/{keys.ref(queue_name, task_id)}"


def _place(backend: Backend, kept_in: Records | None) -> Records | None:
    return backend.records if backend.records is not None else kept_in
