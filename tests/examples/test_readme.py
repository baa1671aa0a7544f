"""README.md: each of its code blocks and commands, run as it stands but for the place of the database."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.commands import EXAMPLES, clean_environment, output, run

README = (EXAMPLES.parent / "README.md").read_text()
DATABASE = "/tmp/first_steps.db"
COUNTED = f"tasks.py has {len((EXAMPLES / 'first_steps' / 'tasks.py').read_text().split())} words."
BLOCKS: list[tuple[str, str]] = re.findall(
    r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's first steps in it."""
    for name in ("tasks.py", "queue_some.py"):
        (tmp_path / name).write_text(moved(block(name), tmp_path))
    return tmp_path


def block(name: str) -> str:
    """Return the README's text of a file, which is that of the example."""
    text = (EXAMPLES / "first_steps" / name).read_text()
    assert ("python", text) in BLOCKS, f"README.md shows another {name}"
    return text


def python_block(part: str) -> str:
    [found] = [text for language, text in BLOCKS if language == "python" and part in text]
    return found


def commands(part: str) -> list[str]:
    [found] = [text for language, text in BLOCKS if not language and part in text]
    return [line.removeprefix("$ ") for line in found.splitlines() if line.startswith("$ ")]


def moved(text: str, folder: Path) -> str:
    return text.replace(DATABASE, str(folder / "queue.db"))


def script(text: str, folder: Path) -> str:
    """Run a block as a script in the folder; return what it printed."""
    (folder / "script.py").write_text(moved(text, folder))
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_first_steps_work(folder: Path) -> None:
    queue, work, dead = (moved(line, folder) for line in commands("queue_some.py"))

    assert output(queue, folder=folder) == "3 tasks are waiting.\n"
    assert COUNTED in output(work, folder=folder)
    assert "FileNotFoundError" in output(dead, folder=folder)


def test_tasks_can_be_told_how_to_run(folder: Path) -> None:
    script(python_block("delay_until"), folder)

    status = output(f"alligator status sqlite://{folder}/queue.db", folder=folder)
    [reports] = [line.split() for line in status.splitlines() if line.startswith("reports")]
    assert reports == ["reports", "2", "2", "0", "0"]  # waiting, delayed, running, dead


def test_a_worker_runs_in_a_script(folder: Path) -> None:
    output("python queue_some.py", folder=folder)
    text = python_block("run_forever").replace("max_tasks=1000", "max_tasks=2")

    assert COUNTED in script(text, folder)


def test_what_failed_can_be_looked_at_and_tried_again(folder: Path) -> None:
    for line in commands("queue_some.py"):
        output(moved(line, folder), folder=folder)
    status, dead, show, retry, cancel = (moved(line, folder) for line in commands("status"))
    listed = output(f"{dead} --json", folder=folder)
    [task_id] = set(re.findall(r'"task_id": "([^"]+)"', listed))

    assert "all" in output(status, folder=folder)
    assert "FileNotFoundError" in output(show.replace("ID", task_id), folder=folder)
    assert "1 dead letter queued again" in output(retry.replace("ID", task_id), folder=folder)
    assert "tasks.count_words" in output(cancel.replace("ID", task_id), folder=folder)


def test_the_workers_of_the_readme_start(folder: Path) -> None:
    [line] = commands("--workers 4")
    ran = run(
        line.replace("redis://localhost:6379/0", f"sqlite://{folder}/q.db") + " --burst",
        folder=folder,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("starting, consuming 'mail', 'reports'.") == 4
