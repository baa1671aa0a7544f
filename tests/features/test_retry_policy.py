"""backoff, retry_on, give_up_on, Retry and Snooze; and what an attempt knows of those before it."""

from typing import Any

import pytest

from alligator import Gator, Retry, Task, current_task
from alligator.exceptions import InvalidOption, UnknownCallableError
from tests.features.work import done, fail, work_off


class Passing(Exception):
    """Another attempt may mend it."""


class Hopeless(Passing):
    """None will."""


def raising(kind: str) -> None:
    """Note the attempt, and raise."""
    done.append(current_task().attempt)
    raise {"passing": Passing, "hopeless": Hopeless, "other": KeyError}[kind](kind)


def look_back() -> list[dict[str, Any]]:
    """Fail twice; then return what went before."""
    running = current_task()
    done.append((running.attempt, running.retries, len(running.history)))
    if running.attempt < 3:
        raise ValueError(f"attempt {running.attempt}")
    return [dict(entry) for entry in running.history]


def in_a_minute() -> None:
    """Ask to be tried again in a minute."""
    raise Retry("busy", delay=60)


def at_once() -> None:
    """Ask to be tried again as the backoff says; there is none."""
    done.append("tried")
    raise Retry


@pytest.mark.parametrize(
    ("kind", "attempts"), [("passing", [1, 2, 3]), ("hopeless", [1]), ("other", [1])]
)
def test_only_what_a_retry_may_mend_is_tried_again(
    gator: Gator, kind: str, attempts: list[int]
) -> None:
    with gator.options(retries=2, retry_on=[Passing], give_up_on=Hopeless) as opts:
        task = opts.task(raising, kind)

    work_off(gator)

    assert done == attempts
    assert gator.status(task.task_id).state == "failed"


def test_hooks_see_that_there_is_no_retry_when_it_is_given_up(gator: Gator) -> None:
    with gator.options(retries=2, give_up_on=Hopeless, on_error=note_status) as opts:
        opts.task(raising, "hopeless")

    work_off(gator)

    assert done == [1, 2]  # the attempt, and FAILED


def note_status(task: Task, err: BaseException) -> None:
    """Note the status that a hook sees."""
    done.append(task.status)


def test_an_attempt_sees_what_went_before(gator: Gator) -> None:
    with gator.options(retries=5, keep_result=60) as opts:
        task = opts.task(look_back)

    work_off(gator)

    assert done == [(1, 5, 0), (2, 4, 1), (3, 3, 2)]
    before = task.wait(0)
    assert [entry["attempt"] for entry in before] == [1, 2]
    assert [entry["error"] for entry in before] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
    ]


def test_retries_of_many_that_failed_together_are_spread(gator: Gator) -> None:
    # A limit, too: one whose wait is over soon may fail once more meanwhile.
    with gator.batch(retries=9, backoff=100_000, max_backoff=100_000) as batch:
        tasks = [batch.task(fail) for _ in range(300)]
    work_off(gator)
    now = gator.backend.now()

    waits = sorted((gator.status(task.task_id).due_at or now) - now for task in tasks)

    assert waits[-1] <= 100_000
    # Full jitter: anywhere between nothing and the whole. A fifth of it is what is asked for at least.
    assert waits[270] - waits[30] > 20_000
    assert gator.status(tasks[0].task_id).state == "retrying"


def test_a_backoff_doubles_up_to_its_limit() -> None:
    task = Task(retries=9, backoff=10, max_backoff=35)
    longest: list[float] = []
    for attempt in range(1, 6):
        task.attempt = attempt
        longest.append(max(task.wait_before_retry(ValueError()) for _ in range(400)))

    for wait, limit in zip(longest, [10, 20, 35, 35, 35], strict=True):
        assert 0.9 * limit < wait <= limit


def test_a_task_may_say_when_it_is_to_be_tried_again(gator: Gator) -> None:
    with gator.options(retries=1, retry_on=[Passing]) as opts:
        task = opts.task(in_a_minute)
    work_off(gator)

    status = gator.status(task.task_id)

    assert (status.state, status.attempt) == ("retrying", 2)
    assert 55 < (status.due_at or 0) - gator.backend.now() <= 60
    assert "busy" in status.history[0]["error"]


def test_asking_for_a_retry_counts_as_one(gator: Gator) -> None:
    with gator.options(retries=2) as opts:
        task = opts.task(at_once)

    work_off(gator)

    assert done == ["tried"] * 3
    assert gator.status(task.task_id).state == "failed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backoff": 0}, "backoff is a number of seconds above 0"),
        ({"backoff": "fast"}, "backoff is a number of seconds"),
        ({"max_backoff": -1}, "max_backoff is a number of seconds"),
        ({"retry_on": "ValueError"}, "retry_on lists types of exceptions"),
        ({"give_up_on": [ValueError, 7]}, "give_up_on lists types of exceptions; 7 is none"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"priority": 1000}, "priority is a whole number from -100 to 100"),
        ({"keep_result": 0}, "keep_result is a number of seconds above 0"),
        ({"limit": "api"}, "limit is a Concurrency or a Rate"),
        ({"if_exists": "ignore"}, 'if_exists is "raise", "skip" or "replace"'),
        ({"depends_on": [7]}, "depends_on lists tasks, or their ids; 7 is neither"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_by_name(
    gator: Gator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        gator.options(**options)


def test_a_type_that_no_worker_could_import_is_refused(gator: Gator) -> None:
    class Local(Exception):
        pass

    with pytest.raises(UnknownCallableError, match="Local"):
        gator.options(retry_on=[Local])


def test_a_retry_waits_in_the_store_and_not_in_the_worker(gator: Gator) -> None:
    with gator.options(retries=1, backoff=1000) as opts:
        task = opts.task(fail, "slow")
    gator.task(fail, "other")
    work_off(gator)
    assert sorted(done) == ["other", "slow"]
    gator.backend.reschedule(gator.queue_name, [task.task_id])

    work_off(gator)

    assert sorted(done) == ["other", "slow", "slow"]


def test_a_retry_that_is_told_seconds_for_a_reason_says_how_it_is_meant() -> None:
    with pytest.raises(InvalidOption, match=r"Retry\(delay=60\)"):
        Retry(60)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
