"""delay_by, delay_until and expires: when a task may start."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from alligator import Gator, Snooze
from alligator.backends.base import NEVER
from alligator.constants import DELAYED
from alligator.exceptions import InvalidOption, TaskFailed
from alligator.testing.stores import let_pass
from tests.features.work import do, done, work_off

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6)
FAR_OFF = datetime(2040, 5, 6, 7, 8, 9)


def due_at(gator: Gator, task_id: str) -> float:
    found = gator.backend.find(gator.queue_name, task_id)
    assert found is not None
    return found.due_at


@pytest.mark.parametrize(
    ("moment", "timestamp"),
    [
        (2_220_000_000, 2_220_000_000.0),
        (2_220_000_000.5, 2_220_000_000.5),
        (FAR_OFF, FAR_OFF.replace(tzinfo=UTC).timestamp()),
        (
            FAR_OFF.replace(tzinfo=timezone(timedelta(hours=2))),
            FAR_OFF.replace(tzinfo=UTC).timestamp() - 7200,
        ),
        (date(2040, 5, 6), datetime(2040, 5, 6, tzinfo=UTC).timestamp()),
    ],
    ids=["int", "float", "naive", "aware", "date"],
)
def test_a_task_is_delayed_until_a_moment_however_it_is_told(
    gator: Gator, moment: Any, timestamp: float
) -> None:
    with gator.options(delay_until=moment) as opts:
        task = opts.task(do, 1)

    assert task.status == DELAYED
    assert due_at(gator, task.task_id) == timestamp
    work_off(gator)
    assert done == []


@pytest.mark.parametrize("moment", [0, LONG_AGO, date(2001, 2, 3), 1_000_000_000.0], ids=str)
def test_a_moment_that_is_past_delays_nothing(gator: Gator, moment: Any) -> None:
    with gator.options(delay_until=moment) as opts:
        opts.task(do, 1)

    work_off(gator)

    assert done == [1]


def test_a_task_that_was_not_started_in_time_is_a_dead_letter(gator: Gator) -> None:
    with gator.options(expires=0.05) as opts:
        late = opts.task(do, "late")
    with gator.options(expires=600) as opts:
        opts.task(do, "in time")
    with gator.options(expires=LONG_AGO, keep_result=60) as opts:
        never = opts.task(do, "never")
    let_pass(gator.backend, 0.1)

    work_off(gator)

    assert done == ["in time"]
    status = gator.status(late.task_id)
    assert (status.state, status.reason) == ("failed", "expired")
    with pytest.raises(TaskFailed, match="expired") as caught:
        never.wait(0)
    assert caught.value.reason == "expired"


def put_off(until: int) -> str:
    """Snooze so many times."""
    done.append("looked")
    if len(done) <= until:
        raise Snooze(0.02)
    return "ran"


def test_a_task_may_put_itself_off_and_no_retry_is_counted(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        task = opts.task(put_off, 2)

    for _ in range(3):
        work_off(gator)
        let_pass(gator.backend, 0.04)

    assert done == ["looked"] * 3
    assert task.wait(0) == "ran"


def test_what_expires_after_a_retry_is_not_started_again(gator: Gator) -> None:
    with gator.options(expires=3, retries=5, backoff=1000) as opts:
        task = opts.task(put_off, 5)
    work_off(gator)
    let_pass(gator.backend, 3.1)
    gator.backend.reschedule(gator.queue_name, [task.task_id])

    work_off(gator)

    assert done == ["looked"]
    assert gator.status(task.task_id).reason == "expired"


@pytest.mark.parametrize("options", [{"expires": 0}, {"expires": -1}, {"expires": "x"}], ids=str)
def test_an_expiry_that_makes_no_sense_is_refused(gator: Gator, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="expires"):
        gator.options(**options)


def test_delayed_for_ever_means_until_someone_says_otherwise(gator: Gator) -> None:
    with gator.options(delay_by=3600) as opts:
        task = opts.task(do, 1)
    gator.backend.reschedule(gator.queue_name, [task.task_id], NEVER)
    assert gator.status(task.task_id).due_at is None

    assert gator.backend.reschedule(gator.queue_name, [task.task_id]) == [True]
    work_off(gator)

    assert done == [1]


def test_no_skew_of_a_producers_clock_moves_a_task(
    shared_gator: Gator, monkeypatch: pytest.MonkeyPatch, gators: Callable[..., Gator]
) -> None:
    if shared_gator.dsn.scheme == "sqlite":
        pytest.skip("processes of one machine share its clock")
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    with gators().options(delay_by=0.05, expires=600) as opts:
        opts.task(do, 1)
    monkeypatch.undo()
    let_pass(shared_gator.backend, 0.1)

    work_off(shared_gator)

    assert done == [1]
