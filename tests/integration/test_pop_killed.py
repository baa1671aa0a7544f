"""A process that runs a task by ``gator.pop()`` or ``gator.get()`` holds it as a worker does."""

import os
import signal
import time

import pytest

from alligator import Task
from alligator.backends.base import Counts
from tests.integration.scenes import Program, Scene, kill, until

LEASE = 2.0
"""Seconds, in place of 30. After a kill more than half of it is left."""

SCRIPT = """
import sys

from alligator import Gator, inline
from alligator.processes import keeper

dsn, lease, *task_ids = sys.argv[1:]
inline.LEASE = keeper.LEASE = float(lease)
queue = Gator(dsn)
queue.get(task_ids[0]) if task_ids else queue.pop()
"""

POP_AND_GET = pytest.mark.parametrize("task_ids", [[], ["t1"]], ids=["pop", "get"])


def popping(scene: Scene, *task_ids: str) -> Program:
    """Start a process that runs one task of the queue: the first, or the one of this id."""
    return scene.python("-c", SCRIPT, scene.dsn, str(LEASE), *task_ids)


def popped(scene: Scene) -> Task:
    """Pop, here, as soon as there is something to pop."""
    tasks: list[Task] = []

    def pop() -> bool:
        task = scene.gator.pop()
        if task is not None:
            tasks.append(task)
        return task is not None

    until(pop, "there is a task to pop")
    return tasks[0]


@POP_AND_GET
def test_a_task_whose_process_is_killed_is_held_and_then_popped_by_another(
    scene: Scene, task_ids: list[str]
) -> None:
    scene.push_gated("t1")
    program = popping(scene, *task_ids)
    scene.started("t1")
    assert scene.counts == Counts(running=1)

    killed_at = kill(program.pid)

    assert program.wait() == -signal.SIGKILL
    assert scene.gator.pop() is None
    assert scene.counts == Counts(running=1)
    scene.open("t1")
    assert popped(scene).task_id == "t1"
    again = scene.started("t1", times=2)
    print(f"popped again {again.at - killed_at:.2f} s after the kill")
    assert again.at - killed_at < 2 * LEASE
    assert [entry.pid for entry in scene.journal.entries("start")] == [program.pid, os.getpid()]
    assert scene.journal.names("finish") == ["t1"]
    assert scene.counts == Counts()


def test_a_task_whose_process_is_killed_counts_that_delivery(scene: Scene) -> None:
    scene.push_gated("t1")
    program = popping(scene)
    scene.started("t1")

    kill(program.pid)

    batch = scene.gator.backend.reserve([scene.gator.queue_name], "inspector", wait=3 * LEASE)
    assert [(held.task_id, held.deliveries) for held in batch.reservations] == [("t1", 2)]


def test_a_task_of_several_leases_is_not_handed_to_another(scene: Scene) -> None:
    scene.push_gated("t1")
    program = popping(scene)
    started = scene.started("t1")

    # Another is hungry all that time.
    batch = scene.gator.backend.reserve([scene.gator.queue_name], "hungry", wait=2.5 * LEASE)

    assert batch.reservations == []
    assert time.monotonic() - started.at > 2 * LEASE
    assert scene.gator.pop() is None
    assert scene.counts == Counts(running=1)
    scene.open("t1")
    assert program.wait() == 0
    assert scene.journal.names("start") == scene.journal.names("finish") == ["t1"]
    assert scene.counts == Counts()
    assert program.stderr == ""
