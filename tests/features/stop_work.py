"""Tasks that do not end by themselves, or hardly; each notes in a journal what becomes of it."""

import asyncio
import ctypes
import faulthandler
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from alligator import Task, current_task, track
from alligator.exceptions import Snooze, TaskTimeout
from alligator.processes.inquiry import SIGNAL
from alligator.verify.journal import Journal

LOOK = 0.005
"""Seconds between two looks whether a gate is open."""


def sleep(journal: str, name: str) -> None:
    """Sleep on and on."""
    Journal(journal).note("start", name)
    time.sleep(3600)


def spin(journal: str, name: str) -> NoReturn:
    """Compute on and on, in Python."""
    Journal(journal).note("start", name)
    while True:
        pass


def recurse(journal: str, name: str) -> NoReturn:
    """Compute on and on, deep down and up again; the signal that asks for stacks would end the process."""
    faulthandler.unregister(SIGNAL)
    Journal(journal).note("start", name)

    def dive(depth: int, *found: object) -> None:
        if depth:
            dive(depth - 1, found)

    while True:
        for depth in range(5, 400, 7):
            dive(depth)


def hold_the_lock(journal: str, name: str) -> None:
    """Compute on and on in one call into C, which lets no other thread of this process run."""
    Journal(journal).note("start", name)
    sum(range(10**12))


def sleep_in_c(journal: str, name: str) -> None:
    """Sleep in C, and let no other thread of this process run meanwhile."""
    Journal(journal).note("start", name)
    ctypes.PyDLL(None).sleep(3600)


def search(journal: str, name: str) -> None:
    """Search on and on by a regular expression that tries all there is."""
    Journal(journal).note("start", name)
    re.match("(a+)+$", "a" * 100 + "b")


def turn_a_deaf_ear(journal: str, name: str) -> NoReturn:
    """Go on whatever is raised."""
    Journal(journal).note("start", name)
    while True:
        try:
            time.sleep(3600)
        except TaskTimeout:
            Journal(journal).note("told", name)


def track_to_gate(journal: str, name: str, gate: str) -> None:
    """Go through some items; wait in the second until the gate is open."""
    here = Journal(journal)
    here.note(f"delivery-{current_task().deliveries}", name)
    here.note("start", name)
    for number in track(range(3)):
        here.note(f"item-{number}", name)
        while number and not Path(gate).exists():
            time.sleep(LOOK)
    here.note("finish", name)


def swallow(journal: str, name: str) -> NoReturn:
    """Go on whatever is raised, in Python."""
    Journal(journal).note("start", name)
    while True:
        try:
            time.sleep(LOOK)
        except TaskTimeout:
            Journal(journal).note("told", name)


def set_an_alarm(journal: str, name: str) -> None:
    """Sleep on and on, after an alarm of the task's own has taken the place of the one for its time."""
    Journal(journal).note("start", name)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.alarm(1)
    time.sleep(3600)


def run_a_program(journal: str, name: str) -> None:
    """Wait for a program that does not end."""
    Journal(journal).note("start", name)
    subprocess.run(["sleep", "3600"], check=True)


def tidy_up(journal: str, name: str) -> None:
    """Sleep on and on, and tidy up when told that time is over."""
    Journal(journal).note("start", name)
    try:
        time.sleep(3600)
    finally:
        Journal(journal).note("tidied", name)


async def sleep_well(journal: str, name: str) -> None:
    """Sleep on and on, and let others run."""
    Journal(journal).note("start", name)
    try:
        await asyncio.sleep(3600)
    finally:
        Journal(journal).note("tidied", name)


def wait_at_gate(journal: str, name: str, gate: str) -> None:
    """Note which hand-out this is, and run until a file is there."""
    task = current_task()
    Journal(journal).note(f"delivery-{task.deliveries}", name)
    Journal(journal).note("start", name)
    while not Path(gate).exists():
        time.sleep(LOOK)
    Journal(journal).note("finish", name)


def wait_to_leave(journal: str, name: str, gate: str) -> None:
    """Run until a file is there, or the worker is told to leave."""
    Journal(journal).note("start", name)
    while not (Path(gate).exists() or current_task().leaving):
        time.sleep(LOOK)


def take(journal: str, name: str, seconds: float) -> None:
    """Take so long, and return or be told that time is over."""
    Journal(journal).note("start", name)
    time.sleep(seconds)
    Journal(journal).note("finish", name)


def note_error(task: Task, err: BaseException) -> None:
    """As a hook."""
    Journal(str(task.func_args[0])).note(f"error-{type(err).__name__}", str(task.func_args[1]))


def track_on(journal: str, name: str, gate: str, items: int = 1_000_000) -> None:
    """Go through half of some items; through the rest when a file is there, or its worker leaves."""
    task = current_task()
    Journal(journal).note("start", name)
    for item in track(range(items), note="going on"):
        Journal(journal).note(f"item-{item}", name)
        until = time.monotonic() + (60 if item == items // 2 else 0.01)
        while time.monotonic() < until and not (Path(gate).exists() or task.leaving):
            time.sleep(LOOK)
    Journal(journal).note("finish", name)


def heed_cancel(journal: str, name: str) -> None:
    """Look whether this was canceled, and end then."""
    Journal(journal).note("start", name)
    while not current_task().canceled:
        time.sleep(LOOK)
    Journal(journal).note("heard", name)


def snooze_at_gate(journal: str, name: str, gate: str) -> None:
    """Run until a file is there, and then put this off."""
    wait_at_gate(journal, name, gate)
    raise Snooze(1)


def fail_at_gate(journal: str, name: str, gate: str) -> None:
    """Run until a file is there, and then fail."""
    wait_at_gate(journal, name, gate)
    raise ValueError("failed at the gate")


async def block_the_loop(journal: str, name: str) -> None:
    """A coroutine that lets no other run."""
    Journal(journal).note("start", name)
    time.sleep(3600)  # noqa: ASYNC251 -- that is what is wrong with it


def take_long(task: Task, result: object) -> None:
    """As a hook: longer than the time that its task had, and that its process would have."""
    time.sleep(4)
    Journal(str(task.func_args[0])).note("hook-end", str(task.func_args[1]))


def track_for(journal: str, name: str, seconds: float) -> str:
    """Go through items for so long."""
    Journal(journal).note("start", name)
    until = time.monotonic() + seconds
    for _ in track(range(10**9)):
        time.sleep(0.01)
        if time.monotonic() > until:
            break
    Journal(journal).note("finish", name)
    return name


def track_slowly(journal: str, name: str, items: int) -> None:
    """Go through items, each of which takes its time."""
    task = current_task()
    Journal(journal).note(f"delivery-{task.deliveries}", name)
    Journal(journal).note("start", name)
    for item in track(range(items)):
        Journal(journal).note(f"item-{item}", name)
        time.sleep(0.03)
    Journal(journal).note("finish", name)


def take_memory(journal: str, name: str, mib: int) -> None:
    """Take so much memory, say how far this is, and be killed as for lack of it."""
    Journal(journal).note("start", name)
    taken = b"x" * (mib * 2**20)
    current_task().progress(len(taken), note="all taken")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(journal: str, name: str, status: int) -> None:
    """End the process, but only the first time."""
    Journal(journal).note("start", name)
    if len(Journal(journal).entries("start", name)) == 1:
        os._exit(status)
    Journal(journal).note("finish", name)


async def wait_whatever_is_raised(journal: str, name: str) -> None:
    """A coroutine that waits on and on, also when it is canceled."""
    Journal(journal).note("start", name)
    await wait_deep_down()


async def wait_deep_down() -> None:
    """What the stack of ``wait_whatever_is_raised`` ends in, but for asyncio."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
