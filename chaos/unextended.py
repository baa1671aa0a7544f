"""A Gator whose workers extend no lease, and are told that they do: what takes longer than that runs twice."""

import os
from collections.abc import Sequence

from alligator import Gator
from alligator.backends.base import Reservation
from alligator.backends.sqlite_backend import Client


class Forgetful(Client):
    """A store that forgets at once what it was told of leases."""

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        """Say that all is held, and extend nothing."""
        return []


gator = Gator(os.environ["SCENE_DSN"], backend_class=Forgetful)
