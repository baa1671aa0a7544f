"""What an outbox does, in whichever database it is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from alligator.backends.base import Message
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption

Ref = tuple[int, str]
"""What names a row, for ever: its number, and an id, for a restored database counts anew."""


class Row(NamedTuple):
    """A committed task."""

    ref: Ref
    message: Message
    """Its delay is what is left of it: it counts from when the task was written."""


class Summary(NamedTuple):
    """What is in an outbox."""

    waiting: dict[str, int]
    """Tasks to be forwarded, by the store that they are for: its kind, or the name that it was given."""
    oldest: float = 0.0
    """Seconds since the first of these was written."""
    aside: int = 0
    """Tasks that their store has refused."""


class Writer(Protocol):
    """Writes to an outbox, in a transaction of the caller's."""

    def write(self, store: str, queue_name: str, messages: Sequence[Message]) -> None:
        """Put tasks into the outbox, in this order."""
        ...


class Outbox(ABC):
    """A forwarder's side of an outbox, for one thread. The table is made at the first use.

    Raises, from every method:
        BackendUnavailable: The database did not answer.
        BackendRefused: It answered that it will not.
    """

    dsn: DSN

    @abstractmethod
    def turn(self, store: str) -> AbstractContextManager[bool]:
        """Return a context manager in which no other forwarder to that store has its turn; False if one has.

        Those from ``identity`` to ``set_aside`` are called in it. What they have changed is sure when it has
        ended.
        """

    @abstractmethod
    def identity(self) -> str:
        """Return what tells this outbox from all others."""

    @abstractmethod
    def queues(self, store: str) -> list[str]:
        """Return the names of the queues that rows are there for."""

    @abstractmethod
    def rows(self, store: str, queue_name: str, limit: int, max_bytes: int) -> list[Row]:
        """Return the first rows of a queue, in the order in which they were written.

        The first one, and as many others as have bodies of so many bytes together; more are not read.
        """

    @abstractmethod
    def remove(self, refs: Sequence[Ref]) -> int:
        """Remove rows; return how many of them were there."""

    @abstractmethod
    def set_aside(self, ref: Ref, reason: str) -> None:
        """Keep a row, but among those to be forwarded no more."""

    @abstractmethod
    def wait(self, bell: Bell) -> None:
        """Wait until something may have been committed, for a second at the most, or until the bell rings."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return what is in it."""

    @abstractmethod
    def migration(self) -> str:
        """Return the SQL that makes the table; empty: it is there."""

    @abstractmethod
    def migrate(self) -> bool:
        """Make the table; return whether there was anything to do."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next call opens one again."""


def no_outbox(where: str) -> InvalidOption:
    """Return the error that says how a table is made that is missing."""
    return InvalidOption(
        f"There is no outbox in {where}, and the queue is not there either. Make the table once: by `alligator "
        "migrate TARGET --outbox DSN` (with --sql it only prints how), or by starting a worker with "
        "`latergator TARGET --outbox DSN`."
    )


COMMITS_AT_ONCE = "The connection commits each statement at once: begin a transaction first."
