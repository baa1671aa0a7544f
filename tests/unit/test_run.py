"""One run of a task: its hooks, what they see, and what they can change."""

import logging
from typing import Any

import pytest

from alligator import Task
from alligator.constants import (
    CANCELED,
    DELAYED,
    FAILED,
    RETRYING,
    RUNNING,
    SUCCESS,
    WAITING,
)
from alligator.exceptions import InvalidArguments
from tests.unit import jobs


def task_of(func: Any, *args: Any, **options: Any) -> Task:
    task = Task(**options)
    task.to_call(func, *args)
    return task


def test_run_returns_the_result_and_keeps_it() -> None:
    task = task_of(jobs.add, 101, 35)

    assert task.run() == 136
    assert task.result == 136
    assert task.status == SUCCESS


def test_run_raises_what_the_function_raised() -> None:
    task = task_of(jobs.fail, "gone wrong")

    with pytest.raises(ValueError, match="gone wrong"):
        task.run()

    assert task.status == FAILED
    assert task.result is None


def test_a_task_with_nothing_to_call_cannot_run() -> None:
    with pytest.raises(InvalidArguments, match="use to_call"):
        Task().run()


def test_hooks_see_running_and_then_success() -> None:
    task_of(
        jobs.add, 1, 2, on_start=jobs.note_start, on_success=jobs.note_success, on_error=jobs.fail
    ).run()

    assert jobs.seen == [("start", RUNNING), ("success", SUCCESS, 3)]


@pytest.mark.parametrize(("retries", "status"), [(0, FAILED), (1, RETRYING)])
def test_on_error_sees_the_exception_and_whether_a_retry_follows(retries: int, status: int) -> None:
    task = task_of(
        jobs.fail,
        "gone wrong",
        retries=retries,
        on_start=jobs.note_start,
        on_success=jobs.note_success,
        on_error=jobs.note_error,
    )

    with pytest.raises(ValueError, match="gone wrong"):
        task.run()

    assert jobs.seen == [("start", RUNNING), "gone wrong", ("error", status, "gone wrong")]


def test_on_start_that_raises_fails_the_task_before_its_function() -> None:
    task = task_of(
        jobs.echo, "never", on_start=jobs.refuse_start, on_success=jobs.note_success,
        on_error=jobs.note_error,
    )  # fmt: skip

    with pytest.raises(PermissionError, match="not today"):
        task.run()

    assert task.status == FAILED
    assert jobs.seen == [("error", FAILED, "not today")]


def test_on_success_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of(
        jobs.add, 1, 2, task_id="t1", on_success=jobs.break_on_success, on_error=jobs.note_error
    )

    assert task.run() == 3

    assert task.status == SUCCESS
    assert jobs.seen == ["success hook"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "'t1'" in record.message
    assert "its hook on_success raised" in record.message
    assert record.exc_info is not None
    assert "the hook broke" in str(record.exc_info[1])


def test_on_error_that_raises_is_logged_and_hides_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of(jobs.fail, "gone wrong", task_id="t1", on_error=jobs.break_on_error)

    with pytest.raises(ValueError, match="gone wrong"):
        task.run()

    assert task.status == FAILED
    assert "'t1'" in caplog.text
    assert "the hook broke" in caplog.text


def test_a_hook_that_takes_the_wrong_arguments_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert task_of(jobs.add, 1, 2, on_success=jobs.note_start).run() == 3

    assert "takes 1 positional argument but 2 were given" in caplog.text


def test_a_task_can_run_again() -> None:
    task = task_of(jobs.fail_until, 1)
    with pytest.raises(ConnectionError):
        task.run()

    assert task.run() == "at last"
    assert task.status == SUCCESS


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("to_waiting", WAITING),
        ("to_delayed", DELAYED),
        ("to_running", RUNNING),
        ("to_success", SUCCESS),
        ("to_failed", FAILED),
        ("to_retrying", RETRYING),
        ("to_canceled", CANCELED),
    ],
)
def test_each_status_has_a_method_that_sets_it(method: str, status: int) -> None:
    task = Task()

    getattr(task, method)()

    assert task.status == status


def test_a_new_task_is_waiting_and_has_no_result() -> None:
    task = Task()

    assert (task.status, task.result, task.func) == (WAITING, None, None)
    assert (list(task.func_args), task.func_kwargs) == ([], {})


def test_the_repr_of_a_task_shows_no_arguments() -> None:
    task = task_of(jobs.echo, "hunter2", task_id="t1")

    assert repr(task).startswith("<Task 't1' calling <function echo")
    assert "hunter2" not in repr(task)
