"""Being a part of the caller's own transaction: queueing in it, and ending a task in it.

A store that is in the same database joins the transaction; for any other one, tasks go to an outbox there.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from alligator.backends.base import Backend
from alligator.exceptions import InvalidOption
from alligator.running import current_task

if TYPE_CHECKING:
    from alligator.gator import Gator
    from alligator.outbox.tables import Writer

_JOINED: "ContextVar[tuple[tuple[Gator, Backend | Writer], ...]]" = ContextVar(
    "alligator_joined", default=()
)
"""Whose tasks are queued in a transaction of the caller's now, and by what client."""


@contextmanager
def using(gator: "Gator", connection: object) -> Generator["Gator"]:
    """Let what is queued in the block be a part of the connection's transaction."""
    backend = gator.backend
    if not backend.spans_processes:
        gator.check_can("using()")
    joined: Backend | Writer
    if backend.joins(connection):
        joined = backend.within(connection)
    else:
        from alligator.outbox import writer_on  # here, for few need it

        joined = writer_on(connection)
    token = _JOINED.set((*_JOINED.get(), (gator, joined)))
    try:
        yield gator
    finally:
        _JOINED.reset(token)


def backend_of(gator: "Gator") -> Backend:
    """Return what a Gator's tasks are to be queued with here and now, if not by way of an outbox."""
    joined = _joined(gator)
    return joined if isinstance(joined, Backend) else gator.backend


def outbox_of(gator: "Gator") -> "Writer | None":
    """Return the outbox that a Gator's tasks go to here and now, if they do."""
    joined = _joined(gator)
    return None if isinstance(joined, Backend) else joined


def _joined(gator: "Gator") -> "Backend | Writer | None":
    return next((joined for other, joined in reversed(_JOINED.get()) if other is gator), None)


@contextmanager
def completing(gator: "Gator", connection: object) -> Generator[None]:
    """Acknowledge the task that runs here when the block ends, in the connection's transaction."""
    running = current_task()
    held = running.reservation
    if held is None:  # a plain call of the function, or a task that did not come from a queue
        yield
        return
    gator.check_can("completing()")
    if running.is_completing:
        raise InvalidOption("One block completes a task, and this one is inside another.")
    # In the store that the task came from, whatever Gator the function knows of.
    joined = (running.backend or gator.backend).within(connection)
    # Once more is right only where the transaction of the first time was rolled back.
    if running.is_completed and joined.find(held.queue_name, held.task_id) is None:
        raise InvalidOption(f"Task {held.task_id!r} was completed by a block before this one.")
    running.is_completing = True
    try:
        yield
    finally:
        running.is_completing = False
    joined.complete(held)
    running.is_completed = True
