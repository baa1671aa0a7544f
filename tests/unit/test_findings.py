"""The checker: what it makes of a journal."""

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from alligator.verify.findings import HELD_ON, Findings, broken_off, found_in
from alligator.verify.journal import Entry, Journal

Line = tuple[str, str, int, float]
"""Kind, name, process, moment."""
Found = Callable[..., Findings]
A, B = 1, 2
"""Processes."""
PUSH: list[Line] = [("push", "t", 9, 0.0), ("pushed", "t", 9, 0.1)]


class Written(Journal):
    """A journal of given lines."""

    def __init__(self, path: Path, lines: list[Line]) -> None:
        super().__init__(path)
        self._lines = lines

    def entries(self, kind: str | None = None, name: str | None = None) -> list[Entry]:
        every = [Entry(*line) for line in self._lines]
        return [one for one in every if kind in (None, one.kind) and name in (None, one.name)]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Judge lines."""

    def judge(*lines: Line, kept: Collection[str] = (), retries_anew: bool = False) -> Findings:
        journal = Written(tmp_path / "journal", [*lines])
        return found_in(journal, kept, retries_anew=retries_anew)

    return judge


def test_what_was_pushed_and_neither_ended_nor_is_kept_is_lost(found: Found) -> None:
    started = ("start", "t", A, 1.0)

    assert found(*PUSH).lost == ["t"]
    assert found(*PUSH, started).lost == ["t"]
    assert found(*PUSH, started, ("fail", "t", A, 2.0)).lost == ["t"]
    assert found(*PUSH, kept=["t"]).lost == []
    assert found(*PUSH, ("canceled", "t", 9, 1.0)).lost == []
    assert found(*PUSH, ("cancel", "t", 9, 1.0)).lost == []  # it may have happened
    assert found(*PUSH, started, ("finish", "t", A, 2.0)).lost == []
    assert found(PUSH[0]).lost == []  # nobody was told that it is queued
    assert not found(*PUSH).is_good


def test_what_nobody_asked_for_is_unexpected(found: Found) -> None:
    started = ("start", "t", A, 1.0)

    assert found(started).unexpected == ["t"]
    assert found(PUSH[0], started).unexpected == []  # the answer may have been lost
    assert found(PUSH[0], ("refused", "t", 9, 0.1), started).unexpected == ["t"]
    assert found(*PUSH, ("canceled", "t", 9, 0.5), started).unexpected == ["t"]
    assert found(*PUSH, started, ("canceled", "t", 9, 1.5)).unexpected == []
    assert found(*PUSH, ("cancel", "t", 9, 0.5), started).unexpected == []  # it may not have
    assert found(*PUSH, ("settled", "t", A, 0.5), started).unexpected == ["t"]


@pytest.mark.parametrize(
    ("cause", "explains"),
    [
        (("kill", "", A, 1.5), True),
        (("kill", "", A, 2.0 + HELD_ON / 2), True),  # before it was settled, maybe
        (("kill", "", A, 2.0 + HELD_ON * 2), False),
        (("kill", "", B, 1.5), False),  # another process
        (("cut", "", 9, 1.5), True),
        (("cut", "", 9, 0.5), True),  # who held it may start it though it went to another
        (("stop", "", A, 1.5), True),
        (("down", "", 9, 1.5), True),
    ],
)
def test_a_second_run_is_explained_by_what_befell_the_first(
    found: Found, cause: Line, explains: bool
) -> None:
    runs = [("start", "t", A, 1.0), ("finish", "t", A, 2.0), ("start", "t", B, 9.0)]
    lines = sorted([*PUSH, *runs, cause], key=lambda line: line[3])

    judged = found(*lines)

    assert (judged.explained, judged.unexplained) == ((1, []) if explains else (0, ["t"]))
    assert judged.is_good == explains


def test_a_retry_needs_no_explanation(found: Found) -> None:
    lines = [("start", "t", A, 1.0), ("fail", "t", A, 2.0), ("start", "t", A, 3.0)]

    judged = found(*PUSH, *lines, ("finish", "t", A, 4.0))

    assert (judged.explained, judged.unexplained, judged.lost) == (0, [], [])


@pytest.mark.parametrize("retries_anew", [False, True])
def test_a_retry_left_beside_its_task_is_explained_where_a_store_makes_two_of_them(
    found: Found, retries_anew: bool
) -> None:
    failed = [("start", "t", A, 1.0), ("fail", "t", A, 2.0), ("kill", "", A, 2.5)]
    retry = [("start", "t", B, 3.0), ("finish", "t", B, 4.0)]
    again = [("start", "t", B, 5.0), ("finish", "t", B, 6.0)]

    judged = found(*PUSH, *failed, *retry, *again, retries_anew=retries_anew)

    assert judged.unexplained == ([] if retries_anew else ["t"])


def test_recovery_takes_from_the_death_to_the_next_start(found: Found, tmp_path: Path) -> None:
    lines: list[Line] = [
        *PUSH,
        ("start", "t", A, 1.0),
        ("kill", "", A, 1.5),
        ("start", "t", B, 4.0),
        ("finish", "t", B, 5.0),
    ]

    judged = found(*lines)

    assert judged.recoveries == [2.5]
    assert judged.slowest == 2.5
    assert judged.kills == 1
    assert broken_off(Written(tmp_path / "journal", lines), "t") == 1
    assert broken_off(Written(tmp_path / "journal", lines), "never started") == 0
