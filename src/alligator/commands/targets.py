"""What a command is pointed at: a DSN, or a configured Gator."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from alligator.constants import ALL
from alligator.dsn import masked
from alligator.exceptions import InvalidOption, UnknownModuleError
from alligator.gator import Gator
from alligator.utils import import_attr


def gator_at(
    target: str | None, queue_name: str | None = None, results: str | None = None
) -> Gator:
    """Return the Gator that a command is to work on.

    Args:
        target: A DSN, "module:gator", or None for what ALLIGATOR_CONN holds, which may be either.
        queue_name: The queue to use with a DSN.
        results: The DSN of the store for results, to use with a DSN.

    Raises:
        InvalidOption: There is no target, or it leads to no Gator.
        AlligatorException: As ``Gator`` and ``import_attr`` raise.
    """
    target = target or os.environ.get("ALLIGATOR_CONN")
    if not target:
        raise InvalidOption(
            "No target. Name a DSN such as sqlite:///tmp/queue.db, or module:gator, or set ALLIGATOR_CONN."
        )
    if "://" in target:
        return Gator(target, queue_name or ALL, results=results)
    if not re.fullmatch(r"[\w.]+:[\w.]+", target):
        # What comes before an "@" may be the password of a DSN written wrongly.
        shown = masked(target).rpartition("@")[2]
        raise InvalidOption(
            f"{shown!r} is neither a DSN such as redis://localhost:6379/0 nor module:gator."
        )
    if results:
        raise InvalidOption(f"{target} says itself where results are kept: leave --results out.")
    found_here()
    module_name, _, attr_name = target.partition(":")
    try:
        gator = import_attr(module_name, attr_name)
    except UnknownModuleError as err:  # in the words of the user's module, which may quote a DSN
        raise UnknownModuleError(masked(str(err))) from None
    if not isinstance(gator, Gator):
        raise InvalidOption(f"{target} is a {type(gator).__name__}, not a Gator.")
    return gator


def found_here() -> None:
    """Let modules of the current folder be imported, as with ``python -m``; a script's own folder is not it."""
    here = str(os.getcwd())  # noqa: PTH109 -- as sys.path wants it
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def checked(gator: Gator, queue_names: Sequence[str] = ()) -> Gator:
    """Return a Gator whose store answers, and has these queues; by default the Gator's own.

    Raises:
        AlligatorException: It does not, or has not.
    """
    if not gator.backend.spans_processes:
        raise InvalidOption(
            f"{gator.dsn} is memory of another process. Run a Worker in the process that queues, or use a "
            "store that both can reach, such as sqlite:///tmp/queue.db."
        )
    for name in queue_names or [gator.queue_name]:
        gator.backend.count(name)
    return gator


class TargetParser(argparse.ArgumentParser):
    """A command's parser, which shows no password of a DSN that stands in the wrong place."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        super().error(masked(message))
