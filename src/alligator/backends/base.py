"""The contract of a store: a leased queue, and beside it a few small records.

A store knows names of queues, ids of tasks and payloads (bytes), never a Task. What to do with a task that
failed is decided above, once for all stores; a store only moves it, each time in one atomic step::

    push ──► delayed ──(its time comes)──► waiting ──reserve──► leased ──Ack──► gone
                ▲                             ▲                  │  │
                └────────── Release ──────────┴──────────────────┘  └──Bury──► dead letter
                                              ▲── lease lapses ──┘

Whoever reserves a task holds it under a *lease*, and a *token* names that hand-out. Settling and extending
carry the token, and do nothing once the lease has gone to another: a worker that was away too long cannot
touch what another now runs. All times are seconds by the store's own clock; a caller's clock is never used.
"""

import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from alligator.backends.abilities import refusal
from alligator.bell import Bell
from alligator.exceptions import InvalidOption, QueueFull, TaskTooBig
from alligator.utils import new_id

MAX_NAME_BYTES = 200
"""The longest name of a queue, in UTF-8: what beanstalkd allows for a tube."""
MAX_ID_BYTES = 255
"""The longest id of a task, in UTF-8."""
MAX_TOKEN_BYTES = 1100
"""The longest token of a hand-out: SQS's own part of one may have 1,024 characters."""
MAX_PRIORITY = 100
"""Priorities go from minus this to this: Redis keeps one in a score, beside the order, in 53 bits."""
NEVER = math.inf
"""The ``due_at`` of a task that stays delayed until someone says otherwise."""

# What breaks lines, and so protocols and logs; and what no UTF-8 can carry.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# Tuples, mostly: a frozen dataclass takes twice as long to make, and ten times as long to define.


class Follow(NamedTuple):
    """A task to queue when another one is over, in the same atomic step: one of two bodies."""

    task_id: str
    on_success: bytes
    """Queued when the other is acknowledged as succeeded."""
    on_failure: bytes
    """Queued when it is buried, canceled, dropped, or acknowledged as not succeeded."""


class Message(NamedTuple):
    """A task to push. It waits until ``delay`` seconds have passed and the moment ``due_at`` has come."""

    task_id: str
    body: bytes
    delay: float = 0.0
    due_at: float = 0.0
    """Seconds since 1970 by the store's clock, so that no skew of another clock matters; or NEVER."""
    priority: int = 0
    """Those of a higher one are handed out first; within one, first in first out."""
    replaces: bool = False
    """Whether it takes the place of a task of its id: of one that waits or is delayed, at once (as if that had
    never been pushed, but for its follow); of one that is held, when that hand-out ends, however it ends. Of
    several replacements of a held task the last one counts; ``cancel`` and ``drop_all`` forget it."""
    follow: Follow | None = None


class Reservation(NamedTuple):
    """A task handed out: the worker holds it until it settles it, or the lease lapses."""

    queue_name: str
    task_id: str
    body: bytes
    token: str
    deliveries: int = 1
    """Hand-outs since the task last had an outcome, this one included."""


class Ack(NamedTuple):
    """The task is over: remove it for good. Not ``succeeded``: it was canceled."""

    reservation: Reservation
    succeeded: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """Give the task back.

    With a ``body`` this is a new attempt: it joins the end of the queue, its deliveries counted anew. Without,
    the hand-out came to nothing: the task returns to its old place, when the ``delay`` is over or it is
    rescheduled, and the delivery counts only if ``lapsed``.
    """

    reservation: Reservation
    delay: float = 0.0
    body: bytes | None = None
    lapsed: bool = False


class Bury(NamedTuple):
    """Make the task a dead letter, with a ``note`` of what happened, for a person to look at."""

    reservation: Reservation
    note: str


Settlement = Ack | Release | Bury


@dataclass(frozen=True, slots=True)
class Batch:
    """What a call of reserve brought: what was handed out, and which settlements came too late."""

    reservations: list[Reservation] = field(default_factory=list[Reservation])
    late: list[Settlement] = field(default_factory=list[Settlement])


class DeadLetter(NamedTuple):
    """A buried task. Several may share a task id: each burial has a ``letter_id`` of its own."""

    queue_name: str
    letter_id: str
    task_id: str
    body: bytes
    note: str
    buried_at: float
    priority: int = 0


class Listed(NamedTuple):
    """A task as a walk met it."""

    task_id: str
    body: bytes
    due_at: float = 0.0
    """When it is delayed: until when, as in ``Found``. Else 0."""
    priority: int = 0
    token: str = ""
    """When it is held: by which hand-out. Else empty."""
    follow: Follow | None = None


class Found(NamedTuple):
    """A task that is waiting, delayed or held."""

    body: bytes
    due_at: float = 0.0
    """When it is delayed: until when. NEVER: until someone says otherwise. Else 0."""
    token: str = ""
    """When it is held: by which hand-out, as ``token_of`` names it. Else empty."""
    lapses_at: float = 0.0
    """When it is held: until when, unless the lease is extended; it may be past. Else 0."""
    position: int | None = None
    """When it waits: how many are handed out before it, if the store can tell."""
    deliveries: int = 0
    """Hand-outs since the task last had an outcome, the present one included."""
    priority: int = 0


State = Literal["waiting", "delayed", "running"]
"""What a task that is queued can be."""


class Counts(NamedTuple):
    """How many tasks of a queue are in which state."""

    waiting: int = 0
    delayed: int = 0
    running: int = 0
    dead: int = 0


class Records(Protocol):
    """Small values by key, such as "workers/<uuid>": what is written above the stores is kept here.

    The part of a key before its first "/" names a family; ``list`` costs by the size of one family. What stands
    after a ":" in the family's name is the queue that the family goes with, if any, as ``keys.with_queue``
    writes it: Redis then keeps the two in one slot of a cluster.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value of a key; None when there is none or it has expired."""
        ...

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one, in one round trip; not all of one moment."""
        ...

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value, to be forgotten after ``ttl`` seconds (None: never)."""
        ...

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values, in one round trip and in this order; not in one step.

        Args:
            values: The values, by key.
            ttl: Seconds after which to forget them: all, or each (a key that is left out: never).
        """
        ...
        ...

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write ``new`` if the value still is ``old`` (None: absent), in one step; return whether it was."""
        ...

    def delete(self, *keys: str) -> None:
        """Forget keys, in one round trip; they need not exist."""
        ...

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return the keys and values of a family, sorted by key; the first ``limit`` of them, or all."""
        ...

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Block until a key has a value.

        Returns at once if one has; else when one may have been written, after ``timeout`` seconds, or when the
        ``bell`` rings. So it may return early: the caller looks, and waits again.
        """
        ...


class Backend(ABC):
    """A leased queue. Every method may be called from any thread, and after a fork.

    Raises, from every method:
        BackendUnavailable: The store did not answer. What it was asked may have happened; if tasks were
            handed out, their lease brings them back.
        BackendRefused: The store answered that it will not.
    """

    records: Records | None = None
    """None: this store keeps no records."""

    # What it can do. What needs more than a store can is refused above, with those that can (abilities.py).

    can_lease = True
    """False: reserving takes a task out. A worker that dies has lost it (at most once), nothing counts
    deliveries, and there are no dead letters."""
    can_delay = True
    """False: ``delay`` and ``due_at`` are refused at push, and no release waits."""
    can_prioritize = True
    """False: ``priority`` is refused at push."""
    can_find = True
    """False: nothing can be asked or changed of a single task: there is no ``replaces``, ``follow``, ``find``,
    ``watch``, ``reschedule``, ``push_if`` and ``push_many_if``."""
    can_walk = True
    """False: what is queued cannot be gone through: there is no ``walk``, ``take_out`` and ``put_dead``."""
    can_pick = True
    """False: no task can be taken out by its id: there is no ``reserve_task``, ``cancel`` and ``get``."""
    can_recover = True
    """False: the store cannot tell what a worker holds, and ``recover`` does nothing. What is known of it is to
    be released one by one; the rest comes back with its lease."""
    can_join = False
    """True: ``within`` lets a call be a part of a transaction of the caller's. The one that few can."""

    # How it does it: what every store is asked for, and some only come near to.

    keeps_ids = True
    """False: a task's id is one that the store gives it. The id that it was pushed under is not kept, nor
    compared with others: each push is a new task."""
    keeps_order = True
    """False: tasks come in about the order in which they were pushed, or came back."""
    orders_by_due = True
    """False: what was delayed, or comes back from the dead letters, returns to where it was pushed, and does
    not join the end when it becomes due."""
    knows_fractions = True
    """False: delays are whole seconds."""
    limits_exactly = True
    """False: those who push at the same moment may each find room, and so exceed ``max_length``."""
    shares_leases = True
    """False: only the client that reserved a task can extend and settle it, and the store takes it back at once
    when that client's process dies."""
    tells_late = True
    """False: what is settled or extended too late has no effect, as everywhere, but need not be told."""
    drop_spares_held = True
    """False: what is held when its queue is dropped runs on, but does not come back with its lease."""
    makes_queues = True
    """False: a queue has to be made before its first use (``alligator migrate --create-queues``)."""
    carries_any_name = True
    """False: it refuses the names of some queues, such as long ones beyond ASCII."""
    spans_processes = True
    """False: the tasks live and die with this process, and no other can see them."""
    max_bytes: int | None = None
    """The most bytes of a task, where a store has such a limit; what its server says, goes."""

    @abstractmethod
    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        """Queue tasks, all or (where a store has no such step) the first of them, in order.

        Args:
            queue_name: Where to.
            messages: The tasks.
            max_length: How many tasks may wait or be delayed in the queue, these included.

        Returns:
            For each message whether it was queued. False: that id is waiting, delayed or held already, and
            stays as it is, so that a push may be repeated. A dead letter of that id is no obstacle.

        Raises:
            QueueFull: There is no room, or there would be more than ``max_length``; nothing was queued. (Of
                more than a thousand messages the first thousands may have been.)
        """

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        """Queue tasks as ``push_many`` does; return the ids that they have in the store, new or not."""
        self.push_many(queue_name, messages, max_length=max_length)
        return [message.task_id for message in messages]

    def push_if(self, queue_name: str, message: Message, key: str, old: bytes, new: bytes) -> bool:
        """Queue a task and swap a record, in one step; where the record is not ``old``, do neither.

        The record's family goes with this queue ("schedules:<queue>"). Returns whether it was done.
        """
        return self.push_many_if(queue_name, [message], key, old, new)

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        """Queue up to a thousand tasks, in order, and swap a record, all in one step; see ``push_if``."""
        raise self._cannot("push_if()", "can_find", "records")

    def find(self, queue_name: str, task_id: str) -> Found | None:
        """Return a task as it is now; None when it is neither waiting, delayed nor held."""
        raise self._cannot("find()", "can_find")

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        """Let delayed tasks be due at another moment (0: now), by the store's clock.

        Returns for each whether it was delayed; those that were not are left as they are. One that is due now
        joins the end of its priority, or returns to its place if it was released without a new body.
        """
        raise self._cannot("reschedule()", "can_find")

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        """Let a task be followed by another, if it is waiting, delayed or held; a follow it has, it keeps.

        The follow is queued in the same queue with a priority above all others, in the same step in which the
        task is over: acknowledged, buried, canceled or dropped. A release, a lapse or a replacement leaves it
        as it is.

        Returns:
            False when there is no such task.
        """
        raise self._cannot("watch()", "can_find")

    def now(self) -> float:
        """Return the store's time, in seconds since 1970; right to some milliseconds, and cheap."""
        return time.time()

    def warnings(self) -> list[str]:
        """Return what is wrong with how the store is set up, in sentences: what may lose tasks, as a rule.

        Workers log it when they start.
        """
        return []

    def risks(self, queue_name: str) -> list[str]:
        """Return what the set-up may lose beside that, in sentences: what people choose, as a rule, for speed.

        ``alligator verify`` tells it.
        """
        return []

    @abstractmethod
    def reserve(
        self,
        queue_names: Sequence[str],
        worker: str,
        *,
        limit: int = 1,
        lease: float = 30.0,
        wait: float = 0.0,
        nap: float = 0.1,
        settlements: Sequence[Settlement] = (),
    ) -> Batch:
        """Settle what is finished; then hand out up to ``limit`` tasks, first in first out, and hide them.

        First makes ready what is due, and takes back what lapsed, of the queues it looks at; so recovery
        needs no process of its own.

        Args:
            queue_names: Where to look, in strict order: the second when the first has nothing ready.
            worker: Who takes them: a UUID new at each start. Dead workers are recovered by it.
            limit: The most tasks to hand out.
            lease: Seconds until an unsettled task may be handed out again.
            wait: Seconds to block while nothing is ready.
            nap: The longest time between two looks, where the store cannot wake who waits.
            settlements: As for ``settle``, in the same round trip. They are carried out at once and
                first, whether or not there is anything to reserve.

        Example:
            >>> from alligator.backends.locmem_backend import Client
            >>> client = Client("locmem://")
            >>> client.push("all", "t1", "{}")
            't1'
            >>> [held] = client.reserve(["all"], "worker-1").reservations
            >>> held.task_id, held.body
            ('t1', b'{}')
            >>> client.settle([Ack(held)])
            []
        """

    @abstractmethod
    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        """Hand out one task by its id, waiting or delayed; None when no such task is free."""

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Carry out settlements, each in one atomic step. Returns those that came too late.

        A settlement is late, and changes nothing, when its token holds the task no more.
        """

    @abstractmethod
    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """Let leases end ``lease`` seconds from now. Returns the reservations that are held no more.

        Only hand-outs that are named here: one whose reserve reply never arrived must lapse. Where a batch has
        one lease, to name one of its tasks extends it for all.
        """

    def shortest_lease(self) -> float:
        """Return the shortest lease of what this client holds, where who pushes says it; else infinity.

        Leases must be extended that often, whatever the one that was asked for.
        """
        return math.inf

    @abstractmethod
    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        """Give back, at once, all that a dead worker holds. Returns how many tasks that was.

        Only those with an id in ``started`` count a delivery, in whichever of these queues: the others are not
        what killed it.
        """

    @abstractmethod
    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out a waiting or delayed task and return its body; None when no such task is free."""

    @abstractmethod
    def drop_all(self, queue_name: str) -> None:
        """Take out every waiting and delayed task. What runs, runs on; dead letters stay.

        What follows a task that is dropped is queued, and stays.
        """

    @abstractmethod
    def count(self, queue_name: str) -> Counts:
        """Count a queue's tasks by state."""

    def forget(self, queue_name: str) -> None:  # noqa: B027 -- most stores have nothing to forget
        """Remove what is left of an empty queue that will not be used again; one that is not empty stays.

        What others push there meanwhile stays, too, but ``queues`` may not name it.
        """

    @abstractmethod
    def queues(self) -> list[str]:
        """Return the names of the queues that hold tasks or dead letters, sorted; others may be among them."""

    @abstractmethod
    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        """Return dead letters, the newest first; with a ``task_id`` those of that task."""

    @abstractmethod
    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        """Move dead letters to the end of their queue, as they were buried; return the ids moved.

        One whose task id is queued again meanwhile stays a dead letter. They are due at the moment ``due_at``.
        """

    @abstractmethod
    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """Remove dead letters for good; return the ids removed."""

    def joins(self, connection: object) -> bool:
        """Return whether a connection of the caller's is to the database that the tasks are in."""
        return False

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        """Return some tasks of a queue that are in a state, and the cursor to go on with.

        A task that is in that state all the while comes at least once, whatever else is done meanwhile. Those
        that wait come in the order in which they would be handed out, those that are delayed by when they are
        due. A page costs by its own size, not by the queue's.

        Args:
            queue_name: The queue.
            state: Which tasks.
            cursor: What the call before has returned; empty: begin.
            limit: How many; of what is held, all of a hand-out come together.

        Returns:
            The tasks, and the cursor; that is empty when this was the last page.
        """
        raise self._cannot("walk()", "can_walk")

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        """Take tasks out for good, and write in the same step that it was done. What follows them stays away.

        Only those that nobody holds and that are just as they were listed; and none, unless the record ``key``
        is ``value``. So who writes another value there stops all who would go on with the old one.

        Args:
            queue_name: The queue. The families of ``key`` and ``notes`` go with it.
            tasks: What was listed.
            key: The record to look at.
            value: What it must be.
            notes: For each task the key of the record that is then written, with the same value.

        Returns:
            For each whether it was taken out.
        """
        raise self._cannot("take_out()", "can_walk")

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Put dead letters of another store as they are, but for their ids, the last one as the newest.

        Returns:
            For each whether it was put. False: one with that task, body, note and moment is there already.
        """
        raise self._cannot("put_dead()", "can_walk")

    def within(self, connection: object) -> "Backend":
        """Return a client all of whose calls are made over a connection of the caller's, in its transaction.

        What it changes happens when that is committed, and never if it is rolled back. It is for the thread
        that uses the connection, for as long as the transaction lasts, and neither waits nor is closed.

        Args:
            connection: What the caller's database client calls a connection or a session; with a transaction
                begun, or one that begins by itself.

        Raises:
            InvalidOption: That is not one, is of another store, or commits each statement at once.
        """
        raise self._cannot("within()", "can_join")

    def complete(self, reservation: Reservation) -> None:
        """Acknowledge a task, in a client that ``within`` has returned.

        Raises:
            LeaseLost: It is not held any more; and the transaction can be committed no more.
        """
        raise self._cannot("complete()", "can_join")

    def migration(self) -> str:
        """Return what ``migrate`` would carry out, in the store's own language; empty: nothing."""
        return ""

    def migrate(self) -> bool:
        """Make what the tasks are kept in, or bring it up to date; return whether there was anything to do.

        A store that needs this does it by itself at its first use. This is for those who would rather do it
        with other rights, or at another time.
        """
        return False

    @abstractmethod
    def interrupt(self) -> None:
        """Make a ``reserve`` that waits now, or else the next one that would, return without waiting.

        May be called from a signal handler and from another thread.
        """

    @abstractmethod
    def close(self) -> None:
        """Close connections and files; the next call opens them again."""

    def _check_plain(self, messages: Sequence[Message]) -> None:
        """Refuse what a store without ``can_find`` would ignore.

        What else it cannot do is refused above: there, a retry of a task that asks for it must go through.
        """
        if any(message.replaces or message.follow is not None for message in messages):
            raise self._cannot("replaces and follow", "can_find")

    def _cannot(self, what: str, *needs: str) -> InvalidOption:
        return InvalidOption(refusal(type(self).__module__, what, *needs))

    # The five documented methods, on top of those above.

    def len(self, queue_name: str) -> int:
        """Return how many tasks of a queue have not been handed out: waiting and delayed."""
        counts = self.count(queue_name)
        return counts.waiting + counts.delayed

    def push(self, queue_name: str, task_id: str, data: bytes | str) -> str:
        """Queue one task; return its id."""
        check_name("queue name", queue_name, MAX_NAME_BYTES)
        check_name("task_id", task_id, MAX_ID_BYTES)
        [given] = self.push_named(queue_name, [Message(task_id, as_bytes(data))])
        return given

    def pop(self, queue_name: str) -> bytes | None:
        """Take the first task out for good and return its body; None when none is ready."""
        for reservation in self.reserve([queue_name], new_id()).reservations:
            self.settle([Ack(reservation)])
            return reservation.body
        return None

    def get(self, queue_name: str, task_id: str) -> bytes | None:
        """Take one task out for good, by its id, and return its body; None when no such task is free."""
        reservation = self.reserve_task(queue_name, task_id, new_id())
        if reservation is None:
            return None
        self.settle([Ack(reservation)])
        return reservation.body


def ttl_of(key: str, ttl: float | Mapping[str, float] | None) -> float | None:
    """Return the ttl of one of the keys that ``Records.set_many`` is given."""
    return ttl.get(key) if isinstance(ttl, Mapping) else ttl


def token_of(worker: str, number: int, now: float) -> str:
    """Return the token of a worker's hand-out number so-and-so, made at this moment of the store's clock.

    Example:
        >>> token_of("w1", 7, 1700000000.25)
        'w1.7.1700000000250'
    """
    return f"{worker}.{number}.{round(now * 1000)}"


def worker_of(token: str) -> str:
    """Return who holds a hand-out."""
    return token.rsplit(".", 2)[0]


def reserved_at(token: str) -> float:
    """Return when a hand-out was made, by the store's clock.

    Raises:
        ValueError: That is no token of ours.
    """
    try:
        return int(token.rsplit(".", 2)[-1]) / 1000
    except OverflowError:
        raise ValueError(f"{token!r:.100} is no token") from None


def as_bytes(data: bytes | str) -> bytes:
    """Return a serialized task as stores carry it."""
    return data.encode() if isinstance(data, str) else data


def no_room(queue_name: str, coming: int, max_length: int | None) -> QueueFull:
    """Return the error for a push beyond the queue's ``max_length``."""
    return QueueFull(
        f"Queue {queue_name!r} has no room for {coming} more: its max_length is {max_length}. Push again when "
        "workers have caught up, or raise it."
    )


def too_big(store: object, task_id: str, size: int, limit: str) -> TaskTooBig:
    """Return the error for a task of more bytes than a store takes."""
    return TaskTooBig(
        f"Task {task_id!r} takes {size} bytes, and {store} takes {limit}. Nothing was queued: let it carry "
        "less, such as the name of a file, or a key."
    )


def check_name(what: str, name: object, max_bytes: int) -> str:
    """Return a name of a queue or a task that every store can carry.

    Raises:
        InvalidOption: It is no text, empty, too long, or has control characters or lone surrogates.
    """
    if not isinstance(name, str):
        raise InvalidOption(f"{what} is a string, not {name!r}; str() makes one.")
    if not 0 < len(name) * 4 <= max_bytes:  # else it fits, whatever its characters
        _check_size(what, name, max_bytes)
    if not (name.isascii() and name.isprintable()) and _UNFIT.search(name):
        raise InvalidOption(
            f"{what} {name!r} has control characters or lone surrogates; leave them out."
        )
    return name


def is_name(name: str, max_bytes: int) -> bool:
    """Whether a queue or a task can have this name, which anybody may have written into the store.

    Example:
        >>> is_name("mail", MAX_NAME_BYTES), is_name("", MAX_NAME_BYTES)
        (True, False)
    """
    try:
        check_name("It", name, max_bytes)
    except InvalidOption:
        return False
    return True


def _check_size(what: str, name: str, max_bytes: int) -> None:
    size = len(name.encode(errors="surrogatepass"))
    if not 0 < size <= max_bytes:
        raise InvalidOption(
            f"{what} {name[:40]!r} takes {size} bytes; from 1 to {max_bytes} are possible."
        )
