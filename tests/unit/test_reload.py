"""What counts as new code, for ``latergator --reload``."""

import os
from pathlib import Path

import pytest

from alligator.processes.reload import LOOK_EVERY, Reloader
from tests.unit.conftest import Clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with some code, and code that is another's."""
    for path in (
        "app.py",
        "package/tasks.py",
        "package/deep/er.py",
        ".hidden/secret.py",
        "package/__pycache__/tasks.py",
        "node_modules/tool.py",
        "venv/lib/module.py",
        "venv/pyvenv.cfg",
        "notes.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("1")
    return tmp_path


@pytest.fixture
def reloader(folder: Path, clock: Clock) -> Reloader:
    return Reloader(folder, clock)


def changed(reloader: Reloader, clock: Clock) -> list[str]:
    clock.turn(LOOK_EVERY)
    return reloader.changed()


def test_what_stays_as_it_is_has_not_changed(reloader: Reloader, clock: Clock) -> None:
    assert changed(reloader, clock) == []


@pytest.mark.parametrize("path", ["app.py", "package/tasks.py", "package/deep/er.py"])
def test_a_file_that_is_written_has_changed_once(
    path: str, folder: Path, reloader: Reloader, clock: Clock
) -> None:
    (folder / path).write_text("2 and more")

    assert changed(reloader, clock) == [path]
    assert changed(reloader, clock) == []


def test_a_file_written_at_a_length_that_it_had_has_changed(
    folder: Path, reloader: Reloader, clock: Clock
) -> None:
    (folder / "app.py").write_text("2")
    status = (folder / "app.py").stat()
    os.utime(folder / "app.py", ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    assert changed(reloader, clock) == ["app.py"]


def test_another_file_in_its_place_has_changed(
    folder: Path, reloader: Reloader, clock: Clock
) -> None:
    """With a time that is not its own, as what unpacks archives leaves it."""
    status = (folder / "app.py").stat()
    (folder / "app.new").write_text("2")
    os.utime(folder / "app.new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "app.new").replace(folder / "app.py")

    assert changed(reloader, clock) == ["app.py"]


def test_files_that_come_and_go_have_changed(
    folder: Path, reloader: Reloader, clock: Clock
) -> None:
    (folder / "app.py").unlink()
    (folder / "new").mkdir()
    (folder / "new" / "module.py").write_text("1")

    assert changed(reloader, clock) == ["app.py", "new/module.py"]


@pytest.mark.parametrize(
    "path",
    [
        ".hidden/secret.py",
        ".hidden.py",
        "package/__pycache__/tasks.py",
        "node_modules/tool.py",
        "venv/lib/module.py",
        "notes.txt",
    ],
)
def test_what_is_anothers_does_not_count(
    path: str, folder: Path, reloader: Reloader, clock: Clock
) -> None:
    (folder / path).write_text("2 and more")

    assert changed(reloader, clock) == []


def test_it_looks_about_once_a_second(folder: Path, reloader: Reloader, clock: Clock) -> None:
    (folder / "app.py").write_text("2 and more")
    clock.turn(LOOK_EVERY / 2)
    too_soon = reloader.changed()

    clock.turn(LOOK_EVERY / 2)

    assert (too_soon, reloader.changed()) == ([], ["app.py"])


def test_where_looking_takes_long_it_is_done_less_often(folder: Path, clock: Clock) -> None:
    def slow() -> float:
        clock.turn(0.25)
        return clock.now

    reloader = Reloader(folder, slow)
    (folder / "app.py").write_text("2 and more")
    began_at = clock.now
    while not reloader.changed():
        pass

    assert clock.now - began_at > 2


def test_a_link_that_leads_round_in_a_circle_is_not_followed(folder: Path, clock: Clock) -> None:
    (folder / "round").symlink_to(folder)
    reloader = Reloader(folder, clock)

    (folder / "app.py").write_text("2 and more")

    assert changed(reloader, clock) == ["app.py"]


def test_a_folder_that_is_gone_has_no_files(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("1")
    reloader = Reloader(tmp_path / "code", clock)

    (tmp_path / "code" / "app.py").unlink()
    (tmp_path / "code").rmdir()

    assert changed(reloader, clock) == ["app.py"]
