"""The options of a task: what each may be, and what it says otherwise."""

import math
import os
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from alligator import Concurrency, Gator, Options, Task
from alligator.backends.locmem_backend import Client
from alligator.constants import DELAYED, SUCCESS, WAITING
from alligator.exceptions import AlligatorException, InvalidOption
from tests.unit import jobs
from tests.unit.conftest import Clock
from tests.unit.five_methods import FiveMethods
from tests.unit.steps import popped

# is_async


@pytest.mark.parametrize(
    ("word", "means"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        ("True", True),
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("yes", True),
        ("on", True),
        ("False", False),
        ("false", False),
        ("0", False),
        ("no", False),
        ("No", False),
        ("off", False),
        (" off\n", False),
    ],
    ids=repr,
)
def test_is_async_means_what_it_says(word: Any, means: bool) -> None:
    assert Task(is_async=word).is_async is means
    assert Task(**{"async": word}).is_async is means


@pytest.mark.parametrize(
    "word", ["", "maybe", "f", "falsch", "2", "None", None, 2, -1, 0.5, [], b"no"], ids=repr
)
def test_any_other_word_for_is_async_is_an_error_that_lists_the_words(word: Any) -> None:
    with pytest.raises(ValueError, match="is_async is True or False, or one of true, 1, yes, on"):
        Task(is_async=word)


def test_is_async_from_the_environment_decides_whether_a_task_waits(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word, status in [("False", SUCCESS), ("True", WAITING)]:
        monkeypatch.setenv("ALLIGATOR_ASYNC", word)
        with gator.options(is_async=os.environ["ALLIGATOR_ASYNC"]) as opts:
            assert opts.task(jobs.add, 1, 2).status == status


# The others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries is how many more times to try, 0 or more; not -1"),
        ({"retries": True}, "retries .* not True"),
        ({"retries": False}, "retries .* not False"),
        ({"retries": "3"}, "retries .* not '3'"),
        ({"retries": 1.0}, "retries .* not 1.0"),
        ({"retries": None}, "retries .* not None"),
        ({"task_id": ""}, "task_id '' takes 0 bytes; from 1 to 255"),
        ({"task_id": 7}, "task_id is a string, not 7"),
        ({"task_id": b"t"}, "task_id is a string"),
        ({"task_id": "a" * 256}, "takes 256 bytes"),
        ({"task_id": "é" * 128}, "takes 256 bytes"),
        ({"task_id": "a\nb"}, "control characters"),
        ({"task_id": "a\x00"}, "control characters"),
        ({"task_id": "\ud800"}, "lone surrogates"),
        ({"on_start": 5}, "on_start is a function to call, or None; not 5"),
        ({"on_success": "jobs.note"}, "on_success is a function to call"),
        ({"on_error": []}, "on_error is a function to call"),
        ({"delay_by": -1}, "delay_by is a number of seconds, from 0 to a century; not -1"),
        ({"delay_by": math.nan}, "delay_by .* not nan"),
        ({"delay_by": math.inf}, "delay_by .* not inf"),
        ({"delay_by": "5"}, "delay_by .* not '5'"),
        ({"delay_by": True}, "delay_by .* not True"),
        ({"delay_by": timedelta(seconds=5)}, "delay_by is a number of seconds"),
        ({"delay_until": math.nan}, "delay_until is a datetime, a date or a timestamp; not nan"),
        ({"delay_until": -math.inf}, "delay_until .* not -inf"),
        ({"delay_until": "tomorrow"}, "delay_until .* not 'tomorrow'"),
        ({"delay_until": True}, "delay_until .* not True"),
        ({"retrys": 3}, "A task has no option 'retrys'"),
        ({"async": False, "retrys": 3}, "A task has no option 'retrys'"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_where_it_is_given(
    gator: Gator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        gator.options(**options)
    with pytest.raises(InvalidOption, match=message):
        Task(**options)


def test_a_refused_option_is_a_value_error_and_an_error_of_ours() -> None:
    assert issubclass(InvalidOption, ValueError)
    assert issubclass(InvalidOption, AlligatorException)


@pytest.mark.parametrize("task_id", ["t", "a b", "é" * 127, "x" * 255, "🐊", "a:b/c{d}*%s"])
def test_a_task_id_may_be_any_line_of_text(gator: Gator, task_id: str) -> None:
    with gator.options(task_id=task_id) as opts:
        assert opts.task(jobs.add, 1, 2).task_id == task_id

    assert popped(gator).task_id == task_id


def test_a_task_id_is_a_new_uuid_by_default() -> None:
    ids = [Task().task_id for _ in range(100)]

    assert len(set(ids)) == 100
    assert {len(task_id) for task_id in ids} == {36}
    assert {task_id[14] for task_id in ids} == {"7"}
    assert {task_id[19] for task_id in ids} <= set("89ab")


@pytest.mark.parametrize(
    "options",
    [
        {"delay_by": 5},
        {"delay_until": 2_000_000_000},
        {"backoff": 5},
        {"priority": 1},
        {"if_exists": "raise"},
        {"if_exists": "replace"},
        {"depends_on": ["t1"]},
        {"limit": Concurrency("key", 1)},
        {"keep_result": 60},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_a_store_cannot_honour_is_refused_at_push(options: dict[str, Any]) -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    with (
        gator.options(**options) as opts,
        pytest.raises(InvalidOption, match=r"The store five:// cannot do what .* needs"),
    ):
        opts.task(jobs.add, 1, 2)

    assert gator.len() == 0


# Delays


def test_a_task_with_delay_by_waits_that_long(gator: Gator, clock: Clock) -> None:
    with gator.options(delay_by=60) as opts:
        task = opts.task(jobs.add, 1, 2)

    assert task.status == DELAYED
    assert gator.len() == 1
    clock.turn(59.9)
    assert gator.pop() is None
    clock.turn(0.2)
    assert popped(gator).result == 3


@pytest.mark.parametrize(
    "moment",
    [
        1_700_000_060,
        1_700_000_060.0,
        datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 14, 20),
        datetime(2023, 11, 15, 3, 44, 20, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
    ids=str,
)
def test_a_task_with_delay_until_waits_for_that_moment(
    gator: Gator, clock: Clock, moment: float | datetime
) -> None:
    with gator.options(delay_until=moment) as opts:
        task = opts.task(jobs.add, 1, 2)

    assert task.status == DELAYED
    clock.turn(59)
    assert gator.pop() is None
    clock.turn(1)
    assert popped(gator).result == 3


def test_a_task_waits_for_both_delays(gator: Gator, clock: Clock) -> None:
    with gator.options(delay_by=10, delay_until=clock.now + 60) as opts:
        opts.task(jobs.add, 1, 2)

    clock.turn(11)
    assert gator.pop() is None
    clock.turn(50)
    assert popped(gator).result == 3


@pytest.mark.parametrize(
    "options",
    [{"delay_by": 0}, {"delay_until": 0}, {"delay_until": 1_600_000_000}, {"delay_until": -5}],
    ids=str,
)
def test_a_moment_that_is_past_delays_nothing(gator: Gator, options: dict[str, Any]) -> None:
    with gator.options(**options) as opts:
        opts.task(jobs.add, 1, 2)

    assert popped(gator).result == 3


def test_a_delayed_task_keeps_no_other_waiting(gator: Gator, clock: Clock) -> None:
    with gator.options(delay_by=60) as opts:
        opts.task(jobs.echo, "late")
    gator.task(jobs.echo, "now")

    assert popped(gator).result == "now"
    assert gator.pop() is None
    clock.turn(60)
    assert popped(gator).result == "late"


def test_a_retry_of_a_delayed_task_does_not_wait_again(gator: Gator, clock: Clock) -> None:
    with gator.options(delay_by=60, retries=1) as opts:
        opts.task(jobs.fail_until, 1)
    clock.turn(60)
    popped(gator)

    assert popped(gator).result == "at last"


def test_a_task_that_runs_at_once_waits_for_nothing_and_leaves_nothing(gator: Gator) -> None:
    told: dict[str, Any] = {
        "delay_by": 60,
        "delay_until": 4e9,
        "expires": date(2000, 1, 1),
        "backoff": 60,
        "priority": 5,
        "limit": Concurrency("one", 1),
        "keep_result": 60,
        "if_exists": "raise",
    }
    with gator.options(task_id="t1", **told) as opts:
        opts.task(jobs.add, 0, 0)

    with gator.options(task_id="t1", is_async=False, retries=1, **told) as opts:
        assert opts.task(jobs.add, 1, 2).result == 3
        assert opts.task(jobs.fail_until, 1).result == "at last"

    assert gator.len() == 1
    assert gator.status("t1").state == "delayed"


# The context manager


def test_options_are_for_every_task_of_the_block(gator: Gator) -> None:
    with gator.options(retries=3, on_start=jobs.note_start) as opts:
        tasks = [opts.task(jobs.add, 1, 2), opts.task(jobs.echo, "x")]

    assert gator.len() == 2
    assert [task.retries for task in tasks] == [3, 3]
    assert [task.on_start for task in tasks] == [jobs.note_start] * 2
    assert tasks[0].task_id != tasks[1].task_id


def test_options_leave_other_tasks_of_the_gator_alone(gator: Gator) -> None:
    with gator.options(retries=3):
        assert gator.task(jobs.add, 1, 2).retries == 0


def test_options_let_errors_of_the_block_pass(gator: Gator) -> None:
    with pytest.raises(LookupError, match="mine"), gator.options(retries=3):
        raise LookupError("mine")


def test_options_can_be_kept_and_used_without_a_block(gator: Gator) -> None:
    careful = gator.options(retries=3)

    assert isinstance(careful, Options)
    assert careful.task(jobs.add, 1, 2).retries == 3


def test_one_task_id_for_two_tasks_queues_the_first(gator: Gator) -> None:
    with gator.options(task_id="same") as opts:
        opts.task(jobs.echo, "first")
        opts.task(jobs.echo, "second")

    assert gator.len() == 1
    assert popped(gator).result == "first"
    assert gator.pop() is None


def test_a_task_class_may_have_options_of_its_own() -> None:
    class Tagged(Task):
        def __init__(self, tag: str = "none", **options: Any) -> None:
            super().__init__(**options)
            self.tag = tag

    gator = Gator("locmem://", task_class=Tagged, backend_class=Client)

    with gator.options(tag="red", retries=1) as opts:
        task = opts.task(jobs.add, 1, 2)

    assert isinstance(task, Tagged)
    assert (task.tag, task.retries) == ("red", 1)
    with pytest.raises(InvalidOption, match="'tagg'"):
        gator.options(tagg="red")
