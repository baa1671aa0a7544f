"""What the Gator's methods return and raise, and what is in the queue afterwards."""

import json
from typing import Any

import pytest

from alligator import ALL, Gator, Task
from alligator.backends.base import MAX_NAME_BYTES, Counts
from alligator.constants import CANCELED, FAILED, RETRYING, RUNNING, SUCCESS, WAITING
from alligator.exceptions import (
    InvalidOption,
    UnknownCallableError,
    UnknownModuleError,
    UnreadableTask,
)
from tests.unit import jobs
from tests.unit.conftest import Clock
from tests.unit.steps import dead_letter, note_of, payload_of, popped

# task, push, len


def test_a_task_is_queued_and_not_run(gator: Gator) -> None:
    task = gator.task(jobs.echo, "later")

    assert isinstance(task, Task)
    assert (task.status, task.result, task.func) == (WAITING, None, jobs.echo)
    assert jobs.seen == []
    assert gator.len() == 1


def test_push_returns_the_very_task(gator: Gator) -> None:
    task = Task(task_id="t1")

    assert gator.push(task, jobs.add, 1, b=2) is task
    assert popped(gator).result == 3


def test_push_of_a_task_that_is_not_async_runs_it(gator: Gator) -> None:
    task = Task(is_async=False)

    assert gator.push(task, jobs.add, 1, b=2) is task
    assert (task.status, task.result) == (SUCCESS, 3)
    assert gator.len() == 0


def test_the_same_id_again_changes_nothing_while_it_is_queued(gator: Gator) -> None:
    gator.push(Task(task_id="t1"), jobs.echo, "first")
    gator.push(Task(task_id="t1"), jobs.echo, "second")

    assert gator.len() == 1
    assert popped(gator).result == "first"
    gator.push(Task(task_id="t1"), jobs.echo, "third")
    assert popped(gator).result == "third"


def test_len_counts_what_no_worker_has_taken(gator: Gator) -> None:
    assert gator.len() == 0
    gator.task(jobs.add, 1, 2)
    with gator.options(delay_by=60) as opts:
        opts.task(jobs.add, 1, 2)
    assert gator.len() == 2

    popped(gator)

    assert gator.len() == 1


def test_queues_do_not_mix(gator: Gator) -> None:
    other = Gator("locmem://", queue_name="other", backend_class=lambda _: gator.backend)
    gator.task(jobs.echo, "all")
    other.task(jobs.echo, "other")

    assert popped(other).result == "other"
    assert other.pop() is None
    assert gator.len() == 1


# pop


def test_pop_runs_the_first_task_and_returns_it(gator: Gator) -> None:
    pushed = gator.task(jobs.add, 1, 2)

    task = popped(gator)

    assert task.task_id == pushed.task_id
    assert (task.status, task.result) == (SUCCESS, 3)
    assert gator.pop() is None
    assert gator.backend.count(ALL).running == 0


def test_pop_of_an_empty_queue_is_none(gator: Gator) -> None:
    assert gator.pop() is None


def test_pop_is_first_in_first_out(gator: Gator) -> None:
    for number in range(20):
        gator.task(jobs.echo, number)

    assert [popped(gator).result for _ in range(20)] == list(range(20))


def test_a_popped_task_is_held_while_it_runs(gator: Gator) -> None:
    jobs.watched.append(lambda: gator.backend.count(ALL))
    gator.task(jobs.look)

    popped(gator)

    assert jobs.seen == [Counts(waiting=0, running=1)]


def test_pop_of_a_failed_task_raises_its_own_exception_and_keeps_a_dead_letter(
    gator: Gator,
) -> None:
    gator.task(jobs.fail, "gone wrong")

    with pytest.raises(ValueError, match="gone wrong"):
        gator.pop()

    assert gator.len() == 0
    assert gator.pop() is None
    note = note_of(gator)
    assert note["reason"] == "failed"
    assert note["error"] == "ValueError: gone wrong"


def test_pop_of_a_task_with_retries_left_returns_it_as_retrying(gator: Gator) -> None:
    with gator.options(retries=2) as opts:
        opts.task(jobs.fail_until, 2)

    first, second, third = popped(gator), popped(gator), popped(gator)

    assert [task.status for task in (first, second, third)] == [RETRYING, RETRYING, SUCCESS]
    assert [task.retries for task in (first, second, third)] == [1, 0, 0]
    assert third.result == "at last"


def test_the_last_failure_of_a_task_is_raised(gator: Gator) -> None:
    with gator.options(retries=2, on_error=jobs.note_error) as opts:
        opts.task(jobs.fail)
    assert popped(gator).status == RETRYING
    assert popped(gator).status == RETRYING

    with pytest.raises(ValueError, match="broken"):
        gator.pop()

    errors = [entry for entry in jobs.seen if entry != "broken"]
    assert errors == [
        ("error", RETRYING, "broken"),
        ("error", RETRYING, "broken"),
        ("error", FAILED, "broken"),
    ]
    assert note_of(gator)["reason"] == "failed"


def test_a_retried_task_joins_the_end_of_the_queue(gator: Gator) -> None:
    with gator.options(retries=1) as opts:
        opts.task(jobs.fail_until, 1)
    gator.task(jobs.echo, "next")

    popped(gator)

    assert [popped(gator).result, popped(gator).result] == ["next", "at last"]


def test_every_attempt_is_given_the_arguments_anew(gator: Gator) -> None:
    with gator.options(retries=2) as opts:
        opts.task(jobs.use_up, ["a", "b"], options={"c": 1})
    popped(gator)
    popped(gator)

    with pytest.raises(ConnectionError, match="used up"):
        gator.pop()

    assert jobs.seen == [(["a", "b"], {"c": 1})] * 3
    assert Task.deserialize(dead_letter(gator).body).func_args == (["a", "b"],)


def test_a_retry_calls_by_the_name_that_the_payload_has(gator: Gator) -> None:
    payload = {"task_id": "t1", "retries": 1, "module": "tests.unit.jobs", "callable": "increment"}
    gator.backend.push(ALL, "t1", json.dumps(payload | {"args": ["no number"]}))
    assert popped(gator).status == RETRYING

    with pytest.raises(TypeError, match="unsupported operand"):
        gator.pop()

    assert Task.deserialize(dead_letter(gator).body).func is jobs.increment


def test_on_error_may_change_what_the_next_attempt_is_given(gator: Gator) -> None:
    with gator.options(retries=1, on_error=jobs.shorten) as opts:
        opts.task(jobs.fail, "gone wrong")
    popped(gator)

    with pytest.raises(ValueError, match=r"^wrong$"):
        gator.pop()


def test_on_error_may_raise_the_retries(gator: Gator) -> None:
    with gator.options(on_error=jobs.grant_one_more) as opts:
        opts.task(jobs.fail)
    assert popped(gator).status == RETRYING

    with pytest.raises(ValueError, match="broken"):
        gator.pop()

    assert jobs.seen == ["broken", ("error", FAILED, 0), "broken", ("error", FAILED, 0)]


def test_on_start_that_raises_is_retried_as_any_failure(gator: Gator) -> None:
    with gator.options(retries=1, on_start=jobs.refuse_start) as opts:
        opts.task(jobs.echo, "never")

    assert popped(gator).status == RETRYING
    with pytest.raises(PermissionError, match="not today"):
        gator.pop()
    assert jobs.seen == []


def test_a_task_that_leaves_the_program_has_failed(gator: Gator) -> None:
    gator.task(jobs.leave)

    with pytest.raises(SystemExit):
        gator.pop()

    assert note_of(gator)["error"] == "SystemExit: 3"


def test_ctrl_c_gives_the_task_back_and_is_no_failure(gator: Gator) -> None:
    with gator.options(retries=1, on_error=jobs.note_error) as opts:
        opts.task(jobs.interrupt)

    with pytest.raises(KeyboardInterrupt):
        gator.pop()

    assert gator.len() == 1
    [reservation] = gator.backend.reserve([ALL], "worker").reservations
    assert reservation.deliveries == 1
    assert Task.deserialize(reservation.body).retries == 1


def test_a_retry_that_cannot_be_queued_is_a_dead_letter(
    gator: Gator, caplog: pytest.LogCaptureFixture
) -> None:
    with gator.options(retries=5, on_error=jobs.change_arguments) as opts:
        opts.task(jobs.fail, "gone wrong")

    with pytest.raises(ValueError, match="gone wrong"):
        gator.pop()

    assert gator.len() == 0
    assert note_of(gator)["error"] == "ValueError: gone wrong"
    assert "cannot be tried again" in caplog.text
    assert "of type set" in caplog.text


def test_a_popped_task_runs_even_if_it_was_pushed_as_not_async(gator: Gator) -> None:
    task = Task(is_async=False, retries=1, task_id="t1")
    task.to_call(jobs.fail_until, 1)
    gator.backend.push(ALL, "t1", task.serialize())

    assert popped(gator).status == RETRYING
    assert popped(gator).result == "at last"


# get


def test_get_runs_one_task_by_its_id(gator: Gator) -> None:
    gator.task(jobs.echo, "first")
    second = gator.task(jobs.echo, "second")

    task = gator.get(second.task_id)

    assert task is not None
    assert (task.status, task.result, task.task_id) == (SUCCESS, "second", second.task_id)
    assert gator.len() == 1
    assert gator.get(second.task_id) is None


def test_get_of_an_unknown_id_is_none(gator: Gator) -> None:
    gator.task(jobs.echo, "first")

    assert gator.get("a-specific-uuid-here") is None
    assert gator.len() == 1


def test_get_does_not_wait_for_a_tasks_time(gator: Gator) -> None:
    with gator.options(delay_by=3600) as opts:
        delayed = opts.task(jobs.echo, "now")

    task = gator.get(delayed.task_id)

    assert task is not None
    assert task.result == "now"
    assert gator.len() == 0


def test_get_of_a_failing_task_raises_or_comes_back_as_retrying(gator: Gator) -> None:
    with gator.options(retries=1, task_id="t1") as opts:
        opts.task(jobs.fail)

    task = gator.get("t1")

    assert task is not None
    assert task.status == RETRYING
    with pytest.raises(ValueError, match="broken"):
        gator.get("t1")
    assert gator.len() == 0


# cancel


def test_cancel_takes_a_task_out_and_returns_it(gator: Gator) -> None:
    pushed = gator.task(jobs.add, 18, 9)

    task = gator.cancel(pushed.task_id)

    assert task is not None
    assert (task.status, task.task_id, task.func) == (CANCELED, pushed.task_id, jobs.add)
    assert list(task.func_args) == [18, 9]
    assert gator.len() == 0
    assert gator.pop() is None


def test_cancel_takes_out_a_delayed_task(gator: Gator, clock: Clock) -> None:
    with gator.options(delay_by=5, task_id="t1") as opts:
        opts.task(jobs.echo, "never")

    assert gator.cancel("t1") is not None
    clock.turn(10)
    assert gator.pop() is None


def test_cancel_of_what_is_not_queued_is_none(gator: Gator) -> None:
    pushed = gator.task(jobs.add, 18, 9)
    popped(gator)

    assert gator.cancel(pushed.task_id) is None
    assert gator.cancel("unknown") is None


def test_a_canceled_task_can_be_pushed_again(gator: Gator) -> None:
    pushed = gator.task(jobs.add, 18, 9)
    task = gator.cancel(pushed.task_id)
    assert task is not None

    gator.push(task, jobs.add, 1, 2)

    again = popped(gator)
    assert (again.task_id, again.result) == (pushed.task_id, 3)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("no task", UnreadableTask),
        ('{"task_id":"t1","retries":0,"module":"no.such","callable":"x"}', UnknownModuleError),
        ('{"task_id":"t1","retries":0,"module":"math","callable":"x"}', UnknownCallableError),
    ],
)
def test_cancel_of_what_cannot_be_read_says_so_and_has_canceled_it(
    gator: Gator, body: str, error: type[Exception]
) -> None:
    gator.backend.push(ALL, "t1", body)

    with pytest.raises(error):
        gator.cancel("t1")

    assert gator.len() == 0


# execute


def test_execute_runs_a_task_and_returns_it(gator: Gator) -> None:
    task = Task(is_async=False, retries=5)
    task.to_call(jobs.add, 101, 35)

    assert gator.execute(task) is task
    assert (task.status, task.result, task.retries) == (SUCCESS, 136, 5)


def test_execute_retries_on_the_spot_what_is_not_async(gator: Gator) -> None:
    task = Task(is_async=False, retries=3, on_start=jobs.note_start, on_error=jobs.note_error)
    task.to_call(jobs.fail_until, 2)

    gator.execute(task)

    assert (task.status, task.result, task.retries) == (SUCCESS, "at last", 1)
    assert gator.len() == 0
    attempt, failure = ("start", RUNNING), ("error", RETRYING, "not yet")
    assert jobs.seen == [attempt, "try", failure, attempt, "try", failure, attempt, "try"]


def test_execute_raises_the_last_failure_of_what_is_not_async(gator: Gator) -> None:
    task = Task(is_async=False, retries=2)
    task.to_call(jobs.fail, "gone wrong")

    with pytest.raises(ValueError, match="gone wrong"):
        gator.execute(task)

    assert (task.status, task.retries) == (FAILED, 0)
    assert jobs.seen == ["gone wrong"] * 3
    assert gator.backend.dead(ALL) == []  # the caller has the exception


def test_execute_queues_again_what_is_async(gator: Gator) -> None:
    task = Task(retries=1, task_id="t1")
    task.to_call(jobs.fail_until, 1)

    assert gator.execute(task) is task
    assert (task.status, task.retries) == (RETRYING, 0)
    assert gator.len() == 1
    again = popped(gator)
    assert (again.task_id, again.result) == ("t1", "at last")


def test_execute_raises_the_last_failure_of_what_is_async(gator: Gator) -> None:
    task = Task()
    task.to_call(jobs.fail)

    with pytest.raises(ValueError, match="broken"):
        gator.execute(task)

    assert task.status == FAILED
    assert gator.len() == 0


@pytest.mark.parametrize("leave", [jobs.interrupt, jobs.leave])
def test_execute_lets_a_way_out_of_the_program_pass(gator: Gator, leave: Any) -> None:
    task = Task(is_async=False, retries=3)
    task.to_call(leave)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        gator.execute(task)

    assert task.retries == 3


def test_execute_with_on_error_that_raises_the_retries(gator: Gator) -> None:
    task = Task(is_async=False, on_error=jobs.grant_one_more)
    task.to_call(jobs.fail)

    with pytest.raises(ValueError, match="broken"):
        gator.execute(task)

    assert jobs.seen.count("broken") == 2


# The Gator itself


@pytest.mark.parametrize(
    "name", ["", "a\nb", "\x00", "x" * (MAX_NAME_BYTES + 1), "\ud800", 7, None]
)
def test_a_queue_name_that_some_store_could_not_carry_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="queue_name"):
        Gator("locmem://", queue_name=name)


@pytest.mark.parametrize("name", ["all", "test_all", "a b", "{x}", "*", "q:1/2", "é" * 100])
def test_a_queue_name_may_be_any_line_of_text(name: str) -> None:
    gator = Gator("locmem://", queue_name=name)
    gator.task(jobs.add, 1, 2)

    assert popped(gator).result == 3


def test_the_repr_of_a_gator_names_store_and_queue() -> None:
    assert repr(Gator("locmem://", queue_name="mail")) == "<Gator 'locmem://', queue 'mail'>"


def test_a_task_class_makes_the_tasks_and_reads_them() -> None:
    class Marked(Task):
        pass

    gator = Gator("locmem://", task_class=Marked)
    assert type(gator.task(jobs.add, 1, 2)) is Marked
    assert type(popped(gator)) is Marked
    task = gator.cancel(gator.task(jobs.add, 1, 2).task_id)
    assert type(task) is Marked


def test_a_task_class_may_write_bytes_and_loses_nothing(gator: Gator) -> None:
    class Reversed(Task):
        def serialize(self) -> bytes:
            text = super().serialize()
            assert isinstance(text, str)
            return text.encode()[::-1]

        @classmethod
        def deserialize(cls, data: str | bytes) -> "Reversed":
            assert isinstance(data, bytes)
            return super().deserialize(data[::-1])

    gator = Gator("locmem://", task_class=Reversed)
    with gator.options(retries=1, on_error=jobs.note_error) as opts:
        opts.task(jobs.fail_until, 1)

    assert popped(gator).status == RETRYING
    assert popped(gator).result == "at last"


def test_each_memory_gator_is_a_store_of_its_own() -> None:
    one, other = Gator("locmem://"), Gator("locmem://")
    one.task(jobs.add, 1, 2)

    assert (one.len(), other.len()) == (1, 0)


def test_a_refused_task_leaves_no_trace(gator: Gator) -> None:
    task = Task(task_id="t1")

    with pytest.raises(ValueError, match="Argument 1"):
        gator.push(task, jobs.echo, float("nan"))

    assert gator.len() == 0
    assert gator.push(task, jobs.echo, 1.5) is task
    assert payload_of(popped(gator))["args"] == [1.5]


@pytest.mark.parametrize("task_id", ["", "a\0b", "a\nb", "a\ud800", "x" * 256, 5, None], ids=ascii)
@pytest.mark.parametrize("call", ["get", "cancel", "status", "result", "unschedule"])
def test_what_is_no_id_is_asked_of_no_store(call: str, task_id: Any) -> None:
    """Each would answer in its own way: that there is none, that it will not, or with a UnicodeError."""
    gator = Gator("locmem://")

    with pytest.raises(InvalidOption):
        getattr(gator, call)(task_id)
