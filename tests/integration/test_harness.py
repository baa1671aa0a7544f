"""The campaign's own means: what they start ends with them, and what they tell can be believed."""

import signal
from fcntl import LOCK_EX, flock
from pathlib import Path

from chaos.stage import Stage
from chaos.stores import sqlite
from tests.integration.scenes import Program, members_of, until

PUSHING = """
import sys
from pathlib import Path
from tests.integration.scenes import Program

program = Program(["-m", "chaos.pushing", *sys.argv[1:4], "2", "2", "0"], Path(sys.argv[4]), {})
print(program.pid, flush=True)
program.wait(600)
"""


def test_who_was_forked_to_push_ends_with_the_harness(tmp_path: Path) -> None:
    words = [f"sqlite://{tmp_path}/queue.db", str(tmp_path / "journal"), "t", str(tmp_path / "p")]
    harness = Program(["-c", PUSHING, *words], tmp_path / "harness", {})
    try:
        until(lambda: harness.stdout.strip(), "it has started who pushes")
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

        with (tmp_path / "store" / "queue.db-lock").open("rb") as file:
            assert not stage.is_written_to
            flock(file, LOCK_EX)
            assert stage.is_written_to
        stage.gator.backend.close()
