"""The words of the command ``alligator``: what it can be asked, and how."""

import argparse
import math

from alligator import version
from alligator.backends.base import MAX_ID_BYTES, MAX_NAME_BYTES, check_name
from alligator.commands import listing
from alligator.commands.targets import TargetParser
from alligator.exceptions import InvalidOption

SECONDS = 30.0
"""For how long a store is tried, unless asked for more or less."""
LIMIT = 20
"""Tasks or dead letters to show, unless asked for more."""


def parser() -> argparse.ArgumentParser:
    """Return the parser. It says what was asked for in ``command``: a key of ``cli.COMMANDS``."""
    parser = TargetParser(
        prog="alligator",
        description="Look at a store of tasks, and see to what failed.",
        epilog="TARGET is a DSN (sqlite:///tmp/queue.db, redis://localhost:6379/0, postgres://localhost/shop, "
        "beanstalk://localhost:11300/, sqs://us-west-2/), or module:gator.",
    )
    parser.add_argument("--version", action="version", version=f"alligator {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", help="how many tasks are in which state, and who works")
    status.add_argument("target", nargs="?", metavar="TARGET", help="ALLIGATOR_CONN by default")
    status.add_argument("--outbox", metavar="DSN", help="tell of what is in this outbox, too")
    _add_common(status, "status")

    dead = commands.add_parser("dead", help="tasks that failed for good: list, show, retry, purge")
    dead.add_argument("target", metavar="TARGET")
    _add_common(dead, "dead")
    _add_limit(dead)
    _add_actions(dead)

    what = "what is queued: its ids, states and priorities"
    listed = commands.add_parser("list", help=what)
    listed.add_argument("target", metavar="TARGET")
    what = "those only that are waiting, delayed or running"
    listed.add_argument("--state", choices=sorted(listing.STATES), help=what)
    _add_common(listed, "list")
    _add_limit(listed)

    what = "whether this version of your program can run all that is queued, scheduled or dead"
    check = commands.add_parser(
        "check",
        help=what,
        epilog="Exit status: 0 if it can, 1 if not, 2 if that cannot be found out.",
    )
    check.add_argument("target", metavar="TARGET")
    what = "import nothing but what fits, such as 'myapp.tasks.*'; repeatable (anything)"
    check.add_argument("--allow", action="append", metavar="PATTERN", help=what)
    _add_common(check, "check")
    check.set_defaults(failed=2)

    stacks = commands.add_parser("stacks", help="where every running task is now, as a stack")
    stacks.add_argument("target", metavar="TARGET")
    _add_common(stacks, "stacks")

    what = "move what waits, is delayed or dead to another store"
    move = commands.add_parser("move", help=what)
    move.add_argument("target", metavar="FROM", help="a DSN, or module:gator")
    move.add_argument("to", metavar="TO", help="a DSN, or module:gator")
    move.add_argument("--dry-run", action="store_true", help="only say what would be moved")
    what = "leave what cannot be moved, rather than move nothing"
    move.add_argument("--skip", action="store_true", help=what)
    _add_common(move, "move", takes_queue=False)
    what = "this queue only; repeatable"
    move.add_argument("--queue", type=_queue, action="append", metavar="NAME", help=what)

    cancel = commands.add_parser("cancel", help="take a task out, or ask one that runs to end")
    cancel.add_argument("target", metavar="TARGET")
    cancel.add_argument("id", type=_task_id, metavar="ID", help="the whole id of a task")
    _add_common(cancel, "cancel")

    for name, what in (
        ("show", "tell all that is known of a task"),
        ("why", "say in one sentence why a task does not run, or what became of it"),
    ):
        of_one = commands.add_parser(name, help=what)
        of_one.add_argument("target", metavar="TARGET")
        of_one.add_argument("id", type=_task_id, metavar="ID", help="the whole id of a task")
        _add_common(of_one, name)

    what = "make what a store needs: a database's tables, or bring them up to date; or queues"
    migrate = commands.add_parser("migrate", help=what)
    migrate.add_argument("target", metavar="TARGET")
    migrate.add_argument("--sql", action="store_true", help="only print what would be done")
    migrate.add_argument("--outbox", metavar="DSN", help="the table for an outbox there, instead")
    what = "the queues named by --queue, in a store that makes none by itself (sqs)"
    migrate.add_argument("--create-queues", action="store_true", help=what)
    _add_common(migrate, "migrate", checks=False)
    migrate.add_argument("--queue", type=_queue, action="append", metavar="NAME", help="repeatable")

    what = "try whether a store loses tasks, or runs them twice, while workers die: in a queue of its own"
    verify = commands.add_parser(
        "verify",
        help=what,
        epilog="Exit status: 0 if all was kept, 1 if not, 2 if it cannot be tried.",
    )
    verify.add_argument("target", nargs="?", metavar="TARGET", help="ALLIGATOR_CONN by default")
    what = f"for so long workers are killed and stopped, and connections cut ({SECONDS:g})"
    verify.add_argument("--seconds", type=_seconds, default=SECONDS, metavar="SECONDS", help=what)
    _add_common(verify, "verify", checks=False)
    verify.set_defaults(failed=2)
    what = "a queue made for this alone, in a store that makes none by itself (sqs)"
    verify.add_argument("--queue", type=_queue, metavar="NAME", help=what)

    repeated = commands.add_parser("schedules", help="what is queued again and again: list, remove")
    repeated.add_argument("target", metavar="TARGET")
    _add_common(repeated, "schedules")
    actions = repeated.add_subparsers(metavar="[ACTION]", help="without one, they are listed")
    remove = actions.add_parser("remove", help="remove one for good")
    remove.add_argument("name", type=_schedule, metavar="NAME", help="its name, as listed")
    _add_common(remove, "schedules remove", is_action=True)
    return parser


def _add_actions(dead: argparse.ArgumentParser) -> None:
    actions = dead.add_subparsers(metavar="[ACTION]", help="without one, they are listed")
    an_id = "the id of a task, or 4 or more characters that only it begins or ends with"

    show = actions.add_parser("show", help="tell all about a task's dead letters")
    show.add_argument("id", type=_task_id, metavar="ID", help=an_id)
    show.add_argument("--payload", action="store_true", help="with its arguments, secret or not")
    _add_common(show, "dead show", is_action=True)
    _add_limit(show, is_action=True)

    retry = actions.add_parser("retry", help="queue them again")
    dependents = "what failed because of them too, to wait for them again"
    retry.add_argument("--with-dependents", action="store_true", help=dependents)
    purge = actions.add_parser("purge", help="remove them for good")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    for action, name in ((retry, "dead retry"), (purge, "dead purge")):
        action.add_argument("ids", type=_task_id, nargs="*", metavar="ID", help=an_id)
        but = ", but for what has expired" if action is retry else ""
        action.add_argument("--all", action="store_true", help=f"all there are{but}")
        _add_common(action, name, is_action=True)


def _add_common(
    parser: argparse.ArgumentParser,
    command: str,
    *,
    is_action: bool = False,
    checks: bool = True,
    takes_queue: bool = True,
) -> None:
    # An action's own defaults would undo what was said before its name.
    default = argparse.SUPPRESS if is_action else None
    add = parser.add_argument
    if checks and takes_queue:
        add("--queue", type=_queue, metavar="NAME", default=default, help="this queue only")
    add("--json", action="store_true", default=default, help="for programs to read")
    parser.set_defaults(command=command, wrong_use=parser.error, checks=checks, failed=1)


def _add_limit(parser: argparse.ArgumentParser, *, is_action: bool = False) -> None:
    default = argparse.SUPPRESS if is_action else None
    what = f"so many at the most ({LIMIT})"
    parser.add_argument("--limit", type=_count, metavar="N", default=default, help=what)


def _queue(text: str) -> str:
    return _name("queue", text, MAX_NAME_BYTES)


def _schedule(text: str) -> str:
    return _name("NAME", text, MAX_NAME_BYTES)


def _task_id(text: str) -> str:
    return _name("ID", text, MAX_ID_BYTES)


def _name(what: str, text: str, max_bytes: int) -> str:
    try:
        return check_name(what, text, max_bytes)
    except InvalidOption as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 3600")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)
