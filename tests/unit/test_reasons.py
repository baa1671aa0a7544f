"""The sentences that say why a task does not run, or what became of it."""

import json
import math
from typing import Any

import pytest

from alligator import Concurrency, Rate
from alligator.commands import looking
from alligator.deaths import Death
from alligator.reasons import why
from alligator.registry import Presence
from alligator.statuses import Progress, Status

NOW = 1_700_000_000.0
BEFORE, LATER, SOON = NOW - 200, NOW + 270, NOW + 25
AT_BEFORE = "2023-11-14 22:10:00 UTC (3 min ago)"
AT_LATER = "2023-11-14 22:17:50 UTC (in 4 min)"
AT_SOON = "2023-11-14 22:13:45 UTC (in 25 s)"
AT_NOW = "2023-11-14 22:13:20 UTC (now)"

ME = Presence("w1", "host", 17, ["mail"], NOW)
DEATH = Death(signal="SIGKILL", peak_memory=2**30)
HISTORY = ({"attempt": 1, "error": "OSError: no\n  route", "at": NOW},)
ONE = Concurrency("one", 1)
NOBODY = "but no worker that is alive takes from queue 'mail'"


def said(state: str, **known: Any) -> str:
    """Return what is said of a task t1 after its name."""
    sentence = why(Status("t1", "mail", state, at=NOW, **known))
    assert sentence.startswith("Task 't1' ")
    return sentence.removeprefix("Task 't1' ")


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({"position": 0}, "is next in line in queue 'mail'."),
        ({"position": 1}, "waits behind 1 other in queue 'mail'."),
        ({}, "waits in queue 'mail'."),
        ({"position": 1234, "consumers": 0}, f"waits behind 1,234 others, {NOBODY}."),
        (
            {"position": 0, "consumers": 1},
            "is next in line for the one worker that takes from queue 'mail'.",
        ),
        (
            {"position": 2, "consumers": 2, "attempt": 2, "history": HISTORY},
            "waits behind 2 others for one of the 2 workers that take from queue 'mail'; attempt 1 failed "
            "(OSError: no route).",
        ),
        (
            {"position": 0, "deliveries": 1},
            "is next in line in queue 'mail'; it was taken once and nothing came of that: its worker died, or "
            "could not import it.",
        ),
        (
            {"position": 0, "deliveries": 2, "death": DEATH},
            "is next in line in queue 'mail'; it was taken 2 times and nothing came of that: the process that "
            "had it last was killed by SIGKILL, perhaps for lack of memory (peak 1,024 MiB).",
        ),
        (
            {"due_at": BEFORE, "consumers": 0},
            f"has been due since {AT_BEFORE} and waits, {NOBODY}.",
        ),
        (
            {"expires_at": BEFORE},
            f"expired at {AT_BEFORE} and will not be run: the next worker that takes it makes it fail.",
        ),
        ({"error": "It depends on 'a'"}, "is about to fail: It depends on 'a'."),
    ],
)
def test_of_one_that_waits(known: dict[str, Any], sentence: str) -> None:
    assert said("waiting", **known) == sentence


def test_of_one_that_is_delayed() -> None:
    assert said("delayed", due_at=LATER, consumers=3) == f"is delayed until {AT_LATER}."
    assert said("delayed", due_at=LATER, consumers=0) == f"is delayed until {AT_LATER}; {NOBODY}."
    assert said("delayed") == "is delayed, and it is not known until when."


def test_of_one_to_be_tried_again() -> None:
    assert said("retrying", due_at=LATER, attempt=2, history=HISTORY) == (
        f"failed (OSError: no route), and attempt 2 is to start at {AT_LATER}."
    )
    assert said("retrying", due_at=LATER, attempt=3, stop_asked="canceled") == (
        f"failed, and attempt 3 is to start at {AT_LATER}; it is asked to end, for it was canceled."
    )


def test_of_one_that_depends_on_others() -> None:
    a, b = ("mail", "a"), ("all", "b")
    assert said("blocked", blocked_by=(a,)) == "waits until 'a' has succeeded."
    assert said("blocked", blocked_by=(a, b), due_at=LATER) == (
        f"waits until 'a' and 'b' of queue 'all' have succeeded, and is delayed until {AT_LATER} besides."
    )
    assert said("blocked", blocked_by=(a,) * 4) == (
        "waits until 'a', 'a', 'a' and 1 other have succeeded."
    )
    assert said("blocked", blocked_by=(a,) * 100) == (
        "waits until 'a', 'a', 'a' and at least 97 others have succeeded."
    )


def test_of_one_that_a_concurrency_keeps_back() -> None:
    a, b = ("mail", "a"), ("all", "b")
    assert said("limited", limit=Concurrency("api", 2000), held_by=(a,)) == (
        "is kept back by the limit 'api': no more than 2,000 may run at a time, and 'a' runs."
    )
    only_one = "is kept back by the limit 'one': no more than 1 may run at a time"
    assert said("limited", limit=ONE, held_by=(a, b)) == (
        f"{only_one}, and 'a' and 'b' of queue 'all' run."
    )
    assert said("limited", limit=ONE, held_by=(a,) * 20) == (
        f"{only_one}, and 'a', 'a', 'a' and at least 17 others run."
    )
    assert said("limited", limit=ONE) == f"{only_one}, and its turn is about to come."


def test_of_one_that_a_rate_keeps_back() -> None:
    five = "is kept back by the limit 'api': no more than 5 may start in 60 s"
    assert said("limited", limit=Rate("api", 5, 60), due_at=LATER) == (
        f"{five}, and its turn is at {AT_LATER}."
    )
    assert said("limited", limit=Rate("api", 5, 60.0)) == f"{five}, and others come before it."


def test_of_one_that_runs() -> None:
    held = {"since": BEFORE, "lease_until": SOON, "worker": ME}
    runs = (
        f"has been running since {AT_BEFORE} in process 17 of host 'host', on a lease until {AT_SOON} that is "
        "extended while the worker is alive"
    )
    assert said("running", **held) == f"{runs}."
    assert said("running", **held, stop_asked="canceled") == (
        f"{runs}; it is asked to end, for it was canceled."
    )
    assert said("running", **held, stop_asked="timeout") == (
        f"{runs}; it is asked to end, for it ran into its timeout."
    )


def test_of_one_whose_worker_nobody_knows() -> None:
    assert said("running", since=BEFORE, lease_until=SOON, consumers=0) == (
        f"was taken at {AT_BEFORE} by a worker that has vanished, or never was registered; unless it extends "
        f"its lease, that lapses at {AT_SOON}, and another worker takes over; {NOBODY}."
    )


def test_of_one_whose_lease_has_lapsed() -> None:
    assert said("running", since=BEFORE, lease_until=NOW, worker=ME) == (
        f"was taken at {AT_BEFORE} by process 17 of host 'host', whose lease lapsed at {AT_NOW}: the next "
        "worker that looks takes it over."
    )
    assert said("running", since=BEFORE, lease_until=NOW, consumers=0) == (
        f"was taken at {AT_BEFORE} by a worker that is not known any more, whose lease lapsed at {AT_NOW}: the "
        f"next worker that looks takes it over; {NOBODY}."
    )


@pytest.mark.parametrize(
    ("state", "known", "sentence"),
    [
        ("succeeded", {}, f"succeeded at {AT_BEFORE}."),
        ("canceled", {}, f"was canceled at {AT_BEFORE}."),
        (
            "failed",
            {"reason": "failed", "error": "OSError: off!"},
            f"failed for good at {AT_BEFORE}: OSError: off!",
        ),
        ("failed", {}, f"failed for good at {AT_BEFORE}."),
        (
            "failed",
            {"reason": "poison", "error": "x" * 400},
            f"was given up at {AT_BEFORE}: {'x' * 300}…",
        ),
        (
            "failed",
            {"reason": "unreadable", "error": "No\nmodule."},
            f"could not be read or imported, and was given up at {AT_BEFORE}: No module.",
        ),
    ],
)
def test_of_one_that_is_over(state: str, known: dict[str, Any], sentence: str) -> None:
    assert said(state, ended_at=BEFORE, **known) == sentence


def test_of_one_that_nobody_remembers() -> None:
    assert said("unknown") == (
        "is not in queue 'mail': it was never put there, or it is done and forgotten (keep_result keeps what "
        "became of a task)."
    )


def test_moments_too_far_off_are_the_last_and_the_first_there_are() -> None:
    assert said("delayed", due_at=1e14) == (
        "is delayed until 9999-12-31 23:59:59 UTC (in 2,913,221 days)."
    )
    assert said("waiting", expires_at=-1e14).startswith("expired at 1970-01-01 00:00:00 UTC")


@pytest.mark.parametrize("moment", [math.inf, -math.inf, math.nan, 1e15, 1e300, -1e300])
def test_no_moment_is_too_far_off_to_be_told(moment: float) -> None:
    known: dict[str, dict[str, Any]] = {
        "waiting": {"due_at": moment, "expires_at": moment},
        "delayed": {"due_at": moment},
        "retrying": {"due_at": moment, "attempt": 2},
        "blocked": {"blocked_by": (("mail", "a"),), "due_at": moment},
        "limited": {"limit": Rate("api", 5, 60), "due_at": moment},
        "running": {"since": moment, "lease_until": moment, "worker": ME},
        "succeeded": {"ended_at": moment, "kept_until": moment},
    }
    for state, parts in known.items():
        progress = Progress(1, 2, "", moment)
        status = Status("t1", "mail", state, at=NOW, progress=progress, **parts)
        assert why(status).startswith("Task 't1' ")
        assert looking.status_text(status).startswith("id        t1")
        json.dumps(looking.status_json(status), allow_nan=False)
