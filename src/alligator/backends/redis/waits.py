"""Waiting for an element in one of several lists that lie in different slots of a cluster."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from redis import exceptions

from alligator.backends.redis.connection import Server, file_of, is_open, worded
from alligator.bell import Bell, Woken


class Wait(NamedTuple):
    """Where to wait for a list."""

    key: str
    line: Server
    """For waiting alone."""
    node: Server
    """The same server, for what is to be said to it meanwhile."""


def wait_for_any(waits: Sequence[Wait], timeout: float, bell: Bell) -> tuple[bool, list[str]]:
    """Wait for an element in one of the lists, and take it.

    Returns:
        Whether the bell interrupted it; and the other lists of which an element was taken, too.
    """
    with ExitStack() as stack:
        lines = [_line(stack, wait) for wait in waits]
        # Read before the rest is sent: an answer that had come along with it would not wake us.
        numbers: list[int] = [line.read_response() for line in lines]
        for wait, line in zip(waits, lines, strict=True):
            line.send_command(*worded(("BLPOP", wait.key, timeout)))
        # The servers end the wait: if we did, an element might be on its way to nobody.
        woken = bell.wait(timeout + 1.0, *map(file_of, lines))
        if woken is Woken.BY_INTERRUPT:
            for line in lines:
                line.disconnect()
            return True, []
        for wait, line, number in zip(waits, lines, numbers, strict=True):
            # Exact: either it had an answer by then, or gets none but this.
            [ended] = wait.node.answers([("CLIENT", "UNBLOCK", number)])
            if isinstance(ended, exceptions.ResponseError):
                line.disconnect()  # it has no right to do so: who waits elsewhere looks by itself
        taken = [
            wait.key
            for wait, line in zip(waits, lines, strict=True)
            if is_open(line) and line.read_response()
        ]
        return False, taken[1:]


def _line(stack: ExitStack, wait: Wait) -> Any:
    """Return a connection, after asking for its number."""
    stack.enter_context(wait.line.translated())
    line = stack.enter_context(wait.line.connection())
    line.send_command("CLIENT", "ID")
    return line
