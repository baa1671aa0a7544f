"""docs/tasks.md: its code, run as it stands but for the place of the database."""

import re
import subprocess
import sys
from pathlib import Path

from alligator import Gator
from tests.examples.commands import EXAMPLES, clean_environment, output

PAGE = (EXAMPLES.parent / "docs" / "tasks.md").read_text()
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DATABASE = "/tmp/shop.db"


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    module, *steps = BLOCKS
    database = tmp_path / "shop.db"
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "steps.py").write_text("\n".join(steps).replace(DATABASE, str(database)))
    ran = subprocess.run(
        [sys.executable, "steps.py"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "waiting\n['import', 'morning']\nsent to ann@example.com\n"

    output(f"latergator sqlite://{database} --burst --quiet --concurrency 20", folder=tmp_path)

    gator = Gator(f"sqlite://{database}")
    counts = gator.backend.count("all")
    gator.backend.close()
    # Two are delayed for long, one for two seconds; a rate or a limit may have put off others by then.
    assert (counts.waiting, counts.running, counts.dead) == (0, 0, 0)
    assert counts.delayed >= 2
