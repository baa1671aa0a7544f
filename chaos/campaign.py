"""Scenarios, and how one of them is played on a store."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alligator.verify.findings import Findings
from chaos.stage import Stage
from chaos.stores import STORES, Place
from tests.integration.scenes import Program

Play = Callable[[Stage], None]
Open = Callable[[Path], AbstractContextManager[Place]]
Set = Callable[[Place, Path, int, float], Stage]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that goes wrong while tasks are pushed and run.

    Args:
        play: What does it.
        stores: Where it is played.
        quick: Its size in the short campaign; 0.0: it is left out.
        full: Its size in the whole one.
        places: What the names of the stores mean.
        stage: What sets the stage.
        loses: Whether it is a control: something that is known to lose tasks, so that the harness is to say so.
            None: it is played for comparison, and may come out either way.
        patience: If nothing is measured that others could delay, about the part of its time in which it only
            waits: it may be played beside others, those that wait most first. 0.0: it is played alone.
        quick_on: Where it is played in the short campaign; None: on all of its stores.
    """

    play: Play
    stores: Collection[str]
    quick: float
    full: float = 1.0
    places: Mapping[str, Open] = field(default_factory=lambda: STORES)
    stage: Set = Stage
    loses: bool | None = False
    patience: float = 0.0
    quick_on: Collection[str] | None = None

    @property
    def name(self) -> str:
        """As in the table."""
        return self.play.__name__

    def played_on(self, *, is_quick: bool) -> Collection[str]:
        """The stores of a campaign."""
        if not is_quick:
            return self.stores
        return (self.stores if self.quick_on is None else self.quick_on) if self.quick else ()

    @property
    def says(self) -> str:
        """What goes wrong, in one line."""
        return (self.play.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario that was played."""

    scenario: str
    store: str
    seed: int
    seconds: float
    findings: Findings
    remarks: list[str]
    """What was not as it should be, beside the findings."""
    shown: list[str]
    """What else the table is to show."""
    loses: bool | None = False
    """Whether it is a control, which is known to lose tasks; None: it stands there for comparison."""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept; of a control, whether it ran and lost what it is known to lose."""
        if self.loses is False:
            return self.findings.is_good and not self.remarks
        # What never ran is lost to the last task, and proves nothing.
        has_run = self.findings.finished > 0 and not self.remarks
        return has_run and (self.loses is None or bool(self.findings.lost))


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    stores: Collection[str] = tuple(STORES),
    *,
    quick: float = 0.0,
    quick_on: Collection[str] | None = None,
    places: Mapping[str, Open] = STORES,
    loses: bool = False,
    patience: float = 0.0,
) -> Callable[[Play], Play]:
    """Make a function a scenario of the campaign: it gets the stage, and its docstring says what goes wrong."""

    def register(play: Play) -> Play:
        SCENARIOS[play.__name__] = Scenario(
            play,
            stores,
            quick,
            quick_on=quick_on,
            places=places,
            loses=loses,
            patience=patience,
        )
        return play

    return register


def played(scenario: Scenario, store: str, folder: Path, seed: int, size: float = 1.0) -> Trial:
    """Play a scenario on a store of its own, and judge what came of it."""
    began = time.monotonic()
    (folder / "store").mkdir()
    with scenario.places[store](folder / "store") as place:
        stage = scenario.stage(place, folder, seed, size)
        try:
            try:
                scenario.play(stage)
            except pytest.fail.Exception as err:
                stage.remarks.append(str(err))
            stage.come_to_rest()
            findings = stage.findings()
            if stage.remarks or not (findings.is_good or scenario.loses is not False):
                stage.remarks += map(_last_words, stage.programs[-3:])
        finally:
            for program in stage.programs:
                program.end()
            stage.gator.backend.close()
    seconds = time.monotonic() - began
    return Trial(
        scenario.name,
        store,
        seed,
        seconds,
        findings,
        stage.remarks,
        stage.shown,
        scenario.loses,
    )


def _last_words(program: Program) -> str:
    return f"the end of what {' '.join(program.words[1:])} has logged: {program.stderr[-2000:]}"
