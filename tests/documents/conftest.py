"""A project of the reader's, with a Redis of its own in place of the one at localhost:6379."""

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
    project = Project(folder, redis_server.dsn)
    yield project
    project.forget()
