"""latergator on beanstalkd, where a process holds its tasks by a connection of its own."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alligator import Gator
from alligator.backends.base import Counts
from alligator.commands.letters import Story
from alligator.testing.stores import opened, records_of
from tests.integration import jobs
from tests.integration.scenes import BEFORE_LEASE, BEHIND, SHORT, Scene, kill, played, until
from tests.support.beanstalkd import Beanstalkd
from tests.support.kinds import empty_store


@pytest.fixture
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store; tasks pushed there are handed out for 3 s at a time, or as a test asks."""
    return f"{empty_store('beanstalk', request)}?ttr={getattr(request, 'param', 3)}"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Beanstalkd]:
    """A server for one test, to be killed and started again."""
    with Beanstalkd.installed(tmp_path) as server:
        yield server


@pytest.fixture
def lost_scene(own_server: Beanstalkd, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose store is that server."""
    with played(own_server.dsn, tmp_path) as scene:
        yield scene


def test_a_task_runs_is_retried_and_is_buried_under_the_id_that_its_push_told(scene: Scene) -> None:
    scene.push("fine")
    failing = scene.push("fails", jobs.fail, "plain", retries=2)

    program = scene.latergator("--burst")

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["fine"]
    assert scene.journal.names("start").count("fails") == 3
    [letter] = scene.dead
    assert letter.task_id == failing.task_id != "fails"
    assert json.loads(letter.body)["task_id"] == "fails"
    assert json.loads(letter.note)["message"] == "plain"
    assert scene.counts == Counts(dead=1)


def test_a_task_of_several_leases_starts_once_while_others_are_hungry(scene: Scene) -> None:
    scene.push("long", jobs.work, 8)

    program = scene.latergator("--workers", "2")

    assert scene.finished("long").at - scene.started("long").at >= 8
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert scene.journal.names("start") == ["long"]
    assert program.stderr == ""


def test_a_worker_alone_keeps_its_lease_by_a_thread(scene: Scene) -> None:
    scene.push("long", jobs.work, 5)
    for _ in range(2):  # one of them is hungry
        scene.worker()

    scene.finished("long")

    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert scene.journal.names("start") == ["long"]


@pytest.mark.parametrize("dsn", [30], indirect=True)
def test_the_task_of_a_killed_child_starts_again_at_once(scene: Scene) -> None:
    program = scene.latergator("--workers", "2")
    scene.push_gated("t1")
    first = scene.started("t1")

    killed_at = kill(first.pid)
    again = scene.started("t1", 2)
    scene.open("t1")

    scene.finished("t1")
    assert again.at - killed_at < BEFORE_LEASE  # and not when its lease would have ended
    assert again.pid != first.pid
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert "SIGKILL" in program.stderr


def test_a_task_that_kills_its_process_is_buried_after_three_starts(scene: Scene) -> None:
    scene.push_many(*SHORT)
    bad = scene.push("bad", jobs.end_process)
    scene.push_many(*BEHIND)

    assert scene.latergator("--burst").wait() == 0

    assert scene.journal.names("start").count("bad") == 3
    assert sorted(set(scene.journal.names("finish"))) == sorted([*SHORT, *BEHIND])
    [letter] = scene.dead
    assert letter.task_id == bad.task_id
    assert json.loads(letter.note)["reason"] == "poison"
    assert scene.counts == Counts(dead=1)


def test_how_a_process_died_is_told_if_there_is_a_store_for_results(scene: Scene) -> None:
    results = f"sqlite://{scene.folder}/results.db"
    scene.push("bad", jobs.segfault)

    assert scene.latergator("--burst", "--results", results).wait() == 0

    [letter] = scene.dead
    death = Story.of(letter).death
    assert death is not None
    assert (death.signal, death.stack.splitlines()[-1]) == ("SIGSEGV", "Segmentation fault")
    with opened(results) as kept_in:
        assert records_of(kept_in).list("deaths") == {}


def test_where_nothing_is_kept_it_is_logged_how_a_process_died(scene: Scene) -> None:
    scene.push("bad", jobs.segfault)

    program = scene.latergator("--burst")

    assert program.wait() == 0
    assert Story.of(scene.dead[0]).death is None
    assert program.stderr.count("in segfault\n") == 3


@pytest.mark.parametrize("dsn", [30], indirect=True)
def test_what_a_lost_tree_of_processes_held_runs_elsewhere_at_once(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    lost = scene.latergator("--workers", "2")
    scene.started("long")
    other = scene.latergator()
    other.says("starting")

    killed_at = lost.kill_all()
    again = scene.started("long", 2)
    scene.open("long")

    scene.finished("long")
    assert again.at - killed_at < BEFORE_LEASE
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert sorted(set(scene.journal.names("finish"))) == sorted([*SHORT, "long", *BEHIND])


def test_a_graceful_stop_finishes_what_runs_and_gives_back_the_rest_uncounted(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    program = scene.latergator()
    scene.started("long")

    program.signal(signal.SIGTERM)
    until(lambda: scene.counts == Counts(waiting=len(BEHIND), running=1), "the rest is given back")
    scene.open("long")

    assert program.wait() == 0
    assert scene.journal.names("finish").count("long") == 1
    assert sorted(scene.deliveries().values()) == [1] * len(BEHIND)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_what_outlasts_the_grace_goes_back_uncounted(scene: Scene, threads: str) -> None:
    scene.push_gated("t1")
    for deploy in range(1, 4):
        program = scene.latergator("--grace", "0.2", "--threads", threads)
        scene.started("t1", deploy)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0

    assert list(scene.deliveries().values()) == [1]


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_second_signal_gives_back_at_once_and_uncounted(scene: Scene, threads: str) -> None:
    scene.push_gated("t1")
    for time_told in range(1, 4):
        program = scene.latergator("--threads", threads)
        scene.started("t1", time_told)
        program.signal(signal.SIGTERM)
        told_at = program.signal(signal.SIGINT)  # another one: two of a kind may arrive as one
        assert program.wait() == 0
        assert time.monotonic() - told_at < BEFORE_LEASE
        assert program.members == []
        assert program.stderr == ""

    assert list(scene.deliveries().values()) == [1]


def test_a_second_signal_ends_what_hears_of_nothing(scene: Scene) -> None:
    scene.push("t1", jobs.hold_the_lock, 30)
    program = scene.latergator()
    scene.started("t1")
    program.signal(signal.SIGTERM)
    told_at = program.signal(signal.SIGINT)

    assert program.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE
    assert scene.counts == Counts(waiting=1)


def test_short_tasks_do_not_wait_for_the_long_one_of_their_batch(scene: Scene) -> None:
    scene.push_many(*SHORT)
    scene.push_gated("long")
    scene.push_many(*BEHIND)
    busy = scene.latergator()
    scene.started("long")

    hungry = scene.latergator()

    scene.finished(BEHIND[-1])
    until(lambda: scene.counts == Counts(running=1), "only the long one is left")
    scene.open("long")
    scene.finished("long")
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert len(scene.journal.names("start")) == len(SHORT) + 1 + len(BEHIND)
    assert busy.stderr == hungry.stderr == ""


def test_the_result_of_a_task_that_was_retried_reaches_who_waits_for_it(scene: Scene) -> None:
    results = f"sqlite://{scene.folder}/results.db"
    gator = Gator(scene.dsn, results=results)
    with gator.options(retries=1, keep_result=60) as opts:
        task = opts.task(jobs.fail_once, scene.journal.path, "t1")

    scene.latergator("--burst", "--results", results)

    assert task.wait(20) == "result of t1"
    assert gator.result(task.task_id, 0) == "result of t1"


def test_nothing_is_lost_when_the_server_is_killed_and_started_again(
    own_server: Beanstalkd, lost_scene: Scene
) -> None:
    names = [f"t{number}" for number in range(200)]
    for name in names:
        lost_scene.push(name, jobs.work, 0.005)
    program = lost_scene.latergator("--workers", "2")
    lost_scene.started(names[20])

    own_server.kill()
    program.says("does not answer")
    own_server.start()

    until(lambda: set(lost_scene.journal.names("finish")) == set(names), "all are done")
    until(lambda: lost_scene.counts == Counts(), "the queue is empty")
