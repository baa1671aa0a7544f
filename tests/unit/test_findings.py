"""The checker: what it makes of a journal."""

from collections.abc import Callable, Collection
from math import inf
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator
from alligator.verify.findings import HELD_ON, Findings, batch_of, broken_off, found_in
from alligator.verify.journal import Entry, Journal
from alligator.verify.trial import wrongly_dead
from chaos.steps import fail_at_first

Line = tuple[str, str, int, float] | tuple[str, str, int, float, int]
"""Kind, name, process, moment; and the attempt."""
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
        every = [Entry(*line[:4], *line[4:]) for line in self._lines]
        return [one for one in every if kind in (None, one.kind) and name in (None, one.name)]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Judge lines."""

    def judge(*lines: Line, kept: Collection[str] = (), **settings: Any) -> Findings:
        journal = Written(tmp_path / "journal", sorted(lines, key=lambda line: line[3]))
        return found_in(journal, kept, **settings)

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
        (("kill", "", A, -1.5), False),  # another one, of the same number
        (("leave", "", A, -30.0), False),
        (("cut", "", 9, 1.5), True),
        (("cut", "", 9, 0.9), True),  # who held it may start it though it went to another
        (("cut", "", 9, 0.5), False),
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


@pytest.mark.parametrize(("went_on_at", "explains"), [(0.9, True), (0.5, False)])
@pytest.mark.parametrize("kinds", [("stop", "go"), ("down", "up")])
def test_what_was_held_may_begin_a_moment_later_though_it_went_to_another(
    found: Found, kinds: tuple[str, str], went_on_at: float, explains: bool
) -> None:
    away = [(kinds[0], "", A, 0.1), (kinds[1], "", A, went_on_at)]
    runs = [("start", "t", A, 1.0), ("start", "t", B, 1.1)]

    assert (found(*PUSH, *away, *runs).unexplained == []) == explains


def test_what_befell_a_process_explains_a_batch_of_what_it_had_finished_and_no_more(
    found: Found,
) -> None:
    lines: list[Line] = []
    names = [f"t{number}" for number in range(50)]
    for number, name in enumerate(names):
        at = number / 1000
        lines += [("push", name, 9, at), ("pushed", name, 9, at)]
        lines += [("start", name, A, at + 0.1), ("finish", name, A, at + 0.101)]
        lines += [("start", name, B, at + 5.0), ("finish", name, B, at + 5.001)]

    for cause in ("kill", "cut", "stop", "down"):
        judged = found(*lines, (cause, "", A, 0.2), batch=13)

        assert (judged.explained, len(judged.unexplained)) == (13, 37)


def test_a_storm_of_kills_does_not_explain_that_everything_runs_twice(found: Found) -> None:
    # Four workers, one killed every 0.2 s, and each task runs again in another process, for no reason.
    lines: list[Line] = []
    for number in range(10_000):
        name, at = f"t{number}", number / 1000
        worker, life = number % 4, int((at / 0.2 + number % 4) / 4)
        pid = 100 + 4 * life + worker
        lines += [("push", name, 9, at), ("pushed", name, 9, at)]
        lines += [("start", name, pid, at + 0.1), ("finish", name, pid, at + 0.104)]
        lines += [("start", name, 9000, at + 1.0), ("finish", name, 9000, at + 1.004)]
    lines += [("kill", "", pid, 0.1 + 0.2 * (pid - 99)) for pid in range(100, 150)]

    judged = found(*lines, batch=batch_of(0.004))

    assert len(judged.unexplained) > 9000


def test_a_retry_needs_no_explanation_and_another_run_after_a_failure_does(found: Found) -> None:
    failed: list[Line] = [("start", "t", A, 1.0, 1), ("fail", "t", A, 2.0, 1)]

    retried = found(*PUSH, *failed, ("start", "t", A, 3.0, 2), ("finish", "t", A, 4.0, 2))
    same = found(*PUSH, *failed, ("start", "t", A, 3.0, 1), ("finish", "t", A, 4.0, 1))
    early = found(*PUSH, *failed, ("start", "t", B, 1.5, 2), ("finish", "t", B, 4.0, 2))
    killed = found(*PUSH, *failed, ("kill", "", A, 2.1), ("start", "t", B, 3.0, 1))

    assert (retried.explained, retried.unexplained, retried.lost) == (0, [], [])
    assert same.unexplained == ["t"]
    assert early.unexplained == ["t"]
    assert (killed.explained, killed.unexplained) == (1, [])


@pytest.mark.parametrize("retries_anew", [False, True])
def test_a_retry_left_beside_its_task_is_explained_where_a_store_makes_two_of_them(
    found: Found, retries_anew: bool
) -> None:
    failed = [("start", "t", A, 1.0, 1), ("fail", "t", A, 2.0, 1), ("kill", "", A, 2.1)]
    retry = [("start", "t", B, 3.0, 2), ("finish", "t", B, 4.0, 2)]
    again = [("start", "t", B, 5.0, 2), ("finish", "t", B, 6.0, 2)]

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


def test_a_server_is_back_when_workers_begin_what_was_pushed_since(found: Found) -> None:
    worked: list[Line] = [("start", "held", A, 0.5), ("start", "before", B, 0.5)]
    away: list[Line] = [*PUSH, *worked, ("down", "", 9, 1.0), ("up", "", 9, 2.0)]
    held = ("start", "held too", A, 2.1)
    pushed: list[Line] = [("push", name, 9, 2.2) for name in ("one", "two", "three")]
    begun: list[Line] = [("start", "one", A, 3.0), ("start", "two", A, 3.5)]

    assert found(*away, held).revivals == []  # nothing was pushed
    assert found(*away, held, *pushed).revivals == [inf]
    assert found(*away, held, *pushed, *begun).revivals == [1.0]
    assert found(*away, *pushed, *begun, ("start", "three", B, 6.0)).revivals == [1.0, 4.0]


def test_what_waited_before_the_server_died_keeps_no_worker_from_being_back(found: Found) -> None:
    lines: list[Line] = [
        *PUSH,
        ("start", "before", A, 0.5),
        ("down", "", 9, 1.0),
        ("up", "", 9, 2.0),
    ]
    lines += [("push", "new", 9, 2.1)]
    lines += [("start", f"waited{number}", A, 3.0 + number) for number in range(4)]

    # It may have held two of these; the third it has got since.
    assert found(*lines, ("start", "new", A, 9.0), batch=2).revivals == [3.0]


def test_a_journal_tells_which_attempt_it_was(tmp_path: Path) -> None:
    gator = Gator("locmem://")
    journal = Journal(tmp_path / "journal")
    with gator.options(retries=1) as opts:
        opts.task(fail_at_first, journal.path, "t")
    gator.pop()
    gator.pop()

    assert [entry.attempt for entry in journal.entries("start")] == [1, 2]
    journal.note("kill")
    assert journal.entries("kill")[0].attempt == 0


@pytest.mark.parametrize("deaths", [0, 1])
def test_one_run_that_was_broken_off_suffices_for_a_dead_letter_amid_crews_that_die(
    deaths: int, tmp_path: Path
) -> None:
    # Two more deliveries were to crews that died before they began it.
    lines: list[Line] = [*PUSH, ("start", "t", A, 1.0), ("kill", "", A, 1.1)]
    journal = Written(tmp_path / "journal", lines if deaths else PUSH)

    assert bool(wrongly_dead(journal, {"t": "poison"})) == (not deaths)
