"""Let everything fail around tasks, and count what is lost and what runs twice.

python -m chaos [--store NAME ...] [--scenario NAME ...] [--seed N] [--quick] [--json FILE]
"""

import argparse
import itertools
import json
import logging
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from chaos.campaign import Scenario, Trial, played
from chaos.controls.playing import controls
from chaos.scenarios import SCENARIOS
from chaos.table import HEAD, row


def main(words: Sequence[str] | None = None) -> int:
    """Play what is asked for, and print a row for each trial; 1 if one is not as it should be."""
    options = _options(words)
    logging.disable()  # what happens to tasks in this process is told by the journal
    print(HEAD, flush=True)
    trials: list[Trial] = []
    failed = 0
    programme = _programme(options)
    patient = [one for one in programme if one[0].is_patient]
    with ThreadPoolExecutor(max(1, len(patient))) as together:
        tried = partial(_tried, options)
        alone = map(tried, [one for one in programme if not one[0].is_patient])
        for trial in itertools.chain(alone, together.map(tried, patient)):
            if trial is None:
                failed += 1
            else:
                trials.append(trial)
                print(row(trial), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    bad = [trial for trial in trials if not trial.is_good]
    for trial in bad:
        found = trial.findings
        print(f"\n{trial.scenario} on {trial.store}, seed {trial.seed}:")
        for what in ("lost", "unexpected", "unexplained"):
            print(f"- {what}: {', '.join(getattr(found, what)[:10])}")
        print(*(f"- {remark}" for remark in trial.remarks), sep="\n")
    return 1 if bad or failed else 0


def _tried(options: argparse.Namespace, one: tuple[Scenario, str]) -> Trial | None:
    """Play a scenario on a store; None: that failed, and it was said why."""
    scenario, store = one
    with tempfile.TemporaryDirectory(prefix="alligator-chaos-") as folder:
        size = scenario.quick if options.quick else scenario.full
        try:
            return played(scenario, store, Path(folder), options.seed, size)
        except (Exception, pytest.fail.Exception):
            traceback.print_exc()
            return None


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    every = [*SCENARIOS.values(), *controls()]
    stores = dict.fromkeys(store for one in every for store in one.stores)
    names = dict.fromkeys(one.name for one in every)
    parser.add_argument("--store", action="append", choices=[*stores], metavar="NAME")
    parser.add_argument("--scenario", action="append", choices=[*names], metavar="NAME")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--quick", action="store_true", help="the short campaign")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args(words)


def _programme(options: argparse.Namespace) -> list[tuple[Scenario, str]]:
    return [
        (scenario, store)
        for scenario in (*SCENARIOS.values(), *controls())
        if not options.scenario or scenario.name in options.scenario
        for store in scenario.played_on(is_quick=options.quick)
        if not options.store or store in options.store
    ]


if __name__ == "__main__":
    sys.exit(main())
