"""Asking a child what runs in it: its stacks, also if it cannot answer, and those it left when it crashed.

A line on the control pipe is answered in Python, by a thread of the child, which knows what coroutine is
whose. If a call into C holds the interpreter's lock, the parent sends a signal, and faulthandler answers in C
with the stacks of all threads. It reads the frames of threads without that lock, and crashes if they run Python
meanwhile: so the signal is sent only when the lock is held indeed, never because an answer takes long. It is
met by that thread of the child alone: a signal breaks off what waits in C.

Both write into a file in memory, which the parent reads. So does faulthandler when the process crashes.
"""

import faulthandler
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from alligator.deaths import MAX_STACK
from alligator.dumps import Dump, read_dump
from alligator.payloads import encode, object_in
from alligator.processes.activity import Activity
from alligator.processes.board import BEGUN, Board, Posted
from alligator.processes.stacks import stack_in, text_of

ASK = b"l "
"""How the line begins that asks a child for its stacks; a number follows."""
SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""Asks for the stacks. Programs hardly ever use the last of the real-time signals."""
HEARS_WITHIN = 0.2
"""Seconds for a thread of the child to get the interpreter's lock, if it is alone, and for faulthandler."""
TURNS_TAKE = 0.05
"""And seconds for each thread that may run Python: ten turns of 5 ms, of which it gets one by chance."""
ANSWERS_WITHIN = 3.0
"""Seconds, at the most, to wait for an answer."""
MAX_READ = 4 * 2**20
"""Bytes of an answer to read: a process may run a thousand coroutines."""

MAX_TOLD = MAX_READ // 4
"""Bytes of the stacks that a child tells of: there is room for an answer that came too late, too."""


# In the child:


def heed(file: int) -> None:
    """Let faulthandler write into a file: when the process crashes, and at the signal.

    To be called before there are other threads, so that none of them gets the signal.
    """
    faulthandler.enable(file)
    signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
    faulthandler.register(SIGNAL, file)


def meet_signal() -> None:
    """Let this thread get the signal."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])


def answer(file: int, question: int, stacks: Mapping[int, str]) -> None:
    """Write what was asked for."""
    told = {"question": question, "stacks": _bounded(stacks)}
    os.write(file, encode(told).encode() + b"\n")


def _bounded(stacks: Mapping[int, str]) -> dict[int, str]:
    """Return the ends of stacks, as long as there is room, for half of an answer is none."""
    told: dict[int, str] = {}
    room = MAX_TOLD
    for number, stack in stacks.items():
        end = stack[-MAX_STACK:]
        room -= len(encode(end))
        told[number] = end if room >= 0 else ""
    return told


# In the parent:


@dataclass(eq=False)
class Inquiry:
    """Asks one child for its stacks, without waiting: call ``tick`` until it is over.

    Args:
        file: What the child writes to.
        board: What it holds.
        tell: Writes a line to it.
        send: Sends it a signal.
        look: Tells what its threads do; None: nobody knows, and no signal is sent.
        clock: A monotonic clock.
    """

    file: int
    board: Board
    tell: Callable[[bytes], None]
    send: Callable[[int], None]
    look: Callable[[], Activity | None]
    clock: Callable[[], float] = time.monotonic
    stacks: dict[int, str] = field(default_factory=dict[int, str])
    """By the numbers of the tasks, once it is over."""
    is_over: bool = False

    def __post_init__(self) -> None:
        clear(self.file)
        self._question = time.monotonic_ns()
        self._asked_at = self.clock()
        self._before = self.look()
        self._turns = self.board.turns
        self._signaled_at: float | None = None
        self.tell(ASK + b"%d\n" % self._question)

    def tick(self) -> bool:
        """Go on asking; return whether it is over."""
        now = self.clock()
        if self.is_over or self._is_answered():
            self.is_over = True
        elif self._signaled_at is None:
            if self._is_locked(now - self._asked_at):
                self._signaled_at = now
                self.send(SIGNAL)
            else:
                self.is_over = now - self._asked_at > ANSWERS_WITHIN
        elif now - self._signaled_at > HEARS_WITHIN:
            dump = read_dump(text_in(self.file))
            self.stacks = stacks_in(dump, self.board.read())
            # A busy machine may take longer to run the handler.
            self.is_over = bool(dump.threads) or now - self._asked_at > ANSWERS_WITHIN
        return self.is_over

    def _is_locked(self, passed: float) -> bool:
        """Whether one call into C has had the interpreter's lock since we asked: then no thread runs Python.

        The thread that we asked has waited for the lock since: its first step would be to turn. If all sleep,
        then nobody runs Python. If they have used a processor for so long, it would have had its turn among
        those who do. A clock tells nothing of that: the process may be stopped, or the machine too busy.
        """
        if self._turns % 2 == 0 or self.board.turns != self._turns or passed <= HEARS_WITHIN:
            return False
        # Twice, for it looks at one thread after the other, and what ran may have changed meanwhile.
        first, second = self.look(), self.look()
        if self._before is None or first is None or second is None:
            return False
        begun = {task.thread for task in self.board.read() if task.state in BEGUN}
        patience = HEARS_WITHIN + TURNS_TAKE * len(begun)
        has_run = passed > patience and second.seconds - self._before.seconds > patience
        is_asleep = first.is_asleep and second.is_asleep
        # Once more, for it may have got the lock while we looked.
        return (has_run or is_asleep) and self.board.turns == self._turns

    def _is_answered(self) -> bool:
        for line in text_in(self.file).splitlines():
            told = object_in(line) if line.startswith("{") else {}
            stacks: Any = told.get("stacks")
            if told.get("question") == self._question and isinstance(stacks, dict):
                found = cast(dict[str, Any], stacks)
                self.stacks = {int(key): str(found[key]) for key in found if key.isdecimal()}
                return True
        return False


def crash_in(file: int, posted: Iterable[Posted]) -> tuple[str, dict[int, str]]:
    """Return where a process crashed, and the stacks of its tasks, by their numbers; nothing if it did not."""
    dump = read_dump(text_in(file))
    if not dump.fatal:
        return "", {}
    crashed = dump.threads.get(dump.current, [])
    return f"{text_of(crashed)}\n{dump.fatal}", stacks_in(dump, posted)


def clear(file: int) -> None:
    """Empty the file that stacks are written to; both processes share its position."""
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)


def text_in(file: int) -> str:
    """Return what was written, without moving the position."""
    return os.pread(file, MAX_READ, 0).decode(errors="backslashreplace")


def stacks_in(dump: Dump, posted: Iterable[Posted]) -> dict[int, str]:
    """Return the stacks of the tasks on a board, by their numbers."""
    begun = [task for task in posted if task.state in BEGUN]
    sharing = Counter(task.thread for task in begun)
    stacks: dict[int, str] = {}
    for task in begun:
        text = stack_in(dump, task.thread)
        if task.thread in dump.threads and dump.fatal and task.thread == dump.current:
            text = f"{text}\n{dump.fatal}"
        if text and sharing[task.thread] > 1:
            text = f"In the event loop, which it shares with others:\n{text}"
        stacks[task.number] = text
    return stacks
