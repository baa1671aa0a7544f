"""A project of the reader's, with a Redis of its own in place of the one at localhost:6379."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.project import Project
from tests.support.servers import Server
from tests.unit.steps import import_from


@pytest.fixture
def project(
    tmp_path: Path, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    redis_server.command("FLUSHALL")
    folder = tmp_path / "project"
    folder.mkdir()
    import_from(folder, monkeypatch)
    for name in [name for name in sys.modules if name.partition(".")[0] == "django"]:
        monkeypatch.delitem(sys.modules, name)  # the documents' examples have a stand-in
    project = Project(folder, redis_server.dsn)
    yield project
    project.forget()
