"""What faulthandler writes of a process: the stacks of its threads.

It walks them in C, under the interpreter's lock, and makes no object of a frame. To walk the frames of a
thread that runs in Python would let it go on meanwhile: CPython 3.11 has freed frames then, and files in use.
"""

import faulthandler
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_THREAD = re.compile(r"(Current thread|Thread) 0x([0-9a-f]+).*\(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
_FATAL = re.compile(r"^Fatal Python error: (.*)$", re.MULTILINE)


class Frame(NamedTuple):
    """Where a function is."""

    file: str
    line: str
    function: str


MORE = Frame("...", "", "")
"""Stands for the outermost frames of a stack, of which faulthandler tells 100."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What faulthandler wrote."""

    threads: Mapping[int, list[Frame]]
    """By their idents: their frames, the outermost first."""
    current: int = 0
    """The one that faulthandler was called in."""
    fatal: str = ""
    """What the process died of, such as "Segmentation fault"; empty: it was only asked."""


def dump_of_this() -> Dump:
    """Return where the threads of this process are: the newest 100."""
    import tempfile  # here, for few need it, and it takes a while

    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return read_dump(file.read().decode(errors="backslashreplace"))


def read_dump(text: str) -> Dump:
    """Read what faulthandler has written."""
    threads: dict[int, list[Frame]] = {}
    current = ident = 0
    fatal = _FATAL.search(text)
    for line in text[fatal.start() if fatal else 0 :].splitlines():
        if found := _THREAD.match(line):
            ident = int(found[2], 16)
            threads[ident] = []
            if found[1] == "Current thread":
                current = ident
        elif (found := _FRAME.match(line)) and ident:
            threads[ident].insert(0, Frame(found[1], found[2].replace("???", "?"), found[3]))
        elif line == "  ..." and ident:
            threads[ident].insert(0, MORE)
        elif not line.startswith("  "):
            ident = 0  # what else it tells, such as the stack in C
    return Dump(threads, current, fatal[1] if fatal else "")
