"""Records in this process's memory."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Mapping, Sequence

from alligator.backends.base import ttl_of
from alligator.bell import Bell

LONGEST_WAIT = 1.0
"""Seconds: who waits longer is to look again in between."""


class MemoryRecords:
    """Small values in memory.

    Args:
        clock: Seconds since 1970; the store's clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By family and key: the value, and when it expires.
        self._families: dict[str, dict[str, tuple[bytes, float]]] = {}
        self._expiring: list[tuple[float, str]] = []
        # Those who wait: their bells, and what for.
        self._waiting: list[tuple[Bell, frozenset[str]]] = []

    def get(self, key: str) -> bytes | None:
        """Return the value of a key."""
        with self._lock:
            return self._get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return several values."""
        with self._lock:
            return {key: value for key in keys if (value := self._get(key)) is not None}

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value."""
        with self._lock:
            self._set(key, value, ttl)

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values."""
        with self._lock:
            for key, value in values.items():
                self._set(key, value, ttl_of(key, ttl))

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write a value if it still is ``old``."""
        with self._lock:
            if self._get(key) != old:
                return False
            self._set(key, new, ttl)
            return True

    def delete(self, *keys: str) -> None:
        """Forget keys."""
        with self._lock:
            for key in keys:
                self._delete(key)

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return a family."""
        with self._lock:
            now = self._clock()
            values = sorted(self._families.get(family, {}).items())
        found = ((key, value) for key, (value, expires_at) in values if expires_at > now)
        return dict(itertools.islice(found, None if limit is None else max(0, limit)))

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Wait for a value: who writes one rings the bell."""
        bell = bell or Bell()
        waiting = bell, frozenset(keys)
        with self._lock:
            if any(self._get(key) is not None for key in keys):
                return
            self._waiting.append(waiting)
        try:
            bell.wait(min(timeout, LONGEST_WAIT))
        finally:
            with self._lock:
                self._waiting.remove(waiting)

    def _get(self, key: str) -> bytes | None:
        value, expires_at = self._families.get(_family(key), {}).get(key, (None, math.inf))
        return value if expires_at > self._clock() else None

    def _set(self, key: str, value: bytes, ttl: float | None) -> None:
        now = self._clock()
        expires_at = math.inf if ttl is None else now + ttl
        self._families.setdefault(_family(key), {})[key] = value, expires_at
        if ttl is not None:
            heapq.heappush(self._expiring, (expires_at, key))
        self._forget_expired(now)
        for bell, keys in self._waiting:
            if key in keys:
                bell.ring()

    def _forget_expired(self, now: float) -> None:
        # Two for one that is written: what has expired cannot pile up.
        for _ in range(2):
            if self._expiring and self._expiring[0][0] <= now:
                _, key = heapq.heappop(self._expiring)
                if self._get(key) is None:  # else it was written anew
                    self._delete(key)

    def _delete(self, key: str) -> None:
        family = self._families.get(_family(key), {})
        family.pop(key, None)
        if not family:
            self._families.pop(_family(key), None)


def _family(key: str) -> str:
    return key.partition("/")[0]
