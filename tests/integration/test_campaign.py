"""The short campaign: everything around the tasks fails, a little of each. ``make chaos`` is all of it."""

import os
import random
from pathlib import Path

import pytest

from chaos.campaign import Scenario, played
from chaos.controls.playing import controls
from chaos.controls.systems import are_installed
from chaos.scenarios import SCENARIOS
from chaos.table import HEAD, row
from tests.support.servers import missing

SEED = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))


@pytest.mark.parametrize(
    ("scenario", "store"),
    [
        pytest.param(one, store, id=f"{one.name}-{store}")
        for one in SCENARIOS.values()
        for store in one.played_on(is_quick=True)
    ],
)
def test_what_is_promised_holds_whatever_fails(
    scenario: Scenario, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = played(scenario, store, tmp_path, SEED, scenario.quick)

    with capsys.disabled():
        print(f"\n{HEAD}\n{row(trial)}   seed {SEED}")
    assert trial.remarks == []
    assert trial.findings.lost == []
    assert trial.findings.unexpected == []
    assert trial.findings.unexplained == []


@pytest.mark.parametrize(
    ("control", "store"),
    [
        pytest.param(one, store, id=f"{one.name}-{store}")
        for one in controls()
        for store in one.played_on(is_quick=True)
    ],
)
def test_what_is_known_to_lose_tasks_is_seen_to(
    control: Scenario, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = played(control, store, tmp_path, SEED, control.quick)

    with capsys.disabled():
        print(f"\n{HEAD}\n{row(trial)}   seed {SEED}")
    assert trial.findings.lost
    assert trial.is_good


def test_other_systems_are_there_to_be_played_with() -> None:
    if not are_installed():
        missing("Huey and RQ are not installed in .venv/controls: make test does that")
