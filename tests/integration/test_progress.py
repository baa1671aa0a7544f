"""``latergator --progress``: a live line on a terminal, one line in the end elsewhere."""

import os
import re
import sys

from alligator.backends.base import Counts
from tests.integration import jobs
from tests.integration.scenes import ON_SQLITE, Program, Scene, until

pytestmark = ON_SQLITE

COLUMNS = 80

# The program stays in our session, so that it ends with the test.
TERMINAL = f"""
import os, pty, subprocess, sys, termios

ours, theirs = pty.openpty()
termios.tcsetwinsize(theirs, (24, {COLUMNS}))
program = subprocess.Popen(sys.argv[1:], stdout=theirs)
os.close(theirs)
try:
    while shown := os.read(ours, 4096):
        os.write(1, shown)
except OSError:  # how Linux says that nobody writes to it any more
    pass
sys.exit(program.wait())
"""
"""Runs a program whose standard output is a terminal, and prints what it would show."""

NO_RICH = 'raise ModuleNotFoundError("No module named \'rich\'", name="rich")\n'

SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""What moves the cursor, erases or colours (ECMA-48: a control sequence)."""


def on_terminal(scene: Scene, **environment: str) -> Program:
    """Start a burst on a terminal."""
    latergator = [sys.executable, "-m", "alligator.latergator", scene.dsn, "--burst", "--progress"]
    # What a CI has set would tell rich of another terminal than ours.
    ours = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    return scene.python("-c", TERMINAL, *latergator, **(ours | environment))


def lines_of(program: Program) -> list[str]:
    """Return what was printed so far, without what moves the cursor, erases or colours."""
    return SEQUENCE.sub("", program.stdout).split("\n")


def shows(program: Program, pattern: str) -> None:
    """Wait until a line of the terminal has a part that matches."""
    until(
        lambda: any(re.search(pattern, line) for line in lines_of(program)),
        f"the terminal shows {pattern!r}",
    )


def test_a_terminal_shows_a_live_line_and_then_what_came_of_it(scene: Scene) -> None:
    scene.push_many("t1", "t2", "t3")
    scene.push("dies", jobs.fail, "plain")
    scene.push("dies-twice", jobs.fail, "plain", retries=1)
    scene.push_gated("long")
    scene.push_many("t4", "t5")

    program = on_terminal(scene)
    scene.started("long")

    # Those behind the long one are given back meanwhile, and wait with what is to be retried.
    shows(program, r"\b3 done +[\d,]+/s +3 waiting +1 failed\b")
    assert "retried" not in program.stdout
    scene.open("long")
    assert program.wait() == 0
    *_, last, nothing = lines_of(program)
    assert re.fullmatch(r"6 done, 2 failed, 1 retried in \d+\.\d s.*", last)
    assert nothing == ""
    assert max(map(len, lines_of(program))) <= COLUMNS
    assert program.stderr == ""


def test_a_terminal_has_its_cursor_and_no_live_line_in_the_end(scene: Scene) -> None:
    scene.push_gated("long")
    program = on_terminal(scene)
    shows(program, r"\b0 done +0/s +0 waiting +0 failed\b")
    scene.open("long")
    assert program.wait() == 0

    shown = program.stdout
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") > -1  # shown again, after hidden
    summary = shown.index("1 done, 0 failed, 0 retried in ")
    erased = shown.rfind("\x1b[2K")
    assert shown.rfind(" waiting ") < erased < summary


def test_a_pipe_gets_what_came_of_it_alone(scene: Scene) -> None:
    scene.push_many("t1", "t2", "t3")
    scene.push("dies", jobs.fail, "plain")

    program = scene.shell("{latergator} --burst --progress | cat")

    assert program.wait() == 0
    assert re.fullmatch(r"3 done, 1 failed, 0 retried in \d+\.\d s[ -~]*\n", program.stdout)
    assert program.stderr == ""


def test_a_terminal_without_rich_is_told_so_and_the_work_is_done(scene: Scene) -> None:
    stub = scene.folder / "without" / "rich"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(NO_RICH)
    path = os.pathsep.join([str(stub.parent), os.environ.get("PYTHONPATH", "")])
    scene.push_many("t1", "t2", "t3")

    program = on_terminal(scene, PYTHONPATH=path)

    assert program.wait() == 0
    assert "latergator: --progress needs rich" in program.stderr
    assert "pip install 'alligator[progress]'" in program.stderr
    assert "Traceback" not in program.stderr
    assert sorted(scene.journal.names("finish")) == ["t1", "t2", "t3"]
    assert scene.counts == Counts()
    assert re.fullmatch(r"3 done, 0 failed, 0 retried in \d+\.\d s[ -~]*\n", program.stdout)
