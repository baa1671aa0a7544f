"""A task whose process died says how: while it is queued, and in its dead letter."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from alligator import Gator, Task, Worker, deaths, stops, track
from alligator.backends.base import Counts, DeadLetter
from alligator.commands.letters import Story
from alligator.commands.looking import status_json, status_text
from alligator.deaths import Death
from alligator.exceptions import Snooze
from tests.features import stop_work as jobs
from tests.features.work import do, done, work_off
from tests.integration import jobs as rough_jobs
from tests.integration.scenes import Scene, kill, until

MIB = 2**20
NAMELESS = signal.SIGRTMIN + 3
ON_SCENE_SQLITE = pytest.mark.parametrize("scene", ["sqlite"], indirect=True)
HOSTILE = [
    b"",
    b"\xff",
    b"[]",
    b'{"signal": []}',
    b'{"signal": "a\\nb\\u001b[31m", "stack": 7, "at": "x", "pid": 1e400}',
    b'{"exit_status": NaN}',
    b'{"exit_status": 3, "at": 1e300, "peak_memory": -1, "seconds": {}, "stack": "\\u001b[2J"}',
]


def buried(scene: Scene) -> DeadLetter:
    """Wait for the only dead letter."""
    until(lambda: scene.counts == Counts(dead=1), "one dead letter and nothing else", within=30)
    [letter] = scene.dead
    return letter


def death_of(letter: DeadLetter) -> Death:
    """Return how the process ended, as a dead letter tells it."""
    death = Story.of(letter).death
    assert death is not None, letter.note
    return death


def nothing_is_left(gator: Gator) -> None:
    """Wait until no record tells of what was."""
    records = gator.backend.records
    assert records is not None
    families = ("deaths", "progress", "stops")
    until(lambda: not any(map(records.list, families)), "nothing is kept any more")


# Of one that dies again and again.


@pytest.mark.parametrize(
    ("func", "args", "cause"),
    [
        (rough_jobs.end_process, (3,), "exit status 3"),
        (rough_jobs.segfault, (), "SIGSEGV"),
        (jobs.take_memory, (150,), "SIGKILL, perhaps for lack of memory"),
    ],
)
def test_a_poisonous_task_tells_how_its_process_ended(
    func: Callable[..., Any], args: tuple[Any, ...], cause: str, scene: Scene
) -> None:
    scene.push("bad", func, *args)

    program = scene.latergator("--burst")

    letter = buried(scene)
    death = death_of(letter)
    assert death.cause() == cause
    assert death.reason == ""
    assert death.pid in {entry.pid for entry in scene.journal.entries("start", "bad")}
    assert death.at == pytest.approx(scene.gator.backend.now(), abs=60)
    assert 0 <= death.seconds < 30
    assert death.peak_memory is not None
    assert (death.peak_memory > 150 * MIB) == (func is jobs.take_memory)
    assert ("in segfault\n" in death.stack) == (func is rough_jobs.segfault)
    assert "jobs.py" not in death.stack or "Segmentation fault" in death.stack
    assert cause in json.loads(letter.note)["error"]
    progress = Story.of(letter).progress
    assert (progress and progress.note) == ("all taken" if func is jobs.take_memory else None)
    program.wait()
    assert program.stderr.count(cause) >= 3
    assert (program.stderr.count("in segfault\n") == 3) == (func is rough_jobs.segfault)
    nothing_is_left(scene.gator)


def test_it_is_shown_with_the_dead_letter(scene: Scene) -> None:
    scene.push("bad", rough_jobs.segfault)
    scene.latergator("--burst").wait()

    status = scene.gator.status("bad")
    death = death_of(buried(scene))

    assert (status.state, status.death) == ("failed", death)
    shown = status_text(status).splitlines()
    [line] = [line for line in shown if line.startswith("process ")]
    assert f"{death.pid} of host '{death.host}' was killed by SIGSEGV (peak" in line
    assert shown[shown.index(line) + 1].endswith("in segfault")
    told = status_json(status)["death"]
    assert (told["signal"], told["exit_status"], told["stack"]) == ("SIGSEGV", None, death.stack)
    json.dumps(told, allow_nan=False)


# Of one that is to run again.


def test_it_is_shown_while_the_task_is_run_again(scene: Scene) -> None:
    scene.push_gated("t1")
    scene.latergator()
    first = scene.started("t1")

    kill(first.pid)
    again = scene.started("t1", 2)
    running = scene.gator.status("t1")
    scene.open("t1")

    assert running.state == "running"
    assert running.death is not None
    assert (running.death.signal, running.death.pid) == ("SIGKILL", first.pid)
    assert again.pid != first.pid
    scene.finished("t1")
    nothing_is_left(scene.gator)


def test_nothing_is_left_of_a_death_when_the_task_has_ended(scene: Scene) -> None:
    scene.push("t1", jobs.die_once, 3)

    scene.latergator("--burst").wait()

    assert len(scene.journal.entries("start", "t1")) == 2
    assert scene.counts == Counts()
    nothing_is_left(scene.gator)


@ON_SCENE_SQLITE
def test_a_signal_without_a_name_is_told_by_its_number(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator()
    first = scene.started("t1")

    kill(first.pid, NAMELESS)
    scene.started("t1", 2)

    assert program.runs
    program.says(f"died (signal {NAMELESS})")


DEATH = Death(signal="SIGSEGV", pid=7, host="h", seconds=1.5, stack='File "a.py", line 1, in f')


def died(gator: Gator, **options: Any) -> None:
    """Queue a task, and let it come back as from a process that died."""
    with gator.options(task_id="t1", **options) as opts:
        opts.task(do, "t1")
    [held] = gator.backend.reserve(["all"], "w1").reservations
    deaths.keep(gator.backend, gator.results, {held: DEATH._replace(token=held.token)})
    gator.backend.recover(["all"], "w1", ["t1"])


def test_it_is_shown_while_the_task_waits(gator: Gator) -> None:
    died(gator)

    status = gator.status("t1")

    assert status.state == "waiting"
    assert status.death is not None
    assert (status.death.signal, status.death.stack) == ("SIGSEGV", DEATH.stack)


def test_nothing_is_left_of_a_death_when_the_task_is_canceled(gator: Gator) -> None:
    died(gator)

    assert gator.cancel("t1")

    nothing_is_left(gator)


def test_a_task_that_fails_afterwards_tells_of_it(gator: Gator) -> None:
    died(gator, on_start=fail_at_start)
    work_off(gator)

    [letter] = gator.backend.dead("all")
    assert json.loads(letter.note)["type"] == "ValueError"
    assert death_of(letter).signal == "SIGSEGV"
    nothing_is_left(gator)


def test_an_attempt_that_failed_by_itself_takes_the_death_before_along(gator: Gator) -> None:
    died(gator, retries=1, backoff=60, on_start=fail_at_start)
    work_off(gator)

    assert gator.status("t1").state == "retrying"
    assert gator.status("t1").death is None
    nothing_is_left(gator)


def fail_at_start(task: Task) -> None:
    raise ValueError("at the start")


def test_what_is_put_off_forgets_the_death_before(gator: Gator) -> None:
    died(gator, on_start=put_off)
    work_off(gator)

    assert gator.status("t1").state == "delayed"
    nothing_is_left(gator)


def put_off(task: Task) -> None:
    raise Snooze(60)


to_leave: list[Worker] = []
"""Workers that are to leave amid a task."""


def leave_amid() -> None:
    for number in track(range(5)):
        if number == 2 and to_leave:
            to_leave.pop().stop()


@pytest.mark.parametrize("is_named", [False, True])
def test_what_goes_back_to_resume_forgets_a_death_unless_its_history_names_it(
    gator: Gator, is_named: bool
) -> None:
    with gator.options(task_id="t1", retries=1, backoff=0.01) as opts:
        opts.task(leave_amid)
    [held] = gator.backend.reserve(["all"], "w1").reservations
    if is_named:
        stops.ask(gator.backend, "all", "t1", held.token, stops.TIMEOUT)
    deaths.keep(gator.backend, gator.results, {held: DEATH._replace(token=held.token)})
    gator.backend.recover(["all"], "w1", ["t1"])

    to_leave.append(Worker(gator))
    to_leave[0].run_forever()

    assert gator.backend.records is not None
    assert bool(gator.backend.records.list("deaths")) == is_named
    assert bool(gator.status("t1").death) == is_named
    Worker(gator, burst=True).run_forever()
    nothing_is_left(gator)


def test_a_death_of_a_former_task_is_not_told_of_a_later_one_of_its_id(gator: Gator) -> None:
    died(gator)
    gator.backend.drop_all("all")
    with gator.options(task_id="t1", retries=1, backoff=60, on_start=fail_at_start) as opts:
        opts.task(do, "t1")

    assert gator.status("t1").death is None
    work_off(gator)
    assert gator.status("t1").death is None


@pytest.mark.parametrize("told", HOSTILE, ids=range(len(HOSTILE)))
def test_a_record_that_makes_no_sense_does_no_harm(told: bytes) -> None:
    gator = Gator("locmem://")
    died(gator)
    assert gator.backend.records is not None
    gator.backend.records.set(deaths.key_of("all", "t1"), told)

    status = gator.status("t1")
    assert status.death is None or status.death.signal.isprintable()
    status_text(status)
    json.dumps(status_json(status), allow_nan=False)
    work_off(gator)

    assert done == ["t1"]


# Of one that hangs.

HANGS: list[tuple[tuple[str, ...], list[Callable[..., Any]]]] = [
    (
        ("--workers", "4"),
        [jobs.hold_the_lock, jobs.turn_a_deaf_ear, jobs.swallow, jobs.wait_whatever_is_raised],
    ),
    (("--threads", "3"), [jobs.turn_a_deaf_ear, jobs.swallow]),
    (("--threads", "3"), [jobs.sleep_in_c]),
    (("--concurrency", "5", "--threads", "2"), [jobs.hold_the_lock]),
    (("--concurrency", "5"), [jobs.block_the_loop]),
    (("--concurrency", "5"), [jobs.wait_whatever_is_raised]),
]


@pytest.mark.parametrize(("settings", "funcs"), HANGS)
@ON_SCENE_SQLITE
def test_a_task_that_hangs_tells_where(
    settings: tuple[str, ...], funcs: list[Callable[..., Any]], scene: Scene
) -> None:
    gate = str(scene.folder / "gate")
    program = scene.latergator(*settings)
    if settings[0] != "--workers":
        scene.push("other", jobs.wait_at_gate, gate)
        scene.started("other")

    for func in funcs:
        scene.push(func.__name__, func, timeout=0.3)
    until(lambda: len(scene.dead) == len(funcs), "all have failed", within=30)
    (scene.folder / "gate").touch()
    until(lambda: scene.counts == Counts(dead=len(funcs)), "nothing else is left")

    assert sorted(letter.task_id for letter in scene.dead) == sorted(
        func.__name__ for func in funcs
    )
    for letter in scene.dead:
        where = "wait_deep_down" if letter.task_id.startswith("wait") else letter.task_id
        death = death_of(letter)
        assert (death.signal, death.reason) == ("SIGKILL", "timeout")
        assert f", in {where}" in death.stack
        assert "wait_at_gate" not in death.stack
        assert "alligator/" not in death.stack
        assert death.seconds > 0.3
        assert f", in {where}\n" in program.stderr
    nothing_is_left(scene.gator)


def test_between_the_attempts_it_is_told_where_the_last_one_hung(scene: Scene) -> None:
    scene.push("bad", jobs.hold_the_lock, timeout=0.3, retries=1, backoff=3600)
    scene.latergator()

    until(lambda: scene.gator.status("bad").state == "retrying", "it is to be tried again", 30)
    death = scene.gator.status("bad").death

    assert death is not None
    assert (death.reason, "in hold_the_lock" in death.stack) == ("timeout", True)


@ON_SCENE_SQLITE
def test_one_that_was_canceled_and_does_not_end_is_logged(scene: Scene) -> None:
    scene.push("bad", jobs.hold_the_lock)
    program = scene.latergator("--grace", "0.5")
    scene.started("bad")

    assert scene.gator.cancel("bad")

    until(lambda: scene.counts == Counts(), "it is canceled")
    program.says("was canceled, and does not end")
    program.says("in hold_the_lock\n")
    nothing_is_left(scene.gator)


@ON_SCENE_SQLITE
def test_one_that_does_not_end_within_the_grace_is_logged(scene: Scene) -> None:
    scene.push("bad", jobs.hold_the_lock)
    program = scene.latergator("--grace", "0.3")
    scene.started("bad")

    program.signal(signal.SIGTERM)
    program.wait()

    assert "Task 'bad' does not end within the grace" in program.stderr
    assert "in hold_the_lock\n" in program.stderr
    assert scene.deliveries() == {"bad": 1}


@ON_SCENE_SQLITE
def test_a_second_signal_asks_nothing(scene: Scene) -> None:
    scene.push("bad", jobs.hold_the_lock)
    program = scene.latergator()
    scene.started("bad")

    program.signal(signal.SIGTERM)
    program.signal(signal.SIGINT)  # another one: two of a kind may be taken for one
    program.wait()

    assert "hold_the_lock" not in program.stderr
    assert scene.deliveries() == {"bad": 1}
