"""The queue that a verification uses: a queue of its own, found by way of a proxy if there can be one."""

import copy

from alligator.dsn import DSN
from alligator.gator import Gator


def moved(gator: Gator, address: str, queue_name: str) -> Gator:
    """Return a copy of a Gator with another address and queue, and none of its options for tasks."""
    other = copy.copy(gator)
    other.dsn = DSN.parse(address)
    other.queue_name = queue_name
    other.task_kwargs = {}
    other.max_length = None
    other.allowed = None
    other.store = other.backend = gator.build_backend(address)
    if gator.keyring is not None:
        from alligator.signed_store import SignedStore  # here, for few need it

        other.backend = SignedStore(other.store, gator.keyring)
    if gator.results is gator.backend.records:
        other.results = other.backend.records
    return other
