"""What is known of a task, in each state, and in the moments in which it goes from one to another."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alligator import (
    Concurrency,
    Gator,
    Rate,
    Task,
    dependencies,
    limits,
    registry,
    results,
    statuses,
    stops,
    track,
)
from alligator.backends.base import NEVER, Ack, Bury, Message, Release, Reservation
from alligator.commands.letters import callable_of
from alligator.commands.looking import status_json, status_text
from alligator.dependencies.edges import Edge, link
from alligator.exceptions import InvalidOption
from alligator.keys import LIMITS, PROGRESS, ref
from alligator.notes import OUR_OWN
from alligator.payloads import mark_of
from alligator.reasons import why
from alligator.registry import Presence
from alligator.results import Outcome
from alligator.statuses import LOOKS, Progress, Status, status_of
from alligator.tasks import GivenBack
from alligator.testing.running import in_a_thread
from alligator.testing.stores import (
    FAR_OFF,
    LONG,
    ODD_IDS,
    QUEUE,
    let_pass,
    records_of,
    take,
    take_ready,
    until,
)
from tests.features.limit_work import Steps, Sudden, fragile, open_gate, wait_at
from tests.features.work import QuietWorker, do, fail, work_off
from tests.unit.five_methods import FiveMethods

Happening = Callable[[], object]

ONE = Concurrency("one", 1)
A_MINUTE = 60.0
SOME_TIME = 5.0
"""Seconds that a moment may be off: between it and the look at it a test has to get there."""


def push(gator: Gator, task_id: str, func: Callable[..., Any] = do, **options: Any) -> Task:
    """Queue a call with the task's id."""
    with gator.options(task_id=task_id, **options) as opts:
        return opts.task(func, task_id)


def state_of(gator: Gator, task_id: str) -> str:
    return gator.status(task_id).state


def soon(gator: Gator, seconds: float = 0.0) -> Any:
    """The moment in so many seconds, by the store's clock."""
    return pytest.approx(gator.backend.now() + seconds, abs=SOME_TIME)


def bury_next(gator: Gator, **note: Any) -> None:
    """Make the next task a dead letter."""
    told = {"reason": "failed", "type": "ValueError", "message": "broken", **note}
    assert gator.backend.settle([Bury(take(gator.backend), json.dumps(told))]) == []


def set_progress(gator: Gator, task_id: str, **told: Any) -> None:
    value = {"done": 3, "total": 10, "note": "resizing", "at": time.time(), **told}
    key = f"{PROGRESS}/{ref(gator.queue_name, task_id)}"
    records_of(gator.backend).set(key, json.dumps(value).encode())


def let_lapse(gator: Gator, task_id: str) -> None:
    """Come back when a task's lease is over, and nobody has looked since."""

    def is_over() -> bool:
        found = gator.backend.find(gator.queue_name, task_id)
        return found is not None and 0.0 < found.lapses_at < gator.backend.now()

    until(is_over, "the lease is over")


@contextmanager
def running(gator: Gator, task_id: str, **options: Any) -> Generator[None]:
    """A worker that runs a task while the block runs."""
    gate = f"{task_id} of {id(gator)}"
    with gator.options(task_id=task_id, **options) as opts:
        opts.task(wait_at, gate)
    worker = QuietWorker(gator, max_tasks=1)
    with in_a_thread(worker.run_forever):
        until(lambda: gator.status(task_id).worker, "its worker is registered, and has it")
        try:
            yield
        finally:
            open_gate(gate)


# Waiting


def test_of_one_that_waits_it_is_told_how_many_come_before(gator: Gator) -> None:
    for number in range(3):
        push(gator, f"t{number}", retries=2)
    push(gator, "first", priority=5)

    assert [gator.status(f"t{number}").position for number in range(3)] == [1, 2, 3]
    status = gator.status("first")
    assert status == Status(
        "first",
        QUEUE,
        "waiting",
        callable="tests.features.work.do",
        retries=0,
        priority=5,
        position=0,
        consumers=0,
        at=status.at,
    )
    assert status.at == soon(gator)
    assert gator.status("t0").retries == 2


def test_one_that_is_due_and_at_which_nobody_has_looked_waits(gator: Gator) -> None:
    push(gator, "t1", delay_by=0.05)
    let_pass(gator.backend, 0.1)

    status = gator.status("t1")
    assert (status.state, status.position, status.due_at) == ("waiting", None, soon(gator))
    assert "has been due since" in why(status)


def test_one_that_was_taken_and_given_up_again_says_so(gator: Gator) -> None:
    push(gator, "t1")
    for _ in range(2):
        gator.backend.settle([Release(take(gator.backend), lapsed=True)])

    assert (state_of(gator, "t1"), gator.status("t1").deliveries) == ("waiting", 2)
    assert "; it was taken 2 times and nothing came of that: " in why(gator.status("t1"))


def test_one_that_has_expired_says_so(gator: Gator) -> None:
    push(gator, "t1", expires=0.05)
    let_pass(gator.backend, 0.1)

    status = gator.status("t1")
    assert (status.state, status.expires_at) == ("waiting", soon(gator))
    assert "expired at " in why(status)


# Delayed, and to be tried again


def test_of_one_that_is_delayed_it_is_told_until_when(gator: Gator) -> None:
    push(gator, "t1", delay_by=A_MINUTE)

    status = gator.status("t1")
    assert (status.state, status.due_at) == ("delayed", soon(gator, A_MINUTE))
    assert (status.position, status.attempt) == (None, 1)


def test_of_one_that_is_never_due_no_moment_is_told(gator: Gator) -> None:
    gator.backend.push_many(QUEUE, [Message("t1", b"", due_at=NEVER)])

    assert (state_of(gator, "t1"), gator.status("t1").due_at) == ("delayed", None)
    assert "it is not known until when" in why(gator.status("t1"))


def test_of_one_to_be_tried_again_it_is_told_when_and_what_went_before(gator: Gator) -> None:
    push(gator, "t1", fail, retries=3, backoff=1e9, max_backoff=1e9)
    work_off(gator)

    status = gator.status("t1")
    assert (status.state, status.attempt, status.retries) == ("retrying", 2, 2)
    assert status.due_at is not None
    assert status.due_at > status.at
    [entry] = status.history
    assert (entry["attempt"], entry["error"]) == (1, "ValueError: t1")
    assert entry["at"] == soon(gator)


def test_a_further_attempt_that_is_due_waits_as_all_do(gator: Gator) -> None:
    push(gator, "t1", fail, retries=1)
    with pytest.raises(ValueError, match="t1"):
        gator.pop()
        assert (state_of(gator, "t1"), gator.status("t1").attempt) == ("waiting", 2)
        assert "; attempt 1 failed (ValueError: t1)." in why(gator.status("t1"))
        gator.pop()
    assert state_of(gator, "t1") == "failed"


def test_one_whose_code_is_missing_is_delayed(gator: Gator) -> None:
    body = {"task_id": "t1", "retries": 0, "module": "no_such", "callable": "f"}
    gator.backend.push(QUEUE, "t1", json.dumps(body))
    QuietWorker(gator, burst=True, code_wait=A_MINUTE).run_forever()

    status = gator.status("t1")
    assert (status.state, status.due_at, status.deliveries) == (
        "delayed",
        soon(gator, A_MINUTE),
        1,
    )
    assert "could not import it" in why(status)


# Waiting for others


def test_of_one_that_depends_on_others_it_is_told_on_which(gator: Gator) -> None:
    for name in ("a", "b", "c"):
        push(gator, name)
    push(gator, "t1", depends_on=["a", "b"])
    push(gator, "late", depends_on=["c"], delay_by=A_MINUTE)

    status = gator.status("t1")
    assert (status.state, status.due_at, status.position) == ("blocked", None, None)
    assert sorted(status.blocked_by) == [(QUEUE, "a"), (QUEUE, "b")]
    assert gator.status("late").due_at == soon(gator, A_MINUTE)

    assert gator.get("a") is not None
    held = gator.backend.reserve_task(QUEUE, "b", "me")
    assert held is not None
    until(lambda: released(gator), "a has been told")
    assert gator.status("t1").blocked_by == ((QUEUE, "b"),)
    gator.backend.settle([Ack(held)])
    until(lambda: released(gator), "b has been told")
    assert state_of(gator, "t1") == "waiting"
    gator.get("c")
    until(lambda: released(gator), "c has been told")
    assert (state_of(gator, "late"), gator.status("late").due_at) == (
        "delayed",
        soon(gator, A_MINUTE),
    )


def released(gator: Gator) -> bool:
    """Run what lets dependents start; return whether there was any."""
    held = gator.backend.reserve([QUEUE], "me").reservations
    gator.backend.settle([Release(one) for one in held])
    if not held or callable_of(held[0].body) != "alligator.dependencies.released":
        return False
    assert gator.get(held[0].task_id) is not None
    return True


def test_of_many_that_it_depends_on_some_are_told(gator: Gator) -> None:
    with gator.batch() as batch:
        others = [batch.task(do, number) for number in range(1200)]
        with batch.options(task_id="t1", depends_on=others) as opts:
            opts.task(do, "t1")

    status = gator.status("t1")
    assert len(status.blocked_by) == 100
    assert {task_id for _, task_id in status.blocked_by} <= {task.task_id for task in others}
    assert " and at least 97 others have succeeded" in why(status)


def test_what_another_of_its_id_has_left_does_not_block(gator: Gator) -> None:
    push(gator, "a")
    link(gator.backend, {((QUEUE, "t1"), (QUEUE, "former")): Edge(1, gator.backend.now())})
    push(gator, "t1", depends_on=["a"])
    assert gator.status("t1").blocked_by == ((QUEUE, "a"),)
    push(gator, "t2", delay_by=FAR_OFF)
    link(gator.backend, {((QUEUE, "t2"), (QUEUE, "former")): Edge(1, gator.backend.now())})
    assert state_of(gator, "t2") == "delayed"


def test_one_that_only_its_class_can_read_may_be_blocked(gator: Gator) -> None:
    gator.backend.push_many(QUEUE, [Message("t1", b"\xff", due_at=NEVER)])
    link(gator.backend, {((QUEUE, "t1"), ("mail", "a")): Edge(1, gator.backend.now())})

    status = gator.status("t1")
    assert (status.state, status.blocked_by) == ("blocked", (("mail", "a"),))
    assert status.callable == ""


def test_one_that_depends_on_what_failed_is_about_to_fail(gator: Gator) -> None:
    push(gator, "a")
    push(gator, "t1", depends_on=["a"])
    name, on = (QUEUE, "t1"), (QUEUE, "a")
    dependencies.fail(gator.backend, on, {name: Edge(1)}, "which failed: ValueError: x")

    status = gator.status("t1")
    assert (status.state, status.blocked_by) == ("waiting", ())
    assert why(status) == (
        "Task 't1' is about to fail: It depends on 'a', which failed: ValueError: x."
    )


# Under a limit


def test_of_one_that_a_limit_keeps_back_it_is_told_who_has_its_places(gator: Gator) -> None:
    two = Concurrency("two", 2)
    steps = Steps(gator.backend, two)
    for name in ("a", "b", "t1", "t2"):
        push(gator, name, limit=two, retries=1)
    held = steps.begin()

    status = gator.status("t2")
    assert (status.state, status.limit, status.due_at) == ("limited", two, None)
    assert status.held_by == ((QUEUE, "a"), (QUEUE, "b"))
    steps.end(held[0])
    assert state_of(gator, "t1") == "waiting"  # it was called
    assert gator.status("t2").held_by == ((QUEUE, "b"),)


def test_a_place_is_told_as_long_as_its_task_may_come_back_to_it(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE, lease=0.05)
    push(gator, "a", limit=ONE)
    push(gator, "t1", limit=ONE)
    steps.begin()
    let_lapse(gator, "a")
    assert gator.status("t1").held_by == ((QUEUE, "a"),)

    [again] = take_ready(gator.backend)  # under another hand-out, which has not entered so far
    assert again.task_id == "a"
    assert (state_of(gator, "t1"), gator.status("t1").held_by) == ("limited", ())


def test_in_a_line_of_any_length_all_are_limited(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    with gator.batch(limit=ONE) as batch:
        tasks = [batch.task(do, number) for number in range(300)]
    steps.begin()

    for place in (1, 2, 40, 60, 150, 199, 240, 298, 299):
        assert state_of(gator, tasks[place].task_id) == "limited", place


def test_under_a_rate_it_is_told_when_the_next_may_start(gator: Gator) -> None:
    rate = Rate("rate", 1, A_MINUTE)
    steps = Steps(gator.backend, rate)
    for name in ("a", "t1", "t2"):
        push(gator, name, limit=rate)
    steps.begin()

    status = gator.status("t1")
    assert (status.state, status.limit, status.held_by) == ("limited", rate, ())
    assert status.due_at == soon(gator, A_MINUTE)
    status = gator.status("t2")
    assert (status.state, status.due_at) == ("limited", None)


def test_what_has_a_limit_is_not_limited_when_it_waits_for_something_else(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    push(gator, "a", limit=ONE)
    steps.begin()
    push(gator, "delayed", limit=ONE, delay_by=A_MINUTE)
    push(gator, "waiting", limit=ONE)
    push(gator, "blocked", limit=ONE, depends_on=["waiting"])

    for name in ("delayed", "waiting", "blocked"):
        assert state_of(gator, name) == name


def test_one_with_a_delay_of_its_own_is_not_limited_though_it_was_called(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    push(gator, "a", limit=ONE)
    push(gator, "t1", limit=ONE)
    [held] = steps.begin()
    steps.end(held)
    push(gator, "t1", limit=ONE, delay_by=A_MINUTE, if_exists="replace")
    assert state_of(gator, "t1") == "delayed"


def test_one_whose_line_is_lost_is_delayed(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    for name in ("a", "t1", "guard"):
        push(gator, name, limit=ONE)
    steps.begin()
    assert (state_of(gator, "t1"), state_of(gator, "guard")) == ("limited", "limited")
    records_of(gator.backend).delete(f"{LIMITS}/concurrency:one")
    assert (state_of(gator, "t1"), state_of(gator, "guard")) == ("delayed", "delayed")


@pytest.mark.parametrize("calls", range(1, 6))
def test_one_that_was_called_and_not_told_is_limited(gator: Gator, calls: int) -> None:
    steps = Steps(gator.backend, ONE)
    push(gator, "a", limit=ONE)
    push(gator, "t1", limit=ONE)
    [held] = steps.begin()
    with suppress(Sudden):
        limits.leave(fragile(gator.backend, calls, is_done=False), held, ONE)

    status = gator.status("t1")
    assert (status.state, status.due_at) in (("limited", None), ("waiting", None))
    assert why(status)


def test_one_that_failed_under_a_limit_is_to_be_tried_again(gator: Gator) -> None:
    push(gator, "t1", fail, limit=ONE, retries=1, backoff=1e9, max_backoff=1e9)
    work_off(gator)
    Steps(gator.backend, ONE).begin()

    assert state_of(gator, "t1") == "retrying"


# Running


def test_of_one_that_runs_it_is_told_since_when_and_where(gator: Gator) -> None:
    with running(gator, "t1", retries=1):
        push(gator, "t2")
        status = gator.status("t1")
        assert (status.state, status.since, status.deliveries) == ("running", soon(gator), 1)
        assert status.lease_until == soon(gator, 30.0)
        assert status.worker is not None
        assert (status.worker.pid, status.worker.host) == (os.getpid(), socket.gethostname())
        assert (status.worker.queues, status.consumers) == ([QUEUE], 1)
        assert gator.status("t2").consumers == 1
        assert (status.stop_asked, status.progress) == ("", None)

    until(lambda: gator.status("t2").consumers == 0, "the worker has left")


def test_a_worker_of_another_queue_does_not_count(gator: Gator) -> None:
    me = Presence.of("me", 17, ["mail", "post"])
    registry.announce(gator.backend, me, LONG)
    push(gator, "t1")

    assert gator.status("t1").consumers == 0
    registry.announce(gator.backend, replace(me, worker="you", queues=[QUEUE, "mail"]), LONG)
    assert gator.status("t1").consumers == 1


def test_a_worker_that_nobody_knows_is_not_told(gator: Gator) -> None:
    push(gator, "t1")
    take(gator.backend, worker="me")
    registry.announce(gator.backend, Presence.of("you", 18, [QUEUE]), LONG)
    assert (state_of(gator, "t1"), gator.status("t1").worker) == ("running", None)
    assert "has vanished, or never was registered" in why(gator.status("t1"))

    registry.announce(gator.backend, Presence.of("me", 17, [QUEUE]), LONG)
    assert gator.status("t1").worker == Presence(
        "me", socket.gethostname(), 17, [QUEUE], soon(gator)
    )


def test_a_lease_that_has_lapsed_is_told(gator: Gator) -> None:
    push(gator, "t1")
    take(gator.backend, lease=0.05)
    let_lapse(gator, "t1")

    status = gator.status("t1")
    assert status.state == "running"
    assert status.lease_until is not None
    assert status.lease_until <= status.at
    assert ": the next worker that looks takes it over" in why(status)


def test_of_one_that_is_asked_to_end_it_is_told_why(gator: Gator) -> None:
    push(gator, "t1", timeout=5, retries=1)
    held = take(gator.backend)
    stops.ask(gator.backend, QUEUE, "t1", held.token, stops.TIMEOUT)
    assert gator.status("t1").stop_asked == "timeout"
    gator.cancel("t1")
    assert gator.status("t1").stop_asked == "canceled"

    gator.backend.settle([Release(held, lapsed=True)])
    status = gator.status("t1")
    assert (status.state, status.stop_asked) == ("waiting", "canceled")
    assert "it is asked to end, for it was canceled" in why(status)


def test_what_was_asked_of_another_of_its_id_is_not_told(gator: Gator) -> None:
    push(gator, "t1")
    former = take(gator.backend, worker="former")
    gator.cancel("t1")
    gator.backend.settle([Ack(former, succeeded=False)])

    push(gator, "t1")
    assert gator.status("t1").stop_asked == ""
    take(gator.backend, worker="me")
    assert gator.status("t1").stop_asked == ""


def test_how_far_it_is_is_told(gator: Gator) -> None:
    push(gator, "t1")
    held = take(gator.backend)
    assert gator.status("t1").progress is None

    set_progress(gator, "t1", token=held.token)
    assert gator.status("t1").progress == Progress(3, 10, "resizing", soon(gator))
    set_progress(gator, "t1", token=held.token, total=None, note="")
    assert gator.status("t1").progress == Progress(3, None, "", soon(gator))


def test_how_far_it_was_is_told_until_it_is_taken_up_again(gator: Gator) -> None:
    for task_id, task in {"lapsed": go_through, "given back": leave, "failed": go_through}.items():
        with gator.options(task_id=task_id, retries=1) as opts:
            opts.task(task, "failed" if task_id == "failed" else None)

    for task_id in ("failed", "given back"):
        gator.get(task_id)
        status = gator.status(task_id)
        assert (status.state, status.progress) == ("waiting", Progress(2, 3, "", soon(gator)))
    held = gator.backend.reserve_task(QUEUE, "lapsed", "me")
    assert held is not None
    set_progress(gator, "lapsed", token=held.token, body=mark_of(held.body))
    gator.backend.settle([Release(held, lapsed=True)])
    assert gator.status("lapsed").progress is not None


def go_through(end: Any) -> None:
    """Fail at the third of three items."""
    for number in track(range(3)):
        if number == 2:
            raise ValueError(end)


def leave(end: Any) -> None:
    """Be given back at the third of three items."""
    for number in track(range(3)):
        if number == 2:
            raise GivenBack


def test_how_far_another_of_its_id_had_come_is_not_told(gator: Gator) -> None:
    set_progress(gator, "t1", token="former.1.1000")
    push(gator, "t1", fail, retries=1)
    assert gator.status("t1").progress is None
    held = take(gator.backend)
    assert gator.status("t1").progress is None
    gator.backend.settle([Release(held)])
    work_off(gator, max_tasks=1)
    assert (state_of(gator, "t1"), gator.status("t1").attempt) == ("waiting", 2)
    assert gator.status("t1").progress is None
    set_progress(gator, "t1")  # as another version may have left it
    assert gator.status("t1").progress is None


@pytest.mark.parametrize(
    "told",
    [
        {"done": None},
        {"done": "3"},
        {"done": 1e999},
        {"done": 10**400},
        {"done": True},
        {"at": None},
        {"at": float("nan")},
    ],
)
def test_progress_of_which_nothing_can_be_told_is_none(told: dict[str, Any]) -> None:
    gator = Gator("locmem://")
    push(gator, "t1")
    held = take(gator.backend)
    set_progress(gator, "t1", token=held.token)
    assert gator.status("t1").progress is not None
    set_progress(gator, "t1", token=held.token, **told)
    assert gator.status("t1").progress is None
    records_of(gator.backend).set(f"{PROGRESS}/{ref(QUEUE, 't1')}", b"[1]")
    assert gator.status("t1").progress is None


# Over


def test_of_one_that_succeeded_it_is_told_when_and_how_long_its_result_is_kept(
    gator: Gator,
) -> None:
    push(gator, "t1", keep_result=A_MINUTE)
    push(gator, "t2", hand_over_a_set, keep_result=A_MINUTE)
    work_off(gator)

    status = gator.status("t1")
    assert (status.state, status.ended_at) == ("succeeded", soon(gator))
    assert (status.kept_until, status.error) == (soon(gator, A_MINUTE), "")
    status = gator.status("t2")
    assert (status.state, status.kept_until) == ("succeeded", None)
    assert "set" in status.error


def hand_over_a_set(what: Any) -> set[Any]:
    """Return what cannot be kept."""
    return {what}


def test_one_that_is_over_and_was_not_settled_is_told_as_over(gator: Gator) -> None:
    push(gator, "t1", keep_result=A_MINUTE)
    held = take(gator.backend, lease=LONG)
    results.keep_success(
        records_of(gator.backend), QUEUE, "t1", 17, 60.0, gator.backend.now(), held.token
    )
    status = gator.status("t1")
    assert (status.state, status.callable) == ("succeeded", "tests.features.work.do")

    gator.backend.extend([held], 0.05)
    let_lapse(gator, "t1")
    assert state_of(gator, "t1") == "running"  # it is to be run again


def test_of_one_that_failed_it_is_told_when_and_why(gator: Gator) -> None:
    push(gator, "t1", fail, retries=1)
    work_off(gator)

    status = gator.status("t1")
    assert status == Status(
        "t1",
        QUEUE,
        "failed",
        callable="tests.features.work.fail",
        attempt=2,
        retries=0,
        ended_at=soon(gator),
        reason="failed",
        error="ValueError: t1",
        history=status.history,
        at=status.at,
    )
    assert [entry["error"] for entry in status.history] == ["ValueError: t1"]


@pytest.mark.parametrize("reason", ["poison", "unreadable", "expired", "timeout", "dependency"])
def test_a_failure_is_told_with_its_reason(reason: str) -> None:
    gator = Gator("locmem://")
    push(gator, "t1")
    bury_next(gator, reason=reason, type=OUR_OWN, message="It was so")

    status = gator.status("t1")
    assert (status.reason, status.error) == (reason, "It was so")
    assert why(status).endswith(" UTC (now): It was so.")


def test_a_failure_is_told_though_its_dead_letter_is_gone(gator: Gator) -> None:
    push(gator, "t1", fail, keep_result=A_MINUTE)
    work_off(gator)
    [letter] = gator.backend.dead(QUEUE, task_id="t1")
    before = gator.status("t1")
    gator.backend.purge_dead(QUEUE, [letter.letter_id])

    status = gator.status("t1")
    assert (status.state, status.reason, status.error) == ("failed", "failed", "ValueError: t1")
    assert before.callable == "tests.features.work.fail"


def test_of_one_that_was_canceled_it_is_told_when(gator: Gator) -> None:
    push(gator, "t1")
    gator.cancel("t1")

    assert (state_of(gator, "t1"), gator.status("t1").ended_at) == ("canceled", soon(gator))


def test_of_one_that_nobody_remembers_nothing_is_known(gator: Gator) -> None:
    push(gator, "done")
    work_off(gator)

    for name in ("done", "never"):
        status = gator.status(name)
        assert status == Status(name, QUEUE, "unknown", at=status.at)


def test_the_end_of_a_former_one_is_not_told_of_one_that_is_queued(gator: Gator) -> None:
    for end in (do, fail):
        push(gator, "t1", end, keep_result=A_MINUTE)
        work_off(gator)
        assert state_of(gator, "t1") != "unknown"
        push(gator, "t1")
        assert state_of(gator, "t1") == "waiting"
        held = take(gator.backend)
        assert state_of(gator, "t1") == "running"
        gator.backend.settle([Ack(held)])


def test_a_dead_letter_that_is_retried_has_not_failed(gator: Gator) -> None:
    push(gator, "t1", fail, keep_result=A_MINUTE)
    work_off(gator)
    [letter] = gator.backend.dead(QUEUE)
    gator.backend.retry_dead(QUEUE, [letter.letter_id])
    assert state_of(gator, "t1") == "waiting"
    take(gator.backend)
    assert state_of(gator, "t1") == "running"


def test_of_several_ends_the_last_one_is_told(gator: Gator) -> None:
    push(gator, "t1", keep_result=A_MINUTE)
    work_off(gator)
    push(gator, "t1", fail)
    let_pass(gator.backend, 0.05)
    work_off(gator)
    assert state_of(gator, "t1") == "failed"

    let_pass(gator.backend, 0.05)
    push(gator, "t1", keep_result=A_MINUTE)
    work_off(gator)
    assert state_of(gator, "t1") == "succeeded"

    let_pass(gator.backend, 0.05)
    push(gator, "t1")
    gator.cancel("t1")
    assert state_of(gator, "t1") == "canceled"


def test_a_failure_whose_letter_is_gone_is_told_and_not_one_before(gator: Gator) -> None:
    push(gator, "t1")
    bury_next(gator, message="the first")
    at = gator.backend.now() + 100
    records = records_of(gator.backend)
    results.note_outcome(records, QUEUE, "t1", Outcome("failed", at, "failed", "the second"))

    assert gator.status("t1").error == "the second"


# Other stores


def test_how_it_ended_may_be_kept_elsewhere(tmp_path: Path) -> None:
    gator = Gator("locmem://", results=f"sqlite://{tmp_path}/results.db")
    push(gator, "t1", keep_result=A_MINUTE)
    work_off(gator)
    assert (state_of(gator, "t1"), gator.results is gator.backend.records) == ("succeeded", False)

    push(gator, "first")
    push(gator, "second", depends_on=["first"])
    work_off(gator)
    assert state_of(gator, "first") == "succeeded"  # which its own store has


def test_a_store_that_cannot_tell_says_so(tmp_path: Path) -> None:
    gator = Gator("five://", backend_class=FiveMethods, results=f"sqlite://{tmp_path}/results.db")
    push(gator, "t1", keep_result=A_MINUTE)
    with pytest.raises(InvalidOption, match=r"what status\(\) needs: use a store"):
        gator.status("t1")
    work_off(gator)
    assert state_of(gator, "t1") == "succeeded"


# On the move


class Turning:
    """A store, or its records, in which something happens just before a certain call.

    Args:
        to: What is called.
        happenings: What happens, by the number of the call. Shared with the records.
        calls: How many calls there were. Shared as well.
    """

    def __init__(self, to: Any, happenings: dict[int, Happening], calls: list[str]) -> None:
        self._to = to
        self._happenings = happenings
        self.calls = calls
        if getattr(to, "records", None) is not None:
            self.records = Turning(to.records, happenings, calls)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._to, name)
        if not callable(method) or name == "now":
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if happening := self._happenings.pop(len(self.calls), None):
                happening()
            return method(*args, **kwargs)

        return call


def turning(
    gator: Gator, happenings: dict[int, Happening]
) -> tuple[Callable[[], Status], list[str]]:
    """Return what tells the status of t1, while something happens to it; and what calls it takes."""
    calls: list[str] = []
    backend: Any = Turning(gator.backend, happenings, calls)
    return lambda: status_of("the store", backend, backend.records, QUEUE, "t1"), calls


# What happens to t1, one thing after the other:


def waits_to_dead(gator: Gator) -> list[Happening]:
    push(gator, "t1")
    return [lambda: bury_next(gator)]


def dead_to_waits(gator: Gator) -> list[Happening]:
    push(gator, "t1")
    bury_next(gator)
    [letter] = gator.backend.dead(QUEUE)
    return [lambda: gator.backend.retry_dead(QUEUE, [letter.letter_id])]


def dead_to_waits_after_a_success(gator: Gator) -> list[Happening]:
    push(gator, "t1", keep_result=A_MINUTE)
    work_off(gator)
    until(lambda: gator.backend.now() > (gator.status("t1").ended_at or 0.0), "time goes on")
    return dead_to_waits(gator)


def dead_to_waits_to_dead(gator: Gator) -> list[Happening]:
    push(gator, "t1")
    bury_next(gator)
    [letter] = gator.backend.dead(QUEUE)
    return [
        lambda: gator.backend.retry_dead(QUEUE, [letter.letter_id]),
        lambda: bury_next(gator),
    ]


def delayed_to_canceled(gator: Gator) -> list[Happening]:
    push(gator, "t1", delay_by=FAR_OFF, limit=ONE)
    return [lambda: gator.cancel("t1")]


def delayed_to_gone_to_canceled(gator: Gator) -> list[Happening]:
    """It is noted a moment after it was seen the last time; and one before it has succeeded."""
    records = records_of(gator.backend)
    results.note_outcome(records, QUEUE, "t1", Outcome("success", 1000.0))
    push(gator, "t1", delay_by=FAR_OFF, limit=ONE)
    return [
        lambda: None,
        lambda: gator.backend.cancel(QUEUE, "t1"),
        lambda: results.keep_canceled(records, QUEUE, "t1", 0.0),
    ]


def blocked_to_waits(gator: Gator) -> list[Happening]:
    push(gator, "a")
    push(gator, "t1", depends_on=["a"])
    return [lambda: gator.get("a"), lambda: until(lambda: released(gator), "t1 has been told")]


def waits_to_runs_to_succeeds(gator: Gator) -> list[Happening]:
    push(gator, "t1", keep_result=A_MINUTE)
    held: list[Reservation] = []
    records = records_of(gator.backend)
    return [
        lambda: held.append(take(gator.backend)),
        lambda: results.keep_success(records, QUEUE, "t1", 1, 60.0, token=held[0].token),
        lambda: gator.backend.settle([Ack(held[0])]),
    ]


def limited_to_waits(gator: Gator) -> list[Happening]:
    steps = Steps(gator.backend, ONE)
    push(gator, "a", limit=ONE)
    push(gator, "t1", limit=ONE)
    [held] = steps.begin()
    return [lambda: steps.end(held)]


MOVES: list[tuple[Callable[[Gator], list[Happening]], set[str]]] = [
    (waits_to_dead, {"waiting", "failed"}),
    (dead_to_waits, {"failed", "waiting"}),
    (dead_to_waits_after_a_success, {"failed", "waiting"}),
    (dead_to_waits_to_dead, {"failed", "waiting"}),
    (delayed_to_canceled, {"delayed", "canceled"}),
    (delayed_to_gone_to_canceled, {"delayed", "canceled"}),
    (blocked_to_waits, {"blocked", "waiting"}),
    (waits_to_runs_to_succeeds, {"waiting", "running", "succeeded"}),
    (limited_to_waits, {"limited", "waiting"}),
]


@pytest.mark.parametrize("gap", [1, 3])
@pytest.mark.parametrize(("move", "states"), MOVES, ids=[move.__name__ for move, _ in MOVES])
def test_whenever_it_moves_what_is_told_makes_sense(
    gator: Gator, move: Callable[[Gator], list[Happening]], states: set[str], gap: int
) -> None:
    told: set[str] = set()
    for first in range(1, 20):
        clear(gator)
        happenings = dict(zip(range(first, first + 10, gap), move(gator), strict=False))
        look, calls = turning(gator, happenings)
        status = look()
        assert status.state in states, (first, calls, status)
        told.add(status.state)
        for happening in list(happenings.values()):  # for which it was too early
            happening()
    assert len(told) > 1


def clear(gator: Gator) -> None:
    """Leave nothing of what the last move has left."""
    backend = gator.backend
    backend.drop_all(QUEUE)
    for task_id in ("a", "t1"):
        if (found := backend.find(QUEUE, task_id)) is not None:
            backend.settle([Ack(Reservation(QUEUE, task_id, b"", found.token))])
    backend.purge_dead(QUEUE, [letter.letter_id for letter in backend.dead(QUEUE)])
    records_of(backend).delete(results.outcome_key(QUEUE, "t1"), f"{LIMITS}/concurrency:one")


def test_what_becomes_of_one_that_is_just_gone_is_waited_for(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(gator, "t1", delay_by=FAR_OFF)
    records = records_of(gator.backend)

    class Time:
        @staticmethod
        def sleep(seconds: float) -> None:
            assert seconds > 0
            results.keep_canceled(records, QUEUE, "t1", 0.0)

    monkeypatch.setattr(statuses, "time", Time)
    look, calls = turning(gator, {2: lambda: gator.backend.cancel(QUEUE, "t1")})
    assert (look().state, calls.count("dead")) == ("canceled", 2)


def test_of_one_that_goes_in_circles_it_is_always_known_where_it_is(gator: Gator) -> None:
    """It is queued or dead at any moment, and has never succeeded."""
    with gator.options(task_id="t1", keep_result=A_MINUTE) as opts:
        opts.task(fail, "t1")
    told: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            told.append(state_of(gator, "t1"))

    with in_a_thread(look) as looking:
        for _ in range(30):
            work_off(gator)
            [letter] = gator.backend.dead(QUEUE, task_id="t1")
            assert gator.backend.retry_dead(QUEUE, [letter.letter_id]) == [letter.letter_id]
        stop.set()
        looking.result()

    assert set(told) <= {"waiting", "running", "failed"}
    assert len(set(told)) > 1


def test_one_that_never_stands_still_is_looked_for_so_many_times() -> None:
    gator = Gator("locmem://")
    push(gator, "t1", delay_by=FAR_OFF, limit=ONE)
    moments = iter(range(1, 1000))

    def move() -> None:
        gator.backend.reschedule(QUEUE, ["t1"], gator.backend.now() + FAR_OFF + next(moments))

    look, calls = turning(gator, dict.fromkeys(range(1, 1000), move))
    assert look().state == "delayed"
    assert calls.count("find") == 2 * LOOKS


# What is asked, and what is said


def test_the_number_of_reads_does_not_grow_with_what_waits(gator: Gator) -> None:
    for count in (10, 1000):
        gator.map(do, range(count))
        push(gator, "t1", if_exists="replace")
        look, calls = turning(gator, {})
        assert look().position == gator.len() - 1
        assert len(calls) <= 5, calls


@pytest.mark.parametrize("task_id", [*ODD_IDS, "'", '"', "\\", "\u202eevil", "a\u200bb"])
def test_any_id_is_told_in_every_state(task_id: str) -> None:
    gator = Gator("locmem://", task_id[:40])
    name = gator.queue_name

    def told(state: str) -> None:
        status = gator.status(task_id)
        assert status.state == state
        assert repr(task_id) in why(status)
        assert json.loads(json.dumps(status_json(status)))["task_id"] == task_id
        assert all(char.isprintable() or char == "\n" for char in status_text(status))

    told("unknown")
    push(gator, task_id, delay_by=FAR_OFF)
    told("delayed")
    push(gator, task_id, if_exists="replace")
    told("waiting")
    held = take(gator.backend, of=name)
    told("running")
    gator.backend.settle([Bury(held, "\x1b[2J\r\n")])
    told("failed")
    push(gator, task_id)
    gator.cancel(task_id)
    told("canceled")
    push(gator, task_id, limit=ONE)
    push(gator, "other", limit=ONE)
    Steps(gator.backend, ONE).begin(queue_name=name)
    assert repr(task_id) in why(gator.status("other"))
    push(gator, "third", depends_on=[task_id])
    assert repr(task_id) in why(gator.status("third"))


SENSELESS: list[dict[str, Any]] = [
    {"attempt": "2"},
    {"attempt": 1e999},
    {"attempt": [2]},
    {"history": 17},
    {"history": [17, {"error": {"a": 1e999}, "attempt": 1e999, "at": "now"}, {}]},
    {"history": [{"error": "\x1b[2J\r\nalligator: all is well", "token": 3}], "attempt": 2},
    {"expires": [5]},
    {"expires": 1e300},
    {"expires": -1e10},
    {"depends_on": 17},
    {"depends_on": [["a"], 17, [1, 2], "ab", ["a", "b"]]},
    {"limit": {"rate": ["a", 1]}},
    {"limit": 17},
    {"limit": {"concurrency": ["a", True]}},
]


@pytest.mark.parametrize("options", SENSELESS)
@pytest.mark.parametrize("delay", [0.0, FAR_OFF])
def test_a_payload_without_sense_is_told_of_as_far_as_it_goes(
    options: dict[str, Any], delay: float
) -> None:
    gator = Gator("locmem://")
    payload = {"task_id": "t1", "retries": 0, "module": "m", "callable": "f", "options": options}
    gator.backend.push_many(QUEUE, [Message("t1", json.dumps(payload).encode(), delay)])

    for state in ({"waiting", "delayed", "retrying"}, {"running"}, {"failed"}):
        status = gator.status("t1")
        assert (status.state in state, status.callable) == (True, "m.f")
        assert why(status)
        json.dumps(status_json(status), allow_nan=False)
        assert all(char.isprintable() or char == "\n" for char in status_text(status))
        if state != {"failed"}:
            held = gator.backend.reserve_task(QUEUE, "t1", "me") or held_now(gator)
            if state == {"running"}:
                gator.backend.settle([Bury(held, "note")])


def held_now(gator: Gator) -> Any:
    """Return the hand-out of t1."""
    found = gator.backend.find(QUEUE, "t1")
    assert found is not None
    return Reservation(QUEUE, "t1", found.body, found.token)


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"[" * 100_000, b"17", b"{}", b'{"a": 1}'])
def test_what_nobody_can_read_is_told_of_nevertheless(body: bytes) -> None:
    gator = Gator("locmem://")
    gator.backend.push_many(QUEUE, [Message("t1", body)])

    assert (state_of(gator, "t1"), gator.status("t1").callable) == ("waiting", "")
    bury_next(gator)
    assert (state_of(gator, "t1"), gator.status("t1").retries) == ("failed", None)
