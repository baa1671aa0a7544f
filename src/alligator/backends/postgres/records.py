"""Records in PostgreSQL, a row each."""

import time
from collections.abc import Mapping, Sequence

from alligator.backends.base import ttl_of
from alligator.backends.postgres.connection import Calls
from alligator.backends.postgres.listener import RECORDS, Listener
from alligator.bell import Bell, Woken

_GET = """
SELECT key, value FROM {s}.records WHERE key = ANY (%s::text[])
AND (expires_at > extract(epoch FROM statement_timestamp())::float8) IS NOT FALSE
"""

_LIST = """
SELECT key, value FROM {s}.records WHERE key >= %s::text AND key < %s::text
AND (expires_at > extract(epoch FROM statement_timestamp())::float8) IS NOT FALSE
ORDER BY key LIMIT %s
"""

LONGEST_UNTOLD = 0.25
"""Seconds between two looks for a value, where nobody tells of it."""


class Records:
    """The records of a schema."""

    def __init__(self, calls: Calls, listener: Listener) -> None:
        self._calls = calls
        self._listener = listener

    def get(self, key: str) -> bytes | None:
        """Return the value of a key."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return several values."""
        return dict(self._calls.rows(_GET, (list(keys),)))

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value."""
        self.set_many({key: value}, ttl)

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values, in one step."""
        if values:
            ttls = None if ttl is None else [ttl_of(key, ttl) for key in values]
            self._calls.call("set_records", list(values), list(values.values()), ttls)

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write a value if it still is ``old``."""
        return bool(self._calls.call("swap", key, old, new, ttl))

    def delete(self, *keys: str) -> None:
        """Forget keys."""
        self._calls.call("delete_records", list(keys))

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return a family."""
        most = None if limit is None else max(0, limit)
        # "0" comes after "/".
        return dict(self._calls.rows(_LIST, (f"{family}/", f"{family}0", most)))

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Wait for a value; its writing is told to those who listen."""
        if not keys:
            return
        bell = bell or Bell()
        until = time.monotonic() + timeout
        with self._listener.waiting(RECORDS, keys) as waiter:
            while True:
                waiter.attend()
                if self.get_many(keys):
                    return
                look = min(waiter.look(LONGEST_UNTOLD), until - time.monotonic())
                if look <= 0 or waiter.wait(look, bell) is not Woken.IN_TIME:
                    return
