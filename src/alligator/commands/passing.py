"""Queues that cannot be read: where others make the queues, some may be somebody else's."""

from collections.abc import Callable

from alligator.exceptions import BackendRefused

Passed = Callable[[str, BackendRefused], None]
"""Takes a queue that is to be passed over, and why; raises that if it is not to be."""


def never(queue_name: str, refused: BackendRefused) -> None:
    """Let no queue be passed over."""
    raise refused


class PassingOver:
    """Lets queues be passed over, and says so once of each.

    Args:
        among: How many queues there are. Should none be left, the last one's refusal is raised.
        tell: Says so.
    """

    def __init__(self, among: int, tell: Passed) -> None:
        self._left = among
        self._tell = tell
        self._told: set[str] = set()

    def __call__(self, queue_name: str, refused: BackendRefused) -> None:
        """Pass a queue over."""
        if queue_name in self._told:
            return
        self._told.add(queue_name)
        self._left -= 1
        if not self._left:
            raise refused
        self._tell(queue_name, refused)
