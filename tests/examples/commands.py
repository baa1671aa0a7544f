"""Commands, run as typed into a shell."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODULES = {"alligator": "alligator.cli", "latergator": "alligator.latergator"}


def program(name: str) -> list[str]:
    """Return how to start ``python``, ``alligator`` or ``latergator`` for this interpreter."""
    if name == "python":
        return [sys.executable]
    installed = Path(sys.executable).with_name(name)
    if installed.exists():
        return [str(installed)]
    # Run from its source. As an installed script, it finds no modules beside it: hence -P.
    return [sys.executable, "-P", "-m", MODULES[name]]


def run(
    command: str, *arguments: str | Path, folder: Path, **environment: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with further arguments and environment variables."""
    name, *words = shlex.split(command)
    return subprocess.run(
        [*program(name), *words, *map(str, arguments)],
        cwd=folder,
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def output(command: str, *arguments: str | Path, folder: Path, **environment: str | Path) -> str:
    """As ``run``, for a command that must succeed; return what it printed."""
    ran = run(command, *arguments, folder=folder, **environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def clean_environment(**environment: str | Path) -> dict[str, str]:
    """Return our environment without what would change Alligator's ways, and with these."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ALLIGATOR")}
    return ours | {name: str(value) for name, value in environment.items()}
