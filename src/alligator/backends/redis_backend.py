"""Tasks in Redis or Valkey: one atomic script for each change of state, one round trip for each call.

What the keys are and mean stands in redis_scripts.py. Costs, with n tasks waiting or delayed: push, reserve,
settle and cancel O(log n) a task; extend and recover go by what is held, not by what waits.
"""

import itertools
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from alligator.backends import redis_scripts as scripts
from alligator.backends.base import (
    Ack,
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Message,
    Reservation,
    Settlement,
)
from alligator.backends.redis_connection import Command, Server, script_call
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable

MAX_BLOCK = 5.0
"""Seconds to block at the most. A wake-up sent to a worker just killed is lost: others look by themselves."""
MOST = 3000
"""Tasks to hand out at once: a script can pass about 8,000 values to a command, and it takes two each."""
PUSH_AT_ONCE = 1000
"""Tasks a script: it holds up the server for about 5 ms. Round trips stay one: they go out together."""
REGISTER_EVERY = 60.0
"""Seconds after which a producer notes its queue's name again, lest the server was emptied."""

_QUEUES = "alligator:queues"


class Client(Backend):
    """A store in Redis.

    Args:
        conn_string: ``redis://[[user]:password@]host[:port][/database]``.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    def __init__(self, conn_string: str) -> None:
        self._server = Server(DSN.parse(conn_string))
        self._bell = Bell()
        self._tokens = itertools.count(1)
        self._registered: dict[str, float] = {}
        self.records = _Records(self._server)

    def push_many(self, queue_name: str, messages: Sequence[Message]) -> list[bool]:
        chunks = [messages[at : at + PUSH_AT_ONCE] for at in range(0, len(messages), PUSH_AT_ONCE)]
        calls = [
            self._call(scripts.PUSH, queue_name, *itertools.chain(*map(_pushed, chunk)))
            for chunk in chunks
        ]
        if time.monotonic() - self._registered.get(queue_name, -math.inf) > REGISTER_EVERY:
            calls.append(("SADD", _QUEUES, queue_name))
        try:
            replies = self._server.run(calls)
        except BackendUnavailable:
            # Safe: what the first one queued, this one leaves as it is.
            replies = self._server.run(calls)
        if len(calls) > len(chunks):
            self._registered[queue_name] = time.monotonic()
        return [bool(new) for reply in replies[: len(chunks)] for new in reply]

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
        has_answered = False
        wakes = [_prefix(name) + "wake" for name in queue_names]
        try:
            while True:
                soon = math.inf
                for queue_name in queue_names:
                    room = limit - len(batch.reservations)
                    if room:
                        more = self._reserve(batch, queue_name, worker, room, lease, settlements)
                        soon = min(soon, more)
                        settlements, has_answered = (), True
                left = min(until - time.monotonic(), soon, MAX_BLOCK)
                if batch.reservations or (left <= 0 and until <= time.monotonic()):
                    return batch
                if self._server.block(wakes, max(left, 0.001), self._bell):
                    return batch
        except (BackendUnavailable, BackendRefused):
            if not has_answered:
                raise
            # What was handed out and settled by then must not be lost. The next call will tell.
            return batch

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        token = f"{worker}.{next(self._tokens)}"
        call = self._call(scripts.RESERVE_TASK, queue_name, token, _micros(lease), task_id)
        reply = self._server.run([call])[0]
        if not reply:
            return None
        return Reservation(queue_name, task_id, reply[0], token, int(reply[1]) + 1)

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
        replies = self._server.run(calls) if calls else []
        lost = {pair for reply in replies for pair in _pairs(reply)}
        return [held for held in reservations if (held.token, held.task_id) in lost]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        calls = [self._call(scripts.RECOVER, name, worker, *started) for name in queue_names]
        return sum(self._server.run(calls))

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        body: bytes | None = self._server.run([self._call(scripts.CANCEL, queue_name, task_id)])[0]
        return body

    def drop_all(self, queue_name: str) -> None:
        while self._server.run([self._call(scripts.DROP, queue_name)])[0]:
            pass

    def count(self, queue_name: str) -> Counts:
        return Counts(*self._server.run([self._call(scripts.COUNT, queue_name)])[0])

    def queues(self) -> list[str]:
        return sorted(name.decode() for name in self._server.run([("SMEMBERS", _QUEUES)])[0])

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        which = () if task_id is None else (task_id,)
        reply = self._server.run([self._call(scripts.DEAD, queue_name, skip, limit, *which)])[0]
        return [
            DeadLetter(
                queue_name,
                letter.decode(),
                id.decode(errors="surrogateescape"),
                body,
                note.decode(),
                int(at) / 1_000_000,
            )
            for letter, id, body, note, at in reply
        ]

    def retry_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        return self._empty_dead(queue_name, letter_ids, retry=1)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        return self._empty_dead(queue_name, letter_ids, retry=0)

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        self._server.close()
        self._bell.close()

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
        token = f"{worker}.{next(self._tokens)}"
        by_queue = _by_queue(settlements)
        calls = self._settling(by_queue)
        calls.append(self._call(scripts.RESERVE, queue_name, token, _micros(lease), limit))
        *settled, (ids, bodies, lapses, soon) = self._server.run(calls)
        batch.late.extend(_late(by_queue, settled))
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

    def _empty_dead(self, queue_name: str, letter_ids: Sequence[str], retry: int) -> list[str]:
        calls = [
            self._call(scripts.EMPTY_DEAD, queue_name, retry, *letter_ids[at : at + PUSH_AT_ONCE])
            for at in range(0, len(letter_ids), PUSH_AT_ONCE)
        ]
        return [letter.decode() for reply in self._server.run(calls) for letter in reply]

    def _call(self, script: str, queue_name: str, *arguments: Any) -> Command:
        return script_call(script, [_prefix(queue_name)], *arguments)


class _Records:
    """Small values, each under a key of its own, and an index for each family of them.

    The index is a sorted set by expiry. Each write drops up to two of its members that have expired, so
    that it cannot grow beyond what lives.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self._server.run([("GET", self._key(key))])[0]
        return value

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self._swap(key, b"", value, ttl, "any")

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        return self._swap(key, old or b"", new, ttl, "no" if old is None else "yes")

    def delete(self, key: str) -> None:
        self._server.run([("DEL", self._key(key)), ("ZREM", self._index(key), self._key(key))])

    def list(self, family: str) -> dict[str, bytes]:
        index = self._index(family)
        keys = sorted(self._server.run([("ZRANGE", index, 0, -1)])[0])
        if not keys:
            return {}
        values = self._server.run([("MGET", *keys)])[0]
        start = len(index) + 1
        return {
            key.decode()[start:]: value
            for key, value in zip(keys, values, strict=True)
            if value is not None
        }

    def _swap(self, key: str, old: bytes, new: bytes, ttl: float | None, has_old: str) -> bool:
        keys = self._key(key), self._index(key)
        values = old, new, _micros(ttl or 0), has_old
        return bool(self._server.run([script_call(scripts.SWAP, keys, *values)])[0])

    @classmethod
    def _key(cls, key: str) -> str:
        return f"{cls._index(key)}:{key}"

    @staticmethod
    def _index(key: str) -> str:
        return f"alligator:records:{_tag(key.partition('/')[0])}"


def _prefix(queue_name: str) -> str:
    return f"alligator:{_tag(queue_name)}:"


def _tag(name: str) -> str:
    """Return a hash tag: what keeps the keys that have it in one slot of a cluster."""
    # Braces in the name would end the tag early, and spread the keys.
    return "{" + name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") + "}"


def _micros(seconds: float) -> int:
    return math.ceil(seconds * 1_000_000)


def _pushed(message: Message) -> tuple[Any, ...]:
    return message.task_id, message.body, _micros(message.delay), _micros(message.due_at)


def _by_queue(settlements: Sequence[Settlement]) -> dict[str, list[Settlement]]:
    by_queue: dict[str, list[Settlement]] = {}
    for settlement in settlements:
        by_queue.setdefault(settlement.reservation.queue_name, []).append(settlement)
    return by_queue


def _runs(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Part settlements into runs of acks of the same token, and others one by one."""
    for _, run in itertools.groupby(
        settlements, lambda one: one.reservation.token if isinstance(one, Ack) else object()
    ):
        yield list(run)


def _settled(run: list[Settlement]) -> list[Any]:
    """Return a run as arguments of the script."""
    settlement = run[0]
    held = settlement.reservation
    if isinstance(settlement, Ack):
        return ["ack", held.token, len(run), *(ack.reservation.task_id for ack in run)]
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
