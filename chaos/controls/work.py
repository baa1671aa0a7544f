"""What the other systems' workers run: the tasks of the campaign, and nothing of Alligator but the journal."""

import time

from alligator.verify.journal import Journal


def work(journal: str, name: str, seconds: float = 0.0) -> str:
    """Take so long."""
    Journal(journal).note("start", name)
    if seconds:
        time.sleep(seconds)
    Journal(journal).note("finish", name)
    return f"result of {name}"
