"""The keys of records: made of names that may have anything in them."""

import pytest

from alligator import keys

ODD = ["a/b", "a:b", "%", "%25", "%2F", "%u0000", "%25u0000", "a\0b", "\ud800", "\udcff%", "ž🐊"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_comes_back_as_it_was(name: str) -> None:
    assert keys.of_ref(keys.ref(name, f"{name}{name}")) == (name, f"{name}{name}")


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_every_store_can_carry_a_key(name: str) -> None:
    """Whoever gave a task its id: one that cannot be asked for would be asked for again and again."""
    key = keys.ref(name, name)

    assert b"\0" not in key.encode()
    assert "/" not in key


def test_different_names_have_different_keys() -> None:
    assert len({keys.escaped(name) for name in ODD}) == len(ODD)
