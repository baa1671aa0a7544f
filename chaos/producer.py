"""A program that pushes tasks which are due after a while: DSN, journal, the names' beginning, how many."""

import sys

from alligator import Gator
from alligator.verify.journal import Journal
from chaos.clocked import tell_clock
from tests.integration import jobs

EXPIRES = 60.0
"""Seconds: more than all takes, and less than clocks are off."""


def delay_of(name: str) -> float:
    """Return the seconds after which a task of this producer is due: from 0.5 to 3."""
    return 0.5 + int(name.rpartition("-")[2]) % 6 * 0.5


def main(dsn: str, path: str, prefix: str, count: int) -> None:
    """Push them."""
    gator, journal = Gator(dsn), Journal(path)
    tell_clock(journal)
    # Who has no clock in common with the others cannot tell them when a task is over.
    expires = {"expires": EXPIRES} if gator.backend.keeps_ids else {}
    for name in (f"{prefix}-{number}" for number in range(count)):
        journal.note("push", name)
        with gator.options(task_id=name, delay_by=delay_of(name), **expires) as opts:
            opts.task(jobs.work, path, name, 0.002)
        journal.note("pushed", name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
