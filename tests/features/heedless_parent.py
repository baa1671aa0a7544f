"""``latergator`` whose parent process never sees to what was canceled while a process held it."""

import sys
from collections.abc import Sequence

from alligator import latergator, stops
from alligator.backends.base import Backend, Records, Reservation


def heed_nothing(
    backend: Backend, kept_in: Records | None, released: Sequence[Reservation]
) -> None:
    """What the parent does in place of looking for it."""


if __name__ == "__main__":
    stops.heed = heed_nothing
    sys.exit(latergator.main())
