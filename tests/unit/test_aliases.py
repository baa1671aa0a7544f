"""Names that changed."""

import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from alligator.aliases import Aliases
from alligator.exceptions import InvalidOption


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("old.send", "new.deliver"),
        ("old.send.inner", "new.deliver.inner"),
        ("old.sender", "old.sender"),
        ("pack.mod.f", "elsewhere.f"),
        ("pack.mod.deep.f", "deeper.f"),
        ("pack.module.f", "pack.module.f"),
        ("other.pack.mod.f", "other.pack.mod.f"),
        ("swap.a", "swap.b"),
        ("swap.b", "swap.a"),
    ],
)
def test_the_longest_old_name_counts_and_each_is_followed_once(path: str, now: str) -> None:
    aliases = Aliases(
        {
            "old.send": "new.deliver",
            "pack.mod": "elsewhere",
            "pack.mod.deep": "deeper",
            "swap.a": "swap.b",
            "swap.b": "swap.a",
        }
    )

    assert aliases.now(path) == now


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("shop.tasks.send", "shop.tasks.mail.send"),
        ("shop.tasks.mail.send", "shop.tasks.mail.send"),
        ("shop.tasks.mailing", "shop.tasks.mail.mailing"),
        ("flat.inner.send", "flat.send"),
        ("flat.send", "flat.send"),
    ],
)
def test_what_is_below_a_module_that_became_a_package_has_moved_already(
    path: str, now: str
) -> None:
    assert Aliases({"shop.tasks": "shop.tasks.mail", "flat.inner": "flat"}).now(path) == now


def test_a_name_may_be_of_any_length() -> None:
    deep = "." * 1_000_000  # in steps of one dot, this would take minutes

    assert Aliases({"a.b": "c", "d": "e"}).now(f"d{deep}f") == f"e{deep}f"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "renamed_pack"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "mod.py").write_text("class Mailer:\n    @staticmethod\n    def send(): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("new", "found"),
    [
        ("renamed_pack.mod.send", ("renamed_pack.mod", "send")),
        ("renamed_pack.mod.Mailer.send", ("renamed_pack.mod", "Mailer.send")),
        ("renamed_pack.send", ("renamed_pack", "send")),
        ("renamed_pack.mods.send", ("renamed_pack", "mods.send")),
        ("email.message.Message.keys", ("email.message", "Message.keys")),
        ("os.path.join", ("os.path", "join")),
        ("nowhere.at.all", ("nowhere", "at.all")),
        ("alone", ("alone", "")),
    ],
)
def test_a_new_name_is_parted_where_its_module_ends(new: str, found: tuple[str, str]) -> None:
    assert Aliases({"old.send": new}).find("old", "send") == found


def test_a_module_is_found_that_came_later(package: Path) -> None:
    """In a deploy that was half-way."""
    aliases = Aliases({"old.send": "renamed_pack.late.send"})
    before = aliases.find("old", "send")
    (package / "late.py").touch()
    invalidate_caches()

    assert (before, aliases.find("old", "send")) == (
        ("renamed_pack", "late.send"),
        ("renamed_pack.late", "send"),
    )


def test_what_is_not_loaded_can_be_left_so(package: Path) -> None:
    (package / "unused.py").touch()
    aliases = Aliases({"old": "renamed_pack.unused.deep", "paths": "os.path"})

    assert aliases.find_loaded("old", "send") == ("renamed_pack", "unused.deep.send")
    assert "renamed_pack.unused" not in sys.modules
    assert aliases.find_loaded("paths", "a.b") == ("os.path", "a.b")


def test_what_has_no_alias_stays_parted_as_it_was() -> None:
    assert Aliases({"old.send": "new.send"}).find("a.b", "C.d") == ("a.b", "C.d")


@pytest.mark.parametrize(
    "renamed",
    ["a=b", ["a"], {"a b": "c"}, {"a": 3}, {"a": ""}, {"a:b": "c"}, {"a.": "b"}],
)
def test_what_is_no_path_is_refused(renamed: Any) -> None:
    with pytest.raises(InvalidOption, match="aliases"):
        Aliases(renamed)
