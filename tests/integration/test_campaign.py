"""The short campaign: half of its trials, and the controls."""

from pathlib import Path

import pytest

from chaos.campaign import Scenario
from chaos.controls.playing import controls
from chaos.controls.systems import are_installed
from tests.integration.short_campaign import TRIALS, assert_kept, trial_of
from tests.support.servers import missing


@pytest.mark.parametrize(("scenario", "store"), TRIALS[0::2])
def test_what_is_promised_holds_whatever_fails(
    scenario: Scenario, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_kept(trial_of(scenario, store, tmp_path, capsys))


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
    trial = trial_of(control, store, tmp_path, capsys)

    assert trial.findings.lost
    assert trial.is_good


def test_other_systems_are_there_to_be_played_with() -> None:
    if not are_installed():
        missing("Huey and RQ are not installed in .venv/controls: make test does that")
