"""Tasks that run too long are told so; those that do not hear it are ended with their process."""

import json
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from alligator import Gator, Task, stops
from alligator.backends.base import Ack, Counts, DeadLetter, Message
from alligator.exceptions import AGES, TaskTimeout
from alligator.running import current_task
from alligator.stops import TIMEOUT
from alligator.testing.running import in_threads
from alligator.timeouts import time_limit
from tests.features import stop_work as jobs
from tests.features.work import QuietWorker, do, done, work_off
from tests.integration.scenes import BEFORE_LEASE, Scene, kill, until

RUNS = int(os.environ.get("TIMEOUT_RUNS", "150"))
"""How often a task is interrupted in the midst of its store's calls; for a longer look, say more."""


def reason_of(letter: DeadLetter) -> str:
    return str(json.loads(letter.note)["reason"])


def error_of(letter: DeadLetter) -> str:
    return str(json.loads(letter.note)["error"])


# A task that hears it.


def sleep_on(what: str) -> None:
    done.append(what)
    time.sleep(60)


async def sleep_on_async(what: str) -> None:
    import asyncio

    done.append(what)
    await asyncio.sleep(60)


@pytest.mark.parametrize("func", [sleep_on, sleep_on_async])
@pytest.mark.parametrize("settings", [{}, {"concurrency": 4}], ids=["one by one", "concurrently"])
def test_a_task_that_runs_too_long_fails(
    func: Callable[[str], Any], settings: dict[str, int], gator: Gator
) -> None:
    if settings and func is sleep_on:
        pytest.skip("a sleep in a thread does not hear it")
    with gator.options(timeout=0.1, task_id="long") as opts:
        opts.task(func, "long")
    gator.task(do, "next")

    work_off(gator, **settings)

    assert sorted(done) == ["long", "next"]
    [letter] = gator.backend.dead("all")
    assert reason_of(letter) == "timeout"
    assert "It ran for more than 0.1 s" in error_of(letter)
    assert gator.backend.count("all") == Counts(dead=1)


def note_error(task: Task, err: BaseException) -> None:
    done.append(type(err))


def test_it_is_a_failure_like_any_other(gator: Gator) -> None:
    with gator.options(timeout=0.05, retries=2, backoff=0.001, on_error=note_error) as opts:
        opts.task(sleep_on, "long")
    until_empty(gator)

    assert done == ["long", TaskTimeout] * 3
    assert [reason_of(letter) for letter in gator.backend.dead("all")] == ["timeout"]


def until_empty(gator: Gator) -> None:
    def is_empty() -> bool:
        work_off(gator)
        return gator.len() == 0

    until(is_empty, "nothing is left to do")


def look_at_the_clock(out: str) -> None:
    left = current_task().time_left
    done.append(left)


def test_a_task_knows_how_much_time_is_left(gator: Gator) -> None:
    with gator.options(timeout=30) as opts:
        opts.task(look_at_the_clock, "")
    work_off(gator)

    assert done[0] == pytest.approx(30, abs=1)


def test_give_up_on_says_that_it_is_not_to_be_tried_again(gator: Gator) -> None:
    with gator.options(timeout=0.05, retries=5, give_up_on=TaskTimeout) as opts:
        opts.task(sleep_on, "long")
    work_off(gator)

    assert done == ["long"]
    assert gator.backend.count("all") == Counts(dead=1)


def test_a_task_that_ends_in_time_is_done(gator: Gator) -> None:
    for number in range(20):
        with gator.options(timeout=5) as opts:
            opts.task(do, number)
    work_off(gator)

    assert done == list(range(20))
    assert gator.backend.count("all") == Counts()


def use_up_time(task: Task) -> None:
    """A hook: leave a tenth of a second of the time that the task has."""
    while (current_task().time_left or 0.0) > 0.1:
        time.sleep(0.01)


async def take_a_while() -> None:
    """Take more time than that hook leaves."""
    import asyncio

    await asyncio.sleep(0.4)


def take_a_while_later() -> Coroutine[Any, Any, None]:
    """As that, and be no coroutine function."""
    return take_a_while()


@pytest.mark.parametrize("func", [take_a_while, take_a_while_later])
@pytest.mark.parametrize("settings", [{}, {"concurrency": 10}], ids=["one by one", "concurrently"])
def test_a_timeout_is_of_on_start_and_the_coroutine_together(
    func: Callable[[], object], settings: dict[str, int]
) -> None:
    gator = Gator("locmem://")  # no store has a part in this
    with gator.options(timeout=0.6, on_start=use_up_time) as opts:
        task = opts.task(func)

    work_off(gator, **settings)

    status = gator.status(task.task_id)
    assert (status.state, status.reason) == ("failed", "timeout")
    assert "more than 0.6 s" in status.error


MOST = math.nextafter(3 * AGES, 0.0)
"""Seconds, the most that whoever can write to a store may name in a payload."""


@pytest.mark.parametrize("settings", [{}, {"concurrency": 4}], ids=["one by one", "concurrently"])
def test_the_longest_times_that_a_payload_may_name_are_borne(
    settings: dict[str, int], gator: Gator
) -> None:
    longest = {"timeout": MOST, "keep_result": MOST, "backoff": MOST, "max_backoff": MOST}
    for name, func, more in (
        ("plain", do_within_a_limit, {"expires": MOST}),
        ("coroutine", do_async, {"expires": MOST}),
        ("failing", fail, {"not_before": 1.0}),
        ("early", do, {"not_before": MOST}),
    ):
        task = Task(task_id=name, retries=1)
        task.to_call(func, name)
        body = json.loads(task.serialize())
        body["options"] = {**longest, **more}
        gator.backend.push("all", name, json.dumps(body).encode())

    work_off(gator, **settings)

    assert sorted(done) == ["coroutine", "plain"]
    assert gator.backend.count("all") == Counts(delayed=2)


def do_within_a_limit(what: str) -> None:
    with pytest.raises(TaskTimeout), time_limit(0.02):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            pass
    done.append(what)


async def do_async(what: str) -> None:
    import asyncio

    await asyncio.sleep(0)
    done.append(what)


def fail(what: str) -> None:
    raise ValueError(what)


# One that does not.

DEAF = [jobs.hold_the_lock, jobs.turn_a_deaf_ear, jobs.set_an_alarm]
HEARING = [
    jobs.sleep,
    jobs.spin,
    jobs.sleep_in_c,
    jobs.search,
    jobs.tidy_up,
    jobs.run_a_program,
]


@pytest.mark.parametrize(
    ("func", "scene"),
    [(func, "sqlite") for func in [*DEAF, *HEARING]] + [(DEAF[0], "redis"), (HEARING[0], "redis")],
    indirect=["scene"],
)
def test_a_worker_is_whole_again_soon(func: Callable[..., Any], scene: Scene) -> None:
    scene.push("bad", func, timeout=1)
    scene.push("next", jobs.take, 0.0)

    program = scene.latergator()

    bad, following = scene.started("bad"), scene.finished("next")
    took = following.at - bad.at - 1
    print(f"{func.__name__}: the next one ran {took:.2f} s after the time was over")
    assert took < BEFORE_LEASE
    until(lambda: scene.counts == Counts(dead=1), "one dead letter")
    [letter] = scene.dead
    assert (letter.task_id, reason_of(letter)) == ("bad", "timeout")
    assert "1 s" in error_of(letter)
    assert scene.journal.names("start") == ["bad", "next"]
    assert (following.pid == bad.pid) == (func in HEARING)
    assert (len(scene.journal.entries("tidied")) == 1) == (func is jobs.tidy_up)
    assert ("does not end" in program.stderr) == (func in DEAF)
    assert len(program.members) == 2  # and no program that a task has started
    until(lambda: not stops.listed(scene.gator.backend), "nothing is asked any more")


@pytest.mark.parametrize("func", [jobs.sleep, jobs.hold_the_lock, jobs.sleep_well])
def test_it_is_tried_again_as_often_as_it_may_be(func: Callable[..., Any], scene: Scene) -> None:
    scene.push("bad", func, timeout=0.3, retries=2, backoff=0.01, on_error=jobs.note_error)

    scene.latergator()

    until(lambda: scene.counts == Counts(dead=1), "one dead letter", within=30)
    assert scene.journal.names("start") == ["bad"] * 3
    assert scene.journal.names("error-TaskTimeout") == ["bad"] * 3
    assert [reason_of(letter) for letter in scene.dead] == ["timeout"]


@pytest.mark.parametrize("func", [jobs.sleep, jobs.hold_the_lock, jobs.swallow])
def test_other_threads_tasks_are_neither_lost_nor_counted(
    func: Callable[..., Any], scene: Scene
) -> None:
    gate = str(scene.folder / "gate")
    for name in ("a", "b"):
        scene.push(name, jobs.wait_at_gate, gate)
    program = scene.latergator("--threads", "3")
    first = scene.started("a")
    scene.started("b")

    bad = scene.push("bad", func, timeout=0.5)
    scene.started("a", 2)
    scene.started("b", 2)
    (scene.folder / "gate").touch()

    for name in ("a", "b"):
        scene.finished(name)
    until(lambda: scene.counts == Counts(dead=1), "nothing is left to do")
    assert scene.dead[0].task_id == bad.task_id
    assert first.pid not in program.children
    assert Counter(scene.journal.names("delivery-1")) == {"a": 2, "b": 2}
    assert scene.journal.names("start").count("bad") == 1
    assert sorted(scene.journal.names("finish")) == ["a", "b"]


def test_what_shares_a_process_with_a_task_that_is_ended_resumes_where_it_was(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("tracker", jobs.track_to_gate, gate)
    scene.latergator("--threads", "2")
    until(lambda: scene.journal.names("item-1") == ["tracker"], "it has come so far")

    scene.push("bad", jobs.hold_the_lock, timeout=0.5)
    scene.started("tracker", 2)
    (scene.folder / "gate").touch()
    scene.finished("tracker")

    assert scene.journal.names("delivery-1") == ["tracker", "tracker"]
    assert scene.journal.names("item-0") == ["tracker"]


def test_what_its_worker_cannot_wait_for_resumes_where_it_was(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("tracker", jobs.track_to_gate, gate)
    program = scene.latergator("--grace", "0.1")
    until(lambda: scene.journal.names("item-1") == ["tracker"], "it has come so far")

    program.signal(signal.SIGTERM)
    program.wait()
    (scene.folder / "gate").touch()
    scene.latergator()
    scene.finished("tracker")

    assert scene.journal.names("delivery-1") == ["tracker", "tracker"]
    assert scene.journal.names("item-0") == ["tracker"]


def test_that_it_failed_is_told_while_others_of_its_process_run_on(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("other", jobs.wait_at_gate, gate)
    scene.latergator("--threads", "2")
    scene.started("other")

    scene.push("bad", jobs.hold_the_lock, timeout=0.5)
    until(lambda: bool(scene.dead), "the task that was ended has failed")
    assert reason_of(scene.dead[0]) == "timeout"
    assert scene.journal.names("finish") == []

    (scene.folder / "gate").touch()
    scene.finished("other")


def test_coroutines_of_a_process_that_is_ended_are_neither_lost_nor_counted(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("other", jobs.wait_at_gate, gate)
    scene.latergator("--concurrency", "10")
    scene.started("other")

    scene.push("bad", jobs.block_the_loop, timeout=0.5)
    scene.started("other", 2)
    (scene.folder / "gate").touch()

    until(lambda: scene.counts == Counts(dead=1), "nothing else is left")
    assert scene.journal.names("delivery-1") == ["other", "other"]
    assert [reason_of(letter) for letter in scene.dead] == ["timeout"]


def test_a_worker_alone_tells_its_tasks(scene: Scene) -> None:
    scene.push("bad", jobs.sleep, timeout=0.3)
    scene.push("next", jobs.take, 0.0)

    scene.worker()

    assert scene.finished("next").pid == scene.started("bad").pid
    until(lambda: scene.counts == Counts(dead=1), "nothing else is left")


def test_what_follows_the_tasks_end_may_take_longer(scene: Scene) -> None:
    """It is the task that is to end in time; a hook may take its time to tell of it."""
    scene.push("done", jobs.take, 0.0, timeout=0.5, on_success=jobs.take_long)

    program = scene.latergator()

    until(lambda: scene.journal.entries("hook-end", "done"), "the hook has ended")
    until(lambda: scene.counts == Counts(), "nothing is left")
    assert scene.journal.names("start") == ["done"]
    assert program.stderr == ""


def test_timeouts_under_load(scene: Scene) -> None:
    """Many tasks with a little time each; half of them take longer."""
    quick = [f"quick-{number}" for number in range(60)]
    slow = [f"slow-{number}" for number in range(60)]
    for one, other in zip(quick, slow, strict=True):
        scene.push(one, jobs.take, 0.001, timeout=20)
        scene.push(other, jobs.take, 60, timeout=random.uniform(0.001, 0.05))

    scene.latergator("--workers", "3", "--burst", "--quiet").wait(60)

    assert scene.counts == Counts(dead=len(slow))
    assert sorted(scene.journal.names("finish")) == sorted(quick)
    assert sorted(letter.task_id for letter in scene.gator.backend.dead("all")) == sorted(slow)
    assert {reason_of(letter) for letter in scene.dead} == {"timeout"}
    starts = Counter(scene.journal.names("start"))
    assert set(starts.values()) == {1}


# Whoever is to end it may end first.


def test_the_next_worker_knows_if_the_parent_was_killed_before_it_could_end_it(
    scene: Scene,
) -> None:
    """The task is one that holds up its whole process: nobody extends its lease any more."""
    scene.push("bad", jobs.hold_the_lock, timeout=0.5)
    program = scene.python(
        "-m", "tests.features.killed_parent", scene.dsn, "--lease", "1", "--quiet"
    )
    scene.started("bad")
    until(lambda: not program.runs, "the parent has killed itself")
    assert stops.listed(scene.gator.backend) != {}

    scene.latergator("--lease", "1")

    until(lambda: scene.counts == Counts(dead=1), "one dead letter", within=30)
    assert scene.journal.names("start") == ["bad"]
    assert [reason_of(letter) for letter in scene.dead] == ["timeout"]
    until(lambda: not stops.listed(scene.gator.backend), "nothing is asked any more")


def test_the_next_worker_knows_if_the_whole_host_is_lost(scene: Scene) -> None:
    scene.push("bad", jobs.hold_the_lock, timeout=0.5, retries=1)
    program = scene.python(
        "-m", "tests.features.killed_parent", scene.dsn, "--lease", "1", "--quiet"
    )
    scene.started("bad")
    until(lambda: not program.runs, "the parent has killed itself")
    for pid in program.members:
        kill(pid)

    scene.latergator("--lease", "1")

    until(lambda: scene.counts == Counts(dead=1), "one dead letter", within=30)
    assert scene.journal.names("start") == ["bad"] * 2  # the second is the retry


def test_a_stop_of_a_former_task_does_not_hit_a_later_one_of_its_id(gator: Gator) -> None:
    backend = gator.backend
    with gator.options(task_id="t1") as opts:
        opts.task(do, 1)
    [held] = backend.reserve(["all"], "w1").reservations
    stops.ask(backend, "all", "t1", held.token, TIMEOUT)
    backend.settle([Ack(held)])  # in this very moment it ended

    with gator.options(task_id="t1", retries=1) as opts:
        opts.task(fail_at_first, "t1")
    until_empty(gator)

    assert done == ["t1", "t1"]
    assert backend.count("all") == Counts()


def fail_at_first(what: str) -> None:
    done.append(what)
    if current_task().attempt == 1:
        raise ValueError


# In the midst of a call to the store.

# What is interrupted may have opened a file, and not yet have said who is to close it.
UNTIDY = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def use_the_store(gator: Gator, seconds: float) -> None:
    """Ask the store for things, one after the other, and see that each answer is to its question."""
    backend = gator.backend
    assert backend.records is not None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        name = os.urandom(8).hex()
        backend.records.set(f"storm/{name}", name.encode(), 10)
        assert backend.records.get(f"storm/{name}") == name.encode()
        assert backend.push_many("storm", [Message(name, name.encode())]) == [True]
        batch = backend.reserve(["storm"], "stormy")
        for held in batch.reservations:
            assert held.body == held.task_id.encode()
        assert backend.settle([Ack(held) for held in batch.reservations]) == []


def interrupted_often(gator: Gator, runs: int) -> None:
    """Interrupt that again and again, and see that the next question is answered at once."""
    assert gator.backend.records is not None
    unheard = 0
    for _ in range(runs):
        try:
            with time_limit(0.001 * 50 ** random.random()):
                use_the_store(gator, seconds=5)
            unheard += 1  # a store's client catches all errors here and there; a worker would end its process
        except TaskTimeout:
            pass
        asked_at = time.monotonic()
        name = os.urandom(8).hex()
        gator.backend.records.set(f"calm/{name}", name.encode(), 10)
        assert gator.backend.records.get(f"calm/{name}") == name.encode()
        assert time.monotonic() - asked_at < BEFORE_LEASE
    assert unheard <= 1


@UNTIDY
def test_an_interrupted_call_leaves_its_connection_fit_for_the_next(shared_gator: Gator) -> None:
    interrupted_often(shared_gator, RUNS)


@UNTIDY
def test_an_interrupted_call_in_a_thread_does_so_too(shared_gator: Gator) -> None:
    in_threads(2, lambda number: interrupted_often(shared_gator, RUNS // 3))


def push_on(out: str) -> None:
    """As a task: push one task after the other."""
    gator = current_gator()
    while True:
        gator.backend.push_many("pushed", [Message(os.urandom(8).hex(), b"")])


_gators: dict[str, Gator] = {}


def current_gator() -> Gator:
    return _gators["gator"]


@UNTIDY
def test_a_worker_whose_tasks_are_interrupted_in_its_store_settles_each(
    shared_gator: Gator,
) -> None:
    _gators["gator"] = shared_gator
    for number in range(RUNS):
        with shared_gator.options(timeout=0.001 * 20 ** random.random()) as opts:
            opts.task(push_on, str(number))
    worker = QuietWorker(shared_gator, burst=True)

    worker.run_forever()

    assert worker.tasks_complete == RUNS
    assert shared_gator.backend.count("all") == Counts(dead=RUNS)
    letters = shared_gator.backend.dead("all", limit=RUNS)
    assert {reason_of(letter) for letter in letters} == {"timeout"}
