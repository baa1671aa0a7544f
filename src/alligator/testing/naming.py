"""Stores that name tasks themselves, with tasks that are called as the tests call them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from alligator.backends.base import (
    Backend,
    Batch,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
)

_NAMES: dict[tuple[str, str], str] = {}
"""What the tests call a task, by its store and its id there; for all clients of this process."""


def forget() -> None:
    """Forget all names: an emptied store may give the same ids again."""
    _NAMES.clear()


class Named(Backend):
    """A client of such a store. A task that another process has pushed is called as its body is.

    Args:
        backend: The client.
        store: Which store it is one of, such as its DSN.
    """

    def __init__(self, backend: Backend, store: str) -> None:
        self.backend = backend
        self._store = store
        self._handed_out: dict[tuple[str, str], str] = {}
        for flag, value in vars(Backend).items():
            if isinstance(value, bool) or flag == "max_bytes":
                setattr(self, flag, getattr(backend, flag))

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        ids = self.backend.push_named(queue_name, messages, max_length=max_length)
        for message, task_id in zip(messages, ids, strict=True):
            _NAMES[self._store, task_id] = message.task_id
        return [message.task_id for message in messages]

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        return [True] * len(self.push_named(queue_name, messages, max_length=max_length))

    def reserve(
        self,
        queue_names: Sequence[str],
        worker: str,
        *,
        settlements: Sequence[Settlement] = (),
        **options: Any,
    ) -> Batch:
        inner = [self._inner(settlement) for settlement in settlements]
        batch = self.backend.reserve(queue_names, worker, settlements=inner, **options)
        late = [outer for outer, one in zip(settlements, inner, strict=True) if one in batch.late]
        return Batch([self._named(held) for held in batch.reservations], late)

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        for one in self._ids(task_id):
            held = self.backend.reserve_task(queue_name, one, worker, lease)
            if held is not None:
                return self._named(held)
        return None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        inner = [self._inner(settlement) for settlement in settlements]
        late = {id(settlement) for settlement in self.backend.settle(inner)}
        return [outer for outer, one in zip(settlements, inner, strict=True) if id(one) in late]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        inner = [self._held(held) for held in reservations]
        lost = {id(held) for held in self.backend.extend(inner, lease)}
        return [outer for outer, one in zip(reservations, inner, strict=True) if id(one) in lost]

    def shortest_lease(self) -> float:
        return self.backend.shortest_lease()

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        ids = [one for name in started for one in self._ids(name)]
        return self.backend.recover(queue_names, worker, ids)

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        found = (self.backend.cancel(queue_name, one) for one in self._ids(task_id))
        return next((body for body in found if body is not None), None)

    def get(self, queue_name: str, task_id: str) -> bytes | None:
        found = (self.backend.get(queue_name, one) for one in self._ids(task_id))
        return next((body for body in found if body is not None), None)

    def drop_all(self, queue_name: str) -> None:
        self.backend.drop_all(queue_name)

    def count(self, queue_name: str) -> Counts:
        return self.backend.count(queue_name)

    def queues(self) -> list[str]:
        return self.backend.queues()

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if task_id is None:
            letters = self.backend.dead(queue_name, limit=limit, skip=skip)
            return [self._named_letter(letter) for letter in letters]
        # A name may be that of several tasks of the store.
        letters = [
            self._named_letter(letter) for letter in self.backend.dead(queue_name, limit=100_000)
        ]
        its = [letter for letter in letters if letter.task_id == task_id]
        return its[skip : skip + max(limit, 0)]

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        return self.backend.retry_dead(queue_name, letter_ids, due_at)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        return self.backend.purge_dead(queue_name, letter_ids)

    def now(self) -> float:
        return self.backend.now()

    def interrupt(self) -> None:
        self.backend.interrupt()

    def close(self) -> None:
        self.backend.close()

    def _name(self, task_id: str, body: bytes) -> str:
        name = _NAMES.get((self._store, task_id))
        return body.decode(errors="replace") if name is None else name

    def _ids(self, name: str) -> list[str]:
        """Return the ids of the tasks of that name, the last one first; or the name itself."""
        ids = [one for (store, one), its in _NAMES.items() if (store, its) == (self._store, name)]
        return ids[::-1] or [name]

    def _named(self, held: Reservation) -> Reservation:
        name = self._name(held.task_id, held.body)
        self._handed_out[held.token, name] = held.task_id
        return held._replace(task_id=name)

    def _named_letter(self, letter: DeadLetter) -> DeadLetter:
        return letter._replace(task_id=self._name(letter.task_id, letter.body))

    def _held(self, held: Reservation) -> Reservation:
        its_id = self._handed_out.get((held.token, held.task_id), held.task_id)
        return held._replace(task_id=its_id)

    def _inner(self, settlement: Settlement) -> Settlement:
        held = self._held(settlement.reservation)
        if isinstance(settlement, Release):
            return replace(settlement, reservation=held)
        return settlement._replace(reservation=held)
