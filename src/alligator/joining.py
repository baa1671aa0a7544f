"""Being a part of the caller's own transaction: queueing in it, and ending a task in it."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from alligator.backends.base import Backend
from alligator.running import current_task

if TYPE_CHECKING:
    from alligator.gator import Gator

_JOINED: "ContextVar[tuple[tuple[Gator, Backend], ...]]" = ContextVar(
    "alligator_joined", default=()
)
"""Whose tasks are queued in a transaction of the caller's now, and by what client."""


@contextmanager
def using(gator: "Gator", connection: object) -> Generator["Gator"]:
    """Let what is queued in the block be a part of the connection's transaction."""
    gator.check_can("using()")
    joined = gator.backend.within(connection)
    token = _JOINED.set((*_JOINED.get(), (gator, joined)))
    try:
        yield gator
    finally:
        _JOINED.reset(token)


def backend_of(gator: "Gator") -> Backend:
    """Return what a Gator's tasks are to be queued with here and now."""
    for other, joined in reversed(_JOINED.get()):
        if other is gator:
            return joined
    return gator.backend


@contextmanager
def completing(gator: "Gator", connection: object) -> Generator[None]:
    """Acknowledge the task that runs here when the block ends, in the connection's transaction."""
    running = current_task()
    reservation = running.reservation
    if (
        reservation is None
    ):  # a plain call of the function, or a task that did not come from a queue
        yield
        return
    gator.check_can("completing()")
    joined = gator.backend.within(connection)
    yield
    joined.complete(reservation)
    running.is_completed = True
