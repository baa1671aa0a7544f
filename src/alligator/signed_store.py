"""A store whose tasks are signed: what is written gets a signature, and what is read must have one that fits.

It stands between a store and all that is above it, so that nothing above can forget to look:

- What is to be run is handed out only if its signature fits this queue and this id. Else it is buried, whole.
- What is only looked at, and does not fit, is made unreadable (``Refused``): it can be shown to a person, but
  neither be called nor be changed and signed anew.
- Schedules name what is to be run, so their records are signed, too. All other records are data.

A store that does not know tasks by their ids cannot tell under which one a task was pushed: there, the id is no
part of the place.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from alligator import keys, notes, payloads
from alligator.backends.base import (
    Backend,
    Batch,
    Bury,
    Counts,
    DeadLetter,
    Follow,
    Found,
    Listed,
    Message,
    Records,
    Release,
    Reservation,
    Settlement,
    State,
)
from alligator.bell import Bell
from alligator.exceptions import InvalidArguments, TaskRefused
from alligator.payloads import Fitting, Refused, is_signed, plain, raw
from alligator.signing import Keyring, named, place_of

log = logging.getLogger("alligator.task")

_place_of_queue = lru_cache(maxsize=1024)(partial(place_of, "task"))
_FLAGS = [name for name, value in vars(Backend).items() if isinstance(value, bool)]
_SIGNED_FAMILY = f"{keys.SCHEDULES}:"


class SignedStore(Backend):
    """A store, seen through a keyring. What it can do is what the store can.

    Args:
        store: The store.
        keyring: What signs and verifies.
    """

    def __init__(self, store: Backend, keyring: Keyring) -> None:
        self.store = store
        self._keyring = keyring
        for flag in _FLAGS:
            setattr(self, flag, getattr(store, flag))
        self.max_bytes = store.max_bytes
        self.records = None if store.records is None else SignedRecords(store.records, keyring)
        self._knows_ids = knows_ids(store)
        self._interrupts = 0

    def signed(self, queue_name: str, messages: Sequence[Message]) -> list[Message]:
        """Return messages as they are to be pushed to the store itself."""
        return [
            message._replace(
                body=self._sign(queue_name, message.task_id, message.body),
                follow=self._sign_follow(queue_name, message.follow),
            )
            for message in messages
        ]

    # What is written:

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        """Queue tasks, signed."""
        signed = self.signed(queue_name, messages)
        return self.store.push_many(queue_name, signed, max_length=max_length)

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        """Queue tasks, signed."""
        signed = self.signed(queue_name, messages)
        return self.store.push_named(queue_name, signed, max_length=max_length)

    def push_many_if(
        self, queue_name: str, messages: Sequence[Message], key: str, old: bytes, new: bytes
    ) -> bool:
        """Queue tasks, signed, and swap a record."""
        new = _written(self._keyring, key, new)
        return self.store.push_many_if(
            queue_name, self.signed(queue_name, messages), key, raw(old), new
        )

    def watch(self, queue_name: str, task_id: str, follow: Follow) -> bool:
        """Let a task be followed by another, which is signed."""
        signed = self._sign_follow(queue_name, follow)
        return signed is not None and self.store.watch(queue_name, task_id, signed)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Carry out settlements; what is to be tried again is signed."""
        signed, given = self._settlements(settlements)
        return [given.get(id(one), one) for one in self.store.settle(signed)]

    def _settlements(
        self, settlements: Sequence[Settlement]
    ) -> tuple[list[Settlement], dict[int, Settlement]]:
        """Return settlements for the store, and which those were that we were given."""
        signed = [self._settlement(one) for one in settlements]
        pairs = zip(signed, settlements, strict=True)
        return signed, {id(ours): given for ours, given in pairs if ours is not given}

    def _settlement(self, settlement: Settlement) -> Settlement:
        if not isinstance(settlement, Release) or settlement.body is None:
            return settlement
        held = settlement.reservation
        return replace(settlement, body=self._sign(held.queue_name, held.task_id, settlement.body))

    def _sign_follow(self, queue_name: str, follow: Follow | None) -> Follow | None:
        if follow is None:
            return None
        bodies = (
            self._sign(queue_name, follow.task_id, b)
            for b in (follow.on_success, follow.on_failure)
        )
        return Follow(follow.task_id, *bodies)

    def _sign(self, queue_name: str, task_id: str, body: bytes) -> bytes:
        place = self._place(queue_name, task_id)
        if is_signed(body):  # as it was handed out, to be put off
            if self._keyring.why_not(place, body):
                raise InvalidArguments(
                    f"The payload of task {task_id!r} begins as a signed one, and its signature does not fit."
                )
            body = plain(body)
        elif isinstance(body, Refused):
            raise TaskRefused(f"Task {task_id!r} cannot be queued anew: {body.why}.")
        return self._keyring.sign(place, body)

    def _place(self, queue_name: str, task_id: str) -> bytes:
        within = _place_of_queue(queue_name)
        return named(within, task_id if self._knows_ids else "")

    # What is to be run:

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
        """Hand out tasks whose signatures fit. The others are buried; there may be more behind them."""
        signed, given = self._settlements(settlements)
        interrupts, late = self._interrupts, list[Settlement]()
        while True:
            batch = self.store.reserve(
                queue_names,
                worker,
                limit=limit,
                lease=lease,
                wait=wait,
                nap=nap,
                settlements=signed,
            )
            late += (given.get(id(one), one) for one in batch.late)
            fit = self._fit(batch.reservations)
            are_all_refused = batch.reservations and not fit
            if not are_all_refused or self._interrupts != interrupts:
                return Batch(fit, late)
            signed = []

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        """Hand out one task by its id; one whose signature does not fit is buried instead."""
        held = self.store.reserve_task(queue_name, task_id, worker, lease)
        return next(iter(self._fit([held])), None) if held else None

    def _fit(self, reservations: list[Reservation]) -> list[Reservation]:
        """Return those whose signatures fit, and bury the others."""
        refused: list[Settlement] = []
        fit: list[Reservation] = []
        for held in reservations:
            why = self.why_not(held.queue_name, held.task_id, held.body)
            if why:
                log.error("Task %a is refused, and buried: %s", held.task_id, why)
                refused.append(Bury(held, notes.write("refused", TaskRefused(why))))
            else:
                fit.append(held)
        if refused:
            self.store.settle(refused)
        return fit

    def why_not(self, queue_name: str, task_id: str, body: bytes) -> str:
        """Return why a task is not to be trusted; empty: its signature fits."""
        return self._keyring.why_not(self._place(queue_name, task_id), body)

    # What is only looked at:

    def find(self, queue_name: str, task_id: str) -> Found | None:
        """Return a task as it is now."""
        found = self.store.find(queue_name, task_id)
        return found and found._replace(body=self._seen(queue_name, task_id, found.body))

    def walk(
        self, queue_name: str, state: State, cursor: str = "", limit: int = 500
    ) -> tuple[list[Listed], str]:
        """Return some tasks of a queue that are in a state."""
        page, cursor = self.store.walk(queue_name, state, cursor, limit)
        seen = (one._replace(body=self._seen(queue_name, one.task_id, one.body)) for one in page)
        return list(seen), cursor

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        """Take out a task that nobody holds and return its body."""
        body = self.store.cancel(queue_name, task_id)
        return None if body is None else self._seen(queue_name, task_id, body)

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        """Return dead letters, the newest first."""
        letters = self.store.dead(queue_name, task_id=task_id, limit=limit, skip=skip)
        return [one._replace(body=self._seen(queue_name, one.task_id, one.body)) for one in letters]

    def _seen(self, queue_name: str, task_id: str, body: bytes) -> bytes:
        why = self.why_not(queue_name, task_id, body)
        return Refused.of(body, why) if why else Fitting(body)

    # What is moved as it is:

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        """Move dead letters to the end of their queue; what was refused is refused again."""
        return self.store.retry_dead(queue_name, letter_ids, due_at)

    def take_out(
        self, queue_name: str, tasks: Sequence[Listed], key: str, value: bytes, notes: Sequence[str]
    ) -> list[bool]:
        """Take tasks out for good, and note it."""
        listed = [task._replace(body=raw(task.body)) for task in tasks]
        return self.store.take_out(queue_name, listed, key, value, notes)

    def put_dead(self, queue_name: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Put dead letters of another store; they are signed already, or never will be."""
        return self.store.put_dead(
            queue_name, [letter._replace(body=raw(letter.body)) for letter in letters]
        )

    # What has nothing to do with payloads:

    def reschedule(
        self, queue_name: str, task_ids: Sequence[str], due_at: float = 0.0
    ) -> list[bool]:
        """As the store."""
        return self.store.reschedule(queue_name, task_ids, due_at)

    def now(self) -> float:
        """As the store."""
        return self.store.now()

    def warnings(self) -> list[str]:
        """As the store."""
        return self.store.warnings()

    def risks(self, queue_name: str) -> list[str]:
        """As the store."""
        return self.store.risks(queue_name)

    def forget(self, queue_name: str) -> None:
        """As the store."""
        self.store.forget(queue_name)

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """As the store."""
        return self.store.extend(reservations, lease)

    def shortest_lease(self) -> float:
        """As the store."""
        return self.store.shortest_lease()

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        """As the store."""
        return self.store.recover(queue_names, worker, started)

    def drop_all(self, queue_name: str) -> None:
        """As the store."""
        self.store.drop_all(queue_name)

    def count(self, queue_name: str) -> Counts:
        """As the store."""
        return self.store.count(queue_name)

    def len(self, queue_name: str) -> int:
        """As the store."""
        return self.store.len(queue_name)

    def queues(self) -> list[str]:
        """As the store."""
        return self.store.queues()

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        """As the store."""
        return self.store.purge_dead(queue_name, letter_ids)

    def joins(self, connection: object) -> bool:
        """As the store."""
        return self.store.joins(connection)

    def within(self, connection: object) -> "SignedStore":
        """Return such a store for the caller's transaction."""
        return SignedStore(self.store.within(connection), self._keyring)

    def complete(self, reservation: Reservation) -> None:
        """As the store."""
        self.store.complete(reservation)

    def migration(self) -> str:
        """As the store."""
        return self.store.migration()

    def migrate(self) -> bool:
        """As the store."""
        return self.store.migrate()

    def interrupt(self) -> None:
        """Make a reserve return, also one that meets nothing but what is to be refused."""
        self._interrupts += 1
        self.store.interrupt()

    def close(self) -> None:
        """As the store."""
        self.store.close()


def bare(store: Backend) -> Backend:
    """Return a store without its keys: to move what is in it as it is."""
    return store.store if isinstance(store, SignedStore) else store


def can_sign(source: Backend, target: Backend, body: bytes) -> bool:
    """Return whether a task can go from one store to the other as far as its signature goes.

    It cannot where it would have to be signed anew, for only one of the two knows tasks by their ids, and there
    are no keys here.
    """
    if not payloads.is_signed(body) or knows_ids(bare(source)) == knows_ids(bare(target)):
        return True
    return isinstance(source, SignedStore) and isinstance(target, SignedStore)


def resigned(source: Backend, target: Backend, queue_name: str, task_id: str, body: bytes) -> bytes:
    """Return a task of one store as another one is to have it.

    What no signature fits stays as it is, for the workers there to refuse.
    """
    if not isinstance(source, SignedStore) or not isinstance(target, SignedStore):
        return body
    if source.why_not(queue_name, task_id, body):
        return body
    [message] = target.signed(queue_name, [Message(task_id, payloads.plain(body))])
    return message.body


def knows_ids(store: Backend) -> bool:
    """Return whether a store knows tasks by the ids that they were pushed under."""
    return store.can_find and store.keeps_ids


class SignedRecords:
    """Records, of which the schedules are signed.

    Args:
        records: The records.
        keyring: What signs and verifies.
    """

    def __init__(self, records: Records, keyring: Keyring) -> None:
        self._records = records
        self._keyring = keyring

    def get(self, key: str) -> bytes | None:
        """Return the value of a key."""
        value = self._records.get(key)
        return None if value is None else self._seen(key, value)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        return self._all_seen(self._records.get_many(keys))

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value."""
        self._records.set(key, _written(self._keyring, key, value), ttl)

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values."""
        written = {key: _written(self._keyring, key, value) for key, value in values.items()}
        self._records.set_many(written, ttl)

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write a value if the present one still is ``old``."""
        before = None if old is None else raw(old)
        return self._records.swap(key, before, _written(self._keyring, key, new), ttl)

    def delete(self, *keys: str) -> None:
        """Forget keys."""
        self._records.delete(*keys)

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return the keys and values of a family."""
        return self._all_seen(self._records.list(family, limit))

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Block until a key has a value."""
        self._records.wait(keys, timeout, bell)

    def _all_seen(self, values: dict[str, bytes]) -> dict[str, bytes]:
        return {key: self._seen(key, value) for key, value in values.items()}

    def _seen(self, key: str, value: bytes) -> bytes:
        if not key.startswith(_SIGNED_FAMILY):
            return value
        why = self._keyring.why_not(place_of("record", key), value)
        return Refused.of(value, why) if why else Fitting(value)


def _written(keyring: Keyring, key: str, value: bytes) -> bytes:
    """Return a record as it is to be written."""
    if not key.startswith(_SIGNED_FAMILY):
        return value
    return keyring.sign(place_of("record", key), plain(value))
