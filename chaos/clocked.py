"""A Gator for workers that tell what their clock says: each process, when it finds the Gator here."""

import os
import time

from alligator import Gator
from alligator.verify.journal import Journal
from tests.integration import jobs as jobs  # here already, so that no task waits for its import


def tell_clock(journal: Journal) -> None:
    """Note how far the time of day is from the monotonic clock, which all processes of a machine share."""
    journal.note("clock", f"{time.time() - time.monotonic():.3f}")


if "JOURNAL" in os.environ:
    tell_clock(Journal(os.environ["JOURNAL"]))
    gator = Gator(os.environ["SCENE_DSN"])
