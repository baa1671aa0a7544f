"""What latergator logs by: no text forges a line, whoever has formatted its record before."""

import logging
import pickle
from logging.handlers import SocketHandler

from alligator.printable import Formatter

FORGED = "no\n2026-01-01 INFO alligator.task: Task 'pay' is done\x1b[2J"


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as err:
        return err


def record_of(err: ValueError) -> logging.LogRecord:
    record = logging.makeLogRecord({"levelname": "ERROR", "msg": "Task 't1' failed"})
    record.exc_info = (type(err), err, err.__traceback__)
    return record


def is_harmless(text: str) -> bool:
    first, *below = text.split("\n")
    return first == "Task 't1' failed" and all(
        line.isprintable() and line.startswith("    ") for line in below
    )


def test_what_another_handler_has_made_of_an_error_is_not_repeated() -> None:
    """Those of a child logger come first, and logging keeps what they have made of it for all that follow."""
    record = record_of(raised(FORGED))
    logging.Formatter("%(message)s").format(record)

    text = Formatter("%(message)s").format(record)

    assert is_harmless(text)
    assert "    2026-01-01 INFO alligator.task: Task 'pay' is done\\x1b[2J" in text


def test_others_make_of_an_error_what_they_would_without_us() -> None:
    record = record_of(err := raised("one\n\ttwo"))
    theirs = logging.Formatter("%(message)s")

    ours = Formatter("%(message)s").format(record)

    assert theirs.format(record) == theirs.format(record_of(err))
    assert Formatter("%(message)s").format(record) == ours
    assert is_harmless(ours)


def test_an_error_that_came_as_text_alone_is_told() -> None:
    """A record that came from another process has no other."""
    sent = pickle.loads(SocketHandler("", 0).makePickle(record_of(raised(FORGED)))[4:])

    text = Formatter("%(message)s").format(logging.makeLogRecord(sent))

    assert is_harmless(text)
    assert "    2026-01-01 INFO" in text


def test_a_stack_that_a_record_has_is_indented() -> None:
    record = logging.makeLogRecord({"msg": "Task 't1' failed", "stack_info": f"Stack:\n{FORGED}"})

    assert is_harmless(Formatter("%(message)s").format(record))
