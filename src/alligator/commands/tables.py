"""Text for a terminal: tables that fit it, and nothing in them that it could take for a command."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from alligator.printable import printable

Keep = Literal["start", "end"]
GAP = "  "
NARROWEST = 8
"""Columns of text that a cell keeps, however narrow the terminal."""
CUT = "…"
"""Stands for what a text lost to fit."""
_LAST = 253_402_300_799.0
"""The last second of the year 9999: there is no datetime beyond."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        align: Numbers stand right.
        keep: What to keep of a text that is too long for the terminal; None: all of it.
    """

    title: str
    align: Literal["left", "right"] = "left"
    keep: Keep | None = None


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None
) -> str:
    """Return rows under their headings, in aligned columns.

    Args:
        columns: The columns, from left to right.
        rows: For each row its cells. Control characters in them are escaped.
        width: Columns of the terminal, which texts are cut to fit; None: nothing is cut.

    Example:
        >>> print(table([Column("queue"), Column("dead", "right")], [["all", "7"], ["mail", "1,024"]]))
        queue   dead
        all        7
        mail   1,024
    """
    cells = [
        [column.title for column in columns],
        *(
            [_bounded(text, column, width) for text, column in zip(row, columns, strict=True)]
            for row in rows
        ),
    ]
    widths = [max(map(width_of, texts)) for texts in zip(*cells, strict=True)]
    if width is not None:
        _shrink(widths, columns, width)
    return "\n".join(GAP.join(map(_fitted, row, columns, widths)).rstrip() for row in cells)


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def moment(seconds: float) -> datetime:
    """Return a moment in UTC; of one too far off, the first or the last one there is.

    Example:
        >>> str(moment(1e300))
        '9999-12-31 23:59:59+00:00'
    """
    # In this order: what is no number is the first one.
    return datetime.fromtimestamp(min(_LAST, max(0.0, seconds)), UTC)


def iso(seconds: float) -> str:
    """Return a moment for programs to read."""
    return moment(seconds).isoformat(timespec="milliseconds")


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, rounded down; at most as long as moments go.

    Example:
        >>> duration(200)
        '3 min'
    """
    seconds = min(_LAST, max(0.0, seconds))  # below 0: the clocks of two machines differ
    for size, unit in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            number = int(seconds // size)
            return counted(number, unit) if unit == "day" else f"{number} {unit}"
    return f"{int(seconds)} s"


def ago(seconds: float) -> str:
    """Return how long ago something was.

    Example:
        >>> ago(200)
        '3 min ago'
    """
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def counted(number: int, what: str) -> str:
    """Return a number of things.

    Example:
        >>> counted(1024, "dead letter")
        '1,024 dead letters'
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shrink(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Take from the widest texts until all fits, or nothing more can go."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    least = [max(NARROWEST, len(column.title)) for column in columns]
    while excess > 0:
        may_go = [
            place
            for place, column in enumerate(columns)
            if column.keep and widths[place] > least[place]
        ]
        if not may_go:
            return
        # Down to the next widest at once.
        widest = max(may_go, key=lambda place: widths[place])
        floor = max([least[widest], *(widths[place] for place in may_go if place != widest)])
        taken = min(excess, max(1, widths[widest] - floor))
        widths[widest] -= taken
        excess -= taken


def _bounded(text: str, column: Column, width: int | None) -> str:
    """Return what can be shown of a text: anybody may have made it, as long as a store takes it."""
    if width is None or column.keep is None or len(text) <= width:
        return printable(text)
    return CUT + printable(text[-width:]) if column.keep == "end" else printable(text[:width]) + CUT


def _fitted(text: str, column: Column, width: int) -> str:
    if width_of(text) > width:
        if column.keep == "end":
            text = CUT + _beginning(text[::-1], width - 1)[::-1]
        else:
            text = _beginning(text, width - 1) + CUT
    blank = " " * (width - width_of(text))
    return blank + text if column.align == "right" else text + blank


def _beginning(text: str, width: int) -> str:
    """Return as much of a text as fits."""
    for place, char in enumerate(text):
        width -= width_of(char)
        if width < 0:
            return text[:place]
    return text
