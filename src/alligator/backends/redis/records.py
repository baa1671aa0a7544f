"""Records in Redis or Valkey: small values by key.

Each is a string of its own. An index for each family of them holds their keys, a sorted set by expiry. Each
write drops some of its members that have expired, so that it cannot grow beyond what lives. Each write of a
record is announced on the channel of its name, for those who wait for it. Before each name stands the prefix
of the DSN, if it has one::

    alligator:records:{<family>}            zset    key by expiry
    alligator:records:{<family>}:<key>      string
    alligator:records:{<queue>}/<family>    zset    of a family that goes with a queue, "<family>:<queue>"
    alligator:records:{<queue>}/<family>:<key>

The tag of a family that goes with a queue is that of the queue's own keys, so that one script can write both.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from alligator.backends.base import ttl_of
from alligator.backends.redis import record_scripts as scripts
from alligator.backends.redis.connection import Command, hash_tag, script_call
from alligator.backends.redis.servers import Servers
from alligator.bell import Bell

T = TypeVar("T")

AT_ONCE = 1000
"""Records a script or a command: it must not hold up the server for long."""


class Records:
    """The records of a server, or of several."""

    def __init__(self, server: Servers) -> None:
        self._server = server
        self._index = functools.partial(index_of, server.prefix)
        self._name = functools.partial(name_of, server.prefix)

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        value: bytes | None = self._server.run([("GET", self._name(key))])[0]
        return value

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return several values."""
        parts = [some for _, some in self._by_index(keys)]
        commands: list[Command] = [("MGET", *map(self._name, some)) for some in parts]
        values = itertools.chain(*(self._server.run(commands) if commands else ()))
        found = zip(itertools.chain(*parts), values, strict=True)
        return {key: value for key, value in found if value is not None}

    def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value."""
        self.set_many({key: value}, ttl)

    def set_many(
        self, values: Mapping[str, bytes], ttl: float | Mapping[str, float] | None = None
    ) -> None:
        """Write several values."""
        self._server.run(
            [
                script_call(
                    scripts.SET,
                    [index, *map(self._name, keys)],
                    micros,
                    *(values[key] for key in keys),
                )
                # Neighbours of one family and ttl go into one script: so all are written in order.
                for (index, micros), run in itertools.groupby(
                    values, lambda key: (self._index(key), _micros(ttl_of(key, ttl)))
                )
                for keys in _parts(list(run))
            ]
        )

    def swap(self, key: str, old: bytes | None, new: bytes, ttl: float | None = None) -> bool:
        """Write a value if the old one is as known."""
        known = () if old is None else (old,)
        names = [self._index(key), self._name(key)]
        call = script_call(scripts.SWAP, names, _micros(ttl), new, *known)
        return bool(self._server.run([call])[0])

    def delete(self, *keys: str) -> None:
        """Forget keys."""
        self._server.run(
            [
                script_call(scripts.DELETE, [index, *map(self._name, keys)])
                for index, keys in self._by_index(keys)
            ]
        )

    def list(self, family: str, limit: int | None = None) -> dict[str, bytes]:
        """Return the keys and values of a family."""
        index = self._index(family)
        if limit is None:
            [names] = self._server.run([("ZRANGE", index, 0, -1)])
            return self._values(sorted(names), index)
        # Those that never expire have one score, and so are in order of their names: the first few will do.
        many = max(limit, 1)
        while True:
            expiring, lasting = self._server.run(
                [
                    ("ZRANGE", index, "-inf", "(+inf", "BYSCORE"),
                    ("ZRANGE", index, "+inf", "+inf", "BYSCORE", "LIMIT", 0, many),
                ]
            )
            found: dict[str, bytes] = {}
            for some in _parts(sorted(expiring + lasting)):
                found |= self._values(some, index)
                if len(found) >= limit:
                    return dict(itertools.islice(found.items(), limit))
            if len(lasting) < many:
                return found
            many *= 4  # for some have just been deleted

    def wait(self, keys: Sequence[str], timeout: float, bell: Bell | None = None) -> None:
        """Wait for a value; its writing is announced."""
        if not keys:
            return
        looks = [("EXISTS", *map(self._name, some)) for _, some in self._by_index(keys)]
        self._server.listen(
            [self._name(key) for key in keys],
            timeout,
            bell or Bell(),
            lambda: any(self._server.run(looks)),
        )

    def _by_index(self, keys: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Part keys by their families, and those into what fits a script."""
        families: dict[str, list[str]] = {}
        for key in keys:
            families.setdefault(self._index(key), []).append(key)
        for index, all_of_it in families.items():
            for some in _parts(all_of_it):
                yield index, some

    def _values(self, names: Sequence[bytes], index: str) -> dict[str, bytes]:
        """Return the values of those records of a family that are there, by key."""
        commands: list[Command] = [("MGET", *some) for some in _parts(names)]
        values = itertools.chain(*self._server.run(commands))
        return {
            name.decode(errors="surrogateescape")[len(index) + 1 :]: value
            for name, value in zip(names, values, strict=True)
            if value is not None
        }


def index_of(prefix: str, key: str) -> str:
    """Return the name of the index of a key's family."""
    family = key.partition("/")[0]
    kind, _, queue = family.partition(":")
    if not queue:
        where = hash_tag(family)
    elif "%" in queue:
        # The tag is of the queue's name as it is, of which a "/" and a "%" are escaped here.
        where = f"{hash_tag(queue.replace('%2F', '/').replace('%25', '%'))}/{family}"
    else:
        where = f"{hash_tag(queue)}/{kind}"
    return f"{prefix}alligator:records:{where}"


def name_of(prefix: str, key: str) -> str:
    """Return the name of a record, and of the channel on which it is announced."""
    return f"{index_of(prefix, key)}:{key}"


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(values), AT_ONCE):
        yield values[at : at + AT_ONCE]


def _micros(ttl: float | None) -> int:
    return 0 if ttl is None else max(1, math.ceil(ttl * 1_000_000))
