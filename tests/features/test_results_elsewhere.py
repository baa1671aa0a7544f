"""Results of stores that keep none: with ``results=`` they are waited for as everywhere."""

from collections.abc import Iterator
from operator import add
from pathlib import Path

import pytest

from alligator import Gator, Worker
from alligator.exceptions import InvalidOption, NotFinished, TaskFailed
from alligator.testing.running import later
from alligator.testing.stores import LONG
from tests.support.kinds import empty_store


@pytest.fixture(params=["beanstalk", "sqs"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store of each kind that keeps no records."""
    return empty_store(request.param, request)


@pytest.fixture
def gator(dsn: str, tmp_path: Path) -> Iterator[Gator]:
    gator = Gator(dsn, results=f"sqlite://{tmp_path}/results.db")
    yield gator
    gator.backend.close()


def test_who_waits_for_a_task_is_told_what_it_returned(gator: Gator) -> None:
    with gator.options(keep_result=60, retries=1, task_id="mine") as opts:
        task = opts.task(add, 1, 2)
    with pytest.raises(NotFinished):
        task.wait(0)

    with later(lambda: Worker(gator, max_tasks=1).run_forever()):
        assert task.wait(LONG) == 3

    assert task.task_id != "mine"
    assert gator.result(task.task_id, 0) == 3
    assert gator.status(task.task_id).state == "succeeded"


def test_who_waits_for_a_task_is_told_that_it_failed(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        task = opts.task(int, "no number")

    with (
        later(lambda: Worker(gator, max_tasks=1).run_forever()),
        pytest.raises(TaskFailed, match="no number") as caught,
    ):
        task.wait(LONG)

    assert caught.value.error_type == "ValueError"
    assert gator.status(task.task_id).state == "failed"


def test_what_is_queued_cannot_be_asked_for(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        task = opts.task(add, 1, 2)

    with pytest.raises(
        InvalidOption,
        match=rf"The store {gator.dsn.scheme}://.* what status\(\) needs: use a store that can \(locmem",
    ):
        gator.status(task.task_id)


def test_without_results_they_are_refused(dsn: str) -> None:
    gator = Gator(dsn)

    with (
        gator.options(keep_result=60) as opts,
        pytest.raises(
            InvalidOption, match=r"name another store for results \(Gator\(\.\.\., results="
        ),
    ):
        opts.task(add, 1, 2)

    assert gator.len() == 0
    gator.backend.close()
