"""For whoever writes a store: a plugin of pytest that runs the contract (``alligator.testing.contract``) on it.

    $ pytest -p alligator.testing --pyargs alligator.testing.contract --store "files://{folder}/tasks.db"

Where that does not say how an empty store is come by, a fixture ``store`` in the ``conftest.py`` at the root of
a project does, in the place of the one below. ``docs/stores.md`` has the whole of it, under "A store of your
own".
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from alligator.backends.base import Backend, Records
from alligator.testing import naming
from alligator.testing.stores import opened


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--store``."""
    parser.getgroup("alligator").addoption(
        "--store",
        action="append",
        default=[],
        metavar="DSN",
        help="a store that the contract is run on; {folder} is an empty folder, new for each test. "
        "May be given several times.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a store once for each that was named."""
    if "named_store" in metafunc.fixturenames:
        stores: list[str] = metafunc.config.getoption("--store") or [""]
        metafunc.parametrize("named_store", stores, ids=lambda dsn: dsn.partition(":")[0])


@pytest.fixture
def store(named_store: str, tmp_path: Path) -> str:
    """The DSN of a store that is empty. A project may have a fixture of its own in this one's place."""
    if not named_store:
        pytest.fail("On which store? Say --store DSN, or have a fixture `store`.", pytrace=False)
    return named_store.replace("{folder}", str(tmp_path))


@pytest.fixture
def abilities(store: str) -> Backend:
    """A client of the store, closed: what it cannot is said by its flags, and skipped."""
    with opened(store) as client:
        return client


@pytest.fixture
def backend(store: str) -> Iterator[Backend]:
    """A client of the store."""
    naming.forget()
    with opened(store) as backend:
        yield backend


@pytest.fixture
def records(backend: Backend) -> Records:
    """The records of the store, if it keeps any."""
    if backend.records is None:
        pytest.skip("this store keeps no records")
    return backend.records


@pytest.fixture
def dsn(store: str, abilities: Backend) -> str:
    """The DSN of the store, if several processes can share it."""
    if not abilities.spans_processes:
        pytest.skip("no other process can see this store")
    naming.forget()
    return store


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[[], Backend]]:
    """Opens clients of the store. Each sees of the others what it would see of other processes."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(opened(dsn))
