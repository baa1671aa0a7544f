"""Trials, each in a process of its own: so one that hangs can be ended, and all end with the campaign."""

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from chaos.campaign import Scenario, Trial, played
from tests.integration.scenes import let_programs_hear

LONGEST_TRIAL = 3600.0
"""Seconds after which a trial hangs."""
ENDS_WITHIN = 30.0
"""Seconds for one to end what it has started; then its guards do."""
LOOK = 0.5
"""Seconds between two looks whether the campaign goes on."""

TOLD_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that tell a campaign to end: the last one, that its terminal was closed."""

FORKING = get_context("fork")  # a scenario cannot be sent to a process that does not have it


@dataclass(frozen=True, slots=True)
class NotPlayed:
    """A trial that did not come to its end."""

    scenario: str
    store: str
    why: str
    is_failure: bool = True
    """Whether that is anybody's fault: what is not installed is not."""


def tried(
    party: Sequence[tuple[Scenario, str]],
    seed: int,
    *,
    is_quick: bool,
    at_once: int = 1,
    within: float = LONGEST_TRIAL,
) -> Generator[Trial | NotPlayed]:
    """Play scenarios on stores, some at the same time; return what came of each, as they come to their end."""
    waiting = list(party)
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                ends_by = time.monotonic() + within
                running.append(_Running(*waiting.pop(0), seed, is_quick=is_quick, ends_by=ends_by))
            next_end = min(one.ends_by for one in running)
            wait([one.answer for one in running], max(0.0, next_end - time.monotonic()))
            now = time.monotonic()
            for one in [one for one in running if now > one.ends_by or one.answer.poll()]:
                running.remove(one)
                yield one.outcome()
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.end()


def heed(end: Callable[[int, FrameType | None], NoReturn]) -> None:
    """Let a function be called when the campaign is told to end."""
    for number in TOLD_BY:
        # Under nohup(1), it is to go on.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


class _Running:
    """A trial under way."""

    def __init__(
        self, scenario: Scenario, store: str, seed: int, *, is_quick: bool, ends_by: float
    ) -> None:
        self._names = scenario.name, store
        self.ends_by = ends_by
        self.answer, theirs = FORKING.Pipe(duplex=False)
        size = scenario.quick if is_quick else scenario.full
        words = theirs, scenario, store, seed, size
        sys.stdout.flush()
        self.process = FORKING.Process(target=_play, args=words)
        self.process.start()
        theirs.close()

    def outcome(self) -> Trial | NotPlayed:
        """Return what came of it."""
        try:
            found = self.answer.recv() if self.answer.poll() else "it took too long"
        except EOFError:
            found = "its process has ended"
        self.end()
        if isinstance(found, Trial | NotPlayed):
            return found
        return NotPlayed(*self._names, found)

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.join(ENDS_WITHIN)
        self.process.kill()
        self.process.join()


def _play(answer: Connection, scenario: Scenario, store: str, seed: int, size: float) -> None:
    heed(_leave)
    let_programs_hear()
    threading.Thread(target=_leave_without, args=(os.getppid(),), daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="alligator-chaos-") as folder:
            found: Trial | NotPlayed = played(scenario, store, Path(folder), seed, size)
    except pytest.skip.Exception as err:
        found = NotPlayed(scenario.name, store, f"not played: {err}", is_failure=False)
    except (Exception, pytest.fail.Exception):
        found = NotPlayed(scenario.name, store, traceback.format_exc())
    answer.send(found)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    for each in TOLD_BY:  # a second one is not to break off the tidying up
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _leave_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)  # guards end what was started
