"""What a store needs before its first task, made on request: ``alligator migrate``."""

from collections.abc import Sequence

from alligator.backends.base import Backend
from alligator.exceptions import InvalidOption
from alligator.signed_store import bare


def create_queues(backend: Backend, queue_names: Sequence[str]) -> list[tuple[str, bool]]:
    """Make queues in a store that makes none by itself; return for each whether it was not there yet.

    Raises:
        InvalidOption: In this store, a queue is there with its first task.
    """
    create = getattr(bare(backend), "create_queue", None)
    if create is None:
        raise InvalidOption("This store needs no queues to be made: a push makes them.")
    return [(name, create(name)) for name in queue_names]
