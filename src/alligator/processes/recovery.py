"""What a dead worker held goes back to its queues."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from alligator.backends.base import Backend, Reservation


def recover(
    backend: Backend, queue_names: Collection[str], worker: str, started: Iterable[Reservation]
) -> None:
    """Give back all that a dead worker holds; a delivery is counted of what it had started alone.

    Args:
        backend: The store.
        queue_names: All the worker's queues.
        worker: Who died.
        started: What it may have died of.
    """
    ids = defaultdict[str, list[str]](list)
    for held in started:
        ids[held.queue_name].append(held.task_id)
    # One queue at a time: of an id's tasks in several queues, each may have been started, or not.
    for name, its_ids in ids.items():
        backend.recover([name], worker, its_ids)
    if rest := [name for name in queue_names if name not in ids]:
        backend.recover(rest, worker)
