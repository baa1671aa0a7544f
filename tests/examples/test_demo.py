"""examples/demo: the whole demo, on small folders."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from alligator import Gator
from tests.examples.commands import EXAMPLES, clean_environment, run

DEMO = EXAMPLES / "demo" / "run.py"
LIBRARY = Path(sysconfig.get_path("stdlib"))
MODULE = '''
import re

def find(text):
    """Forks at the while, the if and the except."""
    while text:
        try:
            if re.match("\\d", text):
                return text
        except ValueError:
            pass
        text = text[1:]

async def nothing(): ...
'''


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with Python files, good and bad, and much that is none of ours."""
    folder = tmp_path / "some sources"
    for name, text in {
        "good.py": MODULE,
        "deep/er/empty.py": "",
        "bad/syntax.py": "def (:\n",
        "bad/bytes.py": "name = '\0'\n",
        "notes.txt": "def (:\n",
        "venv/lib/site-packages/theirs.py": MODULE,
        ".hidden/theirs.py": MODULE,
        "__pycache__/theirs.py": MODULE,
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "nowhere.py").symlink_to("gone.py")
    return folder


def demo(folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return run("python", DEMO, "--dir", folder, folder=tmp_path, TMPDIR=tmp_path, COLUMNS="80")


def test_files_are_measured_and_what_does_not_parse_is_kept(sources: Path, tmp_path: Path) -> None:
    ran = demo(sources, tmp_path)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 tasks queued" in ran.stdout
    assert rows(ran.stdout) == ["14 2 3 good.py", "0 0 0 deep/er/empty.py", "14 2 3 all 2 files"]
    assert "2 failed, tried once more, and kept as dead letters" in ran.stdout
    assert "SyntaxError: invalid syntax" in ran.stdout
    assert str(work_folder(tmp_path)) in ran.stdout


def test_the_commands_it_shows_work(sources: Path, tmp_path: Path) -> None:
    shown = demo(sources, tmp_path).stdout
    listing, one, retry, workers = re.findall("^  (.*sqlite://.*)$", shown, re.MULTILINE)

    assert in_shell(listing, tmp_path).count("SyntaxError") == 2
    assert "Traceback" in in_shell(one, tmp_path)
    in_shell(retry, tmp_path)
    queue = Gator(f"sqlite://{work_folder(tmp_path) / 'queue.db'}")
    assert queue.len() == 1
    in_shell(workers, tmp_path)
    assert queue.len() == 0
    assert in_shell(listing, tmp_path).count("SyntaxError") == 2


def test_a_package_without_failures_shows_none(tmp_path: Path) -> None:
    ran = demo(LIBRARY / "json", tmp_path)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert rows(ran.stdout)[-1].endswith(f"all {len([*(LIBRARY / 'json').glob('*.py')])} files")
    assert "failed" not in ran.stdout.partition("a second")[2]


def test_warnings_of_the_measured_code_are_not_shown(sources: Path, tmp_path: Path) -> None:
    ran = run(
        "python -W always",
        DEMO,
        "--dir",
        sources,
        folder=tmp_path,
        TMPDIR=tmp_path,
        PYTHONWARNINGS="always",
    )

    assert "Warning" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "No such folder: "), ("empty", "No Python files (*.py) in ")],
)
def test_a_folder_with_nothing_to_measure_is_refused_in_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()

    ran = demo(tmp_path / name, tmp_path)

    assert ran.returncode == 1
    assert ran.stderr == f"{message}{tmp_path / name}\n"
    assert ran.stdout == ""
    assert list(tmp_path.glob("alligator-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_it_leaves_every_task_queued_or_done(
    tmp_path: Path, number: signal.Signals
) -> None:
    count = 400
    large = LIBRARY / "argparse.py"
    sources = tmp_path / "sources"
    sources.mkdir()
    for copy in range(count):
        shutil.copy(large, sources / f"copy_{copy}.py")

    process = subprocess.Popen(
        [sys.executable, DEMO, "--dir", sources],
        env=clean_environment(TMPDIR=tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        wait_until(lambda: measured(tmp_path) > 0)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise

    assert process.returncode == 128 + number
    left = Gator(f"sqlite://{work_folder(tmp_path) / 'queue.db'}").backend.count("all")
    assert left.waiting > 0
    assert f"Stopped, with {left.waiting} tasks still queued." in said
    assert (left.running, left.dead, left.waiting + measured(tmp_path)) == (0, 0, count)


def rows(shown: str) -> list[str]:
    """Return the rows of the table of files, blanks made one."""
    table = shown.partition("file\n")[2].partition("\n\n")[0]
    return [" ".join(line.split()) for line in table.splitlines() if "---" not in line]


def in_shell(command: str, folder: Path) -> str:
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def work_folder(tmp_path: Path) -> Path:
    [found] = tmp_path.glob("alligator-demo-*")
    return found


def measured(tmp_path: Path) -> int:
    try:
        with closing(sqlite3.connect(work_folder(tmp_path) / "results.db", timeout=30)) as results:
            number: int = results.execute("SELECT count(*) FROM files").fetchone()[0]
            return number
    except (ValueError, sqlite3.OperationalError):  # not made yet
        return 0


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
