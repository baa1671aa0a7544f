"""What faulthandler writes of a process: the stacks of its threads; and whether one is in a finalizer.

It walks them in C, under the interpreter's lock, and makes no object of a frame. To walk the frames of a
thread that runs in Python would let it go on meanwhile: CPython 3.11 has freed frames then, and files in use.
"""

import faulthandler
import mmap
import operator
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from alligator.descriptors import Descriptors, memory_file

MAX_THREADS = 100
"""Threads of which faulthandler tells: the newest."""
_MEMORY = 2**22
"""Bytes for dumps in which finalizers are looked for, one behind the other. None is taken until written to."""

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
    is_partial: bool = False
    """Whether there are more threads."""


def dump_of_this() -> Dump:
    """Return where the threads of this process are."""
    with open(memory_file(), "r+b") as file:  # noqa: PTH123 -- it has no path
        faulthandler.dump_traceback(file)
        file.seek(0)
        return read_dump(file.read().decode(errors="backslashreplace"))


def read_dump(text: str) -> Dump:
    """Read what faulthandler has written."""
    threads: dict[int, list[Frame]] = {}
    current = ident = 0
    is_partial = False
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
            is_partial = is_partial or line == "..."
    return Dump(threads, current, fatal[1] if fatal else "", is_partial)


class Lookout:
    """Sees whether a thread is in a finalizer. For one thread, which keeps it until it is full.

    Raises:
        OSError: There are too many open files, or no memory is left.
    """

    def __init__(self) -> None:
        self._file = Descriptors(memory_file(_MEMORY))
        self._memory = mmap.mmap(self._file.files[0], _MEMORY)
        self._start = 0

    @property
    def is_full(self) -> bool:
        """Whether another one is needed."""
        return not 0 <= self._start <= _MEMORY // 2

    def unless_final(self, thread: int, *steps: Callable[[], object]) -> bool:
        """Take some steps, unless another thread is in a finalizer; it has no chance to do anything meanwhile.

        Args:
            thread: The thread, by its ident.
            steps: Written in C, and so is what they call. After one that returns anything true, none is taken.

        Returns:
            Whether they were taken.
        """
        is_final = partial(_final_in(thread).match, self._memory, self._start)
        tell = partial(faulthandler.dump_traceback, self._file.files[0])
        look: list[Callable[[], object]] = [tell, is_final, *steps]
        # One call into C, that ends at what is true: between two steps in Python another thread may get the
        # interpreter's lock. And no call to the system that lets go of it, for each then waits to get it back.
        any(map(_call, look))
        taken = is_final() is None
        self._start = self._memory.find(b"\0", self._start)
        return taken


_call: Callable[[Callable[[], object]], object] = operator.call


def _final_in(thread: int) -> re.Pattern[bytes]:
    """Return what a dump matches in which a thread is in ``__del__``, or in a callback of a weak reference."""
    files = [getattr(sys.modules.get(name), "__file__", "") for name in ("weakref", "_weakrefset")]
    weak = b"|".join(re.escape(file.encode("ascii", "backslashreplace")) for file in files if file)
    line, head = rb"[^\0\n]*\n", rb"Thread 0x0*%x\b" % thread  # behind a dump are zeros
    frame = rb'  File (?:"(?:%s)", |"[^\0\n]*", line [^\0\n]* in __del__\n)' % (weak or b"\n")
    return re.compile(rb"(?:%s)*?%s%s(?:  %s)*?%s" % (line, head, line, line, frame))
