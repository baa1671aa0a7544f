"""Moving committed tasks from an outbox to their store."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from alligator import keys, retries
from alligator.backends.base import Backend, Records
from alligator.bell import Bell
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    QueueFull,
    TaskTooBig,
)
from alligator.outbox import outbox_at
from alligator.outbox.tables import Outbox, Ref, Row
from alligator.outbox.writing import name_of
from alligator.payloads import list_in
from alligator.processes.complaints import Complaints

if TYPE_CHECKING:
    from alligator.gator import Gator

log = logging.getLogger("alligator.outbox")

AT_ONCE = 100
"""Rows that are moved in one step."""
AT_ONCE_UNSURE = 10
"""Rows that are moved together where they may be moved twice: what one request of SQS takes."""
MOST_BYTES = 4_000_000
"""Of the bodies that are read and moved together, but for one that is bigger alone."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries, doubling, while the database is away, or the store takes nothing of a queue."""
END_WITHIN = 2.0
"""Seconds for the thread to end what it is at, when its worker has left."""


class _Failing(NamedTuple):
    """A queue that nothing could be moved to, the last time."""

    err: AlligatorException
    times: int
    """In a row."""
    again_at: float
    """When to try again, by the monotonic clock."""


class Forwarder:
    """Moves what is committed in an outbox to the store of a Gator. Any number may be at work.

    Args:
        gator: Whose store.
        outbox: From where; it is this one's alone.
    """

    def __init__(self, gator: "Gator", outbox: Outbox) -> None:
        # Not to sign what is not: that is for who queues.
        self._backend = gator.backend if gator.keyring is None else gator.store
        self._records = self._backend.records if self._backend.can_find else None
        self._outbox = outbox
        self._store = name_of(gator)
        self._failing: dict[str, _Failing] = {}

    def forward(self) -> bool:
        """Move the next rows of each queue; return whether there may be more of them.

        A queue that nothing can be moved to is left alone for a moment, a longer one each time, and then comes
        after the others.

        Raises:
            BackendUnavailable, BackendRefused: The store or the database did not answer, or would not; and
                nothing is left to be moved but what that is about. The next call goes on from there.
        """
        with self._outbox.turn(self._store) as is_ours:
            if not is_ours:
                return False  # who has the turn tells what is in trouble
            names = self._outbox.queues(self._store)
        self._failing = {name: one for name, one in self._failing.items() if name in names}
        names.sort(key=self._again_at)  # after the others, and in turns: a try may take seconds
        has_more = False
        for name in names:
            failing = self._failing.get(name)
            if failing and time.monotonic() < failing.again_at:
                continue
            try:
                has_more = self._forward(name) or has_more
                self._failing.pop(name, None)
            except _Overtaken:
                pass  # it goes on from there
            except Exception as err:
                if failing is None and not isinstance(err, BackendUnavailable):
                    log.warning("Tasks of queue %r stay in %s for now: %s", name, self.name, err)
                self._failing[name] = _failing_again(failing, err)
                if isinstance(err, BackendUnavailable):
                    break  # the others might be waited for as long, one after the other
        if self._failing and not has_more:
            raise next(iter(self._failing.values())).err
        return has_more

    def forward_all(self, is_leaving: Callable[[], bool] = lambda: False) -> None:
        """Move all there is, as ``forward`` does, or what can be until it is time to leave."""
        while not is_leaving() and self.forward():
            pass

    def wait(self, bell: Bell) -> None:
        """Wait until there may be something, or the bell rings."""
        self._outbox.wait(bell)

    @property
    def name(self) -> str:
        """What to call the outbox in messages."""
        return f"the outbox {self._outbox.dsn}"

    def warnings(self) -> list[str]:
        """Return what a person should look at, in sentences."""
        summary = self._outbox.summary()
        found = [
            f"The outbox {self._outbox.dsn} has {count} tasks for another store ({store}), which are not "
            "forwarded from here."
            for store, count in summary.waiting.items()
            if store != self._store
        ]
        if summary.aside:
            found.append(
                f"The outbox {self._outbox.dsn} keeps {summary.aside} tasks that were refused by their store."
            )
        return found

    def close(self) -> None:
        """Close the connection to the outbox."""
        self._outbox.close()

    def _again_at(self, queue_name: str) -> float:
        failing = self._failing.get(queue_name)
        return failing.again_at if failing else -math.inf

    def _forward(self, queue_name: str) -> bool:
        with self._outbox.turn(self._store) as is_ours:
            if not is_ours:
                raise _Overtaken
            if self._records is None:
                step: _Step = _UnsureStep(self._backend, queue_name)
            else:
                key = f"{keys.OUTBOXES}:{keys.with_queue(queue_name)}/{self._outbox.identity()}"
                step = _SureStep(self._backend, self._records, queue_name, key)
            # In this order: a row that the record tells of no more, is gone before it is looked for.
            if step.told and self._outbox.remove(step.told):
                return True  # once it is sure that they are removed, the record may tell of others
            rows = self._outbox.rows(self._store, queue_name, step.limit, MOST_BYTES)
            moved, refused = _moved(step, rows)
            self._outbox.remove([row.ref for row in moved])
            for row, err in refused:
                what = (
                    "Task %r of queue %r is kept aside in the outbox, for the store refuses it: %s"
                )
                log.error(what, row.message.task_id, queue_name, err)
                self._outbox.set_aside(row.ref, f"{type(err).__name__}: {err}")
        return bool(moved or refused)


class _Overtaken(Exception):
    """Another forwarder is at it."""


def _failing_again(before: _Failing | None, err: Exception) -> _Failing:
    times = before.times + 1 if before else 1
    pause = retries.backoff(times, base=SHORTEST_PAUSE, cap=LONGEST_PAUSE)
    return _Failing(_ours(err), times, time.monotonic() + pause)


def _ours(err: Exception) -> AlligatorException:
    """Return an error as one of ours: it may be of a driver, or of a user's own store."""
    if isinstance(err, AlligatorException):
        return err
    return BackendRefused(f"{type(err).__name__}: {err}")


class _Step(Protocol):
    """The next rows of a queue on their way to the store."""

    limit: int
    """How many to move together."""
    told: Sequence[Ref]
    """Rows that have been moved before."""

    def push(self, rows: Sequence[Row]) -> None:
        """Queue tasks.

        Raises:
            _Overtaken: Another forwarder is at it; nothing was queued.
        """
        ...


class _UnsureStep:
    """To a store that cannot tell what it had before."""

    limit = AT_ONCE_UNSURE
    told: Sequence[Ref] = ()

    def __init__(self, backend: Backend, queue_name: str) -> None:
        self._backend = backend
        self._queue_name = queue_name

    def push(self, rows: Sequence[Row]) -> None:
        """Queue tasks."""
        self._backend.push_named(self._queue_name, [row.message for row in rows])


class _SureStep:
    """To a store that keeps a record of which rows were moved last, and changes it as it queues others."""

    limit = AT_ONCE

    def __init__(self, backend: Backend, records: Records, queue_name: str, key: str) -> None:
        self._backend = backend
        self._queue_name = queue_name
        self._key = key
        records.swap(key, None, b"[]")
        self._record = records.get(key) or b"[]"
        # What others have put there tells of none: then some are pushed again, under the same ids.
        self.told: Sequence[Ref] = [ref for one in list_in(self._record) if (ref := _ref_in(one))]
        self._moved: list[Ref] = []

    def push(self, rows: Sequence[Row]) -> None:
        """Queue tasks, if the record is as it was."""
        moved = [*self._moved, *(row.ref for row in rows)]
        record = json.dumps(moved, separators=(",", ":")).encode()
        messages = [row.message for row in rows]
        if not self._backend.push_many_if(
            self._queue_name, messages, self._key, self._record, record
        ):
            raise _Overtaken
        self._record, self._moved = record, moved


def _ref_in(told: object) -> Ref | None:
    match told:
        case [int(seq), str(name)] if abs(seq) < 2**63:
            return seq, name
        case _:
            return None


Refused = tuple[Row, AlligatorException]


def _moved(step: _Step, rows: Sequence[Row]) -> tuple[list[Row], list[Refused]]:
    """Queue tasks; return those that are queued, and those that the store refuses for good, and why."""
    if not rows:
        return [], []
    try:
        step.push(rows)
    except (BackendUnavailable, QueueFull, _Overtaken):
        raise
    except Exception:  # of any kind: what a driver, or a user's own store, makes of a broken row
        return _moved_one_by_one(step, rows)
    return list(rows), []


def _moved_one_by_one(step: _Step, rows: Sequence[Row]) -> tuple[list[Row], list[Refused]]:
    moved: list[Row] = []
    try:
        refused = _refused(step, rows, moved)
        if moved:
            # It is the tasks that are at fault, and not the store; unless that was for a moment.
            return moved, _refused(step, [row for row, _ in refused], moved)
    except (BackendUnavailable, QueueFull):
        if not moved:
            raise
        return moved, []
    too_big = [one for one in refused if isinstance(one[1], TaskTooBig)]
    if not too_big:
        raise refused[0][1]
    return [], too_big


def _refused(step: _Step, rows: Sequence[Row], moved: list[Row]) -> list[Refused]:
    """Queue tasks one by one; add those that were to ``moved``, and return the others."""
    refused: list[Refused] = []
    for row in rows:
        try:
            step.push([row])
        except (BackendUnavailable, QueueFull, _Overtaken):
            raise
        except Exception as err:
            refused.append((row, _ours(err)))
        else:
            moved.append(row)
    return refused


class _Thread(threading.Thread):
    """Forwards again and again, until it is told to end."""

    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__(name="alligator-outbox", daemon=True)
        self._forwarder = forwarder
        self._complaints = Complaints(log)
        self._bell = Bell()
        self._is_to_end = False
        self._failures = 0

    def run(self) -> None:
        """Forward what is committed, and wait for more."""
        has_warned = False
        while not self._is_to_end:
            has_warned = has_warned or self._tried(self._warn)
            self._tried(self._forward)
            self._wait()
        self._forwarder.close()

    def end(self) -> None:
        """Let it end, after what it is at."""
        self._is_to_end = True
        self._bell.ring()
        self.join(END_WITHIN)

    def _tried(self, call: Callable[[], None]) -> bool:
        try:
            return self._complaints.try_to(f"forward from {self._forwarder.name}", call)
        except Exception:
            # In a store of the user's own, perhaps. What comes next is to be forwarded all the same.
            log.exception("Cannot forward from %s, trying on", self._forwarder.name)
            return False

    def _warn(self) -> None:
        for sentence in self._forwarder.warnings():
            log.warning("%s", sentence)

    def _forward(self) -> None:
        self._forwarder.forward_all(lambda: self._is_to_end)

    def _wait(self) -> None:
        """Wait for more, whether or not a queue is in trouble; for a moment, where the database is."""
        try:
            self._forwarder.wait(self._bell)
            self._failures = 0
        except Exception:  # that is told when it is to be forwarded from
            self._failures += 1
            self._bell.wait(retries.backoff(self._failures, base=SHORTEST_PAUSE, cap=LONGEST_PAUSE))


@contextmanager
def forwarding(
    gator: "Gator",
    dsns: Sequence[str],
    *,
    first: bool = False,
    is_leaving: Callable[[], bool] = lambda: False,
) -> Generator[None]:
    """Forward from outboxes while the block runs, each in a thread of its own.

    Args:
        gator: To whose store.
        dsns: The databases.
        first: Whether to forward once, all there is, before the block begins.
        is_leaving: Whether that is to end early.

    Raises:
        InvalidOption: There is no outbox in such a database.
    """
    forwarders = [Forwarder(gator, outbox_at(dsn)) for dsn in dsns]
    with ExitStack() as stack:
        for forwarder in forwarders:
            if first:
                Complaints(log).try_to(
                    f"forward from {forwarder.name}", partial(forwarder.forward_all, is_leaving)
                )
            thread = _Thread(forwarder)
            thread.start()
            stack.callback(thread.end)
        yield
