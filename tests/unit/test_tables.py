"""Tables for a terminal: they fit it, whatever is in them."""

import pytest

from alligator.commands import tables
from alligator.commands.tables import Column, table, width_of

COLUMNS = [Column("id", keep="end"), Column("queue", keep="start"), Column("dead", "right")]
LONG = 8000


def test_what_is_too_long_is_cut_at_one_end() -> None:
    told = table(COLUMNS, [["abc" * 20, "def" * 20, "7"]], 40)

    assert told.splitlines()[1] == "…abcabcabcabcabc  defdefdefdefdef…     7"
    assert all(width_of(line) <= 40 for line in told.splitlines())


@pytest.mark.parametrize("char", ["x", "\x1b", "会", "\u0301", "\U000e0001"])
@pytest.mark.parametrize("keep", ["start", "end"])
def test_a_long_name_is_measured_no_further_than_it_can_be_shown(
    char: str, keep: tables.Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = 0

    def counted(text: str) -> int:
        nonlocal measured
        measured += len(text)
        return width_of(text)

    monkeypatch.setattr(tables, "width_of", counted)

    told = table([Column("id", keep=keep), Column("n", "right")], [[char * LONG, "1"]], 80)

    assert measured < LONG
    line = told.splitlines()[1]
    assert width_of(line) <= 80
    assert tables.CUT in line
