"""A line of tasks, first come first served, for those who keep it in a record of their own.

Such a record stays small however long the line is: it holds both ends, and what is between them lies in records
of CHUNK tasks each. They are written before the owner swaps the record that says so, and removed afterwards;
so a crash in between leaves some behind that nobody looks at, until they expire.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from alligator import payloads
from alligator.backends.base import Records

CHUNK = 50
"""Tasks a record; and up to three times as many in the owner's, beside those that have just come. With more,
each swap of that takes longer."""
LONGEST = 10**9
"""Tasks in a line: with more, somebody has made them up."""
KEPT_FOR = 30 * 86400.0
"""Seconds that a chunk is kept. Tasks that wait longer lose their places, and get new ones at the end."""


class Line:
    """Tasks in order of arrival.

    Each has a place, a number. One that is gone with nobody telling the line still has its place: whoever takes
    out a task has to see whether it still waits.

    Args:
        records: Where chunks are.
        family: Their family.
        told: What ``to_json`` returned; or what somebody else has put in its place.
        new_at: The first place of a line that begins now: above those of any line that was there before, so
            that what may be left of it is not taken for a part of this one.

    Raises:
        ValueError, TypeError: What is told makes no sense.
    """

    def __init__(
        self, records: Records, family: str, told: Mapping[str, Any], new_at: float
    ) -> None:
        self._records = records
        self._family = family
        self._head = _refs(told.get("head", []))
        self._tail = _refs(told.get("tail", []))
        # The places of the first in the head, and of the first in the tail.
        self._first = _place(told.get("first", int(new_at)))
        self._tail_at = _place(told.get("tail_at", self._first))
        if not len(self._head) <= self._tail_at - self._first <= LONGEST:
            raise ValueError(f"places {self._first} to {self._tail_at} make no line")
        self._settled = len(self._tail)
        self._new: dict[str, bytes] = {}
        self._old: list[str] = []

    def __len__(self) -> int:
        return self._tail_at + len(self._tail) - self._first

    def to_json(self) -> dict[str, Any]:
        """Return what the owner's record has to say of it."""
        told = {"first": self._first, "tail_at": self._tail_at}
        return {**told, "head": self._head, "tail": self._tail} if self else {}

    def has_at_an_end(self, ref: str) -> bool:
        """Return whether a task is in that part of the line which the owner's record holds."""
        return ref in self._head or ref in self._tail

    def has_between(self, ref: str) -> bool:
        """Return whether a task is in the other part."""
        if not self._has_chunks:
            return False
        try:
            place = int(self._records.get(self._key(ref)) or b"")
        except ValueError:
            return False
        return self._first + len(self._head) <= place < self._tail_at

    def last(self) -> str:
        """Return the last one, in a line that is not empty."""
        return (self._tail or self._head)[-1]

    def append(self, ref: str) -> None:
        """Put a task at the end."""
        self._tail.append(ref)

    def pop(self) -> str | None:
        """Take out the first one; None when there is none."""
        while self:
            if not self._head:
                self._fill_head()
            if self._head:
                self._first += 1
                return self._head.pop(0)
        return None

    def shorten(self) -> None:
        """Make chunks of what is too long for the owner's record.

        Of those only who had their places there when it was read: whoever does the same at the same moment then
        writes the same. The others may yet lose their places to others, when the record is swapped.
        """
        while self._settled >= 2 * CHUNK:
            chunk, self._tail = self._tail[:CHUNK], self._tail[CHUNK:]
            self._new[self._key(self._tail_at)] = payloads.encode(chunk).encode()
            for ref in chunk:  # for those who come back, and look whether they have a place
                self._new[self._key(ref)] = b"%d" % self._tail_at
            self._tail_at += CHUNK
            self._settled -= CHUNK

    def before_swap(self) -> None:
        """Write what the owner's record is about to refer to."""
        if self._new:
            self._records.set_many(self._new, KEPT_FOR)

    def after_swap(self) -> None:
        """Remove what the owner's record does not refer to any more."""
        if self._old:
            self._records.delete(*self._old)

    @property
    def _has_chunks(self) -> bool:
        return self._first + len(self._head) < self._tail_at

    def _fill_head(self) -> None:
        if not self._has_chunks:
            self._head, self._tail = self._tail[:CHUNK], self._tail[CHUNK:]
            self._tail_at += len(self._head)
            self._settled = max(0, self._settled - CHUNK)
            return
        key = self._key(self._first)
        self._head = self._chunk(key)
        if not self._head:  # expired, or somebody has removed it
            self._skip()
        self._old += [key, *map(self._key, self._head)]

    def _skip(self) -> None:
        """Go on with the first chunk that is there: the oldest ones go first."""
        places = range(self._first, self._tail_at, CHUNK)
        # Not one after the other: by what somebody else may have written there, they could be millions.
        found = bisect_left(places, True, key=lambda place: bool(self._chunk(self._key(place))))
        self._first = places[found] if found < len(places) else self._tail_at

    def _chunk(self, key: str) -> list[str]:
        """Return the tasks of a chunk; none if it is not there, or makes no sense."""
        try:
            refs = _refs(payloads.list_in(self._records.get(key) or b""))
        except ValueError:
            return []
        return refs if len(refs) == CHUNK else []

    def _key(self, name: int | str) -> str:
        # A ref has a ":", and so never is a number.
        return f"{self._family}/{name}"


def _place(told: Any) -> int:
    if not isinstance(told, int) or not 0 <= told < 2**62:
        raise ValueError(f"{told!r:.100} is no place")
    return told


def _refs(told: Any) -> list[str]:
    return [checked(ref) for ref in told]


def checked(ref: Any) -> str:
    """Return what names a task, in a record that anybody may have written.

    Raises:
        ValueError: It names none.
    """
    if not isinstance(ref, str) or ":" not in ref:
        raise ValueError(f"{ref!r:.100} names no task")
    ref.encode()  # a lone surrogate, too, is a ValueError
    return ref
