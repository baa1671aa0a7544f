"""What runs in this process: its tasks' stacks, without arguments or local variables."""

import inspect
import os
import time
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from alligator.deaths import MAX_STACK
from alligator.dumps import MAX_THREADS, MORE, Dump, Frame, dump_of_this
from alligator.processes.board import BEGUN, Board
from alligator.stack_records import Told

MAX_FRAMES = 50
"""Frames of a stack to tell: the innermost."""
_MOST_FRAMES = 1000

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100 -- slow
_CALLERS = {
    (f"{_PACKAGE}/tasks.py", "begin"),
    (f"{_PACKAGE}/timeouts.py", "limited"),
    (f"{_PACKAGE}/running.py", "awaited"),
}
"""What calls a task's function. Frames from there on are the task's own."""


class Begun(NamedTuple):
    """A task that was begun here."""

    number: int
    thread: int
    coroutine: Any = None
    """What the event loop runs of it."""


def stacks_of(tasks: Iterable[Begun]) -> dict[int, str]:
    """Return the stacks of tasks that run in this process, by their numbers."""
    dump = dump_of_this()
    stacks: dict[int, str] = {}
    for task in tasks:
        frames = _waiting(task.coroutine)
        stacks[task.number] = text_of(frames) if frames else stack_in(dump, task.thread)
    return stacks


def stack_in(dump: Dump, thread: int) -> str:
    """Return the stack of a thread as text; empty: there is no such."""
    if dump.is_partial and thread not in dump.threads:
        return f"(one of more than {MAX_THREADS} threads: not told)"
    return text_of(dump.threads.get(thread, []))


def told_of(board: Board, stacks: Mapping[int, str]) -> list[Told]:
    """Return where the tasks on a board are, by what was found, in the order in which they were begun."""
    now = time.monotonic()
    begun = [task for task in board.read() if task.state in BEGUN]
    return [
        Told(
            *task.reservation[:2],
            task.reservation.token,
            round(now - (task.began_at or task.since), 3),
            stacks.get(task.number, "")[-MAX_STACK:],
        )
        for task in sorted(begun, key=lambda task: task.began_at or task.since)
    ]


def _waiting(coroutine: Any) -> list[Frame]:
    """Return the stack of a coroutine that waits; of one that is running, or ended, an empty one.

    It ends where a future or an asynchronous generator is waited for: neither tells what it waits for itself.
    """
    frames: list[Frame] = []
    while len(frames) < _MOST_FRAMES:
        if inspect.iscoroutine(coroutine):
            frame, is_running = coroutine.cr_frame, coroutine.cr_running
            following = coroutine.cr_await
        elif inspect.isgenerator(coroutine):
            frame, is_running = coroutine.gi_frame, coroutine.gi_running
            following = coroutine.gi_yieldfrom
        else:
            break
        if is_running or frame is None:
            return []
        frames.append(_at(frame))
        coroutine = following
    return frames


def _at(frame: FrameType) -> Frame:
    code = frame.f_code
    return Frame(code.co_filename, str(frame.f_lineno or "?"), code.co_name)


def text_of(frames: list[Frame]) -> str:
    """Return a stack as text, a line each, the most recent call last; without what is ours at its beginning.

    Example:
        >>> print(text_of([Frame("/app/shop.py", "17", "charge")]))
        File "/app/shop.py", line 17, in charge
    """
    last_of_ours = max(
        (place for place, one in enumerate(frames) if (one.file, one.function) in _CALLERS),
        default=-1,
    )
    shown = frames[last_of_ours + 1 :] or frames
    lines = [
        f'File "{one.file}", line {one.line}, in {one.function}' for one in shown if one is not MORE
    ]
    if (more := len(lines) - MAX_FRAMES) > 0:
        at_least = "at least " if MORE in shown else ""
        lines = [f"({at_least}{more:,} more)", *lines[more:]]
    return "\n".join(lines)
