"""Tasks that depend on others, when somebody dies between two steps, or two act in the same moment."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from alligator import Gator, Task, dependencies
from alligator.attempts import Runner
from alligator.backends.base import Backend, Message
from alligator.commands import revival
from alligator.commands.letters import Ref
from alligator.dependencies import depending
from alligator.dependencies.edges import dependents_of, edges_in, needs_of
from alligator.exceptions import BackendUnavailable, TaskFailed
from alligator.tasks import Abandoned
from alligator.testing.running import Child, in_threads
from alligator.testing.stores import until
from alligator.verify.journal import Journal
from tests.features import work
from tests.features.work import QuietWorker, do, fail, work_off

MOST_CALLS = 100
"""More calls of the store than anything here makes."""


class Killed(Abandoned):
    """Raised in place of the end of a process: nothing of ours handles it."""


class Overheard:
    """A store, or its records, that calls someone before each call of it."""

    def __init__(self, store: Any, listener: Callable[[], None]) -> None:
        self._store = store
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "records":
            return Overheard(found, self._listener)
        if name in ("now", "close") or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._listener()
            return found(*args, **kwargs)

        return call


def at_call(number: int, act: Callable[[], Any]) -> Callable[[], None]:
    """Return a listener that does something before the call of that number: 0, 1, 2 ..."""
    numbers = count()

    def listen() -> None:
        if next(numbers) == number:
            act()

    return listen


def die() -> None:
    raise Killed


def overheard(gator: Gator, listener: Callable[[], None], queue_name: str = "") -> Gator:
    """Return a Gator on the same store, of whose calls a listener learns."""
    store = Overheard(gator.backend, listener)
    return Gator("locmem://", queue_name or gator.queue_name, backend_class=lambda dsn: store)


def each_time(gator: Gator) -> Generator[tuple[int, Gator]]:
    """Return 0, 1, 2 ... and for each a Gator on a queue of its own; ``work.done`` is empty then."""
    for number in range(MOST_CALLS):
        work.done.clear()
        yield number, Gator("locmem://", f"q{number}", backend_class=lambda dsn: gator.backend)
    pytest.fail(f"No end after {MOST_CALLS} calls")


def first(gator: Gator, func: Callable[..., Any] = do, task_id: str = "first") -> None:
    with gator.options(task_id=task_id, keep_result=60) as opts:
        opts.task(func, task_id)


def second(gator: Gator, *needed: str, task_id: str = "second") -> None:
    with gator.options(task_id=task_id, depends_on=needed or ["first"]) as opts:
        opts.task(do, task_id)


def a_batch(gator: Gator) -> None:
    """The second and the third wait for the first; the fourth for both, and so for a task of the same batch."""
    with gator.batch(depends_on="first") as batch:
        for task_id in ("second", "third"):
            with batch.options(task_id=task_id) as opts:
                opts.task(do, task_id)
        with batch.options(task_id="fourth", depends_on=["second", "third"]) as opts:
            opts.task(do, "fourth")


PUSHES = [second, a_batch]


def let_look(gator: Gator) -> None:
    """Let the time of all blocked tasks come, again and again, until they have found out what they can."""
    for _ in range(4):
        gator.backend.reschedule(gator.queue_name, ["second", "third", "fourth"])
        work_off(gator)


def is_clean(gator: Gator) -> bool:
    """Whether nothing is left of who waits for whom."""
    names = [(gator.queue_name, id) for id in ("first", "second", "third", "fourth")]
    families = [of(name) for name in names for of in (needs_of, dependents_of)]
    return not any(edges_in(gator.backend, family) for family in families)


def assert_in_order(done: list[Any]) -> None:
    """Nothing was done twice, and nothing before what it depends on."""
    assert len(set(done)) == len(done), done
    needs = {"second": {"first"}, "third": {"first"}, "fourth": {"second", "third"}}
    for place, task_id in enumerate(done):
        assert needs.get(task_id, set()) <= set(done[:place]), done


# Who queues


@pytest.mark.parametrize("push", PUSHES)
def test_a_producer_that_dies_leaves_nothing_stuck(
    gator: Gator, push: Callable[[Gator], None]
) -> None:
    for number, queue in each_time(gator):
        first(queue)
        is_over = False
        try:
            push(overheard(queue, at_call(number, die)))
            is_over = True
        except Killed:
            pass

        work_off(queue)
        if is_over:
            assert len(work.done) == queue.backend.count(queue.queue_name).dead + len(work.done)
            assert_in_order(work.done)
            assert is_clean(queue)
            break
        let_look(queue)

        assert_in_order(work.done)
        assert queue.len() == 0
        assert queue.backend.count(queue.queue_name).dead == 0


@pytest.mark.parametrize("push", PUSHES)
def test_a_push_that_broke_off_may_be_repeated(gator: Gator, push: Callable[[Gator], None]) -> None:
    for number, queue in each_time(gator):
        first(queue)
        is_over = False
        try:
            push(overheard(queue, at_call(number, die)))
            is_over = True
        except Killed:
            push(queue)

        work_off(queue)

        if not is_over:
            let_look(queue)
        assert len(work.done) == (2 if push is second else 4)
        assert_in_order(work.done)
        assert is_clean(queue)
        if is_over:
            break


@pytest.mark.parametrize("push", PUSHES)
def test_what_is_waited_for_may_succeed_at_any_moment_of_the_push(
    gator: Gator, push: Callable[[Gator], None]
) -> None:
    for number, queue in each_time(gator):
        first(queue)
        acted: list[int] = []

        def end_the_first(queue: Gator = queue, acted: list[int] = acted) -> None:
            work_off(queue)
            acted.append(1)

        push(overheard(queue, at_call(number, end_the_first)))
        work_off(queue)

        assert len(work.done) == (2 if push is second else 4)
        assert_in_order(work.done)
        assert is_clean(queue)
        if not acted:
            break


@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_what_is_waited_for_may_fail_at_any_moment_of_the_push(
    gator: Gator, push: Callable[[Gator], None], end: str
) -> None:
    for number, queue in each_time(gator):
        first(queue, fail)
        acted: list[int] = []

        def end_the_first(queue: Gator = queue, acted: list[int] = acted) -> None:
            if end == "canceled":
                queue.cancel("first")
            work_off(queue)
            acted.append(1)

        try:
            push(overheard(queue, at_call(number, end_the_first)))
            is_queued = True
        except TaskFailed:
            is_queued = False
        work_off(queue)

        assert set(work.done) <= {"first"}
        assert queue.len() == 0
        dead = {letter.task_id for letter in queue.backend.dead(queue.queue_name)} - {"first"}
        whole = {"second"} if push is second else {"second", "third", "fourth"}
        assert dead == (whole if is_queued else set())
        if not acted:
            break


@pytest.mark.parametrize("needed", [["first"], ["other"], ["first", "other"]], ids=",".join)
def test_another_may_push_the_same_id_at_any_moment_of_the_push(
    gator: Gator, needed: list[str]
) -> None:
    for number, queue in each_time(gator):
        first(queue)
        first(queue, task_id="other")
        acted: list[int] = []

        def push_too(queue: Gator = queue, acted: list[int] = acted) -> None:
            second(queue, *needed)
            acted.append(1)

        second(overheard(queue, at_call(number, push_too)), "first")
        found = queue.backend.find(queue.queue_name, "second")
        assert found is not None
        needs = edges_in(queue.backend, needs_of((queue.queue_name, "second")))
        assert set(needs) == set(Task.deserialize(found.body).depends_on or ())
        second(queue, "other", task_id="third")
        work_off(queue)

        assert sorted(work.done) == ["first", "other", "second", "third"]
        assert work.done.index("first") < 2
        assert is_clean(queue)
        if not acted:
            break


def test_the_store_may_go_away_at_any_moment_of_the_push(gator: Gator) -> None:
    def go_away() -> None:
        raise BackendUnavailable("away")

    for number, queue in each_time(gator):
        first(queue)
        task = Task(depends_on=["first"])
        is_over = False
        try:
            overheard(queue, at_call(number, go_away)).push(task, do, "second")
            is_over = True
        except BackendUnavailable:
            queue.push(task, do, "second")
        work_off(queue)
        if not is_over:  # It was queued, but the answer was lost.
            queue.backend.reschedule(queue.queue_name, [task.task_id])
            work_off(queue)

        assert work.done == ["first", "second"]
        assert is_clean(queue)
        if is_over:
            break


def test_what_is_in_a_batch_and_was_there_before_may_end_at_any_moment_of_the_push(
    gator: Gator,
) -> None:
    for number, queue in each_time(gator):
        with queue.options(task_id="first") as before:
            before.task(do, "first")
        acted: list[int] = []

        def end_the_first(queue: Gator = queue, acted: list[int] = acted) -> None:
            work_off(queue)
            acted.append(1)

        with overheard(queue, at_call(number, end_the_first)).batch() as batch:
            for task_id, needed in [("first", []), ("second", ["first"])]:
                with batch.options(task_id=task_id, depends_on=needed) as opts:
                    opts.task(do, task_id)
        work_off(queue)

        # It was over before it was pushed again, or it was not.
        assert work.done in (["first", "second"], ["first", "first", "second"])
        assert is_clean(queue)
        if not acted:
            break


def test_a_store_may_queue_a_batch_in_many_steps(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depending, "IN_ONE_STEP", 1)
    push_many = gator.backend.push_many

    def step_by_step(queue_name: str, messages: Sequence[Message], **kwargs: Any) -> list[bool]:
        queued: list[bool] = []
        for message in messages:
            queued += push_many(queue_name, [message], **kwargs)
            work_off(gator)
        return queued

    monkeypatch.setattr(gator.backend, "push_many", step_by_step)
    with gator.batch() as batch:
        needed: list[Task] = []
        for number in range(5):
            with batch.options(depends_on=needed) as opts:
                needed = [opts.task(do, number)]

    work_off(gator)

    assert work.done == [0, 1, 2, 3, 4]


def test_two_push_while_what_they_wait_for_ends(gator: Gator) -> None:
    for number in range(30):
        work.done.clear()
        queue = Gator("locmem://", f"q{number}", backend_class=lambda dsn: gator.backend)
        first(queue)

        def act(place: int, queue: Gator = queue) -> None:
            if place == 2:
                work_off(queue)
            else:
                second(queue, task_id=["second", "third"][place])

        in_threads(3, act)
        work_off(queue)

        assert sorted(work.done) == ["first", "second", "third"]
        assert work.done[0] == "first"
        assert is_clean(queue)


# Who tells


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "PAGE", 3)
    monkeypatch.setattr(dependencies, "MANY", 5)


def a_family(gator: Gator, func: Callable[..., Any] = do) -> None:
    """One that eight depend on; three of these also on another, which is done before."""
    first(gator, func)
    first(gator, task_id="other")
    for number in range(8):
        needed = ["first", "other"] if number % 3 == 0 else ["first"]
        second(gator, *needed, task_id=f"d{number}")
    gator.get("other")
    work.done.clear()


def run_once(gator: Gator, listener: Callable[[], None]) -> bool:
    """Hand out the next task to a worker of whose calls a listener learns. Returns False if it was killed."""
    heard = cast(Backend, Overheard(gator.backend, listener))
    [held] = gator.backend.reserve([gator.queue_name], "mortal").reservations
    try:
        outcome = Runner(heard, Task).attempt(held)
        heard.settle([outcome.settlement])
        if outcome.then is not None:
            outcome.then()
    except Killed:
        gator.backend.recover([gator.queue_name], "mortal", [held.task_id])
        return False
    return True


@pytest.mark.usefixtures("small_pages")
def test_whoever_tells_of_a_success_may_die_at_any_moment(gator: Gator) -> None:
    for number, queue in each_time(gator):
        a_family(queue)
        run_once(queue, lambda: None)
        run_once(queue, lambda: None)  # of the other: its news come first
        is_over = run_once(queue, at_call(number, die))

        work_off(queue)

        assert work.done[0] == "first"
        assert Counter(work.done[1:]) == Counter(f"d{number}" for number in range(8))
        assert is_clean(queue)
        assert queue.backend.count(queue.queue_name).dead == 0
        if is_over:
            break


@pytest.mark.usefixtures("small_pages")
def test_whoever_tells_of_a_failure_may_die_at_any_moment(gator: Gator) -> None:
    for number, queue in each_time(gator):
        a_family(queue, fail)
        run_once(queue, lambda: None)
        run_once(queue, lambda: None)
        is_over = run_once(queue, at_call(number, die))

        work_off(queue)

        assert work.done == ["first"]
        assert queue.backend.count(queue.queue_name).dead == 9
        assert queue.len() == 0
        assert edges_in(queue.backend, dependents_of((queue.queue_name, "first"))) == {}
        if is_over:
            break


def late_push(queue: Gator) -> None:
    second(queue, task_id="late")


def cancel_one(queue: Gator) -> None:
    queue.cancel("d4")


def get_one(queue: Gator) -> None:
    queue.get("d4")


def fail_another(queue: Gator) -> None:
    queue.cancel("third")


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("act", [late_push, cancel_one, get_one])
def test_much_may_happen_while_a_success_is_told(
    gator: Gator, act: Callable[[Gator], None]
) -> None:
    for number, queue in each_time(gator):
        a_family(queue)
        run_once(queue, lambda: None)
        run_once(queue, lambda: None)
        acted: list[int] = []

        def meanwhile(queue: Gator = queue, acted: list[int] = acted) -> None:
            act(queue)
            acted.append(1)

        run_once(queue, at_call(number, meanwhile))
        if not acted:
            break
        work_off(queue)

        expected = {f"d{number}" for number in range(8)} | {"first"}
        if act is late_push:
            expected.add("late")
        assert set(work.done) - {"d4"} == expected - {"d4"}
        assert act is cancel_one or "d4" in work.done
        assert len(work.done) == len(set(work.done))
        assert queue.len() == 0
        assert is_clean(queue)


@pytest.mark.parametrize("ends", [do, fail])
def test_what_is_waited_for_may_end_while_a_blocked_task_looks(
    gator: Gator, ends: Callable[..., Any]
) -> None:
    for number, queue in each_time(gator):
        first(queue, ends)
        second(queue)
        acted: list[int] = []

        def end_the_first(queue: Gator = queue, acted: list[int] = acted) -> None:
            work_off(queue)
            acted.append(1)

        heard = overheard(queue, at_call(number, end_the_first))
        try:
            heard.get("second")
        except TaskFailed:
            assert ends is fail
        work_off(queue)

        assert work.done == (["first", "second"] if ends is do else ["first"])
        assert queue.len() == 0
        if not acted:
            break


def test_a_blocked_task_may_be_lost_with_its_worker_while_it_looks(gator: Gator) -> None:
    for number, queue in each_time(gator):
        first(queue)
        second(queue)
        queue.backend.reschedule(queue.queue_name, ["second"])
        with gator_without(queue, "first"):
            is_over = run_once(queue, at_call(number, die))

        work_off(queue)

        assert work.done == ["first", "second"]
        assert is_clean(queue)
        if is_over:
            break


@contextmanager
def gator_without(queue: Gator, task_id: str) -> Generator[None]:
    """Hold a task while the block runs."""
    held = queue.backend.reserve_task(queue.queue_name, task_id, "holder")
    assert held is not None
    yield
    queue.backend.recover([queue.queue_name], "holder")


# Who revives


def test_whoever_revives_may_die_at_any_moment(gator: Gator) -> None:
    for number, queue in each_time(gator):
        first(queue, flaky)
        a_batch(queue)
        work_off(queue)
        name = queue.queue_name
        assert queue.backend.count(name).dead == 4
        work.done[:] = ["mended"]
        refs = [Ref.to(letter) for letter in queue.backend.dead(name, task_id="first")]
        is_over = False
        try:
            revival.retry(cast(Backend, Overheard(queue.backend, at_call(number, die))), refs)
            is_over = True
        except Killed:
            let_look(queue)  # In time: what failed first was held back for longer.
            revival.retry(queue.backend, refs)
            queue.backend.reschedule(name, ["first"])

        work_off(queue)

        assert work.done[0] == "mended"
        assert sorted(work.done[1:]) == ["first", "fourth", "second", "third"]
        assert_in_order(work.done[1:])
        assert queue.backend.count(name).dead == 0
        assert is_clean(queue)
        if is_over:
            break


def flaky(what: Any) -> None:
    """Fail, unless it was mended."""
    if "mended" not in work.done:
        raise OSError(what)
    do(what)


# Processes


def note(path: str, name: str) -> None:
    """Note in a journal that a task ran."""
    Journal(path).note("ran", name)


def kill_us(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before(step: str, page: int) -> None:
    """Let this process be killed before a certain step of letting a certain page of dependents go."""
    page_numbers = count()
    free = dependencies.free

    def dying(backend: Backend, on: Any, edges: Any) -> None:
        if next(page_numbers) != page:
            free(backend, on, edges)
            return
        if step == "free":
            kill_us()
        if step == "wake":
            dependencies.__dict__["wake"] = kill_us
        if step == "forget":
            dependencies.__dict__["dependent"] = kill_us
        free(backend, on, edges)

    dependencies.free = dying


@pytest.mark.parametrize(
    ("step", "page"), [("start", 0), ("free", 0), ("free", 1), ("wake", 1), ("forget", 1)]
)
def test_a_worker_killed_while_it_tells_of_a_success(
    shared_gator: Gator, tmp_path: Path, step: str, page: int
) -> None:
    journal = Journal(tmp_path / "journal")
    gator = shared_gator
    with gator.batch() as batch:
        before = batch.task(note, journal.path, "first")
        with batch.options(depends_on=before) as opts:
            for number in range(3 * dependencies.PAGE):
                opts.task(note, journal.path, str(number))

    def work_until_killed() -> None:
        if step == "start":
            dependencies.__dict__["edges_in"] = kill_us
        kill_before(step, page)
        mine = Gator(gator.dsn.url)
        # One at a time: then nothing else is held in the moment of the kill, and so would be run twice.
        QuietWorker(mine, burst=True, lease=1.0).run_forever()

    with Child(work_until_killed) as child:
        # It is left for the block's end to take note of.
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGKILL

    def all_done() -> bool:
        work_off(gator)
        return gator.len() == 0 and gator.backend.count("all").running == 0

    until(all_done, "all have run")
    runs = Counter(journal.names("ran"))
    assert journal.names("ran")[0] == "first"
    assert set(runs) == {"first", *map(str, range(3 * dependencies.PAGE))}
    assert set(runs.values()) == {1}


def test_workers_of_many_processes_share_a_diamond(
    gators: Callable[..., Gator], tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    gator, other = gators(), gators("other")

    def work_on() -> None:
        mine = Gator(gator.dsn.url)
        QuietWorker(mine, to_consume=["all", "other"]).run_forever()

    with Child(work_on), Child(work_on):
        lasts: list[str] = []
        for number in range(50):
            with gator.options(keep_result=60) as opts:
                top = opts.task(note, journal.path, f"{number}-top")
            sides: list[Task] = []
            for name, queue in (("left", gator), ("right", other)):
                with queue.options(depends_on=top, keep_result=60) as opts:
                    sides.append(opts.task(note, journal.path, f"{number}-{name}"))
            with other.options(depends_on=sides, keep_result=60) as opts:
                lasts.append(opts.task(note, journal.path, f"{number}-last").task_id)
        for task_id in lasts:
            other.result(task_id, timeout=20)

    ran = journal.names("ran")
    assert len(ran) == len(set(ran)) == 200
    for number in range(50):
        places = [ran.index(f"{number}-{name}") for name in ("top", "left", "right", "last")]
        assert places[0] < min(places[1:3])
        assert max(places[1:3]) < places[3]
