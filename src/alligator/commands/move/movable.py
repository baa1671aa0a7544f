"""What can be moved from one store to another; found out before anything is."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from alligator import keys, payloads
from alligator.backends.abilities import is_possible
from alligator.backends.base import Backend, Listed, State
from alligator.commands.move.edges import dependents, needed
from alligator.dependencies import is_our_own
from alligator.exceptions import BackendRefused, InvalidOption
from alligator.utils import new_id

PAGE = 200
"""Tasks to look at, or to move, at a time: their bodies are in memory, and both stores are free in between."""
FAR_AWAY = 8_800_000_000
"""The first of the moments, in the years 2248 to 2252, that tasks are parked until: whole seconds, which every
store keeps as they are. Each move draws one, so that none takes the tasks of another for its own."""
MOMENTS = 100_000_000

Name = tuple[str, str]
"""A task: its queue and its id."""


def is_exact(source: Backend, target: Backend) -> bool:
    """Whether both stores can tell, after a crash, which of them has a task."""
    return all(
        one.can_walk and one.can_find and one.can_delay and one.records is not None
        for one in (source, target)
    )


def is_parked(due_at: float) -> bool:
    """Whether a task is delayed until it is known to be out of the store that it comes from."""
    return FAR_AWAY <= due_at < FAR_AWAY + MOMENTS


def check(source: Backend, target: Backend, queue_names: Sequence[str]) -> None:
    """Check that these queues can be moved between two stores.

    Raises:
        InvalidOption: They cannot.
        BackendRefused: One of them has to be made first, in one of the stores.
    """
    if not (source.can_lease and target.can_lease):
        raise InvalidOption(
            "A client with the five documented methods takes out what it hands out, and would lose it if this "
            "were killed. Let workers empty it."
        )
    if source.records is not None and target.records is not None:
        probe = f"{keys.MOVES}/{new_id()}"
        target.records.set(probe, b"?", 60.0)
        try:
            if source.records.get(probe) is not None:
                raise InvalidOption("Both are the same store: there is nothing to move.")
        finally:
            target.records.delete(probe)
    for name in queue_names:
        source.count(name)
        target.count(name)


def unfit(
    source: Backend, target: Backend, queue_names: Sequence[str], *, keeps_results: bool
) -> dict[Name, str]:
    """Return the tasks that cannot be moved, and why.

    Args:
        source: Where they are.
        target: Where they are to be.
        queue_names: The queues that are moved.
        keeps_results: Whether results can be kept of what is in the other store.
    """
    if not source.can_walk:
        return {}  # what it has, it tells when it hands it out
    found: dict[Name, str] = {}
    for name in queue_names:
        for task in _queued(source, name):
            why = _why_unfit(source, name, task, queue_names)
            if why := why or why_not(target, task, keeps_results=keeps_results):
                found[name, task.task_id] = why
    return found | _needed(source, found, queue_names) if is_exact(source, target) else found


def _queued(source: Backend, queue_name: str) -> Iterator[Listed]:
    states: tuple[State, ...] = ("delayed", "waiting")
    for state in states:
        cursor = None
        while cursor != "":
            page, cursor = source.walk(queue_name, state, cursor or "", PAGE)
            yield from page


def _why_unfit(source: Backend, queue_name: str, task: Listed, queue_names: Sequence[str]) -> str:
    if is_parked(task.due_at):
        return "it is being moved here from a third store, which has to be brought to an end first."
    own = queue_name, task.task_id
    if b'"depends_on"' in task.body and (others := _queues(needed(source, own)) - {*queue_names}):
        return f"it depends on tasks of queue {min(others)!r}, which is not moved."
    if task.follow and (others := _queues(dependents(source, own)) - {*queue_names}):
        return f"tasks of queue {min(others)!r} depend on it, and are not moved."
    return ""


def _needed(
    source: Backend, staying: Mapping[Name, str], queue_names: Sequence[str]
) -> dict[Name, str]:
    """Return what tasks need that stay, and so has to stay, too: else they would hear nothing of its end."""
    found: dict[Name, str] = {}
    todo = list(staying)
    while todo:
        of = todo.pop()
        for on in needed(source, of):
            if on not in staying and on not in found and on[0] in queue_names:
                found[on] = f"{of[1]!r} of queue {of[0]!r} depends on it, and stays."
                todo.append(on)
    return found


def _queues(names: Collection[Name]) -> set[str]:
    return {queue_name for queue_name, _ in names}


def why_not(target: Backend, task: Listed, *, keeps_results: bool) -> str:
    """Return why a store cannot take a task; empty: it can."""
    options = payloads.options_in(task.body) or {}
    store = type(target).__module__.rpartition(".")[2].removesuffix("_backend")
    for what, is_asked in (
        ("delay_by", task.due_at),
        ("backoff", options.get("backoff")),
        ("priority", task.priority),
        ("depends_on", task.follow or options.get("depends_on") or is_our_own(task.body)),
        ("limit", options.get("limit")),
    ):
        if is_asked and not is_possible(target, what):
            return f"{store} cannot do what {what} needs."
    if options.get("keep_result") and not keeps_results:
        return f"its result is to be kept, and {store} keeps none: let TO be module:gator, with results=..."
    if target.max_bytes is not None and len(task.body) > target.max_bytes:
        return f"it has {len(task.body):,} bytes; {store} takes {target.max_bytes:,}."
    return ""


def overtaken(queue_name: str) -> BackendRefused:
    """Return the error for who finds that another move of a queue has begun."""
    return BackendRefused(
        f"Another move of queue {queue_name!r} has begun: this one has stopped. If both say so, run it again."
    )
