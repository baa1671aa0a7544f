"""The command ``latergator``: run workers."""

import argparse
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from alligator import Gator, version
from alligator.backends.base import MAX_NAME_BYTES, Backend, check_name
from alligator.commands.progress import progress_on
from alligator.commands.targets import TargetParser, checked, found_here, gator_at
from alligator.constants import ALL
from alligator.exceptions import AlligatorException, InvalidOption
from alligator.gator import allowed_by
from alligator.printable import printable
from alligator.processes.board import Tally
from alligator.processes.child import Settings, set_up_output
from alligator.processes.complaints import warn_of_strangers
from alligator.processes.keeper import LEASE
from alligator.processes.reload import Reloader
from alligator.processes.supervisor import Supervisor
from alligator.reading import reading_by
from alligator.worker_options import GRACE, MAX_CONCURRENCY, SHORTEST_LEASE

if TYPE_CHECKING:
    from alligator.allowing import Allowed
    from alligator.schedules import Scheduler


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Its exit status: 0 after a graceful end, 1 if it could not work, 2 for wrong use.
    """
    options = _parser().parse_args(argv)
    level = _level(options)
    set_up_output(level)
    found_here()
    try:
        _run(options, level)
    except AlligatorException as err:
        print(f"latergator: {printable(str(err))}", file=sys.stderr)
        return 2 if isinstance(err, InvalidOption) else 1
    return 0


def _run(options: argparse.Namespace, level: int) -> None:
    target: str = options.target or os.environ.get("ALLIGATOR_CONN", "")
    named, weights = queues_in(options.queue or [])
    gator = checked(gator_at(target, named[0] if named else ALL, options.results))
    queues = named or [gator.queue_name]
    settings = Settings(
        target=target,
        results=options.results,
        worker_id="",
        queues=queues,
        weights=weights,
        max_tasks=options.max_tasks,
        max_memory=options.max_memory,
        threads=options.threads,
        concurrency=options.concurrency,
        burst=options.burst,
        lease=options.lease,
        grace=options.grace,
        nap=options.nap,
        level=max(level, logging.WARNING) if options.progress else level,
        tells_failures=not options.progress,  # the line counts them, and the dead letters tell the rest
        allow=options.allow,
    )
    allowed = gator.allowed if options.allow is None else allowed_by(options.allow)
    warn_of_strangers(gator, allowed, logging.getLogger("alligator.latergator"))
    progress = progress_on(sys.stdout) if options.progress else None

    def show(tally: Tally) -> None:
        if progress is not None:
            progress.show(tally, lambda: _waiting(gator.backend, queues))

    supervisor = Supervisor(
        gator.backend,
        settings,
        options.workers,
        show,
        results=gator.results,
        scheduler=_scheduler(gator, queues, allowed) if options.schedule else None,
        reloader=Reloader(Path.cwd()) if options.reload else None,
    )
    with progress or nullcontext(), _forwarding(gator, options):
        supervisor.run()


def _scheduler(gator: Gator, queues: Sequence[str], allowed: "Allowed | None") -> "Scheduler":
    from alligator.schedules import Scheduler  # here, for few need it

    reading = reading_by(allowed, gator.aliases)
    return Scheduler(gator.backend, queues, gator.task_class, reading=reading)


def _forwarding(gator: Gator, options: argparse.Namespace) -> AbstractContextManager[None]:
    if not options.outbox:
        return nullcontext()
    from alligator.outbox.forwarding import forwarding  # here, for few need it

    return forwarding(gator, options.outbox, first=options.burst)


def queues_in(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the names of queues, and their weights, if they have any: as "mail=3".

    Raises:
        InvalidOption: Some have a weight and others do not, or a queue is named twice.

    Example:
        >>> queues_in(["mail=3", "reports=1"])
        (['mail', 'reports'], [3, 1])
        >>> queues_in(["mail", "reports"])
        (['mail', 'reports'], [])
    """
    split = [re.fullmatch("(.+)=([0-9]{1,9})", word, re.DOTALL) for word in words]
    found = [(one[1], int(one[2])) for one in split if one is not None]
    if not found:
        return list(words), []
    names = [name for name, _ in found]
    if len(found) < len(words) or len(set(names)) < len(names) or any(not one for _, one in found):
        raise InvalidOption(
            f"--queue {' --queue '.join(words)}: give each queue a weight of 1 or more, once, or none."
        )
    return names, [weight for _, weight in found]


def _waiting(backend: Backend, queues: Sequence[str]) -> int:
    try:
        return sum(backend.count(name).waiting for name in queues)
    except AlligatorException:  # the workers say that the store is gone, and wait for it
        return 0


def _level(options: argparse.Namespace) -> int:
    if options.verbose:
        return logging.DEBUG
    return logging.WARNING if options.quiet else logging.INFO


def _parser() -> argparse.ArgumentParser:
    parser = TargetParser(
        prog="latergator",
        description="Run workers that take tasks off a queue.",
        epilog="SIGINT or SIGTERM: take no more, finish what runs, give back the rest. A second one: at once.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"latergator {version()}")
    add(
        "target",
        nargs="?",
        help="a DSN such as sqlite:///tmp/queue.db, redis://localhost:6379/0, postgres://localhost/shop, "
        "beanstalk://localhost:11300/ or sqs://us-west-2/; or module:gator; "
        "ALLIGATOR_CONN by default",
    )
    add(
        "--queue",
        action="append",
        type=_name,
        metavar="NAME[=WEIGHT]",
        help="take from this queue; repeated, in this order, or each in turn as often as its weight says",
    )
    add("--workers", type=_whole(1), default=1, metavar="N", help="processes (1)")
    add(
        "--threads",
        type=_whole(1),
        default=1,
        metavar="N",
        help="tasks at a time in each process (1)",
    )
    add(
        "--concurrency",
        type=_whole(1, MAX_CONCURRENCY),
        default=1,
        metavar="N",
        help="tasks at a time in each process, if they are async def functions (1)",
    )
    add(
        "--max-tasks",
        type=_whole(0),
        default=0,
        metavar="N",
        help="replace a process after so many (never)",
    )
    add(
        "--max-memory",
        type=_whole(0),
        default=0,
        metavar="MIB",
        help="replace a process that takes more, after what it runs (never)",
    )
    add("--burst", action="store_true", help="leave when nothing is ready")
    add("--schedule", action="store_true", help="queue what is to be queued again and again")
    add(
        "--outbox",
        action="append",
        metavar="DSN",
        help="forward what was queued in transactions of this database (postgres, sqlite); repeatable",
    )
    add(
        "--reload",
        action="store_true",
        help="start the processes anew when code below this folder changes; for development",
    )
    add(
        "--results",
        metavar="DSN",
        help="where results are kept, if not with the queue: as results=... of the Gator that queues",
    )
    add(
        "--allow",
        action="append",
        metavar="PATTERN",
        help="run nothing but what fits, such as 'myapp.tasks.*'; repeatable (anything)",
    )
    add(
        "--lease",
        type=_lease,
        default=LEASE,
        metavar="SECONDS",
        help="after which a lost worker's tasks go to others (30)",
    )
    add(
        "--grace",
        type=_seconds,
        default=GRACE,
        metavar="SECONDS",
        help="for running tasks to finish when leaving (30)",
    )
    add(
        "--nap",
        type=_seconds,
        default=0.1,
        metavar="SECONDS",
        help="between two looks, where a store cannot wake a worker (0.1)",
    )
    add("--progress", action="store_true", help="show a line that tells how far it is")
    add("--quiet", action="store_true", help="print problems only")
    add("--verbose", action="store_true", help="print results, too")
    return parser


def _name(text: str) -> str:
    try:
        return check_name("queue", text, MAX_NAME_BYTES)
    except InvalidOption as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most}: start more processes")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _lease(text: str) -> float:
    if (seconds := _seconds(text)) < SHORTEST_LEASE:
        raise argparse.ArgumentTypeError(f"{text} is less than {SHORTEST_LEASE:g} s")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
