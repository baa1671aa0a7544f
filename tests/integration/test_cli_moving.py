"""The command ``alligator`` where it lists tasks, and moves them to another store."""

import re
from pathlib import Path

import pytest

from alligator import Gator
from alligator.testing.stores import FAR_OFF, QUEUE, drain, opened, push, take
from tests.integration import jobs
from tests.integration.test_cli import alligator, bury, refused, said, told


@pytest.fixture
def there(tmp_path: Path) -> str:
    """The DSN of the store to move to."""
    dsn = f"sqlite://{tmp_path}/there.db"
    with opened(dsn) as backend:
        backend.count(QUEUE)
    return dsn


def test_tasks_are_listed_with_their_states(dsn: str) -> None:
    gator = Gator(dsn)
    gator.task(jobs.add, 1, 2)
    with gator.options(task_id="later", delay_by=FAR_OFF + 60, priority=3) as opts:
        opts.task(jobs.add, 1, 2)

    assert re.search(r"^later +all +delayed for 1 h +3 +tests", said("list", dsn), re.MULTILINE)
    [task] = told("list", dsn, "--state", "delayed")["tasks"]
    assert (task["task_id"], task["queue"], task["priority"]) == ("later", QUEUE, 3)
    assert task["callable"] == "tests.integration.jobs.add"
    assert len(told("list", dsn, "--limit", 1)["tasks"]) == 1
    assert "The first 1; --limit N shows more." in said("list", dsn, "--limit", 1)
    assert told("list", dsn, "--state", "running")["tasks"] == []
    assert said("list", dsn, "--queue", "other") == "No tasks in queue 'other'.\n"
    gator.backend.close()


def test_all_is_moved_and_counted(dsn: str, there: str) -> None:
    bury(dsn, "x")
    with opened(dsn) as here:
        push(here, "a", "b")
        push(here, "later", delay=FAR_OFF)
        push(here, "c", to="other")

    assert said("move", dsn, there, "--dry-run") == (
        "Would move 3 waiting, 1 delayed, 1 dead letter of 2 queues; 0 running would stay.\n"
    )
    assert said("move", dsn, there, "--queue", "other") == (
        "Moved 1 waiting, 0 delayed, 0 dead letters.\n"
    )
    outcome = told("move", dsn, there)
    assert [outcome[state] for state in ("waiting", "delayed", "dead", "running")] == [2, 1, 1, 0]
    with opened(there) as target:
        assert drain(target) == ["a", "b"]
        assert target.queues() == ["all", "other"]
    assert said("move", dsn, there) == "Moved 0 waiting, 0 delayed, 0 dead letters.\n"


def test_what_runs_stays_and_is_told(dsn: str, there: str) -> None:
    with opened(dsn) as here:
        push(here, "a", "b")
        take(here)

        ran = alligator("move", dsn, there)

    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout == (
        "Moved 1 waiting, 0 delayed, 0 dead letters.\n"
        "1 task runs, and stays: run this again when it is done.\n"
    )


def test_to_itself_nothing_is_moved(dsn: str) -> None:
    with opened(dsn) as here:
        push(here, "a")
        assert "Both are the same store" in refused("move", dsn, dsn)
        assert drain(here) == ["a"]


def test_a_dry_run_is_refused_as_the_move_would_be(dsn: str, there: str) -> None:
    gator = Gator(dsn)
    needed = Gator(dsn, "other").task(jobs.add, 1, 2)
    with gator.options(task_id="needs it", depends_on=[needed]) as opts:
        opts.task(jobs.add, 1, 2)
    gator.backend.close()

    assert "'needs it' of queue 'all' cannot be moved" in refused(
        "move", dsn, there, "--queue", "all", "--dry-run"
    )
    assert "Of the others, 1 would stay:\n'needs it' of queue 'all' stays: it depends on" in said(
        "move", dsn, there, "--queue", "all", "--dry-run", "--skip"
    )
    with opened(there) as target:
        assert target.queues() == []
