"""The short campaign: the other half of its trials."""

from pathlib import Path

import pytest

from chaos.campaign import Scenario
from tests.integration.short_campaign import TRIALS, assert_kept, trial_of


@pytest.mark.parametrize(("scenario", "store"), TRIALS[1::2])
def test_what_is_promised_holds_whatever_fails(
    scenario: Scenario, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_kept(trial_of(scenario, store, tmp_path, capsys))
