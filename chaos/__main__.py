"""Let everything fail around tasks, and count what is lost and what runs twice.

python -m chaos [--store NAME ...] [--scenario NAME ...] [--seed N] [--quick] [--json FILE]
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

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
    for scenario, store in _programme(options):
        with tempfile.TemporaryDirectory(prefix="alligator-chaos-") as folder:
            size = scenario.quick if options.quick else scenario.full
            try:
                trial = played(scenario, store, Path(folder), options.seed, size)
            except Exception:
                failed += 1
                traceback.print_exc()
                continue
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
        if scenario.quick or not options.quick
        for store in scenario.stores
        if not options.store or store in options.store
    ]


if __name__ == "__main__":
    sys.exit(main())
