"""Functions for workers to run. Each notes in a journal that it starts, and that it finishes."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from alligator import Task
from alligator.verify.journal import Journal

LOOK = 0.005
"""Seconds between two looks whether a gate is open."""


def work(journal: str, name: str, seconds: float = 0.0) -> str:
    """Take so long."""
    Journal(journal).note("start", name)
    if seconds:
        time.sleep(seconds)
    Journal(journal).note("finish", name)
    return f"result of {name}"


async def work_soon(journal: str, name: str, seconds: float = 0.0) -> str:
    """As ``work``, and let others run meanwhile."""
    import asyncio  # here: it takes long, and the first of the others would wait for it

    Journal(journal).note("start", name)
    await asyncio.sleep(seconds)
    Journal(journal).note("finish", name)
    return f"result of {name}"


def wait_at_gate(journal: str, name: str, gate: str) -> None:
    """Run until a file is there: one for whoever runs this, or one for this process."""
    Journal(journal).note("start", name)
    gates = Path(gate), Path(f"{gate}.{os.getpid()}")
    while not any(path.exists() for path in gates):
        time.sleep(LOOK)
    Journal(journal).note("finish", name)


def fail_at_gate(journal: str, name: str, gate: str) -> NoReturn:
    """As ``wait_at_gate``, to fail in the end."""
    wait_at_gate(journal, name, gate)
    raise ValueError("failed at the gate")


def hold_the_lock(journal: str, name: str, seconds: int) -> None:
    """Let no other thread of this process run for so long, as one long call into C does."""
    Journal(journal).note("start", name)
    ctypes.PyDLL(None).sleep(seconds)  # PyDLL does not let go of Python's global lock
    Journal(journal).note("finish", name)


def fail(journal: str, name: str, kind: str) -> NoReturn:
    """Raise an exception that is no Exception, or is one."""
    Journal(journal).note("start", name)
    kinds: dict[str, Callable[[], BaseException]] = {
        "exit": lambda: SystemExit(3),
        "interrupt": KeyboardInterrupt,
        "own": Uncommon,
        "hostile": lambda: ValueError("surrogate \udcff, escape \x1b[31m, line\nbreak"),
        "plain": lambda: ValueError("plain"),
    }
    raise kinds[kind]()


def fail_once(journal: str, name: str) -> str:
    """Fail, but only the first time."""
    Journal(journal).note("start", name)
    if len(Journal(journal).entries("start", name)) == 1:
        raise ValueError("failed once")
    return f"result of {name}"


class Uncommon(BaseException):
    """Nothing that ``except Exception`` sees."""


def end_process(journal: str, name: str, status: int = 1) -> NoReturn:
    """End the process with nothing said."""
    Journal(journal).note("start", name)
    os._exit(status)


def segfault(journal: str, name: str) -> NoReturn:
    """Read where nothing is."""
    Journal(journal).note("start", name)
    ctypes.string_at(0)
    raise AssertionError("memory at 0 could be read")


def be_killed_once(journal: str, name: str) -> None:
    """End as by the OOM killer, but only the first time."""
    Journal(journal).note("start", name)
    if len(Journal(journal).entries("start", name)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    Journal(journal).note("finish", name)


def return_hostile() -> str:
    """Return what no strict stream can take."""
    return "surrogate \udcff"


def return_forgery() -> str:
    """Return what would pass for a line of a worker's, and colour the rest."""
    return "ok\r\n2026-11-23 ERROR forged\x1b[31m"


class Leaves:
    """Leaves the program when it is to be printed."""

    def __str__(self) -> str:
        raise SystemExit("no use")


def return_what_leaves() -> Leaves:
    """Return something that cannot be printed."""
    return Leaves()


def note_start(task: Task) -> None:
    """As a hook: the task's own journal is its first argument, its name the second."""
    Journal(str(task.func_args[0])).note("hook", str(task.func_args[1]))


def add(a: Any, b: Any) -> Any:
    """Return a sum."""
    return a + b
