"""From where a task resumes that was broken off, with nothing that it could do about it."""

import json
from collections.abc import Sequence
from dataclasses import replace

from alligator import keys, payloads
from alligator.backends.base import Backend, Release, Reservation
from alligator.exceptions import UnreadableTask


def key_of(queue_name: str, task_id: str) -> str:
    """Return the key under which it is kept how far a task is."""
    return f"{keys.PROGRESS}/{keys.ref(queue_name, task_id)}"


def resuming(backend: Backend, releases: Sequence[Release]) -> list[Release]:
    """Return what becomes of tasks that go back uncounted: those that left a checkpoint are to resume from it.

    A checkpoint is of one hand-out, and the next one has to know which: else it might be that of another task
    that had the same id. So it goes into the body.
    """
    if backend.records is None:
        return list(releases)
    keys_of = {key_of(*release.reservation[:2]): release for release in releases if _may(release)}
    left = backend.records.get_many(list(keys_of)) if keys_of else {}
    by_release = {
        id(release): _resuming(backend, release)
        for key, release in keys_of.items()
        if _token_in(left.get(key)) == release.reservation.token
    }
    return [by_release.get(id(release), release) for release in releases]


def _may(release: Release) -> bool:
    # After a delivery that came to nothing, the next one takes up what it finds.
    return release.body is None and not release.lapsed and release.reservation.deliveries == 1


def _resuming(backend: Backend, release: Release) -> Release:
    held = release.reservation
    try:
        payload = payloads.decode(held.body or _body_of(backend, held))
    except UnreadableTask:  # of a class with a form of its own: it begins anew
        return release
    payload["options"] = {**payload.get("options", {}), "resumes": held.token}
    return replace(release, body=payloads.encode(payload).encode())


def _body_of(backend: Backend, held: Reservation) -> bytes:
    found = backend.find(held.queue_name, held.task_id) if backend.can_find else None
    return found.body if found else b""


def _token_in(value: bytes | None) -> object:
    try:
        return json.loads(value or b"{}").get("token")
    except (ValueError, AttributeError):
        return None
