"""What importing Alligator brings in: nothing of others, and nothing that takes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import alligator

SLOW = {
    "argparse",
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "importlib.metadata",
    "multiprocessing",
    "pathlib",
    "random",
    "redis",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib.parse",
}

UNUSED = {
    "alligator.allowing",
    "alligator.commands",
    "alligator.dependencies.depending",
    "alligator.limits.gates",
    "alligator.processes.async_crew",
    "alligator.results.waiting",
    "alligator.schedules",
    "alligator.signed_store",
    "alligator.signing",
    "alligator.statuses",
}
"""What only some programs need, and is to cost the others nothing."""

LIST_MODULES = """
import sys
before = set(sys.modules)
{code}
after = {{name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}}
import json
print(json.dumps({{name: file or "" for name, file in after.items()}}))
"""


def brought_in(code: str) -> dict[str, str]:
    """Return the modules that some code imports, and their files."""
    source = str(Path(alligator.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES.format(code=code)],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    modules: dict[str, str] = json.loads(done.stdout)
    return modules


@pytest.mark.parametrize(
    "code",
    ["import alligator", "from alligator import Gator; Gator('locmem://').task(len, [])"],
    ids=["import", "use"],
)
def test_alligator_brings_in_nothing_slow_and_nothing_of_others(code: str) -> None:
    modules = brought_in(code)

    assert UNUSED & modules.keys() == set()

    assert "alligator" in modules
    assert SLOW & set(modules) == set()
    assert not [name for name, file in modules.items() if "site-packages" in file]
    packages = {name.partition(".")[0] for name in modules}
    assert packages - set(sys.stdlib_module_names) == {"alligator"}


def test_only_the_store_that_is_used_is_imported() -> None:
    modules = brought_in("from alligator import Gator; Gator('locmem://')")

    stores = {name for name in modules if name.endswith("_backend")}
    assert stores == {"alligator.backends.locmem_backend"}


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(alligator.__file__).parent / "py.typed").exists()
