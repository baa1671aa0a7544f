"""Bad days: what cannot be read, imported or told, and what kills its worker. Nothing gets lost."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator import ALL, Gator, Task, Worker, deaths
from alligator.attempts import Runner
from alligator.backends.base import (
    MAX_ID_BYTES,
    Ack,
    Bury,
    Counts,
    Found,
    Message,
    Release,
    Reservation,
)
from alligator.backends.locmem_backend import Client
from alligator.backends.simple import SimpleBackend
from alligator.constants import FAILED, RETRYING, SUCCESS
from alligator.deaths import Death
from alligator.exceptions import (
    AlligatorException,
    InvalidOption,
    TaskFailed,
    UnknownCallableError,
    UnknownModuleError,
    UnreadableTask,
)
from alligator.notes import MAX_TRACEBACK
from alligator.retries import MAX_DELIVERIES
from alligator.runs import take_retry
from alligator.settling import Attempt
from alligator.tasks import Abandoned
from tests.unit import jobs
from tests.unit.conftest import Clock
from tests.unit.five_methods import FiveMethods
from tests.unit.steps import dead_letter, import_from, note_of, popped

PAYLOAD: dict[str, Any] = {
    "task_id": "t1",
    "retries": 0,
    "async": True,
    "module": "tests.unit.jobs",
    "callable": "add",
    "args": [1],
    "kwargs": {"b": 2},
    "options": {"on_error": {"module": "tests.unit.jobs", "callable": "note_error"}},
}


def body_of(**changes: Any) -> bytes:
    return json.dumps(PAYLOAD | changes).encode()


def reserved(body: bytes, deliveries: int = 1) -> Reservation:
    return Reservation(ALL, "t1", body, "token", deliveries)


def attempt(held: Reservation, task_class: type[Task]) -> Attempt:
    return Runner(Client("locmem://"), task_class).attempt(held)


# Poison


def kill_a_worker(gator: Gator, clock: Clock) -> None:
    """Take the first task, and never be heard of again."""
    [_] = gator.backend.reserve([ALL], "killed", lease=30).reservations
    clock.turn(31)


def test_a_task_that_kills_its_workers_is_buried_as_poison(gator: Gator, clock: Clock) -> None:
    gator.task(jobs.echo, "never")
    for _ in range(MAX_DELIVERIES):
        kill_a_worker(gator, clock)

    with pytest.raises(TaskFailed, match="Handed out 3 times, and no worker lived to tell"):
        gator.pop()

    assert jobs.seen == []
    assert gator.backend.count(ALL) == Counts(dead=1)
    assert note_of(gator)["reason"] == "poison"
    assert Task.deserialize(dead_letter(gator).body).func == jobs.echo


def test_a_task_is_given_another_chance_after_a_worker_died(gator: Gator, clock: Clock) -> None:
    gator.task(jobs.echo, "at last")
    for _ in range(MAX_DELIVERIES - 1):
        kill_a_worker(gator, clock)

    assert popped(gator).result == "at last"


def test_giving_a_task_back_counts_no_delivery(gator: Gator) -> None:
    gator.task(jobs.echo, "at last")
    for _ in range(10):
        [held] = gator.backend.reserve([ALL], "worker").reservations
        gator.backend.settle([Release(held)])

    assert popped(gator).result == "at last"


def test_an_attempt_that_failed_starts_the_count_of_deliveries_anew(
    gator: Gator, clock: Clock
) -> None:
    with gator.options(retries=1) as opts:
        opts.task(jobs.fail_until, 1)
    for _ in range(MAX_DELIVERIES - 1):
        kill_a_worker(gator, clock)
    assert popped(gator).status == RETRYING
    for _ in range(MAX_DELIVERIES - 1):
        kill_a_worker(gator, clock)

    assert popped(gator).result == "at last"


# How a process ended that had a task


def by_pop(gator: Gator) -> None:
    gator.pop()


def by_worker(gator: Gator) -> None:
    Worker(gator, max_tasks=1).run_forever()


def die(gator: Gator) -> Death:
    """Take the first task, and end; as the parent of the process tells."""
    [held] = gator.backend.reserve([ALL], "dying").reservations
    death = Death(signal="SIGSEGV", token=held.token)
    deaths.keep(gator.backend, gator.results, {held: death})
    gator.backend.recover([ALL], "dying", [held.task_id])
    return death


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("func", [jobs.look, jobs.look_and_fail])
@pytest.mark.parametrize("run", [by_pop, by_worker])
def test_who_comes_too_late_leaves_what_is_kept_to_who_has_the_task(
    gator: Gator,
    clock: Clock,
    run: Callable[[Gator], None],
    func: Callable[[], None],
    retries: int,
) -> None:
    with gator.options(task_id="t1", retries=retries) as opts:
        opts.task(func)
    death = die(gator)
    others: list[Reservation] = []

    def lose_it() -> None:
        clock.turn(3600)
        others.extend(gator.backend.reserve([ALL], "another", lease=60).reservations)

    jobs.watched.append(lose_it)
    with contextlib.suppress(ValueError):
        run(gator)

    [other] = others
    assert other.deliveries == 3
    assert deaths.found(gator.backend, gator.results, other) == death


@pytest.mark.parametrize("is_over", [False, True])
def test_a_death_told_late_is_not_kept(gator: Gator, is_over: bool) -> None:
    gator.task(jobs.echo, "t1")
    [held] = gator.backend.reserve([ALL], "dying").reservations
    gator.backend.recover([ALL], "dying", [held.task_id])  # by others: the parent had no answer
    if is_over:
        gator.pop()
    else:
        gator.backend.reserve([ALL], "another")

    deaths.keep(gator.backend, gator.results, {held: Death(signal="SIGSEGV", token=held.token)})

    assert gator.backend.records is not None
    assert gator.backend.records.list("deaths") == {}


class Counting(Client):
    """Counts how often it is asked for a task."""

    finds = 0

    def find(self, *args: Any, **kwargs: Any) -> Found | None:
        self.finds += 1
        return super().find(*args, **kwargs)


@pytest.mark.parametrize(("tasks", "kept"), [(deaths.FEW, deaths.FEW), (deaths.FEW + 1, 0)])
def test_how_a_process_ended_is_kept_where_few_tasks_may_be_why(tasks: int, kept: int) -> None:
    gator = Gator("locmem://", backend_class=Counting)
    with gator.batch() as batch:
        for number in range(tasks):
            batch.task(jobs.echo, number)
    held = gator.backend.reserve([ALL], "dying", limit=tasks).reservations
    died = {one: Death(signal="SIGKILL", token=one.token) for one in held}

    deaths.keep(gator.backend, gator.results, died)

    assert isinstance(gator.backend, Counting)
    assert gator.backend.finds == kept  # each a round trip, before anything goes back
    assert gator.backend.records is not None
    assert len(gator.backend.records.list("deaths")) == kept


def test_a_death_of_a_former_task_is_not_told_of_one_that_is_handed_out_again(
    gator: Gator, clock: Clock
) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(jobs.echo, "former")
    death = die(gator)
    gator.backend.drop_all(ALL)
    with gator.options(task_id="t1") as opts:
        opts.task(jobs.echo, "later")
    kill_a_worker(gator, clock)

    assert gator.status("t1").death is None
    [later] = gator.backend.reserve([ALL], "another").reservations
    assert later.deliveries == 2
    assert deaths.found(gator.backend, gator.results, later) is None
    assert deaths.found(gator.backend, gator.results, later, [{"token": death.token}]) == death


# What cannot be read or imported


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"no task", UnreadableTask),
        (body_of(module="no.such.module"), UnknownModuleError),
        (body_of(callable="no_such_function"), UnknownCallableError),
        (
            body_of(options={"on_start": {"module": "no.such.module", "callable": "x"}}),
            UnknownModuleError,
        ),
    ],
    ids=["no task", "no module", "no function", "no hook"],
)
def test_what_cannot_be_read_waits_for_a_deploy_and_is_buried_whole_in_the_end(
    gator: Gator, clock: Clock, body: bytes, error: type[Exception]
) -> None:
    gator.backend.push(ALL, "t1", body)

    for wait in (10, 20):
        with pytest.raises(error):
            gator.pop()
        assert gator.backend.count(ALL) == Counts(delayed=1)
        clock.turn(wait - 0.1)
        assert gator.pop() is None
        clock.turn(0.2)
    with pytest.raises(error):
        gator.pop()

    assert gator.backend.count(ALL) == Counts(dead=1)
    letter = dead_letter(gator)
    assert (letter.task_id, letter.body) == ("t1", body)
    assert note_of(gator)["reason"] == "unreadable"
    assert error.__name__ in note_of(gator)["traceback"]


@pytest.mark.parametrize("task_id", ["a\nb", "a\ud800b", "a" * (MAX_ID_BYTES + 1)])
def test_what_got_into_the_store_under_an_impossible_id_is_buried_by_pop(
    task_id: str, gator: Gator, caplog: pytest.LogCaptureFixture
) -> None:
    gator.backend.push_many(ALL, [Message(task_id, body_of(callable="echo", kwargs={}))])

    with pytest.raises(InvalidOption, match="task_id"):
        gator.pop()

    assert jobs.seen == []
    assert gator.backend.count(ALL) == Counts(dead=1)
    assert dead_letter(gator).task_id == task_id
    assert note_of(gator)["reason"] == "unreadable"
    assert gator.pop() is None
    caplog.text.encode()  # what is logged can be written


class UntoldTask(Task):
    """Cannot be read, and does not let itself be told why."""

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        raise jobs.Untellable


class UnqueuableTask(Task):
    """Cannot be queued again, and does not let itself be told why."""

    def serialize(self) -> str | bytes:
        raise jobs.Untellable


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("kind", ["node", "leaves", "untellable"])
@pytest.mark.parametrize("task_class", [Task, UnqueuableTask])
def test_an_error_that_cannot_be_told_is_a_failure_like_any_other(
    kind: str, retries: int, task_class: type[Task]
) -> None:
    body = body_of(callable="fail_untold", args=[kind], kwargs={}, options={}, retries=retries)

    settlement = attempt(reserved(body), task_class).settlement

    is_again = retries and task_class is Task
    assert isinstance(settlement, Release if is_again else Bury)


def test_a_task_put_off_for_a_reason_that_cannot_be_told_comes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    body = body_of(callable="fail_untold", args=["snooze"], kwargs={}, options={})

    settlement = attempt(reserved(body), Task).settlement

    assert isinstance(settlement, Release)
    assert "is put off: tests.unit.jobs.UntellableDelay" in caplog.text


class OverridingTask(Task):
    """Runs as any, but by a method of its own."""

    def run(self) -> Any:
        return super().run()


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("task_class", [Task, OverridingTask])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("snooze, left out", "NotYet takes a delay in seconds, from 0 to a century; not None"),
        ("snooze, raising", "division by zero"),
        ("snooze, -1", "Snooze takes a delay in seconds, from 0 to a century; not -1"),
        ("snooze, text", "Snooze takes a delay in seconds, from 0 to a century; not 'soon'"),
        ("retry, -1", "Retry takes a delay in seconds, from 0 to a century; not -1"),
        ("retry, text", "Retry takes a delay in seconds, from 0 to a century; not 'soon'"),
    ],
)
def test_to_ask_for_a_delay_that_cannot_be_is_a_failure_like_any_other(
    kind: str, told: str, task_class: type[Task], retries: int
) -> None:
    body = body_of(callable="ask_to_wait", args=[kind], kwargs={}, options={}, retries=retries)

    settlement = attempt(reserved(body), task_class).settlement

    if isinstance(settlement, Release):
        assert retries == 1
        assert settlement.body is not None
        [entry] = json.loads(settlement.body)["options"]["history"]
        assert told in entry["error"]
    else:
        assert retries == 0
        assert isinstance(settlement, Bury)
        assert told in json.loads(settlement.note)["message"]
        # And the task's own, as what led to it.
        assert "in ask_to_wait" in json.loads(settlement.note)["traceback"]


@pytest.mark.parametrize(("kind", "delay"), [("left out", 0), ("by its class", 3600)])
def test_a_retry_of_ones_own_kind_need_not_say_a_delay(kind: str, delay: float) -> None:
    body = body_of(
        callable="ask_to_wait", args=[f"retry, {kind}"], kwargs={}, options={}, retries=1
    )

    settlement = attempt(reserved(body), Task).settlement

    assert isinstance(settlement, Release)
    assert settlement.delay == delay


def test_a_hook_that_spoils_the_delay_leaves_no_retry(caplog: pytest.LogCaptureFixture) -> None:
    hook = {"module": "tests.unit.jobs", "callable": "spoil_delay"}
    body = body_of(
        callable="ask_to_wait",
        args=["retry, by its class"],
        kwargs={},
        options={"on_error": hook},
        retries=1,
    )

    came = attempt(reserved(body), Task)

    assert isinstance(came.settlement, Bury)
    assert came.task is not None
    assert came.task.status == FAILED
    assert "cannot be tried again: InvalidOption: A retry takes a delay" in caplog.text


@pytest.mark.parametrize("callable_name", ["add", "fail"])
def test_a_hook_whose_error_cannot_be_told_changes_nothing(
    caplog: pytest.LogCaptureFixture, callable_name: str
) -> None:
    hook = {"module": "tests.unit.jobs", "callable": "untold_hook"}
    args = [1] if callable_name == "add" else ["gone wrong"]
    kwargs = {"b": 2} if callable_name == "add" else {}
    options = {"on_success": hook, "on_error": hook}
    body = body_of(callable=callable_name, args=args, kwargs=kwargs, options=options)

    settlement = attempt(reserved(body), Task).settlement

    assert isinstance(settlement, Ack if callable_name == "add" else Bury)
    assert (
        f"its hook {'on_success' if callable_name == 'add' else 'on_error'} raised" in caplog.text
    )


@pytest.mark.parametrize("deliveries", [1, 3])
def test_a_task_class_whose_error_cannot_be_told_kills_nothing(deliveries: int) -> None:
    settlement = attempt(reserved(body_of(), deliveries), UntoldTask).settlement

    assert isinstance(settlement, Release if deliveries == 1 else Bury)


def test_code_that_arrives_in_time_runs_the_task(
    gator: Gator,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("deployed")
    import_from(folder, monkeypatch)
    gator.backend.push(ALL, "t1", body_of(module="deployed_later"))
    with pytest.raises(UnknownModuleError):
        gator.pop()

    (folder / "deployed_later.py").write_text("def add(a, b): return a + b")
    import_from(folder, monkeypatch)  # again, so that Python looks again
    clock.turn(10)

    assert popped(gator).result == 3
    monkeypatch.delitem(sys.modules, "deployed_later")


def test_a_module_that_leaves_the_program_on_import_kills_nothing(
    gator: Gator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("leaving")
    (folder / "leaves_on_import.py").write_text("raise SystemExit('no use')")
    import_from(folder, monkeypatch)

    came = attempt(reserved(body_of(module="leaves_on_import")), Task)

    assert isinstance(came.settlement, Release)
    assert isinstance(came.error, SystemExit)


def test_what_is_no_function_after_all_is_a_failure(gator: Gator) -> None:
    gator.backend.push(ALL, "t1", body_of(callable="seen"))

    with pytest.raises(TypeError, match="not callable"):
        gator.pop()

    assert note_of(gator)["reason"] == "failed"


scraps = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
# No names made up at random: some module of that name might do anything when imported.
names = st.sampled_from(["", ".", "math", "no.such", "tests.unit.jobs", "add", "fail", "seen"])


@st.composite
def changed_payloads(draw: st.DrawFn) -> bytes:
    """Payloads with wrong values in some of their keys, as JSON of Python's kind (NaN included)."""
    payload = dict(PAYLOAD)
    for key in draw(st.lists(st.sampled_from(sorted(payload)), min_size=1, max_size=3)):
        payload[key] = draw(names if key in ("module", "callable") else scraps)
    if draw(st.booleans()):
        del payload[draw(st.sampled_from(sorted(payload)))]
    return json.dumps(payload).encode()


@st.composite
def damaged_payloads(draw: st.DrawFn) -> bytes:
    """Payloads with some bytes cut out, replaced or put in; of the names, too few to make others."""
    body = body_of()
    at = draw(st.integers(0, len(body)))
    cut = draw(st.sampled_from([0, 1, 2, 10, len(body)]))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + cut :]


@given(body=st.binary(max_size=60) | changed_payloads() | damaged_payloads())
def test_no_payload_is_lost_and_none_kills(body: bytes) -> None:
    jobs.seen.clear()
    clock = Clock()
    gator = Gator("locmem://", backend_class=lambda conn_string: Client(conn_string, clock))
    gator.backend.push(ALL, "t1", body)

    runs = 0
    last: Exception | Task | None = None
    while gator.len() and runs < 10:
        runs += 1
        clock.turn(100)
        try:
            task = popped(gator)
        except Exception as err:
            last = err
        else:
            last = task

    counts = gator.backend.count(ALL)
    assert counts.running == 0
    if isinstance(last, Task) and last.status == SUCCESS:
        assert counts == Counts()
    elif counts == Counts(dead=1):
        letter = dead_letter(gator)
        assert letter.task_id == "t1"
        if note_of(gator)["reason"] == "unreadable":
            assert letter.body == body
            assert isinstance(last, AlligatorException)
            assert runs == MAX_DELIVERIES
    else:  # so many retries that it still waits
        assert counts == Counts(waiting=1)


@given(good=st.integers(1, 3), body=damaged_payloads())
def test_a_bad_payload_keeps_no_good_task_from_running(good: int, body: bytes) -> None:
    gator = Gator("locmem://")
    gator.backend.push(ALL, "bad", body)
    for number in range(good):
        gator.task(jobs.echo, number)

    results: list[Any] = []
    while gator.backend.count(ALL).waiting:
        try:
            results.append(popped(gator).result)
        except Exception:
            pass

    assert [result for result in results if result in range(good)][-good:] == list(range(good))


# What a dead letter tells


def note_after(gator: Gator, func: Any, *args: Any) -> dict[str, Any]:
    gator.task(func, *args)
    with pytest.raises(BaseException):  # noqa: B017, PT011 -- whatever it raises
        gator.pop()
    return note_of(gator)


def test_a_dead_letter_tells_the_error_and_the_way_to_it(gator: Gator) -> None:
    note = note_after(gator, jobs.fail_in_a_chain)

    assert note["error"] == "KeyError: 'the effect'"
    assert "ValueError: the cause" in note["traceback"]
    assert "in fail_in_a_chain" in note["traceback"]
    assert "jobs.py" in note["traceback"]


def test_a_traceback_begins_with_the_task_and_holds_no_variables(gator: Gator) -> None:
    note = note_after(gator, jobs.fail_with_secrets, "hunter2")

    assert "runs.py" not in note["traceback"]
    assert "tasks.py" not in note["traceback"]
    assert "hunter2" not in json.dumps(note)


@pytest.mark.parametrize(
    ("func", "args", "error"),
    [
        (jobs.fail_beyond_words, (), "tests.unit.jobs.Unprintable: <exception str() failed>"),
        (jobs.fail, ("a\x00b\n\x1b[31m",), "ValueError: a\x00b\n\x1b[31m"),
        (jobs.recurse, (), "RecursionError: maximum recursion depth exceeded"),
        (jobs.fail_in_a_group, (), "ExceptionGroup: several (2 sub-exceptions)"),
        (jobs.fail, ("x" * 100_000,), "x" * MAX_TRACEBACK),
    ],
    ids=["no words", "control characters", "recursion", "group", "long"],
)
def test_any_error_can_be_told(gator: Gator, func: Any, args: tuple[Any, ...], error: str) -> None:
    note = note_after(gator, func, *args)

    assert note["error"].startswith(error)
    assert len(note["traceback"]) <= MAX_TRACEBACK


def test_an_error_with_a_lone_surrogate_can_be_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("\ud800")

    class Direct(Task):
        @classmethod
        def deserialize(cls, data: str | bytes) -> "Direct":
            task = cls()
            task.to_call(fail)
            return task

    with caplog.at_level(logging.CRITICAL):  # pytest's reports cannot carry it
        came = attempt(reserved(b""), Direct)

    assert isinstance(came.settlement, Bury)
    assert came.settlement.note.isascii()
    assert json.loads(came.settlement.note)["error"] == "ValueError: \ud800"


# What becomes of an attempt


def test_an_attempt_that_succeeds_is_acknowledged() -> None:
    held = reserved(body_of())

    came = attempt(held, Task)

    assert came.settlement == Ack(held)
    assert came.error is None
    assert came.task is not None
    assert came.task.result == 3


def test_an_attempt_that_fails_with_retries_left_is_released_as_a_new_one() -> None:
    held = reserved(body_of(retries=2, callable="fail", args=[], kwargs={}), deliveries=3)

    came = attempt(held, Task)

    assert isinstance(came.settlement, Release)
    assert came.settlement.reservation == held
    assert (came.settlement.delay, came.settlement.lapsed) == (0, False)
    assert came.settlement.body is not None
    assert json.loads(came.settlement.body)["retries"] == 1
    assert isinstance(came.error, ValueError)


def test_a_worker_that_may_wait_no_longer_ends_the_attempt_without_an_outcome() -> None:
    class Stopped(Task):
        def run(self) -> Any:
            raise Abandoned

    with pytest.raises(Abandoned):
        attempt(reserved(body_of()), Stopped)


def test_a_module_that_takes_long_to_import_does_not_hold_up_a_worker_that_leaves() -> None:
    class Stopped(Task):
        @classmethod
        def deserialize(cls, data: str | bytes) -> "Stopped":
            raise Abandoned

    with pytest.raises(Abandoned):
        attempt(reserved(body_of()), Stopped)


@pytest.mark.parametrize("hook", ["on_start", "on_success", "on_error"])
def test_a_hook_does_not_hold_up_a_worker_that_may_wait_no_longer(hook: str) -> None:
    def give_up(*_: Any) -> None:
        raise Abandoned

    task = Task()
    setattr(task, hook, give_up)
    task.to_call(jobs.fail if hook == "on_error" else jobs.look)

    with pytest.raises(Abandoned):
        task.run()


def test_a_retry_is_taken_until_none_is_left() -> None:
    task = Task(retries=1)

    assert take_retry(task, ValueError(), {"attempt": 1}) == 0.0
    assert (task.retries, task.status) == (0, RETRYING)
    assert (task.attempt, task.history) == (2, ({"attempt": 1},))
    assert take_retry(task, ValueError(), {"attempt": 2}) is None
    assert (task.retries, task.status) == (0, FAILED)


def test_a_store_that_cannot_count_deliveries_gives_no_second_one() -> None:
    assert Runner(Client("locmem://"), Task).max_deliveries == MAX_DELIVERIES
    assert Runner(SimpleBackend(FiveMethods("five://")), Task).max_deliveries == 1
