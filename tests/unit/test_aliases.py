"""Names that changed."""

import sys
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "renamed_pack"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "mod.py").write_text("class Mailer:\n    @staticmethod\n    def send(): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("new", "found"),
    [
        ("renamed_pack.mod.send", ("renamed_pack.mod", "send")),
        ("renamed_pack.mod.Mailer.send", ("renamed_pack.mod", "Mailer.send")),
        ("renamed_pack.send", ("renamed_pack", "send")),
        ("nowhere.at.all", ("nowhere.at", "all")),
        ("alone", ("", "alone")),
    ],
)
def test_a_new_name_is_parted_where_its_module_ends(new: str, found: tuple[str, str]) -> None:
    assert Aliases({"old.send": new}).find("old", "send") == found


def test_what_has_no_alias_stays_parted_as_it_was() -> None:
    assert Aliases({"old.send": "new.send"}).find("a.b", "C.d") == ("a.b", "C.d")


@pytest.mark.parametrize(
    "renamed",
    ["a=b", ["a"], {"a b": "c"}, {"a": 3}, {"a": ""}, {"a:b": "c"}, {"a.": "b"}],
)
def test_what_is_no_path_is_refused(renamed: Any) -> None:
    with pytest.raises(InvalidOption, match="aliases"):
        Aliases(renamed)
