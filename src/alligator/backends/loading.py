"""From a DSN to the client of its store."""

import importlib
from collections.abc import Callable, Collection
from typing import Any

from alligator.backends.base import Backend
from alligator.backends.simple import SimpleBackend
from alligator.dsn import DSN
from alligator.exceptions import BackendMissing

_REDIS = (
    *("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
    *(
        "valkey",
        "valkeys",
        "valkey+sentinel",
        "valkeys+sentinel",
        "valkey+cluster",
        "valkeys+cluster",
    ),
    "unix",
)
BUILT_IN = {
    "locmem": "locmem",
    "sqlite": "sqlite",
    "beanstalk": "beanstalk",
    "postgres": "postgres",
    "postgresql": "postgres",
    "sqs": "sqs",
    **dict.fromkeys(_REDIS, "redis"),
}
"""Scheme to the module ``alligator.backends.<...>_backend``."""

ENTRY_POINTS = "alligator.backends"
"""Where a package registers a scheme of its own: ``[project.entry-points."alligator.backends"]``."""

_EXTRAS = ("redis", "postgres", "beanstalk", "sqs")
"""Of those modules, the ones whose client library is an extra of that name; others need what Python has."""
_KNOWN = (
    "locmem, sqlite, postgres (or postgresql), redis (or valkey; by TLS rediss, valkeys; of several servers "
    "redis+sentinel, redis+cluster), unix, beanstalk, sqs"
)


def build(dsn: DSN, backend_class: Callable[[str], Any] | None = None) -> Backend:
    """Return a client for a DSN, of the given class or else of the one its scheme names.

    A client that has only the five documented methods is taken as it is; see ``SimpleBackend``.

    Raises:
        BackendMissing: Nothing is known of the scheme, or its client library is not installed.
    """
    try:
        client = (backend_class or _find(dsn.scheme))(dsn.url)
    except ModuleNotFoundError as err:
        ours = backend_class is None and BUILT_IN.get(dsn.scheme) in _EXTRAS
        if not ours or err.name is None or err.name.startswith("alligator"):
            raise
        raise BackendMissing(
            f"A {dsn.scheme}:// store needs the package {err.name!r}, which is not installed: "
            f"pip install 'alligator[{BUILT_IN[dsn.scheme]}]'"
        ) from None
    return client if hasattr(client, "reserve") else SimpleBackend(client)


def _find(scheme: str) -> Callable[[str], Any]:
    if scheme in BUILT_IN:
        module = importlib.import_module(f"alligator.backends.{BUILT_IN[scheme]}_backend")
        found: Callable[[str], Any] = module.Client
        return found
    from importlib.metadata import entry_points  # here: it takes as long to import as all the rest

    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if scheme not in registered:
        raise _unknown(scheme, registered)
    client: Callable[[str], Any] = registered[scheme].load()
    return client


def _unknown(scheme: str, registered: Collection[str]) -> BackendMissing:
    return BackendMissing(
        f"No backend for {scheme!r}. Known: {', '.join([_KNOWN, *sorted(registered)])}. "
        "For a store of your own, pass backend_class=YourClient to Gator."
    )
