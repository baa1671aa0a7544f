"""examples/file_store: a package with a store, found by its entry point, and the contract of stores on it."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from alligator.backends.loading import ENTRY_POINTS
from tests.examples.commands import EXAMPLES, output, run

FOLDER = EXAMPLES / "file_store"
# Of what is installed here, only what a third party has: no conftest.py of ours.
PYTEST = "python -m pytest -p no:cacheprovider -p no:valkey -p alligator.testing --pyargs"
BROKEN = """
from alligator.backends.locmem_backend import Client as Memory

class Client(Memory):
    def settle(self, settlements):
        super().settle(settlements)
        return list(settlements)
"""


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is such a thing: each call of this store else waits for the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def install(folder: Path, name: str, schemes: dict[str, str]) -> None:
    """Let a folder say of itself that a package is installed there, which has these stores."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{ENTRY_POINTS}]", *(f"{scheme} = {found}" for scheme, found in schemes.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.timeout(400)  # hundreds of tests; perhaps on a disk
def test_it_keeps_the_contract(tmp_path: Path, in_memory: Path) -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    install(tmp_path / "installed", "file_store", project["entry-points"][ENTRY_POINTS])

    said = output(
        "python -m pytest -p no:cacheprovider -p no:valkey --pyargs alligator.testing.contract",
        f"--basetemp={in_memory / 'tests'}",
        folder=FOLDER,
        PYTHONPATH=os.pathsep.join([str(tmp_path / "installed"), str(FOLDER)]),
    )

    assert "rootdir: " + str(FOLDER) in said
    [summary] = [line for line in said.splitlines() if " passed, " in line]
    assert int(summary.strip("= ").split()[0]) > 250


def test_without_a_store_the_contract_says_what_it_needs(tmp_path: Path) -> None:
    ran = run(PYTEST, "--noconftest", "alligator.testing.contract.test_cancel", folder=tmp_path)

    assert ran.returncode == 1
    assert "On which store? Say --store DSN, or have a fixture `store`." in ran.stdout


def test_several_stores_are_named_on_the_command_line(tmp_path: Path) -> None:
    said = output(
        PYTEST,
        *("--noconftest", "--verbose", "--store=locmem://", "--store=sqlite://{folder}/queue.db"),
        *("alligator.testing.contract", "-k", "test_cancel"),
        folder=tmp_path,
    )

    for scheme in ("locmem", "sqlite"):
        assert f"test_cancel.py::test_a_waiting_task_is_canceled[{scheme}] PASSED" in said


def test_what_a_broken_store_answered_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    install(tmp_path, "broken", {"broken": "broken:Client"})

    ran = run(
        PYTEST,
        *("--noconftest", "--store=broken://", "alligator.testing.contract.test_dead_letters"),
        folder=tmp_path,
        PYTHONPATH=tmp_path,
    )

    assert ran.returncode == 1
    # In a helper of the tests, too.
    assert "Left contains one more item: Bury(reservation=" in ran.stdout
