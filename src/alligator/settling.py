"""What came of an attempt, and its settlement: what follows that, and what if it comes too late."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from alligator.backends.base import Ack, Backend, Reservation, Settlement
from alligator.limits import Limit
from alligator.payloads import plain
from alligator.tasks import Task

log = logging.getLogger("alligator.task")

VOID = "Task %r went to another worker while it ran here: what came of it here is void"
UNCLEAR = "Task %r was settled just before the store went away, or went to another worker since"

T = TypeVar("T")


@dataclass(slots=True)
class Attempt:
    """What came of it. ``task`` is None where the payload could not be read."""

    settlement: Settlement
    task: Task | None = None
    error: BaseException | None = None
    then: Callable[[], None] | None = None
    """To be called when it is settled."""
    forget: Callable[[], None] | None = None
    """To be called then, too; but not if the task is another worker's: what is kept of it is the next one's."""
    waits_for: Limit | None = None
    """The limit under which the task may not start yet: in place of the settlement, it is to be parked."""
    is_completed: bool = False
    """Whether the task was acknowledged in a transaction of its own: the settlement may find nothing to do."""

    @property
    def has_more(self) -> bool:
        """Whether something is to follow its settlement."""
        return self.then is not None or self.forget is not None

    @property
    def is_success(self) -> bool:
        """Whether the task has succeeded."""
        return isinstance(self.settlement, Ack) and self.settlement.succeeded


def at_once(call: Callable[[], T]) -> T:
    """Call the store once."""
    return call()


def settle(
    backend: Backend, outcome: Attempt, patiently: Callable[[Callable[[], Any]], Any] = at_once
) -> None:
    """Settle an attempt, and do what is to follow; say so if it came too late.

    Args:
        backend: The store.
        outcome: The attempt.
        patiently: Calls the store for us, and may try again.
    """
    calls = 0

    def call() -> list[Settlement]:
        nonlocal calls
        calls += 1
        return backend.settle([outcome.settlement])

    # One that was acknowledged before is over: it has not gone to another.
    is_late = bool(patiently(call)) and not outcome.is_completed
    held, is_void = outcome.settlement.reservation, False
    if is_late:
        is_void = patiently(lambda: _is_anothers(backend, held, is_clear=calls == 1))
        say_late(held, is_unclear=calls > 1 and not is_void)
    if outcome.then is not None:
        patiently(outcome.then)
    if outcome.forget is not None and not is_void:
        patiently(outcome.forget)


def say_late(held: Reservation, *, is_unclear: bool) -> None:
    """Say that a settlement came too late; or that it may be the second one, after an answer that got lost."""
    log.warning(UNCLEAR if is_unclear else VOID, held.task_id)


def _is_anothers(backend: Backend, held: Reservation, *, is_clear: bool) -> bool:
    """Return whether a task that was settled too late is queued still, or held by another.

    Else it was we who have settled it, by a call whose answer got lost; or it is over. Nobody needs what is
    kept of it then, and a later task of its id must not find that.
    """
    if not backend.can_find:
        return is_clear
    found = backend.find(held.queue_name, held.task_id)
    if found is None or plain(found.body) != plain(held.body):
        return False
    # A hand-out that came to nothing counts. If fewer are counted, it was put off by us, or is a later task.
    return found.deliveries >= held.deliveries - (not found.token)
