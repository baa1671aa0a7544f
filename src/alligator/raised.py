"""What the code of users raises, told in a log: whatever their classes make of being asked for their text.

A ``__repr__`` may raise or recurse for ever, and logging lets a RecursionError through: that would end the
worker.
"""

import logging

from alligator import notes
from alligator.printable import printable


def line_of(err: BaseException) -> str:
    r"""Return an error's type and text, in one line that none of it can break; ours without their module.

    Example:
        >>> line_of(ValueError("no such\nuser"))
        'ValueError: no such\\nuser'
    """
    return printable(notes.describe(err).removeprefix("alligator.exceptions."))


def log_raised(log: logging.Logger, what: str, *args: object, err: BaseException) -> None:
    """Log an error with its traceback; or in one line, where the traceback cannot be told.

    Args:
        log: Where to.
        what: The message, with places for ``args``.
        args: None of a user's class.
        err: What was raised.
    """
    try:
        log.error(what, *args, exc_info=err, stacklevel=2)
    except (Exception, SystemExit):
        log.error("%s: %s", what % args, line_of(err), stacklevel=2)
