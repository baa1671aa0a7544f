"""Pushing tasks as long as a trial goes on."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from alligator.exceptions import BackendUnavailable
from alligator.gator import Gator
from alligator.verify import jobs
from alligator.verify.journal import Journal

PACE = 0.01
"""Seconds between two pushes."""
AHEAD = 100
"""Tasks that are pushed ahead of the workers, at about the most: the store is not to be filled."""
LOOK_EVERY = 25
"""Pushes after which it is looked how far the workers are."""
ANSWER_WITHIN = 30.0
"""Seconds for the store to answer again."""
ASK_EVERY = 0.05
SHORT = 0.02
"""Seconds that the shortest tasks take."""


@contextmanager
def producing(
    gator: Gator, journal: Journal, lease: float, fail: Callable[[], None]
) -> Generator[None]:
    """Push tasks while the block runs.

    Args:
        gator: Where to.
        journal: Where that is noted.
        lease: Of the workers, in seconds: some tasks take longer.
        fail: Is called when no more can be pushed; the error is raised at the end of the block.
    """
    over = threading.Event()
    failed: list[Exception] = []

    def produce() -> None:
        number = 0
        try:
            while not over.wait(PACE):
                # Now and then, for it takes a while to count.
                if number % LOOK_EVERY or number - len(journal.names("finish")) < AHEAD:
                    number += 1
                    _push(gator, journal, f"t{number}", _seconds(number, lease))
        except Exception as err:
            failed.append(err)
            fail()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def _push(gator: Gator, journal: Journal, name: str, seconds: float) -> None:
    journal.note("push", name)
    deadline = time.monotonic() + ANSWER_WITHIN
    while True:
        try:
            gator.push(gator.task_class(task_id=name), jobs.work, journal.path, name, seconds)
            break
        except BackendUnavailable:
            if not gator.backend.keeps_ids:
                return  # it may be there, and a second push would be a second task
            if time.monotonic() > deadline:
                raise
            time.sleep(ASK_EVERY)
    journal.note("pushed", name)


def _seconds(number: int, lease: float) -> float:
    """Return how long a task takes: most hardly any time, some a while, a few longer than a lease."""
    if number % 400 == 40:
        return 1.5 * lease
    return lease / 10 if number % 50 == 0 else SHORT
