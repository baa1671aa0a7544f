"""The short campaign: everything around the tasks fails, a little of each. ``make chaos`` is all of it.

Two files of tests have every other trial each, so that they can be run side by side.
"""

import os
from pathlib import Path

import pytest

from chaos.campaign import Scenario, Trial, played
from chaos.scenarios import SCENARIOS
from chaos.table import HEAD, row

SEED = int(os.environ.get("CHAOS_SEED", "7"))
TRIALS = [
    pytest.param(one, store, id=f"{one.name}-{store}")
    for one in SCENARIOS.values()
    for store in one.played_on(is_quick=True)
]


def trial_of(
    scenario: Scenario, store: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> Trial:
    """Play a scenario, and show its row."""
    trial = played(scenario, store, folder, SEED, scenario.quick)
    with capsys.disabled():
        print(f"\n{HEAD}\n{row(trial)}   seed {SEED}")
    return trial


def assert_kept(trial: Trial) -> None:
    """Fail unless every promise was kept."""
    assert trial.remarks == [], "\n".join(trial.remarks)
    assert trial.findings.lost == []
    assert trial.findings.unexpected == []
    assert trial.findings.unexplained == []
