"""What the workers of a verification run."""

import time

from alligator.verify.journal import Journal


def work(journal: str, name: str, seconds: float = 0.0) -> None:
    """Take so long, and note in a journal that this starts, and that it finishes."""
    Journal(journal).note("start", name)
    if seconds:
        time.sleep(seconds)
    Journal(journal).note("finish", name)
