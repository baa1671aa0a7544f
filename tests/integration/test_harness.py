"""The campaign's own means: what they start ends with them, and what they tell can be believed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from alligator.backends.base import Bury
from alligator.verify.crew import children_of
from alligator.verify.findings import Findings
from chaos.campaign import Scenario, Trial
from chaos.stage import Stage
from chaos.stores import Place, sqlite
from chaos.table import HEAD, row
from chaos.trying import NotPlayed, tried
from tests.examples.commands import clean_environment
from tests.integration.scenes import ROOT, Program, kill, members_of, until

PUSHING = """
import sys
from pathlib import Path
from chaos.table import row
from chaos.trying import NotPlayed, tried
from tests.integration.scenes import Program

program = Program(["-m", "chaos.pushing", *sys.argv[1:4], "2", "2", "0"], Path(sys.argv[4]), {})
print(program.pid, flush=True)
program.wait(600)
"""

BROKEN_OFF = """
import subprocess
import sys
from pathlib import Path
from chaos.stage import Stage
from chaos.stores import Place

begin, left = subprocess.Popen.__init__, [int(sys.argv[2])]

def begin_and_leave(*args, **settings):
    begin(*args, **settings)
    left[0] -= 1
    if not left[0]:
        sys.exit("as at a signal")

folder = Path(sys.argv[1])
stage = Stage(Place("sqlite", f"sqlite://{folder}/queue.db"), folder, seed=1, size=1.0)
subprocess.Popen.__init__ = begin_and_leave
try:
    stage.start("--workers", "1")
finally:
    for program in stage.programs:
        program.end()
"""
"""Starts a program as a trial does, and is told to end when so many processes are started."""


@pytest.mark.parametrize("number", [1, 2])
def test_a_program_that_somebody_is_told_to_end_amid_its_start_is_not_left(
    tmp_path: Path, number: int
) -> None:
    words = "-c", BROKEN_OFF, str(tmp_path), f"{number}"
    harness = Program(words, tmp_path / "harness", {"TMPDIR": str(tmp_path)})
    try:
        assert harness.wait() == 1
        assert "as at a signal" in harness.stderr

        until(lambda: not with_folder(tmp_path), "all have ended")
    finally:
        harness.end()
        for pid in with_folder(tmp_path):
            kill(pid)


def test_who_was_forked_to_push_ends_with_the_harness(tmp_path: Path) -> None:
    words = [f"sqlite://{tmp_path}/queue.db", str(tmp_path / "journal"), "t", str(tmp_path / "p")]
    harness = Program(["-c", PUSHING, *words], tmp_path / "harness", {})
    try:
        until(lambda: harness.stdout != "", "it has started who pushes")
        session = int(harness.stdout)
        until(lambda: len(members_of(session)) == 3, "all are forked")

        harness.signal(signal.SIGKILL)
        harness.wait()

        until(lambda: not members_of(session), "all have ended")
    finally:
        harness.end()


def test_who_was_forked_to_push_ends_with_who_forked_it(tmp_path: Path) -> None:
    words = [f"sqlite://{tmp_path}/queue.db", str(tmp_path / "journal"), "t"]
    program = Program(["-m", "chaos.pushing", *words, "2", "2", "0"], tmp_path / "pushing", {})
    try:
        until(lambda: len(program.members) == 3, "all are forked")

        program.signal(signal.SIGKILL)
        program.wait()

        until(lambda: not program.members, "all have ended")
    finally:
        program.end()


def test_a_process_is_not_stopped_while_somebody_writes_to_the_stages_file(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with sqlite(tmp_path / "store") as place:
        stage = Stage(place, tmp_path, seed=1, size=1.0)
        stage.push("t1")

        before = stage.is_locked
        with (tmp_path / "store" / "queue.db-lock").open("rb") as file:
            flock(file, LOCK_EX)
            during = stage.is_locked

        assert (before, during) == (False, True)
        stage.gator.backend.close()


@pytest.mark.parametrize("disturbed", [False, True])
@pytest.mark.parametrize("deaths", [0, 1])
def test_who_may_have_died_with_a_task_unbegun_makes_one_death_enough(
    tmp_path: Path, deaths: int, disturbed: bool
) -> None:
    stage = Stage(Place("sqlite", f"sqlite://{tmp_path}/queue.db"), tmp_path, seed=1, size=1.0)
    stage.push("t1")
    [held] = stage.gator.backend.reserve(["all"], "a worker", limit=1).reservations
    for pid in range(1, deaths + 1):
        stage.journal.note("start", "t1", pid=pid)
        stage.journal.note("kill", pid=pid)
    stage.gator.backend.settle([Bury(held, "poison")])

    if disturbed:
        stage.kill_tree()
    stage.look_at_dead()

    assert (not stage.remarks) == (disturbed and deaths == 1)
    stage.gator.backend.close()


NOTHING = Findings(3, 3, [], [], 0, [], [], [], 1)


@pytest.mark.parametrize(
    ("finished", "lost", "doubled", "remarks", "is_good"),
    [
        (7, ["t1"], [], [], True),
        (0, ["t1", "t2"], [], [], False),  # it never ran
        (7, ["t1"], [], ["latergator has ended"], False),
        (7, [], ["t1"], [], False),
        (7, [], [], [], False),
    ],
)
def test_a_control_has_to_run_and_to_lose(
    finished: int, lost: list[str], doubled: list[str], remarks: list[str], is_good: bool
) -> None:
    found = replace(NOTHING, finished=finished, lost=lost, unexplained=doubled)
    trial = Trial("server_killed", "redis", 1, 1.0, found, remarks, [], loses=True)

    assert trial.is_good == is_good
    assert ("as is known" in row(trial)) == is_good


def play_never_ends(stage: Stage) -> None:
    """It goes on and on."""
    stage.start("--workers", "1")
    stage.journal.note("playing")
    while True:
        time.sleep(0.01)


def play_without_a_server(stage: Stage) -> None:
    """It needs what is not there."""
    pytest.skip("no such server is installed")


def test_a_trial_that_hangs_is_ended_with_all_that_it_has_started() -> None:
    before = set(descendants(os.getpid()))
    scenario = Scenario(play_never_ends, ["sqlite"], 1.0)

    [outcome] = tried([(scenario, "sqlite")], seed=1, is_quick=True, within=1.0)

    assert isinstance(outcome, NotPlayed)
    assert outcome.is_failure
    assert outcome.why == "it took too long"
    assert set(descendants(os.getpid())) == before


def test_what_is_not_installed_ends_no_campaign() -> None:
    party = [(Scenario(play_without_a_server, ["sqlite"], 1.0), "sqlite")]

    [outcome] = tried(party, seed=1, is_quick=True)

    assert isinstance(outcome, NotPlayed)
    assert not outcome.is_failure
    assert "no such server is installed" in outcome.why


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_campaign_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: int) -> None:
    words = "-m", "chaos", "--quick", "--scenario", "children_killed", "--store", "sqlite"
    campaign = Program(words, tmp_path / "campaign", {"TMPDIR": str(tmp_path)})
    try:
        until(lambda: [*tmp_path.glob("alligator-chaos-*/journal")], "it plays")

        campaign.signal(number)

        assert campaign.wait() == 128 + number
        # What it has started is in other sessions, and is told apart by its environment.
        until(lambda: not with_folder(tmp_path), "all have ended", within=5.0)
        assert [*tmp_path.glob("alligator-chaos-*")] == []
    finally:
        campaign.end()


def campaign_says(*words: str, **environment: str) -> tuple[int, str, str]:
    """Return what became of a campaign: its status, what it has said, what it has complained of."""
    ran = subprocess.run(
        [sys.executable, "-m", "chaos", *words],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_a_campaign_tells_its_seed_before_anything_else() -> None:
    status, said, _ = campaign_says(
        "--quick", "--scenario", "killed_at_the_first_push_of_all", "--seed", "4711"
    )

    assert said.startswith(f"Seed 4711\n\n{HEAD}\n"), said
    assert status == 0


def test_a_campaign_of_nothing_is_refused() -> None:
    status, said, complaint = campaign_says(
        "--scenario", "interpreter_held", "--store", "beanstalk"
    )

    assert (status, said) == (2, "")
    assert "does not play interpreter_held on beanstalk" in complaint
    assert "there is something on: sqlite" in complaint


def test_what_is_not_there_of_the_controls_is_told(tmp_path: Path) -> None:
    status, said, complaint = campaign_says(
        "--store", "huey", "--store", "rq", CHAOS_CONTROLS=str(tmp_path)
    )

    assert status == 2
    assert "Nothing to play" in complaint
    lines = said.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("not played: ") for line in lines)


def with_folder(folder: Path) -> list[int]:
    """Return the processes that live and have a folder for temporary files, as their environment tells."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended, or is another user's
            if entry.name.isdigit() and f"TMPDIR={folder}\0" in (entry / "environ").read_text(
                errors="replace"
            ):
                found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = children_of(pid)
    return found + [each for one in found for each in descendants(one)]
