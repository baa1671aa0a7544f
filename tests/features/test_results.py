"""What a task returned, or failed with, is kept for those who ask: how, how long, and what they are told."""

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, Task, results, stops
from alligator.attempts import Runner
from alligator.backends.base import Ack, Bury, Message, Records, Release
from alligator.exceptions import (
    InvalidOption,
    NotFinished,
    QueueFull,
    ResultExpired,
    ResultNotKept,
    TaskCanceled,
    TaskFailed,
    UnknownTask,
)
from alligator.keys import ref
from alligator.results import (
    CANCELED,
    FAILED,
    SUCCESS,
    Outcome,
    keep_success,
    note_outcome,
    outcome_of,
    read_outcome,
)
from alligator.testing.stores import LONG, ODD_IDS, records_of, take, until
from tests.features import results_work as work
from tests.features.results_work import (
    Ask,
    Wait,
    ask_in_loop,
    ask_in_thread,
    once_waited_for,
    wait_in_loop,
    wait_in_thread,
)
from tests.features.work import do, fail, work_off
from tests.support.kinds import STORES, empty_store
from tests.support.postgres import PostgresServer
from tests.support.servers import Server
from tests.unit.five_methods import FiveMethods

KEPT = 60.0
SHORT = 0.05

VALUES: dict[str, Any] = {
    "None": None,
    "false": False,
    "zero": 0,
    "big integer": 10**300,
    "float": 0.1,
    "empty": "",
    "text": "ž🐊\x00\n",
    "list": [1, [2, [3, []]]],
    "dict": {"": None, "a": {"b": [1, {"c": "d"}]}},
    "big": "ä" * 500_000,
}


@pytest.fixture(params=[ask_in_thread, ask_in_loop], ids=["thread", "loop"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each way to ask."""
    way: Ask = request.param
    return way


def push(
    gator: Gator, func: Callable[..., Any], *args: Any, keep: float = KEPT, **options: Any
) -> Task:
    """Queue a task whose result is kept."""
    with gator.options(keep_result=keep, **options) as opts:
        return opts.task(func, *args)


def failure_of(gator: Gator, task_id: str, timeout: float | None = LONG) -> TaskFailed:
    """Return what who waits is told of a failure."""
    with pytest.raises(TaskFailed) as caught:
        gator.result(task_id, timeout)
    return caught.value


def lapse(gator: Gator, times: int) -> None:
    """Let the next task be handed out so often, and nobody live to tell what came of it."""
    for _ in range(times):
        held = take(gator.backend)
        gator.backend.settle([Release(held, lapsed=True)])


def kept_in(gator: Gator) -> Records:
    """Return where results are kept."""
    assert gator.results is not None
    return gator.results


# What is kept:


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_a_task_returned_comes_back(gator: Gator, value: Any, ask: Ask) -> None:
    task = push(gator, do, value)
    work_off(gator)

    assert ask(gator, task.task_id) == value


def test_a_task_itself_can_be_waited_for(gator: Gator) -> None:
    task = push(gator, do, 7)
    work_off(gator)

    assert task.wait(LONG) == 7


def test_a_tuple_comes_back_as_a_list(gator: Gator) -> None:
    task = push(gator, divmod, 7, 2)
    work_off(gator)

    assert task.wait(LONG) == [3, 1]


def test_a_result_may_be_asked_for_again_and_again(gator: Gator) -> None:
    task = push(gator, do, 7)
    work_off(gator)

    assert [gator.result(task.task_id, 0) for _ in range(3)] == [7, 7, 7]


@pytest.mark.parametrize("task_id", ODD_IDS)
def test_a_task_may_have_any_id(gator: Gator, task_id: str) -> None:
    push(gator, do, task_id, task_id=task_id)
    work_off(gator)

    assert gator.result(task_id, LONG) == task_id


def test_equal_ids_of_two_queues_are_two_tasks(gators: Callable[..., Gator]) -> None:
    one, two = gators("a:b"), gators("a")
    push(one, do, 1, task_id="c")
    push(two, do, 2, task_id="b:c")
    for gator in one, two:
        work_off(gator, to_consume=gator.queue_name)

    assert (one.result("c", LONG), two.result("b:c", LONG)) == (1, 2)
    with pytest.raises(UnknownTask):
        two.result("c", LONG)


def test_a_task_of_a_class_of_its_own_is_waited_for(gator: Gator, ask: Ask) -> None:
    gator.task_class = work.ZippedTask
    task = push(gator, do, 7)
    with pytest.raises(NotFinished):
        ask(gator, task.task_id, 0)

    work_off(gator)

    assert ask(gator, task.task_id) == 7


def test_what_a_task_that_is_run_here_returned_is_kept_too(gator: Gator) -> None:
    task = push(gator, do, 7)
    gator.pop()

    assert task.wait(0) == 7


# Failures:


def test_a_failure_tells_what_the_task_raised(gator: Gator, ask: Ask) -> None:
    task = push(gator, work.raise_error, "own", task_id="t1")
    work_off(gator)

    with pytest.raises(TaskFailed) as caught:
        ask(gator, task.task_id)

    err = caught.value
    assert str(err) == (
        "Task 't1' has failed: tests.features.results_work.NoSuchFeed: feed 7 is gone"
    )
    assert err.error_type == "tests.features.results_work.NoSuchFeed"
    assert err.error_message == "feed 7 is gone"
    assert err.reason == "failed"
    assert "in raise_error\n" in err.traceback
    assert err.traceback.endswith("NoSuchFeed: feed 7 is gone\n")


@pytest.mark.parametrize("name", work.ERRORS)
def test_whatever_a_task_raises_can_be_told_in_one_line(gator: Gator, name: str) -> None:
    task = push(gator, work.raise_error, name)
    work_off(gator)

    err = failure_of(gator, task.task_id)

    raised = work.ERRORS[name]
    assert err.error_type.rpartition(".")[2] == type(raised).__name__
    assert err.error_message == ("" if name == "mute" else str(raised)[:32_768])
    assert "\n" not in str(err)
    assert len(str(err)) < 1200
    assert err.error_type in str(err)


def test_a_task_that_succeeds_at_last_has_not_failed(gator: Gator, ask: Ask) -> None:
    task = push(gator, work.succeed_at, 3, retries=5)
    gator.pop()
    with pytest.raises(NotFinished):
        ask(gator, task.task_id, 0)

    work_off(gator)

    assert ask(gator, task.task_id) == 3


def test_a_task_that_has_expired_tells_so(gator: Gator) -> None:
    push(gator, do, 1, task_id="t1", expires=date(2020, 1, 1))
    work_off(gator)

    err = failure_of(gator, "t1")

    assert (err.reason, str(err)) == (
        "expired",
        "Task 't1' has failed: It expired before it could start",
    )


def test_a_task_that_kills_its_workers_tells_so(gator: Gator) -> None:
    push(gator, do, 1, task_id="t1")
    lapse(gator, 3)
    work_off(gator)

    assert failure_of(gator, "t1").reason == "poison"


def test_a_task_that_cannot_be_imported_tells_so(gator: Gator) -> None:
    payload = {
        "task_id": "t1",
        "retries": 0,
        "module": "no_such_module",
        "callable": "f",
        "options": {"keep_result": KEPT},
    }
    gator.backend.push_many("all", [Message("t1", json.dumps(payload).encode())])
    lapse(gator, 2)
    work_off(gator)

    err = failure_of(gator, "t1")

    assert err.reason == "unreadable"
    assert err.error_type == "alligator.exceptions.UnknownModuleError"
    assert "no_such_module" in str(err)


def test_a_canceled_task_tells_so(gator: Gator, ask: Ask) -> None:
    push(gator, do, 1, task_id="t1")
    gator.cancel("t1")

    with pytest.raises(TaskCanceled, match="'t1' was canceled"):
        ask(gator, "t1")


# What is not kept:


def test_nothing_is_kept_unless_asked_for(gator: Gator) -> None:
    gator.task(do, 1)
    work_off(gator)

    assert kept_in(gator).list("results") == {}
    assert kept_in(gator).list("outcomes") == {}


def test_nobody_waits_for_what_will_not_be_kept(gator: Gator, ask: Ask) -> None:
    task = gator.task(do, 1)

    with pytest.raises(ResultNotKept, match="keep_result"):
        ask(gator, task.task_id, None)


def test_nobody_waits_for_what_never_was(gator: Gator, ask: Ask) -> None:
    with pytest.raises(UnknownTask, match="'t1'"):
        ask(gator, "t1", None)


def test_a_dead_letter_tells_of_a_failure_that_was_not_to_be_kept(gator: Gator, ask: Ask) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(fail, "badly")
    work_off(gator)

    with pytest.raises(TaskFailed) as caught:
        ask(gator, "t1", None)

    assert str(caught.value) == "Task 't1' has failed: ValueError: badly"
    assert (caught.value.error_type, caught.value.error_message) == ("ValueError", "badly")
    assert caught.value.reason == "failed"
    assert "in fail\n" in caught.value.traceback


def test_a_dead_letter_of_the_version_before_is_understood(gator: Gator) -> None:
    gator.backend.push_many("all", [Message("t1", b"x"), Message("t2", b"x")])
    old = {"reason": "failed", "error": "ValueError: badly: so", "traceback": "Traceback: ..."}
    for note in (json.dumps(old), "written by hand"):
        gator.backend.settle([Bury(take(gator.backend), note)])

    told = failure_of(gator, "t1"), failure_of(gator, "t2")

    assert (told[0].error_type, told[0].error_message) == ("ValueError", "badly: so")
    assert [str(err) for err in told] == [
        "Task 't1' has failed: ValueError: badly: so",
        "Task 't2' has failed: written by hand",
    ]


@pytest.mark.parametrize("name", work.UNCARRIABLE)
def test_a_task_succeeds_whatever_it_returns(
    gator: Gator, name: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    push(gator, work.return_uncarriable, name, task_id="t1")

    work_off(gator)

    assert gator.backend.dead("all") == []
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'t1'" in warning.getMessage()
    with pytest.raises(ResultNotKept, match="has succeeded") as caught:
        ask(gator, "t1")
    if name in ("set", "bytes", "NoSuchFeed"):
        assert f"of type {name}" in str(caught.value)
        assert f"of type {name}" in warning.getMessage()


def test_a_result_can_be_too_big(
    gator: Gator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(results, "MAX_RESULT", 1000)
    task = push(gator, do, "x" * 1000)
    work_off(gator)

    with pytest.raises(ResultNotKept, match="1,000 are kept"):
        task.wait(LONG)
    assert task.task_id in caplog.text


def test_a_store_that_keeps_nothing_says_so(ask: Ask) -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    with pytest.raises(ResultNotKept, match="results=DSN"):
        ask(gator, "t1")


@pytest.mark.parametrize("timeout", [-1, True, "1", float("nan"), float("inf")], ids=repr)
def test_a_timeout_is_a_number_of_seconds(gator: Gator, timeout: Any, ask: Ask) -> None:
    task = push(gator, do, 1)

    with pytest.raises(InvalidOption, match="timeout is a number of seconds"):
        ask(gator, task.task_id, timeout)


# For how long:


@pytest.mark.parametrize("func", [do, fail])
def test_an_expired_result_is_not_an_unknown_one(
    gator: Gator, func: Callable[..., Any], ask: Ask
) -> None:
    push(gator, func, "x", keep=SHORT, task_id="t1")
    work_off(gator)
    until(lambda: not kept_in(gator).list("results"), "the result expires")

    with pytest.raises(ResultExpired, match=r"'t1' has .* kept for 0\.05 s"):
        ask(gator, "t1", None)
    with pytest.raises(UnknownTask):
        ask(gator, "t2", None)


def test_how_a_task_ended_is_known_for_a_day_longer(gator: Gator) -> None:
    before = gator.backend.now()
    push(gator, do, 1, task_id="t1")
    work_off(gator)

    outcome = outcome_of(kept_in(gator), "all", "t1")

    assert outcome is not None
    assert outcome.state == SUCCESS
    assert before - 1 <= outcome.at <= gator.backend.now() + 1
    assert outcome.kept_until == pytest.approx(outcome.at + KEPT)


def test_results_that_have_expired_leave_nothing_behind(
    request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "REMEMBERED", 0.0)
    dsn = empty_store(kind, request)
    gator = Gator(dsn + "?sync=normal" if kind == "sqlite" else dsn)
    records = kept_in(gator)

    for number in range(10_000):
        keep_success(records, "all", f"t{number}", number, SHORT)
    until(lambda: not records.list("outcomes") and not records.list("results"), "they expire")
    for number in range(5_000):
        keep_success(records, "all", f"u{number}", number, KEPT)

    left = 2 * 5_000
    if kind == "locmem":
        families: dict[str, Any] = vars(records)["_families"]
        assert sum(map(len, families.values())) == len(vars(records)["_expiring"]) == left
    elif kind == "sqlite":
        with closing(sqlite3.connect(dsn.removeprefix("sqlite://"))) as db:
            assert db.execute("SELECT count(*) FROM alligator_records").fetchone() == (left,)
    elif kind == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        assert postgres.run("SELECT count(*) FROM alligator.records") == [(left,)]
    else:
        server: Server = request.getfixturevalue(f"{kind}_server")
        for family in "outcomes", "results":
            assert server.command("ZCARD", f"alligator:records:{{{family}}}") == f":{left // 2}"
        until(lambda: server.command("DBSIZE") == f":{left + 2}", "the server forgets")
    gator.backend.close()


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store."""
    name: str = request.param
    return name


# An id that is used again:


def test_what_came_of_a_former_task_of_that_id_is_not_told(gator: Gator, ask: Ask) -> None:
    push(gator, do, 1, task_id="t1")
    work_off(gator)
    push(gator, do, 2, task_id="t1")

    with pytest.raises(NotFinished):
        ask(gator, "t1", 0.05)
    work_off(gator)

    assert ask(gator, "t1") == 2


def test_a_dead_letter_that_is_retried_is_waited_for(gator: Gator, ask: Ask) -> None:
    push(gator, work.succeed_at, 2, task_id="t1")
    work_off(gator)
    failure_of(gator, "t1")
    [letter] = gator.backend.dead("all")
    gator.backend.retry_dead("all", [letter.letter_id])

    with pytest.raises(NotFinished):
        ask(gator, "t1", 0.05)
    work_off(gator)

    assert failure_of(gator, "t1").reason == "failed"


def test_a_result_counts_before_its_task_is_acknowledged(gator: Gator, ask: Ask) -> None:
    push(gator, do, 1, task_id="t1")
    held = take(gator.backend)
    keep_success(kept_in(gator), "all", "t1", 7, KEPT, token=held.token)

    assert ask(gator, "t1", 0) == 7


def test_a_result_of_another_hand_out_does_not_count(gator: Gator, ask: Ask) -> None:
    push(gator, do, 1, task_id="t1")
    keep_success(kept_in(gator), "all", "t1", 7, KEPT, token="w1.1.1")
    take(gator.backend)

    with pytest.raises(NotFinished):
        ask(gator, "t1", 0)


def test_a_task_that_was_canceled_once_may_run_later(gator: Gator, ask: Ask) -> None:
    push(gator, do, 1, task_id="t1")
    gator.cancel("t1")
    push(gator, do, 2, task_id="t1")
    work_off(gator)

    assert ask(gator, "t1") == 2


def test_what_keeps_nothing_is_not_waited_for_though_its_id_was_used_before(
    gator: Gator, wait: Wait
) -> None:
    push(gator, do, 1, task_id="t1")
    work_off(gator)
    with gator.options(task_id="t1") as opts:
        again = opts.task(do, 2)

    for _ in range(2):
        with pytest.raises(ResultNotKept, match="'t1' was queued without keep_result"):
            wait(again)
        work_off(gator)


def test_a_success_that_keeps_nothing_leaves_no_trace(gator: Gator, ask: Ask) -> None:
    push(gator, fail, 1, task_id="t1")
    work_off(gator)
    with gator.options(task_id="t1") as opts:
        opts.task(do, 2)
    work_off(gator)

    with pytest.raises(TaskFailed, match="ValueError: 1"):
        ask(gator, "t1")
    assert gator.status("t1").state == "failed"


# An id that is replaced:


@pytest.fixture(params=[wait_in_thread, wait_in_loop], ids=["thread", "loop"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """Each way to wait for a task."""
    way: Wait = request.param
    return way


def replacing(gator: Gator, func: Callable[..., Any], *args: Any, **options: Any) -> Task:
    return push(gator, func, *args, task_id="t1", if_exists="replace", **options)


@pytest.mark.parametrize("task_class", [Task, work.ZippedTask])
def test_what_was_replaced_while_it_ran_does_not_tell_for_its_replacement(
    gator: Gator, task_class: type[Task], wait: Wait
) -> None:
    gator.task_class = task_class
    first = replacing(gator, do, 1)
    held = take(gator.backend)
    second = replacing(gator, do, 2, delay_by=LONG)
    outcome = Runner(gator.backend, task_class, results=gator.results).attempt(held)

    with pytest.raises(NotFinished):
        wait(second, 0)
    with (
        once_waited_for(lambda: gator.backend.settle([outcome.settlement])),
        pytest.raises(NotFinished),
    ):
        wait(second, 0.3)
    gator.backend.reschedule("all", ["t1"])
    work_off(gator)

    assert wait(second) == 2
    assert wait(first) == 2  # for this took its place


def test_what_was_replaced_while_it_was_waited_for_does_not_tell_either(
    gator: Gator, wait: Wait
) -> None:
    replacing(gator, do, 1)
    held = take(gator.backend)
    second = replacing(gator, do, 2, delay_by=LONG)

    def end_first() -> None:
        outcome = Runner(gator.backend, Task, results=gator.results).attempt(held)
        gator.backend.settle([outcome.settlement])

    with once_waited_for(end_first), pytest.raises(NotFinished):
        wait(second, 0.3)


def test_what_is_replaced_need_not_keep_anything(gator: Gator, wait: Wait) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(do, 1)
    held = take(gator.backend)
    second = replacing(gator, do, 2)

    with pytest.raises(NotFinished):
        wait(second, 0)
    gator.backend.settle([Ack(held)])
    work_off(gator)

    assert wait(second) == 2


def test_all_who_were_replaced_are_told_of_the_last(gator: Gator, wait: Wait) -> None:
    tasks = [replacing(gator, do, number) for number in range(5)]
    work_off(gator)

    assert [wait(task) for task in tasks] == [4] * 5


def test_a_failure_of_what_was_replaced_does_not_tell_for_its_replacement(
    gator: Gator, wait: Wait
) -> None:
    replacing(gator, fail, "the first")
    held = take(gator.backend)
    second = replacing(gator, fail, "the second")
    outcome = Runner(gator.backend, Task, results=gator.results).attempt(held)

    with pytest.raises(NotFinished):
        wait(second, 0)
    gator.backend.settle([outcome.settlement])
    work_off(gator)

    with pytest.raises(TaskFailed, match="the second"):
        wait(second)


def test_of_one_that_was_dropped_no_other_tells(gator: Gator, wait: Wait) -> None:
    for func in (do, fail):
        replacing(gator, func, 1)
        held = take(gator.backend)
        second = replacing(gator, do, 2)
        outcome = Runner(gator.backend, Task, results=gator.results).attempt(held)
        gator.backend.drop_all("all")
        gator.backend.settle([outcome.settlement])

        with pytest.raises(UnknownTask):
            wait(second)


def test_canceling_what_runs_is_for_its_replacement_too(gator: Gator, wait: Wait) -> None:
    first = replacing(gator, do, 1)
    held = take(gator.backend)
    second = replacing(gator, do, 2)

    gator.cancel("t1")
    gator.backend.settle([Release(held)])
    stops.heed(gator.backend, gator.results, [held])
    work_off(gator)

    for task in first, second:
        with pytest.raises(TaskCanceled):
            wait(task)
    assert gator.status("t1").state == "canceled"


def test_one_that_was_canceled_before_does_not_tell_for_its_replacement(
    gator: Gator, wait: Wait
) -> None:
    replacing(gator, do, 1)
    gator.cancel("t1")
    second = replacing(gator, do, 2)

    with pytest.raises(NotFinished):
        wait(second, 0)
    gator.cancel("t1")

    with pytest.raises(TaskCanceled):
        wait(second)


def test_a_form_that_loses_which_push_it_was_is_refused(gator: Gator) -> None:
    gator.task_class = work.BareTask

    assert push(gator, do, 1, task_id="t1").task_id == "t1"
    with pytest.raises(InvalidOption, match="BareTask does not carry push"):
        replacing(gator, do, 1)


# Results in another store:


def test_a_client_of_five_methods_may_have_its_results_elsewhere(tmp_path: Path, ask: Ask) -> None:
    gator = Gator("five://", backend_class=FiveMethods, results=f"sqlite://{tmp_path}/results.db")
    tasks = [push(gator, do, 7), push(gator, fail, "badly")]
    with pytest.raises(NotFinished):
        ask(gator, tasks[0].task_id, 0.05)

    work_off(gator)

    assert ask(gator, tasks[0].task_id) == 7
    with pytest.raises(TaskFailed, match="ValueError: badly"):
        ask(gator, tasks[1].task_id)


def test_a_queue_in_a_file_may_have_its_results_in_redis(
    tmp_path: Path, redis_server: Server, ask: Ask
) -> None:
    redis_server.command("FLUSHALL")
    gator = Gator(f"sqlite://{tmp_path}/queue.db", results=redis_server.dsn)
    task = push(gator, do, 7)
    canceled = push(gator, do, 7)
    gator.cancel(canceled.task_id)
    work_off(gator)

    assert ask(gator, task.task_id) == 7
    with pytest.raises(TaskCanceled):
        ask(gator, canceled.task_id)
    with pytest.raises(UnknownTask):
        ask(gator, "t2")
    assert records_of(gator.backend).list("results") == {}
    # That it was canceled is noted here too, for those that depend on it look here.
    assert "value" not in str(records_of(gator.backend).list("outcomes"))
    gator.backend.close()


# How it is kept:


class Noting:
    """Records that note what is written, in order; and refuse to write when told to."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.written: list[list[str]] = []
        self.error: Exception | None = None

    def set_many(self, values: dict[str, bytes], ttl: Any = None) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(list(values))
        self.records.set_many(values, ttl)

    def get(self, key: str) -> bytes | None:
        return self.records.get(key)

    def get_many(self, keys: list[str]) -> dict[str, bytes]:
        return self.records.get_many(keys)


def noted(gator: Gator) -> Noting:
    """Let a Gator keep its results in records that note it."""
    noting: Any = Noting(kept_in(gator))
    gator.results = noting
    return noting  # type: ignore[no-any-return]


@pytest.mark.parametrize("func", [do, fail])
def test_a_result_is_written_in_one_call_and_before_what_is_waited_for(
    gator: Gator, func: Callable[..., Any]
) -> None:
    noting = noted(gator)
    push(gator, func, 1, task_id="t1")
    work_off(gator)

    assert noting.written == [["results/all:t1", "outcomes/all:t1"]]


def test_a_store_without_room_for_a_result_does_not_stop_the_work(
    gator: Gator, caplog: pytest.LogCaptureFixture
) -> None:
    noting = noted(gator)
    noting.error = QueueFull("no room")
    push(gator, do, 1, task_id="t1")
    push(gator, fail, 2, task_id="t2")

    work_off(gator)

    assert gator.len() == 0
    assert "'t1'" in caplog.text
    assert failure_of(gator, "t2", 0).error_message == "2"
    with pytest.raises(UnknownTask):
        gator.result("t1", 0)


def test_an_outcome_is_read_as_it_was_noted(records: Records) -> None:
    outcome = Outcome(FAILED, 100.5, "timeout", "E: x", kept_until=110.5, token="w.1.2", push="2")
    note_outcome(records, "a/b", "c:d", outcome)

    assert outcome_of(records, "a/b", "c:d") == outcome
    assert outcome_of(records, "a", "b") is None


def test_an_outcome_without_a_result_may_be_noted(gator: Gator, ask: Ask) -> None:
    note_outcome(kept_in(gator), "all", "t1", Outcome(SUCCESS, 7.0))
    note_outcome(kept_in(gator), "all", "t2", Outcome(FAILED, 7.0, "dependency", "It needs t1"))
    note_outcome(kept_in(gator), "all", "t3", Outcome(CANCELED, 7.0))

    with pytest.raises(ResultNotKept, match="keep_result"):
        ask(gator, "t1")
    assert failure_of(gator, "t2").reason == "dependency"
    with pytest.raises(TaskCanceled):
        ask(gator, "t3")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"state":"success"}',
        b'{"state":"success","at":[]}',
        b"\xff",
        b"7",
    ],
    ids=repr,
)
def test_an_outcome_without_sense_is_none_and_nobody_waits_for_it(
    gator: Gator, value: bytes, ask: Ask
) -> None:
    kept_in(gator).set(f"outcomes/{ref('all', 't1')}", value)

    assert outcome_of(kept_in(gator), "all", "t1") is None
    with pytest.raises(ResultNotKept, match="another version"):
        ask(gator, "t1", None)


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b"\xff"], ids=repr)
def test_a_result_without_sense_is_an_error(gator: Gator, value: bytes, ask: Ask) -> None:
    keep_success(kept_in(gator), "all", "t1", 1, KEPT)
    kept_in(gator).set(f"results/{ref('all', 't1')}", value)

    with pytest.raises(ResultNotKept, match="another version"):
        ask(gator, "t1", None)


def test_what_a_newer_version_adds_to_an_outcome_is_no_obstacle() -> None:
    value = b'{"state":"success","at":1,"kept_until":2,"colour":"green"}'

    assert read_outcome(value) == Outcome("success", 1.0, kept_until=2.0)
