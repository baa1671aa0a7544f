"""The reader's own project: the documents' examples as files, to be imported and run as they stand."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import alligator
from alligator import Gator
from alligator.testing.stores import until

DOCUMENTED_DSN = "redis://localhost:6379/0"

LATERGATOR = "import sys; from alligator.latergator import main; sys.exit(main())"


class Thing:
    """What has the attributes that an example asks for."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Project:
    """A folder of modules and scripts.

    Args:
        folder: Where to write them.
        dsn: What stands for the documents' ``redis://localhost:6379/0``.
    """

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.dsn = dsn

    def write(self, path: str, source: str) -> None:
        """Write a file as the documents show it, but for the DSN."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for package in file.relative_to(self.folder).parents[:-1]:
            (self.folder / package / "__init__.py").touch()
        file.write_text(source.replace(DOCUMENTED_DSN, self.dsn))
        importlib.invalidate_caches()

    def module(self, name: str) -> ModuleType:
        """Import one of the modules."""
        return importlib.import_module(name)

    def gator(self) -> Gator:
        """A look into the queue."""
        return Gator(self.dsn)

    @contextmanager
    def running(self, *command: str) -> Generator["subprocess.Popen[str]"]:
        """Run Python with a script of the project (or other arguments) while the block runs."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *command: str, **variables: str) -> str:
        """Run Python with a script of the project (or other arguments) to its end; return its output."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self._environment() | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,  # the assertion shows what it said
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def forget(self) -> None:
        """Close what its modules have opened, and let others be imported under their names."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(f"{self.folder}/"):
                for value in vars(module).values():
                    if isinstance(value, Gator):
                        value.backend.close()
                del sys.modules[name]

    def _environment(self) -> dict[str, str]:
        source = Path(alligator.__file__).parents[1]
        return os.environ | {"PYTHONPATH": f"{source}:{self.folder}"}


def stopped(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Stop a worker with Ctrl-C, as the documents have it; return what it said."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def is_drained(gator: Gator) -> bool:
    counts = gator.backend.count(gator.queue_name)
    return counts.waiting == counts.delayed == counts.running == 0


def until_drained(gator: Gator) -> None:
    """Wait until every task of the queue has been run and settled."""
    until(lambda: is_drained(gator), "every task is done")
