"""The store goes while workers run: they say so once, wait, and go on when it is back."""

import signal
import time
from functools import partial

from alligator.backends.base import Counts
from tests.integration.scenes import BEFORE_LEASE, ON_SQLITE, Program, Scene, kill, until
from tests.support.kinds import Mortal

GONE = "does not answer"


def silent_since(program: Program, seconds: float) -> bool:
    """Whether a program has logged nothing for so long."""
    return time.time() - program.logged_at > seconds


def have_finished(scene: Scene, tasks: int) -> bool:
    """Whether so many tasks have."""
    return len(scene.journal.names("finish")) >= tasks


def test_an_idle_worker_says_once_that_its_store_is_gone_and_goes_on(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.latergator()
    program.says("starting")
    lost_scene.push("t1")
    lost_scene.finished("t1")
    until(lambda: lost_scene.counts == Counts(), "it is settled")

    own_server.kill()
    program.says(GONE)
    until(lambda: silent_since(program, 3), "it does not say more")
    own_server.start()
    lost_scene.push("t2")

    lost_scene.finished("t2", within=BEFORE_LEASE)
    program.says("The store is back")
    assert program.stderr.count(GONE) == 1
    assert program.stderr.count("The store is back") == 1
    assert len(program.stderr.splitlines()) == 2
    assert program.children == [lost_scene.finished("t1").pid]


def test_a_store_killed_again_and_again_under_load_loses_no_task(
    lost_scene: Scene, own_server: Mortal
) -> None:
    names = [f"t{number}" for number in range(400)]
    lost_scene.push_many(*names)
    program = lost_scene.latergator("--workers", "2", "--lease", "2")

    for part in [100, 200, 300]:
        until(partial(have_finished, lost_scene, part), "work goes on")
        own_server.kill()
        own_server.start()

    until(lambda: lost_scene.counts == Counts(), "all is done")
    finished = lost_scene.journal.names("finish")
    again = len(finished) - len(set(finished))
    print(f"\n3 kills: of {len(names)} tasks {len(set(finished))} finished, {again} of them again")
    assert set(finished) == set(names)
    assert program.children != []
    assert "died" not in program.stderr
    assert "Traceback" not in program.stderr


def test_a_task_that_runs_while_the_store_is_away_is_settled_afterwards(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.latergator("--lease", "20")
    lost_scene.push_gated("t1")
    lost_scene.started("t1")

    own_server.kill()
    lost_scene.open("t1")
    lost_scene.finished("t1")
    program.says(GONE)
    own_server.start()

    until(lambda: lost_scene.counts == Counts(), "it is settled")
    assert lost_scene.journal.names("start") == ["t1"]


def test_a_store_away_for_longer_than_the_lease_costs_a_second_run_and_no_more(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.latergator("--lease", "1")
    lost_scene.push_gated("t1")
    first = lost_scene.started("t1")

    own_server.kill()
    program.says("Cannot extend leases")
    until(lambda: silent_since(program, 1.5), "the lease is over")
    other = lost_scene.worker()  # it waits for the store, too
    own_server.start()
    lost_scene.open("t1")

    lost_scene.finished("t1")
    until(lambda: lost_scene.counts == Counts(), "the queue is empty")
    assert len(lost_scene.journal.names("start")) <= 2
    assert lost_scene.dead == []
    assert program.children == [first.pid]
    assert other.runs


def test_a_worker_can_leave_while_the_store_is_away(lost_scene: Scene, own_server: Mortal) -> None:
    program = lost_scene.latergator("--grace", "1")
    program.says("starting")
    own_server.kill()
    program.says(GONE)

    program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert program.members == []


def test_a_child_whose_parent_and_store_are_both_gone_ends_as_its_leases_do(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.latergator("--lease", "2", "--grace", "60")
    lost_scene.push_gated("t1")
    lost_scene.started("t1")

    own_server.kill()
    kill(program.pid)

    until(lambda: not program.members, "the child ends", within=2 + 5)
    assert lost_scene.journal.names("finish") == []


def test_a_second_signal_ends_a_worker_whose_store_is_away(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.worker()
    lost_scene.push_gated("t1")
    lost_scene.started("t1")
    own_server.kill()
    lost_scene.open("t1")
    program.says(GONE)

    program.signal(signal.SIGTERM)
    program.says("was told to leave")
    told_at = program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert time.monotonic() - told_at < BEFORE_LEASE
    own_server.start()
    # It could not say that it has done the task; the lease brings that back.
    assert lost_scene.counts == Counts(running=1)


def test_a_child_killed_while_the_store_is_away_is_recovered_afterwards(
    lost_scene: Scene, own_server: Mortal
) -> None:
    program = lost_scene.latergator("--lease", "60")
    lost_scene.push_gated("t1")
    first = lost_scene.started("t1")
    own_server.kill()

    kill(first.pid)
    program.says("Cannot give back")
    until(lambda: silent_since(program, 2.5), "it does not say more")
    own_server.start()

    lost_scene.open("t1")
    assert lost_scene.started("t1", 2).pid != first.pid
    lost_scene.finished("t1")
    until(lambda: lost_scene.counts == Counts(), "the queue is empty")
    assert program.stderr.count("Cannot give back") == 1


@ON_SQLITE
def test_a_file_that_is_replaced_is_the_store_from_then_on(scene: Scene) -> None:
    program = scene.latergator()
    scene.push("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "the queue is empty")

    for file in scene.folder.glob("queue.db*"):
        file.unlink()
    scene.push("t2")

    scene.finished("t2", within=10)
    until(lambda: scene.counts == Counts(), "the queue is empty")
    assert program.stderr == ""
