"""How far a task is, in a record; and from where it resumes when it is broken off."""

import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from alligator import keys, payloads
from alligator.backends.base import Backend, Release, Reservation
from alligator.exceptions import BackendRefused, BackendUnavailable, UnreadableTask

log = logging.getLogger("alligator.task")

SAVE_EVERY = 0.5
"""Seconds between two writes of how far a task is: often enough for a person, and seldom enough for a store."""
AT_ONCE = 20
"""Writes that need not wait for that, when a part of the work begins or ends: the next may take long, and it
shall be seen meanwhile. So many at a time; then one each ``SAVE_EVERY`` again."""
KEPT_FOR = 7 * 86400.0
"""Seconds that a checkpoint is kept, should nothing ever come of its task."""

# No more than that: what tells the task that its time is over may come in the midst of a call, and is to pass.
_NO_STORE = (BackendUnavailable, BackendRefused)


class Checkpoint:
    """How far a task is: told by itself, and kept in a record.

    Loops are counted as they come, one after the other; what runs inside another one is not counted, and has no
    checkpoint: in a new attempt it would be met under another number.
    """

    def __init__(self, backend: Backend, held: Reservation | None) -> None:
        self._records = backend.records if held else None
        self._key = key_of(held.queue_name, held.task_id) if held else ""
        self._token = held.token if held else ""
        self._body = payloads.mark_of(held.body) if held else 0
        self._done: float | None = None
        self._total: float | None = None
        self._note = ""
        self._passed: list[int] = []
        self._before: list[int] = []
        self._open: int | None = None
        self._told = 0
        self._saved = 0
        self._is_kept = False
        self._saved_at = -math.inf
        self._next_at_once = -math.inf

    def tell(self, done: float, total: float | None, note: str) -> None:
        """Take note of how far the task says that it is."""
        is_another_part = (total, note) != (self._total, self._note)
        self._say(done, total, note)
        if is_another_part:
            self.save_soon()

    def enter(self) -> int | None:
        """Begin a loop; return its number, or None if it is inside another."""
        if self._open is not None:
            return None
        number = len(self._passed)
        self._passed.append(self._before[number] if number < len(self._before) else 0)
        self._open = number
        return number

    def resumed(self, loop: int | None) -> int:
        """Return how many items of a loop were passed by the attempt before."""
        return 0 if loop is None else self._passed[loop]

    def passed(self, loop: int | None, number: int, total: int | None, note: str) -> None:
        """Note that an item is done."""
        if loop is not None:
            self._passed[loop] = number
            self._say(number, total, note)

    def leave(self, loop: int | None) -> None:
        """End a loop."""
        if loop is not None:
            self._open = None

    def save_soon(self) -> None:
        """Write how far the task is: at once, unless that was done often of late."""
        now = time.monotonic()
        if self._saved != self._told and now >= self._next_at_once:
            earliest = now - AT_ONCE * SAVE_EVERY
            self._next_at_once = max(self._next_at_once, earliest) + SAVE_EVERY
            self.save()

    def save(self) -> None:
        """Write how far the task is."""
        self._saved_at = time.monotonic()
        if self._saved == self._told or self._records is None:
            return
        number = (
            self._told
        )  # of what is written now; a thread of the task's own may tell more meanwhile
        # Loops that were not come to this time are as far as they were.
        passed = self._passed + self._before[len(self._passed) :]
        told = {
            "done": self._done,
            "total": self._total,
            "note": self._note,
            "at": time.time(),
            "passed": passed,
            "token": self._token,
            "body": self._body,
        }
        try:
            self._is_kept = True
            self._records.set(self._key, payloads.encode(told).encode(), KEPT_FOR)
            self._saved = number
        except _NO_STORE as err:  # the task shall not fail for this
            log.debug("Cannot say how far a task is: %s", err)

    def forget(self) -> None:
        """Remove what was written, for good."""
        try:
            if self._is_kept and self._records is not None:
                self._records.delete(self._key)
        except _NO_STORE as err:
            log.debug("Cannot remove how far a task was: %s", err)
        self._records = None  # a thread that the task has left behind may go on and on

    def resume(self, tokens: Collection[object], *, has_died: bool) -> None:
        """Take up what an attempt before has left, unless that was of another task of the same id.

        Args:
            tokens: The hand-outs whose checkpoint is this one's.
            has_died: Whether the hand-out before came to nothing: then nobody could tell its token, but that
                the task was the same shows by its body.
        """
        if self._records is None:
            return
        try:
            value = self._records.get(self._key)
        except _NO_STORE as err:
            log.warning("Cannot read how far a task was, it begins anew: %s", err)
            return
        if value is None:
            return
        self._is_kept = True
        passed, token, body = _told_in(value)
        if (token and token in tokens) or (has_died and body == self._body):
            self._before = passed
            self._told += 1  # by another hand-out: to be written under the token of this one

    def _say(self, done: float, total: float | None, note: str) -> None:
        self._done, self._total, self._note = done, total, note
        self._told += 1
        if time.monotonic() - self._saved_at > SAVE_EVERY:
            self.save()


def _told_in(value: bytes) -> tuple[list[int], object, object]:
    """Return how many items of each loop were passed, under which hand-out, and the mark of its body."""
    told = payloads.object_in(value)
    passed: object = told.get("passed")
    loops = cast(list[object], passed) if isinstance(passed, list) else []
    counted = [one for one in loops if isinstance(one, int) and 0 <= one <= sys.maxsize]
    return counted if counted == loops else [], told.get("token"), told.get("body")


def key_of(queue_name: str, task_id: str) -> str:
    """Return the key under which it is kept how far a task is."""
    return f"{keys.PROGRESS}/{keys.ref(queue_name, task_id)}"


def last_said(backend: Backend, held: Reservation, token: str) -> dict[str, Any] | None:
    """Return how far a task said that it was when its process ended; None: it said nothing.

    Args:
        backend: The store.
        held: The present hand-out of the task.
        token: The one that the process had, if that is known.
    """
    if backend.records is None:
        return None
    told = payloads.object_in(backend.records.get(key_of(held.queue_name, held.task_id)) or b"")
    is_same = told.get("token") == token or told.get("body") == payloads.mark_of(held.body)
    if not is_same or (done := payloads.number(told.get("done"))) is None:
        return None
    # Anybody may have written it, and it becomes a part of what is written of the task.
    total, at = payloads.number(told.get("total")), payloads.number(told.get("at"))
    return {"done": done, "total": total, "note": str(told.get("note", "")), "at": at}


def resuming(
    backend: Backend,
    releases: Sequence[Release],
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Release]:
    """Return what becomes of tasks that go back uncounted: those that left a checkpoint are to resume from it.

    A checkpoint is of one hand-out, and the next one has to know which: else it might be that of another task
    that had the same id. So it goes into the body.

    Args:
        backend: The store.
        releases: Of the tasks.
        meanwhile: Called after each task that has left one: to look for its body takes a round trip.
    """
    if backend.records is None:
        return list(releases)
    keys_of = {key_of(*release.reservation[:2]): release for release in releases if _may(release)}
    left = backend.records.get_many(list(keys_of)) if keys_of else {}
    by_release: dict[int, Release] = {}
    for key, release in keys_of.items():
        if _token_in(left.get(key)) == release.reservation.token:
            by_release[id(release)] = _resuming(backend, release)
            meanwhile()
    return [by_release.get(id(release), release) for release in releases]


def _may(release: Release) -> bool:
    # After a delivery that came to nothing, the next one takes up what it finds.
    return release.body is None and not release.lapsed and release.reservation.deliveries == 1


def _resuming(backend: Backend, release: Release) -> Release:
    held = release.reservation
    try:
        payload = payloads.decode(held.body or _body_of(backend, held))
        payload["options"] = {**payload.get("options", {}), "resumes": held.token}
        return replace(release, body=payloads.encode(payload).encode())
    except (UnreadableTask, ValueError, RecursionError):
        return release  # of a class with a form of its own, or NaN in it: it begins anew


def _body_of(backend: Backend, held: Reservation) -> bytes:
    found = backend.find(held.queue_name, held.task_id) if backend.can_find else None
    # What is on a board does not tell the deliveries; a new body would let them be counted anew.
    return found.body if found and found.deliveries == 1 else b""


def _token_in(value: bytes | None) -> object:
    return payloads.object_in(value or b"").get("token")
