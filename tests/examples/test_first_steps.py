"""examples/first_steps: the commands of its README, one after the other."""

import shutil
from pathlib import Path

from tests.examples.commands import EXAMPLES, output

DATABASE = "/tmp/first_steps.db"


def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "first_steps", tmp_path / "first_steps"))
    for file in folder.iterdir():  # a database for this test alone
        if file.is_file():
            file.write_text(file.read_text().replace(DATABASE, str(tmp_path / "queue.db")))
    readme = (folder / "README.md").read_text().splitlines()
    queue, work, dead = [line.removeprefix("$ ") for line in readme if line.startswith("$ ")]

    assert output(queue, folder=folder) == "3 tasks are waiting.\n"

    worked = output(work, folder=folder)
    for name in ("tasks.py", "queue_some.py"):
        words = len((folder / name).read_text().split())
        assert f"{name} has {words} words." in worked

    told = output(dead, folder=folder)
    assert "FileNotFoundError" in told
    assert "tasks.count_words" in told
