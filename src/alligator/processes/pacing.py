"""What to take next: many short tasks at once, a long one alone; and from which queue first."""

from collections.abc import Callable, Mapping

from alligator.retries import chance

BATCH_SECONDS = 0.05
"""Work to take at once. Much longer, and tasks wait behind others in one process while the next is idle; much
shorter, and the round trips show."""
LARGEST_BATCH = 256
"""From here on a larger batch gains nothing: the round trip is under 1 % of what its tasks cost."""


class Pace:
    """Sizes batches by how long tasks took; grows at most twofold at a time, for the first may deceive."""

    def __init__(self) -> None:
        self.limit = 1
        self._seconds = 0.0

    def ran(self, tasks: int, seconds: float) -> None:
        """Learn that so many tasks took so long together."""
        each = seconds / tasks
        self._seconds = max(each, (self._seconds + each) / 2)
        wanted = int(BATCH_SECONDS / max(self._seconds, 1e-9))
        self.limit = max(1, min(wanted, 2 * self.limit, LARGEST_BATCH))


def in_turn(weights: Mapping[str, int], rng: Callable[[], float] = chance) -> list[str]:
    """Return names in a random order, each the sooner the greater its weight.

    One of weight 3 comes first three times as often as one of weight 1; and one whose turn has come, with
    nothing to do, leaves it to the next. The order is that of u ** (1 / weight) for random u (Efraimidis and
    Spirakis, "Weighted random sampling with a reservoir", 2006).

    Example:
        >>> in_turn({"mail": 3, "reports": 1}, rng=lambda: 0.5)
        ['mail', 'reports']
    """
    return sorted(weights, key=lambda name: rng() ** (1 / weights[name]), reverse=True)
