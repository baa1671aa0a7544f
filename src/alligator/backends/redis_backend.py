"""Tasks in Redis or Valkey: one atomic script for each change of state, one round trip for each call.

What the keys are and mean stands in redis/scripts.py. Costs, with n tasks waiting or delayed: push, reserve,
settle, cancel and find O(log n) a task; extend, recover and to find a held task go by what is held, not by
what waits.
"""

import functools
import itertools
import json
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from alligator.backends.base import (
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
    Reservation,
    Settlement,
    State,
    no_room,
)
from alligator.backends.redis import scripts, task_scripts, walk_scripts
from alligator.backends.redis.connection import Command, hash_tag, script_call
from alligator.backends.redis.records import Records, index_of, name_of
from alligator.backends.redis.servers import servers_at
from alligator.backends.redis.settings import risks_of, warnings_of
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable

MAX_BLOCK = 5.0
"""Seconds to block at the most. A wake-up sent to a worker just killed is lost: others look by themselves."""
MOST = 3000
"""Tasks to hand out at once: a script can pass about 8,000 values to a command, and it takes two each."""
AT_ONCE = 1000
"""Tasks a script: it holds up the server for about 5 ms. Round trips stay one: they go out together."""
LETTERS_AT_ONCE = 100
"""Dead letters a script: their notes are long."""
REGISTER_EVERY = 60.0
"""Seconds after which a producer notes its queue's name again, lest the server was emptied."""


class Client(Backend):
    """A store in Redis or Valkey: one server, a primary that Sentinels name, or a cluster.

    Args:
        conn_string: ``redis://[[user]:password@]host[:port][/database]``; redis/address.py has the others.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    def __init__(self, conn_string: str) -> None:
        self._server = servers_at(DSN.parse(conn_string))
        # Cached, for it is a tenth of what a push costs here.
        self._prefix = functools.lru_cache(maxsize=1000)(
            functools.partial(_prefix, self._server.prefix)
        )
        self._queues = f"{self._server.prefix}alligator:queues"
        self._bell = Bell()
        self._tokens = itertools.count(1)
        self._registered: dict[str, float] = {}
        self.records = Records(self._server)

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        chunks = [messages[at : at + AT_ONCE] for at in range(0, len(messages), AT_ONCE)]
        calls = [self._pushing(queue_name, chunk, max_length) for chunk in chunks]
        # What comes after a chunk that finds no room must not get in: so those go one by one.
        rounds = [calls] if max_length is None else [[call] for call in calls]
        queued: list[bool] = []
        for together in rounds:
            for reply in self._push(queue_name, together):
                if reply is None:
                    raise no_room(queue_name, len(messages), max_length)
                queued += map(bool, reply)
        return queued

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        prefix = self._server.prefix
        keys = [self._prefix(queue_name), name_of(prefix, key), index_of(prefix, key)]
        pushed = itertools.chain(*map(_pushed, messages))
        call = script_call(scripts.PUSH_IF, keys, old, new, *pushed)
        return self._push(queue_name, [call], again=False) == [1]

    def find(self, queue_name: str, task_id: str) -> Found | None:
        reply = self._server.run([self._call(task_scripts.FIND, queue_name, task_id)])[0]
        if not reply:
            return None
        body, due, token, lapses_at, position, lapses, priority = reply
        return Found(
            body,
            _seconds(due),
            token.decode(),
            _seconds(lapses_at),
            position,
            int(lapses) + bool(token),
            int(priority),
        )

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        replies = self._in_parts(task_scripts.RESCHEDULE, queue_name, _micros(due_at), task_ids)
        return list(map(bool, replies))

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        call = self._call(task_scripts.WATCH, queue_name, task_id, *_following(follow))
        return bool(self._server.run([call])[0])

    def now(self) -> float:
        return self._server.now()

    def warnings(self) -> list[str]:
        found = [warnings_of(server, self._server.dsn) for server in self._server.primaries()]
        # The nodes of a cluster are set up alike, as a rule.
        return list(dict.fromkeys(itertools.chain(*found)))

    def risks(self, queue_name: str) -> list[str]:
        found = [risks_of(server, self._server.dsn) for server in self._server.primaries()]
        return list(dict.fromkeys(itertools.chain(*found)))

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
        limit = min(limit, MOST)
        until = time.monotonic() + wait
        batch = Batch()
        is_waiting = has_settled = False
        try:
            while True:
                soon = math.inf
                for queue_name in queue_names:
                    room = limit - len(batch.reservations)
                    if room:
                        more = self._reserve(batch, queue_name, worker, room, lease, settlements)
                        soon = min(soon, more)
                        settlements, has_settled = (), has_settled or bool(settlements)
                left = min(until - time.monotonic(), soon, MAX_BLOCK)
                if batch.reservations or (left <= 0 and until <= time.monotonic()):
                    return batch
                wakes = [self._prefix(name) + "wake" for name in queue_names]
                is_waiting = True
                if self._server.block(wakes, max(left, 0.001), self._bell):
                    return batch
                is_waiting = False
        except (BackendUnavailable, BackendRefused):
            # What was handed out and settled by then must not be lost. The next call will tell. Else it is told
            # now, for what was handed out in an answer that is lost is to be given back at once.
            if is_waiting or has_settled or batch.reservations:
                return batch
            raise

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        whose = f"{worker}.{next(self._tokens)}"
        call = self._call(scripts.RESERVE_TASK, queue_name, whose, _micros(lease), task_id)
        reply = self._server.run([call])[0]
        if not reply:
            return None
        body, lapses, token = reply
        return Reservation(queue_name, task_id, body or b"", token.decode(), int(lapses) + 1)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        by_queue = _by_queue(settlements)
        calls = self._settling(by_queue)
        return _late(by_queue, self._server.run(calls)) if calls else []

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        calls: list[Command] = []
        for queue_name, held in _grouped(reservations).items():
            arguments: list[Any] = [_micros(lease)]
            for token, ids in held.items():
                arguments += [token, len(ids), *ids]
            calls.append(self._call(scripts.EXTEND, queue_name, *arguments))
        replies = self._server.run_apart(calls) if calls else []
        lost = {pair for reply in replies for pair in _pairs(reply)}
        return [held for held in reservations if (held.token, held.task_id) in lost]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        calls = [self._call(scripts.RECOVER, name, worker, *started) for name in queue_names]
        return sum(self._server.run_apart(calls))

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        body: bytes | None = self._server.run(
            [self._call(task_scripts.CANCEL, queue_name, task_id)]
        )[0]
        return body

    def drop_all(self, queue_name: str) -> None:
        count, known = 1, ()
        while count:
            count, *known = self._server.run([self._call(task_scripts.DROP, queue_name, *known)])[0]

    def forget(self, queue_name: str) -> None:
        if self._server.run([self._call(task_scripts.FORGET, queue_name)]) == [1]:
            self._registered.pop(queue_name, None)
            self._server.run([("SREM", self._queues, queue_name)])

    def count(self, queue_name: str) -> Counts:
        return Counts(*self._server.run([self._call(task_scripts.COUNT, queue_name)])[0])

    def queues(self) -> list[str]:
        names = self._server.run([("SMEMBERS", self._queues)])[0]
        return sorted(name.decode(errors="surrogateescape") for name in names)

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        which = () if task_id is None else (task_id,)
        reply = self._server.run([self._call(task_scripts.DEAD, queue_name, skip, limit, *which)])[
            0
        ]
        return [
            DeadLetter(
                queue_name,
                letter.decode(),
                id.decode(errors="surrogateescape"),
                body,
                note.decode(),
                int(at) / 1_000_000,
                int(priority or 0),
            )
            for letter, id, body, note, at, priority in reply
            if id is not None  # else a server that evicts has thrown it out
        ]

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        return self._empty_dead(queue_name, letter_ids, _micros(due_at))

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        return self._empty_dead(queue_name, letter_ids, "")

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        limit = min(limit, AT_ONCE)
        if state == "running":
            call = self._call(walk_scripts.WALK_HELD, queue_name, cursor or "0")
            next_one, *rows = self._server.run([call])[0]
            held = [_listed(row)._replace(token=row[1].decode()) for row in rows]
            return held, "" if next_one == b"0" else next_one.decode()
        last = json.loads(cursor) if cursor else ()
        rows = self._server.run([self._call(walk_scripts.WALK, queue_name, state, limit, *last)])[0]
        listed = [
            _listed(row)._replace(due_at=_seconds(row[1]) if state == "delayed" else 0.0)
            for row in rows
        ]
        if len(rows) < limit:
            return listed, ""
        return listed, json.dumps((rows[-1][1].decode(), listed[-1].task_id))

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        taken: list[bool] = []
        for at in range(0, len(tasks), AT_ONCE):
            prefix, some = self._server.prefix, notes[at : at + AT_ONCE]
            names = [name_of(prefix, key), index_of(prefix, some[0])]
            names += [name_of(prefix, note) for note in some]
            told = itertools.chain(*map(_told, tasks[at : at + AT_ONCE]))
            call = script_call(
                walk_scripts.TAKE_OUT, [self._prefix(queue_name), *names], value, *told
            )
            taken += map(bool, self._server.run([call])[0])
        return taken

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        chunks = [
            letters[at : at + LETTERS_AT_ONCE] for at in range(0, len(letters), LETTERS_AT_ONCE)
        ]
        calls = [
            self._call(walk_scripts.PUT_DEAD, queue_name, *itertools.chain(*map(_letter, chunk)))
            for chunk in chunks
        ]
        replies = self._push(queue_name, calls) if calls else []
        return [bool(put) for reply in replies for put in reply]

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._server.close()
        self._bell.close()

    def _pushing(
        self, queue_name: str, messages: Sequence[Message], max_length: int | None
    ) -> Command:
        if max_length is None and all(map(_is_plain, messages)):
            return self._call(
                scripts.PUSH_PLAIN, queue_name, *itertools.chain(*map(_plain, messages))
            )
        most = "" if max_length is None else max_length
        return self._call(scripts.PUSH, queue_name, most, *itertools.chain(*map(_pushed, messages)))

    def _push(self, queue_name: str, calls: Sequence[Command], *, again: bool = True) -> list[Any]:
        """Make calls that queue something, and note the queue's name; return their answers."""
        try:
            return self._push_once(queue_name, calls)
        except BackendUnavailable as unanswered:
            if not again:
                raise
            try:
                # Safe: what the first one queued, this one leaves as it is.
                return self._push_once(queue_name, calls)
            except BackendRefused as refused:
                # That says "not queued", and the first one may have queued it.
                raise unanswered from refused

    def _push_once(self, queue_name: str, calls: Sequence[Command]) -> list[Any]:
        if time.monotonic() - self._registered.get(queue_name, -math.inf) <= REGISTER_EVERY:
            return self._server.run(calls)
        note = "SADD", self._queues, queue_name
        replies, is_noted = self._server.run_and_try(calls, note)
        if is_noted:  # else the next push tries
            self._registered[queue_name] = time.monotonic()
        return replies

    def _reserve(
        self,
        batch: Batch,
        queue_name: str,
        worker: str,
        limit: int,
        lease: float,
        settlements: Sequence[Settlement],
    ) -> float:
        """Settle, and add to a batch what a queue has ready. Returns the seconds until it has more."""
        whose = f"{worker}.{next(self._tokens)}"
        by_queue = _by_queue(settlements)
        calls = self._settling(by_queue)
        calls.append(self._call(scripts.RESERVE, queue_name, whose, _micros(lease), limit))
        *settled, (ids, bodies, lapses, soon, by_what) = self._server.run(calls)
        batch.late.extend(_late(by_queue, settled))
        token = by_what.decode()
        for id, body, lapsed in itertools.zip_longest(ids, bodies, lapses):
            task_id = id.decode(errors="surrogateescape")
            batch.reservations.append(
                Reservation(queue_name, task_id, body or b"", token, int(lapsed or 0) + 1)
            )
        return soon / 1_000_000 if soon >= 0 else math.inf

    def _settling(self, by_queue: dict[str, list[Settlement]]) -> list[Command]:
        """Return the calls that carry out settlements, one a queue."""
        return [
            self._call(scripts.SETTLE, name, *itertools.chain(*map(_settled, _runs(settlements))))
            for name, settlements in by_queue.items()
        ]

    def _empty_dead(self, queue_name: str, letter_ids: Sequence[str], due: int | str) -> list[str]:
        replies = self._in_parts(task_scripts.EMPTY_DEAD, queue_name, due, letter_ids)
        return [letter.decode() for letter in replies]

    def _in_parts(self, script: str, queue_name: str, what: Any, ids: Sequence[str]) -> list[Any]:
        """Call a script for some ids at a time, in one round trip; return its answers in one list."""
        calls = [
            self._call(script, queue_name, what, *ids[at : at + AT_ONCE])
            for at in range(0, len(ids), AT_ONCE)
        ]
        return list(itertools.chain(*self._server.run(calls)))

    def _call(self, script: str, queue_name: str, *arguments: Any) -> Command:
        return script_call(script, [self._prefix(queue_name)], *arguments)


def _prefix(prefix: str, queue_name: str) -> str:
    return f"{prefix}alligator:{hash_tag(queue_name)}:"


def _micros(seconds: float) -> int | str:
    return math.ceil(seconds * 1_000_000) if seconds != math.inf else "inf"


def _seconds(micros: bytes) -> float:
    return float(micros or 0) / 1_000_000


def _is_plain(message: Message) -> bool:
    more = message.delay or message.due_at or message.priority or message.replaces or message.follow
    return not more


def _plain(message: Message) -> tuple[Any, ...]:
    return message.task_id, message.body


def _pushed(message: Message) -> tuple[Any, ...]:
    """Return a message as the nine values of a script."""
    times = _micros(message.delay), _micros(message.due_at)
    how = message.priority, int(message.replaces)
    return message.task_id, message.body, *times, *how, *_following(message.follow)


def _following(follow: Follow | None) -> tuple[Any, ...]:
    return (follow.task_id, follow.on_success, follow.on_failure) if follow else ("", b"", b"")


def _listed(row: Sequence[Any]) -> Listed:
    """Return a task as the scripts tell it, but for its moment and its token."""
    id, _, body, priority, *follow = row
    follows = Follow(follow[0].decode(errors="surrogateescape"), *follow[1:]) if follow else None
    return Listed(id.decode(errors="surrogateescape"), body, priority=int(priority), follow=follows)


def _told(task: Listed) -> tuple[Any, ...]:
    """Return a task that was listed as the five values of a script. Its moment was a whole number before."""
    due = "inf" if task.due_at == math.inf else round(task.due_at * 1_000_000)
    return task.task_id, task.body, due, task.priority, task.follow.task_id if task.follow else ""


def _letter(letter: DeadLetter) -> tuple[Any, ...]:
    at = round(letter.buried_at * 1_000_000)
    return letter.task_id, letter.body, letter.note, at, letter.priority


def _by_queue(settlements: Sequence[Settlement]) -> dict[str, list[Settlement]]:
    by_queue: dict[str, list[Settlement]] = {}
    for settlement in settlements:
        by_queue.setdefault(settlement.reservation.queue_name, []).append(settlement)
    return by_queue


def _runs(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Part settlements into runs of like acks of the same token, and others one by one."""
    for _, run in itertools.groupby(settlements, _kind):
        yield list(run)


def _kind(settlement: Settlement) -> object:
    """Return what is equal of settlements that may be in one run."""
    if isinstance(settlement, Ack):
        return settlement.reservation.token, settlement.succeeded
    return object()


def _settled(run: list[Settlement]) -> list[Any]:
    """Return a run as arguments of the script."""
    settlement = run[0]
    held = settlement.reservation
    if isinstance(settlement, Ack):
        what = "ack" if settlement.succeeded else "fail"
        return [what, held.token, len(run), *(ack.reservation.task_id for ack in run)]
    if isinstance(settlement, Bury):
        return ["bury", held.token, held.task_id, settlement.note]
    body = settlement.body
    counts = int(settlement.lapsed), int(body is not None), body or b""
    return ["release", held.token, held.task_id, _micros(settlement.delay), *counts]


def _late(by_queue: dict[str, list[Settlement]], replies: Sequence[Any]) -> list[Settlement]:
    """Return the settlements whose places the replies name."""
    return [
        settlements[place]
        for settlements, places in zip(by_queue.values(), replies, strict=True)
        for place in places
    ]


def _grouped(reservations: Sequence[Reservation]) -> dict[str, dict[str, list[str]]]:
    """Return ids by queue and token."""
    groups: dict[str, dict[str, list[str]]] = {}
    for held in reservations:
        groups.setdefault(held.queue_name, {}).setdefault(held.token, []).append(held.task_id)
    return groups


def _pairs(reply: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    return zip(
        (token.decode() for token in reply[::2]),
        (id.decode(errors="surrogateescape") for id in reply[1::2]),
        strict=True,
    )
