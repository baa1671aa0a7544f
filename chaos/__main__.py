"""Let everything fail around tasks, and count what is lost and what runs twice.

python -m chaos [--store NAME ...] [--scenario NAME ...] [--seed N] [--quick] [--json FILE]
"""

import argparse
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from chaos.campaign import Scenario, Trial
from chaos.controls.playing import FOREIGN, OURS
from chaos.controls.systems import are_installed
from chaos.scenarios import SCENARIOS
from chaos.table import HEAD, row
from chaos.trying import NotPlayed, heed, tried

Party = list[tuple[Scenario, str]]

PATIENT_AT_ONCE = 5
"""How many of those that have patience are played at a time."""
WAITS = 0.5
"""The patience of those that wait for most of their time."""


def main(words: Sequence[str] | None = None) -> int:
    """Play what is asked for, and print a row for each trial; 1 if one is not as it should be."""
    options = _options(words)
    logging.disable()  # what happens to tasks in this process is told by the journal
    heed(_end)
    programme, not_installed = _programme(options)
    for scenario, store in not_installed:
        print(f"not played: {scenario.name} on {store}: it is not installed; make chaos does that")
    if not programme:
        print(_nothing_to_play(options), file=sys.stderr)
        return 2
    print(f"Seed {options.seed}\n\n{HEAD}", flush=True)
    trials: list[Trial] = []
    failed = 0
    # Those that need the machine for themselves go first.
    alone = [one for one in programme if not one[0].patience]
    for party, at_once in ((alone, 1), (_mixed(programme), PATIENT_AT_ONCE)):
        for outcome in tried(party, options.seed, is_quick=options.quick, at_once=at_once):
            if isinstance(outcome, NotPlayed):
                failed += outcome.is_failure
                what = f"{outcome.scenario} on {outcome.store}, seed {options.seed}"
                print(f"{what}: {outcome.why}", flush=True)
                continue
            trials.append(outcome)
            print(row(outcome), flush=True)
            if options.json:  # each time: whatever ends the campaign, this is there
                options.json.write_text(json.dumps([asdict(one) for one in trials], indent=1))
    bad = [trial for trial in trials if not trial.is_good]
    for trial in bad:
        found = trial.findings
        print(f"\n{trial.scenario} on {trial.store}, seed {trial.seed}:")
        for what in ("lost", "unexpected", "unexplained"):
            print(f"- {what}: {', '.join(getattr(found, what)[:10])}")
        print(*(f"- {remark}" for remark in trial.remarks), sep="\n")
    return 1 if bad or failed else 0


def _mixed(programme: Party) -> Party:
    """Return those that have patience, the longest waits first; after each two, one that has much to do."""
    patient = sorted(
        (one for one in programme if one[0].patience), key=lambda one: -one[0].patience
    )
    waiting = [one for one in patient if one[0].patience >= WAITS]
    busy = [one for one in patient if one[0].patience < WAITS]
    mixed: Party = []
    while waiting or busy:
        mixed += [*waiting[:2], *busy[:1]]
        del waiting[:2], busy[:1]
    return mixed


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    every = [*SCENARIOS.values(), *OURS, *FOREIGN]
    stores = dict.fromkeys(store for one in every for store in one.stores)
    names = dict.fromkeys(one.name for one in every)
    parser.add_argument("--store", action="append", choices=[*stores], metavar="NAME")
    parser.add_argument("--scenario", action="append", choices=[*names], metavar="NAME")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--quick", action="store_true", help="the short campaign")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args(words)


def _programme(options: argparse.Namespace) -> tuple[Party, Party]:
    """Return what is to be played, and what of it cannot be played here."""
    ours, foreign = (
        [
            (scenario, store)
            for scenario in part
            if not options.scenario or scenario.name in options.scenario
            for store in scenario.played_on(is_quick=options.quick)
            if not options.store or store in options.store
        ]
        for part in ([*SCENARIOS.values(), *OURS], FOREIGN)
    )
    return (ours + foreign, []) if are_installed() else (ours, foreign)


def _nothing_to_play(options: argparse.Namespace) -> str:
    asked = " or ".join(options.scenario or ["anything"]), " or ".join(options.store or ["a store"])
    stores = dict.fromkeys(
        store
        for one in (*SCENARIOS.values(), *OURS, *FOREIGN)
        if one.name in (options.scenario or ())
        for store in one.played_on(is_quick=options.quick)
    )
    played_on = f" Of these, there is something on: {', '.join(stores)}." if stores else ""
    which = "the short campaign" if options.quick else "the campaign"
    return f"Nothing to play: {which} does not play {asked[0]} on {asked[1]} here.{played_on}"


if __name__ == "__main__":
    sys.exit(main())
