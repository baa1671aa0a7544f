"""``alligator stacks``: where every running task is now, also one that lets no other thread run."""

import re
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alligator import stack_records
from alligator.backends.base import Counts, Records, Release
from alligator.commands import stacking
from alligator.testing.running import in_a_thread
from tests.features import stop_work as jobs
from tests.integration.scenes import Scene, kill, until
from tests.integration.test_cli import alligator, only_sqlite, refused, said, told
from tests.support.kinds import empty_store

COROUTINES = ("--concurrency", "5", "--threads", "2")


def running(scene: Scene, *names: str) -> None:
    """Wait until tasks have begun."""
    for name in names:
        scene.started(name)


def stacks_of(scene: Scene, *options: str) -> dict[str, dict[str, Any]]:
    """Return what is told of each task that runs."""
    found = told("stacks", scene.dsn, *options)
    assert found["silent"] == []
    return {task["task_id"]: task for task in found["tasks"]}


def last_function(task: dict[str, Any]) -> str:
    """Return the innermost function of a stack that is not asyncio's."""
    lines = [line for line in task["stack"].splitlines() if "/asyncio/" not in line]
    return str(lines[-1].rpartition(" in ")[2])


def test_each_task_tells_where_it_is(scene: Scene) -> None:
    calls = {
        "sleeps": jobs.sleep,
        "computes": jobs.spin,
        "holds": jobs.hold_the_lock,
        "sleeps-in-c": jobs.sleep_in_c,
    }
    for name, func in calls.items():
        scene.push(name, func)
    program = scene.latergator("--workers", str(len(calls)))
    running(scene, *calls)

    found = stacks_of(scene)

    assert {name: last_function(task) for name, task in found.items()} == {
        name: func.__name__ for name, func in calls.items()
    }
    for name, task in found.items():
        assert task["callable"] == f"tests.features.stop_work.{calls[name].__name__}"
        assert task["pid"] == scene.started(name).pid
        assert task["seconds"] >= 1
        assert re.fullmatch(r'File ".*/stop_work.py", line \d+, in \w+', task["stack"])
    assert sorted(program.children) == sorted(task["pid"] for task in found.values())
    assert program.stderr == ""
    assert sorted(stacks_of(scene)) == sorted(calls)  # and none of them was ended by that


@pytest.mark.parametrize("dsn", ["sqlite", "redis"], indirect=True)
@pytest.mark.parametrize(
    ("bad", "bad_where"),
    [(jobs.hold_the_lock, "hold_the_lock"), (jobs.sleep_in_c, "sleep_in_c"), (None, "")],
)
def test_each_of_several_in_a_process_has_a_stack_of_its_own(
    bad: Callable[..., Any] | None, bad_where: str, scene: Scene
) -> None:
    gate = str(scene.folder / "gate")
    expected = {"gated": "wait_at_gate", "sleeps": "sleep"}
    scene.push("gated", jobs.wait_at_gate, gate)
    scene.push("sleeps", jobs.sleep)
    scene.latergator("--threads", "3")
    running(scene, *expected)
    if bad is not None:
        scene.push("bad", bad)
        running(scene, "bad")
        expected["bad"] = bad_where

    found = stacks_of(scene)

    assert found.keys() == expected.keys()
    for name, where in expected.items():  # "gated" looks at a file now and then
        assert f" in {where}" in found[name]["stack"]


@only_sqlite
def test_who_computes_in_many_threads_may_be_asked_often(scene: Scene) -> None:
    """They take turns, and so an answer takes long. The signal would crash them now and then; these always."""
    names = [f"t{number}" for number in range(8)]
    for name in names:
        scene.push(name, jobs.recurse)
    program = scene.latergator("--threads", str(len(names)))
    running(scene, *names)
    records = scene.gator.backend.records
    assert records is not None

    answers: list[stack_records.Answer] = []
    for _ in range(3):
        question = stack_records.ask(records)
        answers.append(answer_to(records, question))
        stack_records.take_back(records, question)

    for answer in answers:
        assert sorted(task.task_id for task in answer.tasks) == names
    assert any("in recurse" in task.stack for answer in answers for task in answer.tasks)
    assert {answer.pid for answer in answers} == {scene.started("t0").pid}
    assert program.stderr == ""


def answer_to(records: Records, question: str) -> stack_records.Answer:
    """Wait for the only process to answer."""
    until(lambda: stack_records.answers_to(records, question), "it answers")
    [answer] = stack_records.answers_to(records, question).values()
    return answer


def test_coroutines_tell_where_they_wait(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("deep", jobs.wait_whatever_is_raised)
    scene.push("well", jobs.sleep_well)
    scene.push("plain", jobs.wait_at_gate, gate)
    scene.latergator(*COROUTINES)
    running(scene, "deep", "well", "plain")

    found = stacks_of(scene)

    assert {name: last_function(task) for name, task in found.items()} == {
        "deep": "wait_deep_down",
        "well": "sleep_well",
        "plain": "wait_at_gate",
    }
    first, second, *_ = found["deep"]["stack"].splitlines()
    assert first.endswith("in wait_whatever_is_raised")
    assert second.endswith("in wait_deep_down")


@only_sqlite
def test_a_coroutine_that_blocks_the_loop_is_seen(scene: Scene) -> None:
    scene.push("well", jobs.sleep_well)
    scene.latergator(*COROUTINES)
    running(scene, "well")
    scene.push("blocks", jobs.block_the_loop)
    running(scene, "blocks")

    found = stacks_of(scene)

    assert {name: last_function(task) for name, task in found.items()} == {
        "well": "sleep_well",
        "blocks": "block_the_loop",
    }


def test_a_worker_alone_tells_of_its_task(scene: Scene) -> None:
    scene.push("t1", jobs.sleep)
    program = scene.worker()
    running(scene, "t1")

    task = stacks_of(scene)["t1"]

    assert (task["pid"], last_function(task)) == (program.pid, "sleep")


@only_sqlite
def test_one_that_cannot_answer_is_named(scene: Scene) -> None:
    scene.push("t1", jobs.sleep)
    program = scene.latergator()
    running(scene, "t1")
    scene.freeze(program)

    outcome = alligator("stacks", scene.dsn)

    assert outcome.returncode == 1
    pid = scene.started("t1").pid
    assert re.match(rf"Process {pid} of host '.+' has 1 task and did not answer: ", outcome.stdout)


def test_where_nothing_runs_nobody_is_asked(scene: Scene) -> None:
    scene.push("t1")
    records = scene.gator.backend.records
    assert records is not None

    assert said("stacks", scene.dsn) == "No task runs.\n"
    assert said("stacks", scene.dsn, "--queue", "mail") == "No task runs in queue 'mail'.\n"
    assert told("stacks", scene.dsn) == {"tasks": [], "silent": []}
    assert records.list("stops") == records.list("stacks") == {}


def test_what_has_ended_meanwhile_owes_no_answer(scene: Scene) -> None:
    scene.push("t1")
    backend, records = scene.gator.backend, scene.gator.backend.records
    assert records is not None
    [held] = backend.reserve(["all"], "w1").reservations

    with in_a_thread(lambda: said("stacks", scene.dsn)) as text:
        until(lambda: records.list("stops"), "it is asked")
        backend.settle([Release(held)])

    assert text.result() == "What runs is short: nothing has run for a second.\n"


def test_neither_question_nor_answer_is_left(scene: Scene) -> None:
    scene.push("t1", jobs.sleep)
    scene.latergator()
    running(scene, "t1")

    text = said("stacks", scene.dsn)

    records = scene.gator.backend.records
    assert records is not None
    assert records.list("stops") == records.list("stacks") == {}
    head, line = text.splitlines()
    assert re.fullmatch(
        r"'t1' in queue 'all', tests\.features\.stop_work\.sleep, for \d+\.\d s in process \d+ of host '.+'",
        head,
    )
    assert re.fullmatch(r'    File ".+", line \d+, in sleep', line)


@only_sqlite
def test_arguments_and_local_values_are_not_told(scene: Scene) -> None:
    scene.push("t1", jobs.take, 3600.25)
    scene.latergator()
    running(scene, "t1")

    assert "3600" not in said("stacks", scene.dsn)
    assert str(scene.journal.path) not in said("stacks", scene.dsn, "--json")


@only_sqlite
def test_a_child_that_dies_while_it_is_asked_does_no_harm(scene: Scene) -> None:
    scene.push("t1", jobs.sleep)
    program = scene.latergator()
    first = scene.started("t1")
    records = scene.gator.backend.records
    assert records is not None

    kill(first.pid, signal.SIGSTOP)
    stack_records.ask(records)
    until(lambda: has_unread_lines(first.pid), "it is asked, and cannot answer")
    kill(first.pid)
    again = scene.started("t1", 2)

    assert program.runs
    assert stacks_of(scene)["t1"]["pid"] == again.pid


def has_unread_lines(pid: int) -> bool:
    """Whether a worker process was told something that it has not read yet."""
    control = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-4]
    with Path(f"/proc/{pid}/fd/{control}").open("rb", buffering=0) as pipe:
        return bool(select.select([pipe], [], [], 0)[0])


@only_sqlite
def test_a_task_never_meets_the_signal(scene: Scene) -> None:
    """It would break off what waits in C."""
    scene.push("t1", jobs.sleep_in_c)
    program = scene.latergator()
    first = scene.started("t1")

    found = [stacks_of(scene)["t1"] for _ in range(2)]

    assert {task["pid"] for task in found} == {first.pid}
    assert scene.counts == Counts(running=1)
    assert program.stderr == ""


def test_what_an_answer_tells_cannot_forge_the_terminal() -> None:
    evil = "evil\r\x1b[31m\n'x' in queue"
    task = stack_records.Told(evil, evil, "token", 1.0, evil)
    seen = stacking.Seen(
        True,
        [stack_records.Answer("w1", evil, 7, (task,))],
        {(evil, evil): evil},
        [stacking.Silent("w2", 1, evil, 8)],
    )

    text = stacking.seen_text(seen)

    assert "\x1b" not in text
    assert "\r" not in text
    head, *stack, blank, silent = text.splitlines()
    assert head.startswith("'evil")
    assert all(line.startswith("    ") for line in stack)
    assert blank == ""
    assert silent.startswith("Process 8")


@pytest.mark.parametrize("scheme", ["beanstalk", "sqs"])
def test_a_store_without_records_says_so(scheme: str, request: pytest.FixtureRequest) -> None:
    error = refused("stacks", empty_store(scheme, request))

    assert "cannot do what alligator stacks needs: use a store that can" in error
    assert "locmem, sqlite, postgres, redis" in error
