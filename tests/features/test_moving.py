"""What is queued moves to another store: once, whole, and whatever happens on the way."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from alligator.backends import locmem_backend, sqlite_backend
from alligator.backends.base import NEVER, Ack, Backend, Bury, Follow, Message
from alligator.commands.moving import Moved, move
from alligator.exceptions import BackendRefused, InvalidOption
from alligator.keys import with_queue
from tests.support.stores import QUEUE, drain, push, records_of, take

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
        self._act: Callable[[], None] | None = None
        for backend in backends:
            for owner, names in ((backend, CALLS), (records_of(backend), RECORDS)):
                for name in names:
                    setattr(owner, name, self._watched(getattr(owner, name)))

    @contextmanager
    def at(self, call: int, act: Callable[[], None]) -> Iterator[None]:
        """Act once in this block: before a call if the number is even, else after it."""
        self.calls, self._at, self._act = 0, call, act
        try:
            yield
        finally:
            self._act = None

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._step()
            answer = method(*args, **kwargs)
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
        self.clock.now += 1000
        assert drain(self.source) == []
        self.work()
        assert sorted(self.ran) == ["d1", "d2", "dead", NEXT, "w1", "w2", "w3"]
        assert [one.task_id for one in self.target.dead("bin")] == ["x2", "x1"]
        assert self.source.count(QUEUE) == self.source.count("bin") == (0, 0, 0, 0)
        assert records_of(self.target).get(SCHEDULE) == b"a schedule"
        for backend in (self.source, self.target):
            for family in ("moving", "moved", "moves"):
                for queue in (QUEUE, "bin"):
                    assert records_of(backend).list(f"{family}:{queue}") == {}
        assert records_of(self.source).list(f"schedules:{QUEUE}") == {}


@contextmanager
def houses(kind: str, folder: Path) -> Iterator[Callable[[], House]]:
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


def die() -> None:
    """Be killed."""
    raise Killed


@pytest.mark.parametrize("works_between", [False, True], ids=["at-once", "after-work"])
def test_wherever_the_mover_is_killed_each_task_runs_once(
    tmp_path: Path, works_between: bool
) -> None:
    with houses("locmem", tmp_path) as made:
        for call in itertools.count():
            house = made()
            try:
                with house.faults.at(call, die):
                    house.move()
            except Killed:
                if works_between:
                    house.work()
                house.check()
            else:
                break
        assert call > 50


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


def test_all_of_a_queue_is_moved_in_order(tmp_path: Path) -> None:
    with houses("sqlite", tmp_path) as made:
        house = made()
        drain(house.source)
        push(house.source, *map(str, range(450)))

        moved = house.move()

        assert (moved.waiting, moved.delayed, moved.dead, moved.schedules) == (450, 2, 2, 1)
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
