"""What is queued moves to another store: once, whole, and whatever happens on the way."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from alligator import Concurrency, Gator, checkpoints, limits, schedules
from alligator.attempts import Runner
from alligator.backends import locmem_backend, sqlite_backend
from alligator.backends.base import (
    NEVER,
    Ack,
    Backend,
    Bury,
    Counts,
    Follow,
    Listed,
    Message,
    Reservation,
)
from alligator.commands import letters, revival
from alligator.commands.move.movable import is_parked
from alligator.commands.move.moved import Moved
from alligator.commands.move.moving import move
from alligator.commands.move.reports import moved_json, moved_text
from alligator.dependencies.edges import dependents_of, failed_of, needs_of
from alligator.exceptions import BackendRefused, BackendUnavailable, InvalidOption, TaskTooBig
from alligator.keys import with_queue
from alligator.settling import Attempt
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    drain,
    opened,
    push,
    records_of,
    take,
    take_ready,
)
from alligator.utils import new_id
from tests.features import work
from tests.features.work import work_off
from tests.support.kinds import empty_store
from tests.support.sqs import Sqs

SCHEDULE = f"schedules:{with_queue(QUEUE)}/nightly"
NEXT = "next"
CALLS = [
    "push_many",
    "find",
    "reschedule",
    "watch",
    "count",
    "dead",
    "purge_dead",
    "walk",
    "take_out",
    "put_dead",
    "reserve",
    "reserve_task",
    "settle",
]
RECORDS = ["get", "get_many", "set", "set_many", "swap", "delete", "list"]


class Killed(BaseException):
    """The mover died."""


class Clock:
    """A clock for two stores."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Faults:
    """Does something before or after a certain call to the stores."""

    def __init__(self, *backends: Backend) -> None:
        self.calls = 0
        self._at = -1
        self._is_inside = False
        self._act: Callable[[], object] | None = None
        for backend in backends:
            for owner, names in ((backend, CALLS), (records_of(backend), RECORDS)):
                for name in names:
                    setattr(owner, name, self._watched(getattr(owner, name)))

    @contextmanager
    def at(self, call: int, act: Callable[[], object]) -> Generator[None]:
        """Act once in this block: before a call if the number is even, else after it."""
        self.calls, self._at, self._act = 0, call, act
        try:
            yield
        finally:
            self._act = None

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:  # one step of a store, which makes it out of others
                return method(*args, **kwargs)
            self._step()
            self._is_inside = True
            try:
                answer = method(*args, **kwargs)
            finally:
                self._is_inside = False
            self._step()
            return answer

        return called

    def _step(self) -> None:
        act = self._act
        if act is None:
            return
        self.calls += 1
        if self.calls == self._at + 1:
            self._act = None
            act()


class House:
    """Two stores: tasks in the old one, and a note of what ran."""

    def __init__(self, source: Backend, target: Backend, clock: Clock) -> None:
        self.source, self.target, self.clock = source, target, clock
        self.ran: list[str] = []
        self.faults = Faults(source, target)
        self.source.push_many(
            QUEUE,
            [
                Message("w1", b"w1"),
                Message("w2", b"w2", priority=3, follow=Follow(NEXT, b"well", b"ill")),
                Message("w3", b"w3"),
                Message("d1", b"d1", due_at=clock.now + 100),
                Message("d2", b"d2", due_at=clock.now + 200, priority=-1),
                Message("told", b"told", due_at=NEVER),
            ],
        )
        push(source, "x1", "x2", to="bin")
        for held in (take(source, of="bin"), take(source, of="bin")):
            source.settle([Bury(held, f"note of {held.task_id}")])
        push(source, "dead", to=QUEUE)
        records_of(source).set(SCHEDULE, b"a schedule")

    def move(self) -> Moved:
        """Move all."""
        return move(self.source, self.target, [QUEUE, "bin"])

    def work(self) -> None:
        """Run what is ready, in either store."""
        for backend in (self.source, self.target):
            self.ran += drain(backend)

    def check(self) -> None:
        """Check that all is in the new store, or has run; and nothing twice."""
        assert self.move().is_all
        assert self.target.reschedule(QUEUE, ["told"]) == [True]
        self.clock.now += 1000
        assert drain(self.source) == []
        self.work()
        assert sorted(self.ran) == ["d1", "d2", "dead", NEXT, "told", "w1", "w2", "w3"]
        assert [one.task_id for one in self.target.dead("bin")] == ["x2", "x1"]
        assert self.source.count(QUEUE) == self.source.count("bin") == (0, 0, 0, 0)
        assert records_of(self.target).get(SCHEDULE) == b"a schedule"
        for backend in (self.source, self.target):
            for family in ("moving", "moved", "moves"):
                for queue in (QUEUE, "bin"):
                    assert records_of(backend).list(f"{family}:{queue}") == {}
        assert records_of(self.source).list(f"schedules:{QUEUE}") == {}


@contextmanager
def houses(kind: str, folder: Path) -> Generator[Callable[[], House]]:
    """Makes pairs of stores."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def made() -> House:
            clock = Clock()
            pair: list[Backend] = []
            for name in ("source", "target"):
                if kind == "locmem":
                    pair.append(locmem_backend.Client("locmem://", clock))
                else:
                    dsn = f"sqlite://{folder}/{name}{next(numbers)}.db?sync=normal"
                    pair.append(sqlite_backend.Client(dsn, clock))
                stack.callback(pair[-1].close)
            return House(pair[0], pair[1], clock)

        yield made


def due_in(backend: Backend) -> list[float]:
    """Return the moments until which tasks are delayed."""
    return [one.due_at for one in backend.walk(QUEUE, "delayed")[0]]


def die() -> None:
    """Be killed."""
    raise Killed


def after_kills(made: Callable[[], House]) -> Iterator[House]:
    """Move houses, each mover killed one call later than the one before, until one ends; give each of them."""
    for call in itertools.count():
        house = made()
        try:
            with house.faults.at(call, die):
                house.move()
        except Killed:
            yield house
        else:
            return


@pytest.mark.parametrize("works_between", [False, True], ids=["at-once", "after-work"])
def test_wherever_the_mover_is_killed_each_task_runs_once(
    tmp_path: Path, works_between: bool
) -> None:
    kills = 0
    with houses("locmem", tmp_path) as made:
        for kills, house in enumerate(after_kills(made), 1):  # noqa: B007 -- counted
            if works_between:
                house.work()
            house.check()
        assert kills > 50


def test_wherever_the_mover_is_killed_again_and_again_each_task_runs_once(tmp_path: Path) -> None:
    with houses("locmem", tmp_path) as made:
        house, total = made(), 0
        for call in range(60):
            try:
                with house.faults.at(call, die):
                    house.move()
            except Killed:
                total += 1
        assert total > 30
        house.check()


def test_whenever_workers_of_both_stores_run_what_is_ready_each_task_runs_once(
    tmp_path: Path,
) -> None:
    call = 0
    with houses("locmem", tmp_path) as made:
        for call in itertools.count():
            house = made()
            with house.faults.at(call, house.work):
                house.move()
                if house.faults.calls <= call:
                    break
            house.check()
        assert call > 50


def test_whenever_another_mover_begins_each_task_runs_once(tmp_path: Path) -> None:
    call = 0
    with houses("locmem", tmp_path) as made:
        for call in itertools.count():
            house = made()
            with house.faults.at(call, lambda: (house.move(), None)[1]):  # noqa: B023 -- called here
                try:
                    house.move()
                except BackendRefused:
                    pass
                if house.faults.calls <= call:
                    break
            house.check()
        assert call > 50


def test_what_a_dead_worker_held_is_moved_when_its_lease_is_over(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        take_ready(house.source, limit=2, lease=30)
        take_ready(house.source, limit=2, lease=30)
        house.clock.now += 31

        house.check()


def test_workers_may_hold_a_task_that_is_being_moved(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        held = take(house.source)

        moved = house.move()

        assert (moved.running, moved.is_all) == (1, False)
        assert house.source.settle([Ack(held)]) == []
        house.ran.append(held.task_id)
        house.ran += drain(house.source)
        house.check()


def test_a_move_to_one_store_can_still_be_ended_after_one_to_another(tmp_path: Path) -> None:
    kills = 0
    with houses("locmem", tmp_path) as made:
        for kills, house in enumerate(after_kills(made), 1):  # noqa: B007 -- counted
            third = locmem_backend.Client("locmem://", house.clock)
            move(house.source, third, [QUEUE, "bin"])
            move(house.source, house.target, [QUEUE, "bin"])
            assert move(third, house.target, [QUEUE, "bin"]).is_all
            house.check()
        assert kills > 50


def killed_at(owner: object, call: str, source: Backend, target: Backend) -> None:
    """Begin a move whose mover is killed when it makes a certain call."""

    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, call, die)
        move(source, target, [QUEUE])


def three_stores() -> list[Backend]:
    return [locmem_backend.Client("locmem://") for _ in range(3)]


def test_a_move_that_is_begun_anew_leaves_what_one_to_a_third_store_has_noted() -> None:
    old, new, third = three_stores()
    push(old, "a")
    killed_at(new, "push_many", old, new)  # it was about to come
    killed_at(third, "reschedule", old, third)  # it is there, and waits to be told so

    move(old, new, [QUEUE])
    move(old, third, [QUEUE])

    assert (drain(old), drain(new), drain(third)) == ([], [], ["a"])


def test_moves_of_the_same_id_to_two_stores_are_told_from_each_other() -> None:
    old, new, third = three_stores()
    push(old, "a")
    killed_at(new, "reschedule", old, new)
    push(old, "a")
    killed_at(third, "reschedule", old, third)

    move(old, new, [QUEUE])
    move(old, third, [QUEUE])

    assert (drain(old), drain(new), drain(third)) == ([], ["a"], ["a"])


def test_what_is_being_moved_here_is_not_moved_on(tmp_path: Path) -> None:
    parked = 0
    with houses("locmem", tmp_path) as made:
        for house in after_kills(made):
            third = locmem_backend.Client("locmem://", house.clock)
            if any(map(is_parked, due_in(house.target))):
                parked += 1
                with pytest.raises(InvalidOption, match="is being moved here"):
                    move(house.target, third, [QUEUE, "bin"])
                assert third.count(QUEUE) == (0, 0, 0, 0)
                house.check()
    assert parked > 5


def test_all_of_a_queue_is_moved_in_order(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        drain(house.source)
        push(house.source, *map(str, range(450)))

        moved = house.move()

        assert (moved.waiting, moved.delayed, moved.dead, moved.schedules) == (450, 3, 2, 1)
        assert drain(house.target) == list(map(str, range(450)))
        found = house.target.find(QUEUE, "d2")
        assert found is not None
        assert (found.due_at, found.priority) == (house.clock.now + 200, -1)


def test_a_task_whose_id_is_queued_there_stays(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        house.target.push_many(QUEUE, [Message("w1", b"another")])

        moved = house.move()

        assert moved.clashing == [(QUEUE, "w1")]
        assert not moved.is_all
        found = house.target.find(QUEUE, "w1")
        assert found is not None
        assert found.body == b"another"
        assert drain(house.source) == ["w1"]


def test_a_task_that_waits_until_it_is_told_still_does(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        house.source.push_many(QUEUE, [Message("told", b"", due_at=NEVER)])

        assert house.move().is_all

        found = house.target.find(QUEUE, "told")
        assert found is not None
        assert found.due_at == NEVER
        assert house.target.reschedule(QUEUE, ["told"]) == [True]


def test_the_same_store_by_two_names_is_refused(tmp_path: Path) -> None:
    dsn = f"sqlite://{tmp_path}/queue.db"
    with ExitStack() as stack:
        source, target = sqlite_backend.Client(dsn), sqlite_backend.Client(dsn)
        stack.callback(source.close)
        stack.callback(target.close)
        push(source, "t1")
        with pytest.raises(InvalidOption, match="same store"):
            move(source, target, [QUEUE])
        assert drain(target) == ["t1"]


# What belongs to tasks, from each kind of store.


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Gator]:
    """A Gator on the new store."""
    gator = Gator(f"sqlite://{tmp_path}/new.db?sync=normal")
    yield gator
    gator.backend.close()


def queue(gator: Gator, name: str, *needed: str, **options: Any) -> None:
    """Queue a task that notes its name, and depends on others."""
    if needed:
        options["depends_on"] = needed
    with gator.options(task_id=name, **options) as opts:
        opts.task(work.do, name)


def edges_left(gator: Gator, *task_ids: str) -> list[str]:
    """Return what records there are of what tasks of these ids need, or of what needs them."""
    families = [of((QUEUE, id)) for id in task_ids for of in (needs_of, dependents_of, failed_of)]
    return [key for family in families for key in records_of(gator.backend).list(family)]


def test_what_depends_on_others_runs_after_them(gator: Gator, new: Gator) -> None:
    queue(gator, "a")
    queue(gator, "b", "a")
    queue(gator, "c", "b")
    queue(gator, "d", "a", "c")

    moved = move(gator.backend, new.backend, [QUEUE])

    assert (moved.waiting, moved.delayed, moved.blocked, moved.is_all) == (1, 3, 0, True)
    assert edges_left(gator, *"abcd") == []
    work_off(new)
    assert work.done == ["a", "b", "c", "d"]


def test_wherever_the_mover_is_killed_what_depends_on_others_runs_once_after_them() -> None:
    call = 0
    for call in itertools.count():
        work.done.clear()
        old, new = Gator("locmem://"), Gator("locmem://")
        queue(old, "a")
        queue(old, "b", "a")
        queue(old, "c", "a", "b")
        try:
            with Faults(old.backend, new.backend).at(call, die):
                move(old.backend, new.backend, [QUEUE])
        except Killed:
            assert move(old.backend, new.backend, [QUEUE]).is_all
        else:
            break
        assert edges_left(old, *"abc") == []
        work_off(new)
        assert work.done == ["a", "b", "c"]
        assert edges_left(new, *"abc") == []
    assert call > 50


def test_what_depends_on_one_that_runs_stays_until_that_is_done(gator: Gator, new: Gator) -> None:
    queue(gator, "a")
    queue(gator, "b", "a")
    held = take(gator.backend)

    moved = move(gator.backend, new.backend, [QUEUE])

    assert (moved.running, moved.blocked, moved.tasks) == (1, 1, 0)
    gator.backend.settle([Ack(held)])
    work_off(gator, max_tasks=1)  # who tells the others
    assert move(gator.backend, new.backend, [QUEUE]).is_all
    work_off(new)
    assert work.done == ["b"]


def test_what_depends_on_another_queue_is_refused_unless_it_is_skipped(
    gator: Gator, new: Gator
) -> None:
    queue(gator, "a")
    beside = Gator("locmem://", "other", backend_class=lambda dsn: gator.backend)
    with beside.options(task_id="a") as opts:
        needed = opts.task(work.do, "a")
    with gator.options(task_id="b", depends_on=[needed]) as opts:
        opts.task(work.do, "b")

    with pytest.raises(InvalidOption, match=r"'b'.*depends on tasks of queue 'other'.*--skip"):
        move(gator.backend, new.backend, [QUEUE])
    assert new.backend.count(QUEUE) == (0, 0, 0, 0)

    moved = move(gator.backend, new.backend, [QUEUE], skip=True)
    [(name, task_id, why)] = moved.skipped
    assert (name, task_id) == (QUEUE, "b")
    assert "depends on tasks of queue 'other'" in why
    assert (moved.waiting, moved.stay) == (1, 1)

    assert move(gator.backend, new.backend, [QUEUE, "other"]).is_all


def test_what_another_queue_depends_on_is_refused_unless_it_is_skipped(
    gator: Gator, new: Gator
) -> None:
    with gator.options(task_id="a") as opts:
        needed = opts.task(work.do, "a")
    beside = Gator("locmem://", "other", backend_class=lambda dsn: gator.backend)
    with beside.options(task_id="b", depends_on=[needed]) as opts:
        opts.task(work.do, "b")

    with pytest.raises(InvalidOption, match=r"'a'.*tasks of queue 'other' depend on it"):
        move(gator.backend, new.backend, [QUEUE])

    assert move(gator.backend, new.backend, [QUEUE], skip=True).stay == 1
    work_off(gator)
    assert [one.task_id for one in take_ready(gator.backend, of="other")] == ["b"]


def test_what_a_task_needs_that_stays_stays_too(gator: Gator, new: Gator) -> None:
    queue(gator, "a")
    queue(gator, "b", "a")
    beside = Gator("locmem://", "other", backend_class=lambda dsn: gator.backend)
    elsewhere = beside.task(work.do, "elsewhere")
    with gator.options(task_id="c", depends_on=["b", elsewhere]) as opts:
        opts.task(work.do, "c")
    queue(gator, "free")

    moved = move(gator.backend, new.backend, [QUEUE], skip=True)

    assert {task_id for _, task_id, _ in moved.skipped} == {"a", "b", "c"}
    assert take(new.backend).task_id == "free"
    work_off(beside)
    work_off(gator)
    assert work.done == ["elsewhere", "a", "b", "c"]


def test_what_depends_on_one_that_is_just_over_goes(gator: Gator, new: Gator) -> None:
    queue(gator, "a")
    queue(gator, "b", "a")
    queue(gator, "c", "b")
    work_off(gator, max_tasks=1)  # the worker has left before it told the others
    assert work.done == ["a"]

    moved = move(gator.backend, new.backend, [QUEUE])

    assert (moved.tasks, moved.blocked, moved.is_all) == (2, 0, True)
    work_off(new)
    assert work.done == ["a", "b", "c"]


def test_what_is_to_follow_once_dependents_are_told_is_done(
    gator: Gator, new: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(gator, "a")
    queue(gator, "b", "a")
    gator.backend.settle([Ack(take(gator.backend))])
    told: list[Counts] = []
    attempt = Runner.attempt

    def attempted(runner: Runner, held: Reservation) -> Attempt:
        then = partial(_note, told, gator.backend)
        return replace(attempt(runner, held), then=then)

    monkeypatch.setattr(Runner, "attempt", attempted)
    assert move(gator.backend, new.backend, [QUEUE]).is_all

    assert [counts.running for counts in told] == [0]  # it is settled by then


def _note(told: list[Counts], backend: Backend) -> None:
    told.append(backend.count(QUEUE))


def test_what_waits_in_line_for_a_limit_lines_up_anew(gator: Gator, new: Gator) -> None:
    for name in ("a", "b", "c"):
        queue(gator, name, limit=Concurrency("k", 1))
    held = take(gator.backend)
    gate = limits.enter(gator.backend, [held], Concurrency("k", 1))
    assert list(gate) == [held]
    others = [take(gator.backend), take(gator.backend)]
    parked = limits.park(gator.backend, [(one, Concurrency("k", 1)) for one in others])
    gator.backend.settle(list(parked.releases))
    parked.then()
    assert gator.backend.count(QUEUE) == (0, 2, 1, 0)

    moved = move(gator.backend, new.backend, [QUEUE])

    assert (moved.delayed, moved.running) == (2, 1)
    assert new.backend.count(QUEUE) == (2, 0, 0, 0)
    work_off(new)
    assert sorted(work.done) == ["b", "c"]


def test_a_checkpoint_goes_along(gator: Gator, new: Gator) -> None:
    queue(gator, "a", delay_by=FAR_OFF)
    key = checkpoints.key_of(QUEUE, "a")
    records_of(gator.backend).set(key, b"how far it is")

    move(gator.backend, new.backend, [QUEUE])

    assert records_of(new.backend).get(key) == b"how far it is"
    assert records_of(gator.backend).get(key) is None


def test_a_schedule_goes_along(gator: Gator, new: Gator) -> None:
    gator.every(60, work.do, "again", name="again")
    [before] = schedules.listed(gator.backend, QUEUE)

    moved = move(gator.backend, new.backend, [QUEUE])

    assert moved.schedules == 1
    assert schedules.listed(gator.backend, QUEUE) == []
    assert schedules.listed(new.backend, QUEUE) == [before]
    assert schedules.queues(new.backend) == [QUEUE]


def test_a_schedule_stays_where_the_other_store_has_one_of_its_name(
    gator: Gator, new: Gator
) -> None:
    gator.every(60, work.do, "again", name="again")
    new.every(30, work.do, "again", name="again")
    before = [*schedules.listed(gator.backend, QUEUE), *schedules.listed(new.backend, QUEUE)]

    moved = move(gator.backend, new.backend, [QUEUE])

    after = [*schedules.listed(gator.backend, QUEUE), *schedules.listed(new.backend, QUEUE)]
    assert after == before
    assert (moved.schedules, moved.schedules_stay, moved.is_all) == (0, 1, False)
    assert moved.clashing_schedules == [(QUEUE, "again")]
    assert "Schedule 'again' of queue" in moved_text(moved)
    assert moved_json(moved)["clashing_schedules"] == [{"queue": QUEUE, "name": "again"}]


@pytest.mark.parametrize("removes_here", [False, True], ids=["in-the-old", "in-the-new"])
def test_a_schedule_that_is_removed_does_not_come_back(tmp_path: Path, removes_here: bool) -> None:
    """Wherever the mover was killed; and nor does it go where it still is."""
    removed = 0
    with houses("locmem", tmp_path) as made:
        for call, house in enumerate(after_kills(made)):
            at = house.target if removes_here else house.source
            was_there = records_of(at).get(SCHEDULE) == b"a schedule"
            if was_there:
                removed += 1
                schedules.remove(at, QUEUE, "nightly")
            assert house.move().is_all
            assert records_of(house.source).list(f"schedules:{with_queue(QUEUE)}") == {}
            value = None if was_there else b"a schedule"
            assert records_of(house.target).get(SCHEDULE) == value, call
    assert removed > 5


def test_a_schedule_that_is_queued_while_it_is_moved_goes_as_it_is_then(tmp_path: Path) -> None:
    call = 0
    with houses("locmem", tmp_path) as made:
        for call in itertools.count():
            house = made()
            change = partial(records_of(house.source).swap, SCHEDULE, b"a schedule", b"changed")
            changed: list[bool] = []
            with house.faults.at(call, lambda: changed.append(change())):  # noqa: B023 -- called here
                assert house.move().is_all
                if house.faults.calls <= call:
                    break
            value = b"changed" if changed == [True] else b"a schedule"
            assert records_of(house.target).get(SCHEDULE) == value
    assert call > 50


def test_dead_letters_that_failed_for_another_are_retried_with_it(gator: Gator, new: Gator) -> None:
    with gator.options(task_id="a", retries=0) as opts:
        opts.task(work.fail, "a")
    queue(gator, "b", "a")
    work_off(gator)
    assert gator.backend.count(QUEUE).dead == 2

    assert move(gator.backend, new.backend, [QUEUE]).dead == 2

    assert edges_left(gator, "a", "b") == []
    [of_a] = new.backend.dead(QUEUE, task_id="a")
    outcome = revival.retry(new.backend, [letters.Ref.to(of_a)])
    assert {ref.task_id for ref in outcome.done} == {"a", "b"}
    assert [ref.task_id for ref in outcome.waiting] == ["b"]


def test_into_each_kind_of_store_all_is_moved_whole_and_in_order(gator: Gator, new: Gator) -> None:
    old, target = new.backend, gator.backend
    due_at = float(int(old.now() + FAR_OFF))
    follow = Follow(NEXT, b"well", b"ill")
    old.push_many(QUEUE, [Message(str(n), b"%d" % n, priority=n % 2) for n in range(300)])
    old.push_many(QUEUE, [Message("later", b"\0", due_at=due_at, priority=4, follow=follow)])
    push(old, "dead", to="other")
    old.settle([Bury(take(old, of="other"), "its note")])
    [letter] = old.dead("other")

    moved = move(old, target, [QUEUE, "other"])

    assert (moved.waiting, moved.delayed, moved.dead, moved.is_all) == (300, 1, 1, True)
    assert [one[2:5] for one in target.dead("other")] == [letter[2:5]]
    assert target.walk(QUEUE, "delayed")[0] == [Listed("later", b"\0", due_at, 4, "", follow)]
    odd, even = range(1, 300, 2), range(0, 300, 2)
    assert drain(target, limit=100) == [str(n) for n in (*odd, *even)]


# From and to stores that cannot list their tasks.


@pytest.fixture(params=["beanstalk", "sqs"])
def plain(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A store that keeps nothing but queues."""
    with opened(empty_store(request.param, request)) as backend:
        yield backend


def test_from_a_store_that_cannot_list_what_is_ready_is_moved(plain: Backend, new: Gator) -> None:
    push(plain, "a", "b", "c")
    held = take(plain)
    push(plain, "later", delay=600)

    moved = move(plain, new.backend, [QUEUE])

    assert (moved.waiting, moved.delayed, moved.at_least_once, moved.is_all) == (2, 0, True, False)
    others = {b"a", b"b", b"c"} - {held.body}
    assert {one.body for one in take_ready(new.backend)} == others
    assert plain.settle([Ack(held)]) == []
    assert take_ready(plain) == []


def test_from_sqs_all_is_moved_also_where_no_queue_is_named_for_dead_letters(
    sqs_server: Sqs, new: Gator
) -> None:
    sqs_server.emptied()
    with opened(sqs_server.dsn()) as plain:
        push(plain, "a")

        assert move(plain, new.backend, [QUEUE]).is_all


def test_to_a_store_that_cannot_list_what_it_can_take_is_moved(plain: Backend, new: Gator) -> None:
    old = new.backend
    push(old, "a", "b")
    push(old, "later", delay=600)
    old.push_many(QUEUE, [Message("followed", b"", follow=Follow(NEXT, b"", b""))])

    with pytest.raises(InvalidOption, match=r"'followed'.*cannot do what depends_on needs"):
        move(old, plain, [QUEUE])
    assert old.count(QUEUE) == (3, 1, 0, 0)

    moved = move(old, plain, [QUEUE], skip=True)

    assert (moved.waiting, moved.delayed, [one[:2] for one in moved.skipped]) == (
        2,
        1,
        [(QUEUE, "followed")],
    )
    assert {one.body for one in take_ready(plain)} == {b"a", b"b"}
    assert drain(old) == ["followed", NEXT]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for more to come."""
    monkeypatch.setattr("alligator.commands.move.carrying.LOOK", 0.0)


class Unlisted(locmem_backend.Client):
    """A store that cannot list what it has, and takes small tasks only."""

    can_walk = False

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        if any(len(message.body) > 1000 for message in messages):
            raise TaskTooBig("too big")
        return super().push_many(queue_name, messages, max_length=max_length)


class Naming(Unlisted):
    """One that keeps no records, and names tasks itself."""

    keeps_ids = False

    def __init__(self, conn_string: str) -> None:
        super().__init__(conn_string)
        self.records = None

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        named = [message._replace(task_id=new_id()) for message in messages]
        return super().push_named(queue_name, named, max_length=max_length)


def test_whenever_workers_run_what_is_ready_nothing_that_is_carried_over_runs_twice() -> None:
    call = 0
    for call in itertools.count():
        clock = Clock()
        old, target = locmem_backend.Client("locmem://", clock), Unlisted("locmem://", clock)
        push(old, "a", "b")
        push(old, "soon", delay=30)
        push(old, "later", delay=600)
        ran: list[str] = []

        def work_on(old: Backend = old, clock: Clock = clock, ran: list[str] = ran) -> None:
            clock.now += 31
            ran += drain(old)

        faults = Faults(old, target)
        with faults.at(call, work_on):
            move(old, target, [QUEUE])
            if faults.calls <= call:
                break
        clock.now += 1000
        assert sorted(ran + drain(old) + drain(target)) == ["a", "b", "later", "soon"], call
    assert call > 10


def test_wherever_who_carries_tasks_over_is_killed_none_is_lost() -> None:
    call = 0
    for call in itertools.count():
        clock = Clock()
        old, target = locmem_backend.Client("locmem://", clock), Unlisted("locmem://", clock)
        push(old, "a", "b")
        push(old, "soon", delay=30)
        push(old, "later", delay=600)
        try:
            with Faults(old, target).at(call, die):
                move(old, target, [QUEUE])
        except Killed:
            clock.now += 61
            assert move(old, target, [QUEUE]).is_all
        else:
            break
        assert records_of(old).list(f"moves:{QUEUE}") == {}
        clock.now += 600
        assert set(drain(target)) == {"a", "b", "later", "soon"}
    assert call > 10


def test_what_is_delayed_and_is_not_carried_over_stays_delayed() -> None:
    clock = Clock()
    old, target = locmem_backend.Client("locmem://", clock), Unlisted("locmem://", clock)
    push(old, "soon", delay=50)
    target.push_many(QUEUE, [Message("soon", b"another")])

    assert move(old, target, [QUEUE]).clashing == [(QUEUE, "soon")]

    assert due_in(old) == [clock.now + 50]


def test_what_is_delayed_stays_delayed_where_the_other_store_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    old, target = locmem_backend.Client("locmem://", clock), Unlisted("locmem://", clock)
    push(old, "soon", delay=50)

    def goes_away(*args: object, **kwargs: object) -> None:
        clock.now += 20
        raise BackendUnavailable("away")

    monkeypatch.setattr(target, "push_many", goes_away)
    with pytest.raises(BackendUnavailable):
        move(old, target, [QUEUE])

    assert due_in(old) == [clock.now + 30]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("others", [0, 1, 7])
def test_dead_letters_are_carried_over_in_order(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Also from a store that counts those of other queues among them."""
    monkeypatch.setattr("alligator.commands.move.carrying.DEAD_AT_ONCE", 2)
    old, target = Unlisted("locmem://"), locmem_backend.Client("locmem://")
    names = list("abcde")
    for name in names:
        push(old, name)
        old.settle([Bury(take(old), "its note")])

    def counted(queue_name: str) -> Counts:
        return Counts(dead=5 + others)

    monkeypatch.setattr(old, "count", counted)

    assert move(old, target, [QUEUE]).dead == 5

    assert [letter.task_id for letter in target.dead(QUEUE)] == names[::-1]


def test_who_carries_tasks_over_stops_when_another_has_begun() -> None:
    old, target = locmem_backend.Client("locmem://"), Unlisted("locmem://")
    push(old, *map(str, range(50)), delay=FAR_OFF)
    records = records_of(old)

    def begin(moved: Moved) -> None:
        if moved.delayed == 20:
            records.set(f"moves:{QUEUE}/mover", b"another")

    with pytest.raises(BackendRefused, match="Another move"):
        move(old, target, [QUEUE], tell=begin)

    assert (old.count(QUEUE).delayed, target.count(QUEUE).delayed) == (30, 30)


@pytest.mark.usefixtures("at_once")
def test_what_clashes_or_is_too_big_stays_and_keeps_nothing_else() -> None:
    old, target = Unlisted("locmem://"), Unlisted("locmem://")
    for number in range(30):
        locmem_backend.Client.push_many(old, QUEUE, [Message(str(number), b"%d" % number)])
    locmem_backend.Client.push_many(old, QUEUE, [Message("big", b"x" * 1001)])
    push(target, "5", to=QUEUE)
    target.push_many(QUEUE, [Message("7", b"another")])

    moved = move(old, target, [QUEUE])

    assert moved.waiting == 29  # what is there already counts
    assert moved.clashing == [(QUEUE, "7")]
    assert [task_id for _, task_id, _ in moved.skipped] == ["big"]
    assert old.count(QUEUE) == (2, 0, 0, 0)
    assert [one.deliveries for one in take_ready(old)] == [1, 1]


def test_what_has_come_to_wait_for_a_task_that_is_carried_over_does_not_start() -> None:
    follow = Follow(NEXT, b"well", b"ill")
    for call in itertools.count():
        old, target = locmem_backend.Client("locmem://"), Unlisted("locmem://")
        push(old, "a")
        faults = Faults(old, target)
        with faults.at(call, partial(old.watch, QUEUE, "a", follow)):
            move(old, target, [QUEUE])
            if faults.calls <= call:
                break
        assert b"well" not in [held.body for held in take_ready(old)]


@pytest.mark.usefixtures("at_once")
def test_a_store_that_is_moved_to_itself_stays_as_it_is() -> None:
    store = Naming("locmem://")
    store.push_named(QUEUE, [Message(name, name.encode()) for name in "abc"])

    with pytest.raises(InvalidOption, match="same store"):
        move(store, store, [QUEUE])

    assert sorted(held.body for held in take_ready(store)) == [b"a", b"b", b"c"]


def test_a_result_that_nobody_would_keep_is_refused(new: Gator) -> None:
    old, target = new.backend, Unlisted("locmem://")
    queue(new, "a", keep_result=60)

    with pytest.raises(InvalidOption, match=r"'a'.*its result is to be kept.*module:gator"):
        move(old, target, [QUEUE], keeps_results=False)

    assert move(old, target, [QUEUE]).is_all


@pytest.mark.usefixtures("at_once")
def test_what_was_pushed_before_the_mover_was_killed_is_not_pushed_again(new: Gator) -> None:
    old = locmem_backend.Client("locmem://")
    old.can_walk = False  # as in a store that cannot list
    push(old, "a", "b")
    new.backend.push_many(QUEUE, [Message("a", b"a")])

    assert move(old, new.backend, [QUEUE]).waiting == 2

    assert drain(new.backend) == ["a", "b"]


def test_what_another_store_has_no_place_for_stays_and_is_told(new: Gator) -> None:
    new.every(60, work.do, "again", name="again")
    push(new.backend, "dead")
    new.backend.settle([Bury(take(new.backend), "its note")])

    moved = move(new.backend, Unlisted("locmem://"), [QUEUE])

    assert (moved.schedules, moved.schedules_stay, moved.dead_stay) == (0, 1, 1)
    assert not moved.is_all
    assert "\n1 dead letter stays.\n1 schedule stays.\n" in moved_text(moved)
