"""A program that pushes tasks one by one, and goes on where another one was killed: DSN, journal, how many."""

import sys

from alligator import Gator
from alligator.verify.journal import Journal
from tests.integration import jobs


def main(dsn: str, path: str, count: int) -> None:
    """Push those whose push has not returned to anybody."""
    gator, journal = Gator(dsn), Journal(path)
    done = {*journal.names("pushed")}
    for name in (f"t{number}" for number in range(count)):
        if name not in done:
            journal.note("push", name)
            with gator.options(task_id=name) as opts:
                opts.task(jobs.work, path, name)
            journal.note("pushed", name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
