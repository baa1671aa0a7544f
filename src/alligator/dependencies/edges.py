"""Which tasks need which: two records for each pair, one to be found from either side."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from alligator import keys, payloads
from alligator.backends.abilities import refusal
from alligator.backends.base import MAX_ID_BYTES, MAX_NAME_BYTES, Backend, Records, is_name
from alligator.exceptions import InvalidOption

AT_ONCE = 500
"""Pairs to write in one round trip: the store is free for others in between."""

Name = tuple[str, str]
"""A task: its queue and its id."""


@dataclass(frozen=True, slots=True)
class Edge:
    """That one task needs another; both records of it hold this. All moments are of the store's clock."""

    of: int = 0
    """How many the task was pushed with; 0: not known."""
    at: float = 0.0
    """When it was pushed; the same for all that it needs, and so tells them from what others have left."""
    due_at: float = 0.0
    """When it may start, should it need nothing more by then."""
    failed: str = ""
    """Why it will never get what it needs, as a clause; empty: it still may."""
    missing_since: float = 0.0
    """Since when nothing is known of the task that it needs; 0: that is not so."""
    own_id: bool = False
    """Whether its id was made for it, so that no other task can have it."""

    @classmethod
    def read(cls, value: bytes) -> Self:
        """Read a record; what makes no sense in it is left out."""
        told = payloads.object_in(value)
        failed = told.get("failed")
        return cls(
            of=int(payloads.number(told.get("of")) or 0),
            at=payloads.number(told.get("at")) or 0.0,
            due_at=payloads.number(told.get("due_at")) or 0.0,
            failed=failed if isinstance(failed, str) else "",
            missing_since=payloads.number(told.get("missing_since")) or 0.0,
            own_id=told.get("own_id") is True,
        )

    def written(self) -> bytes:
        """Return the record."""
        return payloads.encode({key: told for key, told in asdict(self).items() if told}).encode()


def link(backend: Backend, edges: Mapping[tuple[Name, Name], Edge]) -> None:
    """Write that tasks need others: by pairs of who needs, and what is needed."""
    pairs = list(edges)
    for at in range(0, len(pairs), AT_ONCE):
        some = pairs[at : at + AT_ONCE]
        # Should only the first half arrive, then the half that is cleaned up when what is needed is over.
        values = {dependent(*pair): edges[pair].written() for pair in some}
        values |= {need(*pair): edges[pair].written() for pair in some}
        records_of(backend).set_many(values)


def unlink(backend: Backend, pairs: Sequence[tuple[Name, Name]]) -> None:
    """Forget that tasks need others, and that they failed for want of them."""
    for at in range(0, len(pairs), AT_ONCE):
        some = pairs[at : at + AT_ONCE]
        names = (key(*pair) for pair in some for key in (need, dependent, failed_by))
        records_of(backend).delete(*names)


def edges_in(backend: Backend, family: str, limit: int | None = None) -> dict[Name, Edge]:
    """Return the edges of a family, by the task at their other end."""
    found = records_of(backend).list(family, limit)
    refs = {key.partition("/")[2]: value for key, value in found.items()}
    names = {ref: keys.of_ref(ref) for ref in refs}
    # What is not as we write it is not ours: by the task that it names, it could never be deleted, nor could
    # every store be asked for it.
    return {
        name: Edge.read(refs[ref])
        for ref, name in names.items()
        if keys.ref(*name) == ref and _can_be(*name)
    }


def _can_be(queue_name: str, task_id: str) -> bool:
    return is_name(queue_name, MAX_NAME_BYTES) and is_name(task_id, MAX_ID_BYTES)


def needs_in(body: bytes) -> Collection[Name] | None:
    """Return what a queued task was pushed to wait for, by its payload; None if only its class can tell."""
    options = payloads.options_in(body)
    if options is None:
        return None
    try:
        return [(str(name), str(task_id)) for name, task_id in options.get("depends_on", ())]
    except (TypeError, ValueError):
        return None


def needs_of(name: Name) -> str:
    """Return the family of what a task still needs."""
    return f"{keys.NEEDS}:{keys.ref(*name)}"


def dependents_of(name: Name) -> str:
    """Return the family of what depends on a task, and waits."""
    return f"{keys.DEPENDENTS}:{keys.ref(*name)}"


def failed_of(name: Name) -> str:
    """Return the family of what depended on a task, and failed with it."""
    return f"{keys.FAILED_BY}:{keys.ref(*name)}"


def need(of: Name, on: Name) -> str:
    """Return the key of what one task needs of another."""
    return f"{needs_of(of)}/{keys.ref(*on)}"


def dependent(of: Name, on: Name) -> str:
    """Return the key of the same from the other's side."""
    return f"{dependents_of(on)}/{keys.ref(*of)}"


def failed_by(of: Name, on: Name) -> str:
    """Return the key of that one task failed because of another."""
    return f"{failed_of(on)}/{keys.ref(*of)}"


def records_of(backend: Backend) -> Records:
    """Return the store's records: without any, no task has got in that depends on others."""
    if backend.records is None:
        raise InvalidOption(refusal(type(backend).__module__, "depends_on"))
    return backend.records
