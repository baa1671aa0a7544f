"""From a DSN to a store: which schemes are known, and what is said of those that are not."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator
from alligator.backends import base, locmem_backend
from alligator.backends.loading import BUILT_IN
from alligator.exceptions import AlligatorException, BackendMissing
from tests.unit import jobs
from tests.unit.five_methods import FiveMethods
from tests.unit.steps import import_from, popped


@pytest.mark.parametrize(
    ("dsn", "hint"),
    [
        (
            "reddis://localhost",
            "Known: locmem, sqlite, postgres (or postgresql), redis (or valkey; by TLS rediss",
        ),
        ("sqlit:///tmp/q.db", "pass backend_class=YourClient"),
        ("memory://", "For a store of your own, pass backend_class=YourClient to Gator."),
    ],
)
def test_an_unknown_scheme_is_named_with_those_that_are_known(dsn: str, hint: str) -> None:
    with pytest.raises(BackendMissing) as caught:
        Gator(dsn)

    message = str(caught.value)
    assert message.startswith(f"No backend for {dsn.partition(':')[0]!r}. Known: ")
    for scheme in BUILT_IN:
        for part in scheme.split("+"):
            assert part in message
    assert hint in message


def test_a_scheme_may_be_written_in_capitals() -> None:
    assert isinstance(Gator("LOCMEM://").backend, locmem_backend.Client)


LIBRARIES = {
    "redis": "redis",
    "postgres": "psycopg",
    "beanstalk": "greenstalk",
    "sqs": "boto3",
}
"""By extra: the client library that it brings."""


@pytest.mark.parametrize("scheme", [one for one, store in BUILT_IN.items() if store in LIBRARIES])
def test_a_store_without_its_client_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    extra = BUILT_IN[scheme]
    library = LIBRARIES[extra]
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith(f"alligator.backends.{extra}")]:
        monkeypatch.delitem(sys.modules, name)
    dsn = "sqs://us-west-2/?secret_key=hunter2" if extra == "sqs" else f"{scheme}://u:hunter2@host"

    with pytest.raises(BackendMissing) as caught:
        Gator(dsn)

    assert f"needs the package {library!r}, which is not installed" in str(caught.value)
    assert f"pip install 'alligator[{extra}]'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_broken_install_is_not_blamed_on_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "alligator.backends.locmem_backend", None)

    with pytest.raises(ModuleNotFoundError, match=r"alligator\.backends\.locmem_backend"):
        Gator("locmem://")


def test_a_python_without_sqlite_is_told_of_no_extra_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    for name in [name for name in sys.modules if name.startswith("alligator.backends.sqlite")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(ModuleNotFoundError, match="sqlite3"):
        Gator("sqlite:///tmp/queue.db")


def test_build_backend_returns_a_client_of_the_store() -> None:
    gator = Gator("locmem://")

    backend = gator.build_backend("locmem://")

    assert isinstance(backend, locmem_backend.Client)
    assert backend is not gator.backend


def test_build_backend_uses_the_gators_own_class() -> None:
    class Own(locmem_backend.Client):
        pass

    gator = Gator("own://", backend_class=Own)

    assert type(gator.backend) is Own
    assert type(gator.build_backend("own://elsewhere")) is Own
    gator.task(jobs.add, 1, 2)
    assert popped(gator).result == 3


def test_errors_of_a_class_of_ones_own_are_its_own() -> None:
    def broken(conn_string: str) -> Any:
        return importlib.import_module("no_such_client_library").Client(conn_string)

    with pytest.raises(ModuleNotFoundError, match="no_such_client_library"):
        Gator("own://", backend_class=broken)


@pytest.mark.parametrize("name", sorted(set(BUILT_IN.values())))
def test_the_modules_that_existing_code_imports_are_there(name: str) -> None:
    module = importlib.import_module(f"alligator.backends.{name}_backend")

    assert issubclass(module.Client, base.Backend)


# Stores of other packages


def install(folder: Path, scheme: str, target: str, source: str) -> None:
    """Install a package into a folder: one module, and its entry point."""
    (folder / "someones_store.py").write_text(source)
    info = folder / "someones_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[alligator.backends]\n{scheme} = {target}\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import_from(tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "someones_store", raising=False)
    return tmp_path


def test_a_package_may_register_a_scheme(folder: Path) -> None:
    source = "from alligator.backends.locmem_backend import Client as Base\nclass Client(Base): ..."
    install(folder, "theirs", "someones_store:Client", source)

    gator = Gator("theirs://somewhere")

    assert type(gator.backend).__module__ == "someones_store"
    gator.task(jobs.add, 1, 2)
    assert popped(gator).result == 3
    with pytest.raises(BackendMissing, match=r"Known: .*theirs"):
        Gator("their://somewhere")


def test_a_scheme_with_a_plus_may_be_registered(folder: Path) -> None:
    source = "from alligator.backends.locmem_backend import Client as Base\nclass Client(Base): ..."
    install(folder, "theirs+tls", "someones_store:Client", source)

    assert type(Gator("theirs+tls://somewhere").backend).__module__ == "someones_store"
    with pytest.raises(BackendMissing, match=r"No backend for 'theirs'. Known: .*theirs\+tls"):
        Gator("theirs://somewhere")


def test_a_registered_store_may_keep_the_results_of_another(folder: Path) -> None:
    source = "from alligator.backends.locmem_backend import Client as Base\nclass Client(Base): ..."
    install(folder, "theirs", "someones_store:Client", source)

    gator = Gator("five://", backend_class=FiveMethods, results="theirs://somewhere?a=b")

    with gator.options(keep_result=60) as opts:
        task = opts.task(jobs.add, 1, 2)
    popped(gator)
    assert gator.result(task.task_id) == 3


def test_a_registered_store_may_have_five_methods_alone(folder: Path) -> None:
    source = "from tests.unit.five_methods import FiveMethods"
    install(folder, "theirs", "someones_store:FiveMethods", source)

    gator = Gator("theirs://somewhere")

    gator.task(jobs.add, 1, 2)
    assert popped(gator).result == 3


def test_a_library_that_a_registered_store_lacks_is_no_extra_of_ours(folder: Path) -> None:
    install(folder, "theirs", "someones_store:Client", "import no_such_client_library")

    with pytest.raises(ModuleNotFoundError, match="no_such_client_library"):
        Gator("theirs://somewhere")


def test_no_package_can_take_the_place_of_a_built_in_store(folder: Path) -> None:
    install(folder, "locmem", "someones_store:Client", "raise RuntimeError('taken over')")

    assert isinstance(Gator("locmem://").backend, locmem_backend.Client)


def test_every_error_here_is_one_of_ours() -> None:
    assert issubclass(BackendMissing, AlligatorException)


def test_a_class_with_the_documented_methods_needs_no_base_class() -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    assert FiveMethods.__bases__ == (object,)
    assert not gator.backend.can_lease
    assert not gator.backend.can_delay
