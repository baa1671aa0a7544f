"""Tasks in PostgreSQL: one function of the server for each change of state, one round trip for each call.

What a push has queued is as safe as anything that is committed there (``synchronous_commit``). Costs, with n
tasks waiting or delayed: push, reserve, settle and cancel O(log n) a task; counting, a position, and a push
with a ``max_length``, O(n).
"""

import copy
import itertools
import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from alligator import payloads
from alligator.backends.base import (
    MAX_PRIORITY,
    Ack,
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Follow,
    Found,
    Listed,
    Message,
    Release,
    Reservation,
    Settlement,
    State,
    no_room,
    too_big,
)
from alligator.backends.driver_connections import driver_connection
from alligator.backends.postgres.connection import Calls, Server
from alligator.backends.postgres.joined import JoinedCalls
from alligator.backends.postgres.listener import TASKS, Listener
from alligator.backends.postgres.records import Records
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable, InvalidOption

log = logging.getLogger("alligator.postgres")

ASK_TIME_EVERY = 60.0
"""Seconds after which the server is asked for its time again; between, its clock is as fast as ours."""
LOOK_EVERYWHERE_EVERY = 1.0
"""Seconds for which a look for what waits may begin where the last one ended, if that saves much."""
MOST = 10_000
"""Tasks to hand out at once."""
MOST_BYTES = 64_000_000
"""Of bodies that are pushed in one step: PostgreSQL takes no value of more than a gigabyte, nor an array."""
LARGEST = 256_000_000
"""Bytes of a body: on its way, it may take some times as many; and what is too long for the protocol ends the
connection, as a server that is away would."""

# One statement, so that all of it tells of the same moment. The position is that of a task that waits.
_FIND = """
SELECT body, coalesce(due_at, 0), coalesce(task.token, ''), coalesce(lapses_at, 0),
    CASE WHEN task.token IS NULL AND due_at IS NULL THEN
        (SELECT count(*) FROM {s}.tasks AS other WHERE other.queue = task.queue
            AND other.token IS NULL AND other.due_at IS NULL
            AND (-other.priority, other.seq) < (-task.priority, task.seq))
    END,
    lapses + (task.token IS NOT NULL)::integer, priority
FROM {s}.tasks AS task LEFT JOIN {s}.leases ON leases.token = task.token
WHERE queue = %s::text AND task_id = %s::text
"""

_COUNT = """
SELECT
    (SELECT count(*) FROM {s}.tasks WHERE queue = given AND token IS NULL AND due_at IS NULL),
    (SELECT count(*) FROM {s}.tasks WHERE queue = given AND due_at IS NOT NULL),
    (SELECT count(*) FROM {s}.tasks WHERE queue = given AND token IS NOT NULL),
    (SELECT count(*) FROM {s}.dead WHERE queue = given)
FROM (SELECT %s::text) AS asked (given)
"""

# Steps from name to name along the index, instead of reading every row.
_QUEUES = """
WITH RECURSIVE names (name) AS (
    (SELECT queue FROM {s}.tasks ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM {s}.tasks WHERE queue > name ORDER BY queue LIMIT 1)
    FROM names WHERE name IS NOT NULL
), dead_names (name) AS (
    (SELECT queue FROM {s}.dead ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM {s}.dead WHERE queue > name ORDER BY queue LIMIT 1)
    FROM dead_names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
UNION SELECT name FROM dead_names WHERE name IS NOT NULL
"""

_SETTINGS = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')
"""

_DEAD = """
SELECT queue, letter_id::text, task_id, body, note, buried_at, priority FROM {s}.dead
WHERE queue = %s::text AND {which} ORDER BY dead.letter_id DESC LIMIT %s OFFSET %s
"""


# Each begins behind the last row of the page before, along an index. Those that wait are in two parts, for one
# condition for both would read that index from its beginning.
_COLUMNS = """
task_id, body, coalesce(due_at, 0), priority, coalesce(token, ''), follow_id, on_success, on_failure
"""
_WAITING = """
(SELECT {columns}, priority, seq FROM {s}.tasks
WHERE queue = %s::text AND token IS NULL AND due_at IS NULL
    AND priority = %s::smallint AND seq > %s::bigint
ORDER BY seq LIMIT %s)
UNION ALL
(SELECT {columns}, priority, seq FROM {s}.tasks
WHERE queue = %s::text AND token IS NULL AND due_at IS NULL AND priority < %s::smallint
ORDER BY priority DESC, seq LIMIT %s)
LIMIT %s
""".replace("{columns}", _COLUMNS)
_DELAYED = """
SELECT {columns}, due_at, seq FROM {s}.tasks
WHERE queue = %s::text AND due_at IS NOT NULL
    AND (due_at, seq) > (%s::float8, %s::bigint)
ORDER BY due_at, seq LIMIT %s
""".replace("{columns}", _COLUMNS)
_RUNNING = """
SELECT {columns}, token, seq FROM {s}.tasks
WHERE token IS NOT NULL AND queue = %s::text
    AND (token, seq) > (%s::text, %s::bigint)
ORDER BY token, seq LIMIT %s
""".replace("{columns}", _COLUMNS)
_PAGES: dict[State, tuple[str, tuple[Any, int]]] = {
    "waiting": (_WAITING, (MAX_PRIORITY + 2, 0)),
    "delayed": (_DELAYED, (0.0, 0)),
    "running": (_RUNNING, ("", 0)),
}
"""For each state the query, and where it begins."""


class Client(Backend):
    """A store in PostgreSQL.

    Args:
        conn_string: ``postgres://[user[:password]@][host][:port][/database]``, with libpq's options, with
            ``schema=`` (default ``alligator``), and with ``listen=no`` where nothing can be heard (behind
            PgBouncer in transaction mode): who waits then looks by itself.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    can_join = True
    max_bytes = LARGEST

    def __init__(self, conn_string: str) -> None:
        dsn = DSN.parse(conn_string)
        self._server = Server(dsn)
        listens = self._server.options.pop("listen", "yes")
        if listens not in ("yes", "no"):
            raise InvalidOption(f"{dsn}: listen is yes or no; not {listens!r}.")
        self._listener = Listener(self._server, listens == "yes")
        self._bell = Bell()
        self._tokens = itertools.count(1)
        self._clock = -math.inf, 0.0
        self._calls: Calls = self._server
        # Where the last looks ended. No lock: whatever other threads do to it meanwhile, it is all right.
        self._places: dict[str, tuple[int | None, int]] = {}
        self._look_everywhere_at = 0.0
        self.records = Records(self._server, self._listener)

    def risks(self, queue_name: str) -> list[str]:
        [(commit, fsync, pages)] = self._server.rows(_SETTINGS, is_repeatable=True)
        found: list[str] = []
        if commit == "off":
            found.append(
                f"{self._server.dsn} may lose its last moments if the server is killed or the power fails: its "
                "synchronous_commit is off, for this user and database. Set it to on."
            )
        for name, value in (("fsync", fsync), ("full_page_writes", pages)):
            if value == "off":
                found.append(
                    f"{self._server.dsn} may lose all that is in it in a power cut: its {name} is off."
                )
        return found

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        self._refuse_too_big(messages)
        queued: list[bool] = []
        for some in _parts(messages):
            queued += self._push(queue_name, some, max_length)
        return queued

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        self._refuse_too_big(messages)
        columns = _columns(messages)
        replace = [message.replaces for message in messages]
        return bool(self._calls.call("push_if", key, old, new, queue_name, None, *columns, replace))

    def _refuse_too_big(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if len(message.body) > LARGEST:
                raise too_big(
                    "PostgreSQL", message.task_id, len(message.body), f"at most {LARGEST}"
                )

    def find(self, queue_name: str, task_id: str) -> Found | None:
        rows = self._calls.rows(_FIND, (queue_name, task_id))
        return Found(*rows[0]) if rows else None

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        moved: list[bool] = self._calls.call("reschedule", queue_name, list(task_ids), due_at)
        return moved

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        return bool(self._calls.call("watch", queue_name, task_id, *follow))

    def now(self) -> float:
        # No lock: if two threads ask at once, either answer will do. A fork goes on by the same clock.
        if time.monotonic() - self._clock[0] > ASK_TIME_EVERY:
            self._clock = self._ask_time()
        return time.monotonic() + self._clock[1]

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
        if limit <= 0 or not queue_names:
            return Batch(late=self.settle(settlements))
        began = time.monotonic()
        what = list(queue_names), worker, lease, min(limit, MOST)
        batch = Batch()
        self._reserve(batch, *what, settlements, everywhere=wait <= 0)
        if not batch.reservations and time.monotonic() - began < wait:
            try:
                self._wait(batch, *what, began + wait, nap)
            except (BackendUnavailable, BackendRefused):
                pass  # what was settled by then must not be lost; the next call will tell
        return batch

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        whose = f"{worker}.{next(self._tokens)}"
        for body, lapses, token in self._calls.call_for_rows(
            "reserve_task", queue_name, task_id, whose, worker, lease
        ):
            return Reservation(queue_name, task_id, body, token, lapses + 1)
        return None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        if not settlements:
            return []
        late = self._calls.call("settle", *_settled(settlements))
        return [settlements[place] for place in late]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        if not reservations:
            return []
        lost = self._calls.call(
            "extend",
            [held.queue_name for held in reservations],
            [held.task_id for held in reservations],
            [held.token for held in reservations],
            lease,
        )
        return [reservations[place] for place in lost]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        given_back: int = self._calls.call("recover", list(queue_names), worker, list(started))
        return given_back

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        body: bytes | None = self._calls.call("cancel", queue_name, task_id)
        return body

    def drop_all(self, queue_name: str) -> None:
        self._calls.call("drop_all", queue_name)

    def count(self, queue_name: str) -> Counts:
        return Counts(*self._calls.rows(_COUNT, (queue_name,))[0])

    def queues(self) -> list[str]:
        return sorted(name for (name,) in self._calls.rows(_QUEUES))

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        which, values = ("true", ()) if task_id is None else ("task_id = %s::text", (task_id,))
        query = _DEAD.replace("{which}", which)
        rows = self._calls.rows(query, (queue_name, *values, limit, skip))
        return [
            DeadLetter(queue, letter, id, body, note.decode(errors="surrogatepass"), *rest)
            for queue, letter, id, body, note, *rest in rows
        ]

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        moved = self._calls.call("retry_dead", queue_name, _letters(letter_ids), due_at)
        return list(map(str, moved))

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        query = (
            "DELETE FROM {s}.dead WHERE queue = %s::text AND letter_id = ANY (%s::bigint[]) "
            "RETURNING letter_id"
        )
        letters = _letters(letter_ids)
        gone = {letter for (letter,) in self._calls.rows(query, (queue_name, letters))}
        return [str(letter) for letter in letters if letter in gone]

    def joins(self, connection: object) -> bool:
        return self._server.is_reached_by(driver_connection(connection))

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        query, begin = _PAGES[state]
        first, second = json.loads(cursor) if cursor else begin
        values: tuple[Any, ...] = (queue_name, first, second, limit)
        if state == "waiting":
            values += (queue_name, first, limit, limit)
        rows = self._calls.rows(query, values)
        listed = [Listed._make((*row[:5], _follow(*row[5:8]))) for row in rows]
        return listed, json.dumps(rows[-1][8:]) if len(rows) == limit else ""

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        taken: list[bool] = self._calls.call(
            "take_out",
            queue_name,
            key,
            value,
            [task.task_id for task in tasks],
            [task.body for task in tasks],
            [float(task.due_at) for task in tasks],
            [task.priority for task in tasks],
            [task.follow.task_id if task.follow else "" for task in tasks],
            list(notes),
        )
        return taken

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        put: list[bool] = self._calls.call(
            "put_dead",
            queue_name,
            [letter.task_id for letter in letters],
            [letter.body for letter in letters],
            [letter.note.encode(errors="surrogatepass") for letter in letters],
            [letter.buried_at for letter in letters],
            [letter.priority for letter in letters],
        )
        return put

    def within(self, connection: object) -> "Client":
        joined = copy.copy(self)
        joined._calls = JoinedCalls(self._server, connection)
        joined.records = Records(joined._calls, self._listener)
        return joined

    def complete(self, reservation: Reservation) -> None:
        held = reservation
        self._calls.call("complete", held.queue_name, held.task_id, held.token)

    def migration(self) -> str:
        return self._server.migration()

    def migrate(self) -> bool:
        return self._server.migrate()

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._listener.close()
        self._server.close()
        self._bell.close()

    def _push(
        self, queue_name: str, messages: Sequence[Message], max_length: int | None
    ) -> list[bool]:
        if len(messages) == 1 and max_length is None:
            [message] = messages
            if message == Message(message.task_id, message.body):
                plain = queue_name, message.task_id, message.body
                return [self._calls.call("push_one", *plain, is_repeatable=True)]
        values = queue_name, max_length, *_columns(messages)
        replaces = [message.replaces for message in messages]
        if any(replaces):
            answer = self._calls.call("push_each", *values, replaces, is_repeatable=True)
        else:
            # What the first try has queued, another leaves as it is.
            answer = self._calls.call("push", *values, is_repeatable=True)
        if answer is None:
            raise no_room(queue_name, len(messages), max_length)
        return answer if any(replaces) else _which(messages, answer)

    def _reserve(
        self,
        batch: Batch,
        queue_names: list[str],
        worker: str,
        lease: float,
        limit: int,
        settlements: Sequence[Settlement] = (),
        *,
        everywhere: bool,
    ) -> float:
        """Settle, and add to a batch what is ready. Returns the seconds until there may be more.

        It begins where the last look ended, where that saves much; ``everywhere`` is for the case that nothing
        is there.
        """
        places: Mapping[str, tuple[int | None, int]] = self._places
        if time.monotonic() >= self._look_everywhere_at:
            places, everywhere = {}, True
            self._look_everywhere_at = time.monotonic() + LOOK_EVERYWHERE_EVERY
        begin = [places.get(name, (None, None)) for name in queue_names]
        whose = f"{worker}.{next(self._tokens)}"
        settled = _settled(settlements) if settlements else [None] * 7
        *taken, last = self._calls.call_for_rows(
            *("reserve", queue_names, whose, worker, lease, limit, *settled),
            *map(list, zip(*begin, strict=True)),
            everywhere,
        )
        token, late, ready_in, *ends = last[4:]
        self._places = _ends(queue_names, *ends)
        late_ones: list[int] = late or []
        batch.late.extend(settlements[place] for place in late_ones)
        for queue_name, task_id, body, lapses, *_ in taken:
            batch.reservations.append(Reservation(queue_name, task_id, body, token, lapses + 1))
        return math.inf if ready_in is None else max(ready_in, 0.0)

    def _wait(
        self,
        batch: Batch,
        queue_names: list[str],
        worker: str,
        lease: float,
        limit: int,
        until: float,
        nap: float,
    ) -> None:
        """Look until there is something ready, the time is over or somebody interrupts."""
        with self._listener.waiting(TASKS, queue_names) as waiter:
            while True:
                waiter.attend()
                is_last = time.monotonic() >= until
                soon = self._reserve(batch, queue_names, worker, lease, limit, everywhere=is_last)
                now = time.monotonic()
                if batch.reservations or now >= until:
                    return
                if self._places:
                    soon = min(soon, self._look_everywhere_at - now)
                look = min(waiter.look(nap), soon, until - now)
                # Never at once: what is due may be in the hands of another, for a moment.
                if waiter.wait(max(look, 0.002), self._bell) is Woken.BY_INTERRUPT:
                    return

    def _ask_time(self) -> tuple[float, float]:
        """Return when the server was asked by our clock, and how far it is ahead of that."""
        self._calls.call("seconds")  # so that there is a connection
        asked_at = time.monotonic()
        seconds = self._calls.call("seconds")
        return asked_at, seconds - (asked_at + time.monotonic()) / 2


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Part messages, where they are too large together for one call."""
    start, size = 0, 0
    for place, message in enumerate(messages):
        size += len(message.body)
        if size > MOST_BYTES and place > start:
            yield messages[start:place]
            start, size = place, len(message.body)
    if start < len(messages):
        yield messages[start:]


def _columns(messages: Sequence[Message]) -> list[Any]:
    """Return messages as the arrays that the functions take. An array without anything in it is left out."""
    follows = [message.follow for message in messages]
    if not any(follows):
        followed: list[Any] = [None] * 3
    else:
        followed = [
            [follow and follow.task_id for follow in follows],
            [follow and follow.on_success for follow in follows],
            [follow and follow.on_failure for follow in follows],
        ]
    return [
        [message.task_id for message in messages],
        [message.body for message in messages],
        _unless_empty([float(message.delay) for message in messages]),
        _unless_empty([float(message.due_at) for message in messages]),
        _unless_empty([message.priority for message in messages]),
        *followed,
    ]


def _unless_empty(values: list[Any]) -> list[Any] | None:
    return values if any(values) else None


def _ends(
    queue_names: Sequence[str], priorities: list[int | None], places: list[int | None]
) -> dict[str, tuple[int | None, int]]:
    """Return for each queue where a look for what waits has ended, if that was told."""
    told = zip(queue_names, priorities, places, strict=True)
    return {name: (priority, place) for name, priority, place in told if place is not None}


def _which(messages: Sequence[Message], queued: Sequence[str]) -> list[bool]:
    """Return for each message whether it was queued; of several with one id, the first was."""
    left = set(queued)
    if len(left) == len(messages):
        return [True] * len(messages)
    answer: list[bool] = []
    for message in messages:
        answer.append(message.task_id in left)
        left.discard(message.task_id)
    return answer


def _settled(settlements: Sequence[Settlement]) -> list[Any]:
    """Return settlements as the arrays that the functions take."""
    held = [settlement.reservation for settlement in settlements]
    where = [
        [one.queue_name for one in held],
        [one.task_id for one in held],
        [one.token for one in held],
    ]
    if all(isinstance(settlement, Ack) for settlement in settlements):
        return [list(map(_kind, settlements)), *where, None, None, None]
    settlements = [_fit(settlement) for settlement in settlements]
    how = map(_how, settlements)
    return [list(map(_kind, settlements)), *where, *map(list, zip(*how, strict=True))]


def _fit(settlement: Settlement) -> Settlement:
    """Return a settlement that can be carried out: a new attempt says more than the one before."""
    if not isinstance(settlement, Release) or len(settlement.body or b"") <= LARGEST:
        return settlement
    grown = f"It was to be tried again, and takes {len(settlement.body or b''):,} bytes by now"
    log.error("Task %r has grown too big to be tried again: buried", settlement.reservation.task_id)
    return Bury(settlement.reservation, payloads.encode({"reason": "failed", "error": grown}))


def _kind(settlement: Settlement) -> str:
    if isinstance(settlement, Ack):
        return "ack" if settlement.succeeded else "fail"
    return "bury" if isinstance(settlement, Bury) else "release"


def _how(settlement: Settlement) -> tuple[float, bool, bytes | None]:
    """Return the delay, whether it counts as lapsed, and the new body or the note."""
    if isinstance(settlement, Release):
        return float(settlement.delay), settlement.lapsed, settlement.body
    if isinstance(settlement, Bury):
        return 0.0, False, settlement.note.encode(errors="surrogatepass")
    return 0.0, False, None


def _letters(letter_ids: Sequence[str]) -> list[int]:
    """Return ids of dead letters as numbers; without those that cannot be any, and each once."""
    numbers = (int(one) for one in letter_ids if one.isascii() and one.isdigit() and len(one) < 19)
    return list(dict.fromkeys(numbers))


def _follow(
    task_id: str | None, on_success: bytes | None, on_failure: bytes | None
) -> Follow | None:
    if task_id is None:
        return None
    return Follow(task_id, on_success or b"", on_failure or b"")
