"""Records in a SQLite file, a row each."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

from alligator.backends.base import ttl_of
from alligator.backends.sqlite.file import Database, version_of
from alligator.backends.sqlite.wake import LONGEST_LOOK, Wake
from alligator.bell import Bell, Woken


class FileRecords:
    """Small values in a file.

    Args:
        database: The file.
        wake: Wakes those who wait for a value, and nobody else.
        clock: Seconds since 1970; the store's clock.
    """

    def __init__(self, database: Database, wake: Wake, clock: Callable[[], float]) -> None:
        self._database = database
        self._wake = wake
        self._clock = clock

    def get(self, key: str) -> bytes | None:
        """Return the value of a key."""
        with self._database.read() as db:
            return self._get(db, key)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return several values."""
        with self._database.read() as db:
            found = ((key, self._get(db, key)) for key in keys)
            return {key: value for key, value in found if value is not None}

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value."""
        self.set_many({key: value}, ttl)

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values, in one transaction."""
        with self._database.write() as db:
            for key, value in values.items():
                self._set(db, key, value, ttl_of(key, ttl))
        self.ring()

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write a value if it still is ``old``."""
        with self._database.write() as db:
            done = self.swap_within(db, key, old, new, ttl)
        if done:
            self.ring()
        return done

    def swap_within(
        self,
        db: sqlite3.Connection,
        key: str,
        old: bytes | None,
        new: bytes,
        ttl: float | None = None,
    ) -> bool:
        """Swap in a transaction of the caller, who rings when it is over."""
        if self._get(db, key) != old:
            return False
        self._set(db, key, new, ttl)
        return True

    def set_within(self, db: sqlite3.Connection, key: str, value: bytes) -> None:
        """Write a value in a transaction of the caller, for nobody who waits."""
        self._set(db, key, value, None)

    def delete(self, *keys: str) -> None:
        """Forget keys."""
        with self._database.write() as db:
            db.executemany("DELETE FROM alligator_records WHERE key = ?", [(key,) for key in keys])

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return a family."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT key, CAST(value AS BLOB) FROM alligator_records WHERE key >= ? AND key < ? "
                "AND ifnull(expires_at > ?, 1) ORDER BY key LIMIT ?",
                # "0" comes after "/"; without a limit, SQLite says -1.
                (f"{family}/", f"{family}0", self._clock(), -1 if limit is None else max(0, limit)),
            ).fetchall()
        return dict(rows)

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Wait for a value. Who writes one rings; and now and then the file is asked whether it changed."""
        bell = bell or Bell()
        until = time.monotonic() + timeout
        seen = None
        self._wake.clear()
        while True:
            with self._database.read() as db:  # anew for each look: the file may have been replaced
                version = db, version_of(db)
                if version != seen and self._has_any(db, keys):
                    return
            seen, now = version, time.monotonic()
            look = min(LONGEST_LOOK, until - now)
            if look <= 0 or bell.wait(look, *self._wake.files()) is not Woken.IN_TIME:
                return

    def ring(self) -> None:
        """Wake up those who wait for a value."""
        self._wake.ring()

    def _has_any(self, db: sqlite3.Connection, keys: Sequence[str]) -> bool:
        return any(self._get(db, key) is not None for key in keys)

    def _get(self, db: sqlite3.Connection, key: str) -> bytes | None:
        row = db.execute(
            # Who writes by other means than ours may have put text there, or a number.
            "SELECT CAST(value AS BLOB) FROM alligator_records WHERE key = ? AND ifnull(expires_at > ?, 1)",
            (key, self._clock()),
        ).fetchone()
        return row[0] if row else None

    def _set(self, db: sqlite3.Connection, key: str, value: bytes, ttl: float | None) -> None:
        now = self._clock()
        expires_at = None if ttl is None else now + ttl
        db.execute(
            "INSERT OR REPLACE INTO alligator_records VALUES (?, ?, ?)", (key, value, expires_at)
        )
        # Two for one: what has expired cannot pile up.
        db.execute(
            "DELETE FROM alligator_records WHERE key IN "
            "(SELECT key FROM alligator_records WHERE expires_at <= ? LIMIT 2)",
            (now,),
        )
