"""Text of others in logs and on terminals: none of it passes for a line of ours, or commands a terminal."""

import logging
from types import TracebackType

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def printable(text: str) -> str:
    r"""Return a text in one line, what would move a terminal's cursor or change its colours escaped.

    Example:
        >>> printable("evil\r\x1b[31m name")
        'evil\\r\\x1b[31m name'
    """
    if text.isprintable():
        return text
    # Also what runs text from right to left, has no width, or is half of a character.
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def indented(text: str) -> str:
    """Return each line of a text indented, so that none passes for a line of ours, and printable."""
    return "\n".join(f"    {printable(line.expandtabs(4))}".rstrip() for line in text.split("\n"))


class Formatter(logging.Formatter):
    r"""Logs each message in one line, and a traceback in lines that are indented.

    An error's text is anybody's. With a line break and a date in it, it could tell of what never was. What
    ``latergator`` logs by; for a handler of your own it takes what a ``logging.Formatter`` takes.
    A message that has lines to follow, such as a stack, has them as ``extra={"below": ...}``.

    Example:
        >>> record = logging.makeLogRecord({"levelname": "ERROR", "msg": "no\n2026-01-01 user"})
        >>> Formatter("%(levelname)s %(message)s").format(record)
        'ERROR no\\n2026-01-01 user'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and what follows it."""
        # What a handler before us has made of the error is kept there, for all that follow: it is not ours, nor
        # is ours for them. Without the error, there is nothing else.
        kept = record.exc_text
        record.exc_text = indented(kept) if kept and not record.exc_info else None
        try:
            text = super().format(record)
        finally:
            record.exc_text = kept
        below = getattr(record, "below", "")
        return text + (f"\n{indented(below)}" if below else "")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Return the line."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 -- logging's name
        """Return the lines below it."""
        return indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 -- logging's name
        """Return the lines below both."""
        return indented(super().formatStack(stack_info))
