"""docs/security.md: its code, run as it stands but for the place of the database."""

import re
import subprocess
import sys
from pathlib import Path

from alligator.allowing import Allowed
from tests.examples.commands import EXAMPLES, clean_environment
from tests.examples.test_tasks_page import BLOCKS as TASKS

PAGE = (EXAMPLES.parent / "docs" / "security.md").read_text()
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PATTERNS: list[str] = re.findall(r"^\| `([\w.*]+)` \|", PAGE, re.MULTILINE)


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TASKS[0])
    steps = "\n".join(BLOCKS).replace("/tmp/shop.db", str(tmp_path / "shop.db"))
    (tmp_path / "steps.py").write_text(steps)

    ran = subprocess.run(
        [sys.executable, "steps.py"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "sent to ann@example.com None 1\n"


def test_the_patterns_of_the_page_are_patterns() -> None:
    assert len(PATTERNS) == 6
    for pattern in PATTERNS:
        assert Allowed([pattern]).patterns == (pattern,)
