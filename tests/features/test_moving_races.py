"""Several moves at once, step by step in any order, killed anywhere: nothing is lost, nothing runs twice."""

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from alligator.backends import locmem_backend
from alligator.backends.base import Ack, Backend, Bury, Message
from alligator.commands.move.moving import move
from alligator.exceptions import BackendRefused
from alligator.testing.stores import FAR_OFF, QUEUE, drain, push, records_of, take, take_ready
from tests.features.test_moving import CALLS, RECORDS, SCHEDULE, Clock, Killed

DEAD = "other"


class Actor(threading.Thread):
    """Does something, one call of a store at a time, each when it is told to go on."""

    def __init__(self, act: Callable[[], object], *, is_mortal: bool = True) -> None:
        super().__init__(daemon=True)
        self._act = act
        self.is_mortal = is_mortal
        self._go, self._stop = threading.Semaphore(0), threading.Semaphore(0)
        self._is_inside = self._is_killed = False
        self.is_over = False
        self.start()

    def run(self) -> None:
        """Act, until it is done or killed."""
        try:
            self._wait()
            self._act()
        except (Killed, BackendRefused):
            pass
        finally:
            self.is_over = True
            self._stop.release()

    def go_on(self, *, is_killed: bool = False) -> None:
        """Let it take a step, or its last one."""
        self._is_killed = is_killed
        self._go.release()
        self._stop.acquire()

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call of a store, which may be made out of others."""
        if self._is_inside:
            return method(*args, **kwargs)
        self._step()
        self._is_inside = True
        try:
            return method(*args, **kwargs)
        finally:
            self._is_inside = False

    def _step(self) -> None:
        self._stop.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._is_killed:
            raise Killed


def watched(backend: Backend) -> Backend:
    """Return the store, whose calls are now an actor's steps, if one makes them."""

    def stepwise(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            actor = threading.current_thread()
            if isinstance(actor, Actor):
                return actor.call(method, *args, **kwargs)
            return method(*args, **kwargs)

        return called

    for owner, names in ((backend, CALLS), (records_of(backend), RECORDS)):
        for name in names:
            setattr(owner, name, stepwise(getattr(owner, name)))
    return backend


def play(actors: list[Actor], chance: random.Random) -> None:
    """Let actors take turns at random, and kill some, until all are done."""
    stays, dies = chance.random(), chance.choice([0.0, 0.005, 0.02])
    actor = actors[0]
    while actors:
        if actor not in actors or chance.random() > stays:
            actor = chance.choice(actors)
        actor.go_on(is_killed=actor.is_mortal and chance.random() < dies)
        if actor.is_over:
            actors.remove(actor)


class Town:
    """Some stores with the same clock."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.stores = [
            watched(locmem_backend.Client("locmem://", self.clock)) for _ in range(count)
        ]
        self.pushed: list[str] = []
        self.ran: list[str] = []

    def fill(self, store: Backend, name: str) -> None:
        """Put some of everything into a store."""
        waiting, later = [f"{name}{number}" for number in range(3)], f"{name} later"
        push(store, *waiting)
        store.push_many(QUEUE, [Message(later, later.encode(), due_at=self.clock.now + 50)])
        push(store, f"{name} dead", to=DEAD)
        store.settle([Bury(take(store, of=DEAD), "its note")])
        records_of(store).set(f"{SCHEDULE} {name}", b"a schedule")
        self.pushed += [*waiting, later]

    def work_on(self, store: Backend) -> None:
        """Run some of what is ready."""
        for held in take_ready(store, limit=2, lease=FAR_OFF):
            self.ran.append(held.task_id)
            assert store.settle([Ack(held)]) == []

    def check(self, target: Backend, *names: str) -> None:
        """Check that all is in one store, or has run; and nothing twice."""
        self.clock.now += 1000
        self.ran += drain(target)
        assert sorted(self.ran) == sorted(self.pushed)
        assert sorted(one.task_id for one in target.dead(DEAD)) == [f"{one} dead" for one in names]
        for name in names:
            assert records_of(target).get(f"{SCHEDULE} {name}") == b"a schedule"
        for store in self.stores:
            if store is not target:
                assert store.count(QUEUE) == store.count(DEAD) == (0, 0, 0, 0)


def moving(source: Backend, target: Backend) -> Callable[[], object]:
    return partial(move, source, target, [QUEUE, DEAD])


# In the last one, two that begin at once are each written down in one of the stores.
@pytest.mark.parametrize("seed", [*range(100), 1035])
def test_however_moves_get_in_each_others_way_nothing_is_lost_or_doubled(seed: int) -> None:
    chance, town = random.Random(seed), Town(2)
    old, new = town.stores
    town.fill(old, "a")
    actors = [Actor(moving(old, new)) for _ in range(chance.randrange(2, 5))]
    actors += [Actor(partial(town.work_on, one), is_mortal=False) for one in (old, new)]

    play(actors, chance)
    town.clock.now += 61  # what a killed one held is free again

    assert move(old, new, [QUEUE, DEAD]).is_all
    town.check(new, "a")


@pytest.mark.parametrize("seed", range(40))
def test_moves_from_several_stores_into_one_do_each_other_no_harm(seed: int) -> None:
    chance, town = random.Random(seed), Town(3)
    *old, new = town.stores
    for store, name in zip(old, "ab", strict=True):
        town.fill(store, name)

    play([Actor(moving(store, new)) for store in old * 2], chance)
    town.clock.now += 61

    for store in old:
        assert move(store, new, [QUEUE, DEAD]).is_all
    town.check(new, "a", "b")


@pytest.mark.parametrize("seed", range(40))
def test_moves_from_one_store_into_several_do_each_other_no_harm(seed: int) -> None:
    chance, town = random.Random(seed), Town(3)
    old, *new = town.stores
    town.fill(old, "a")

    play([Actor(moving(old, store)) for store in new * 2], chance)
    town.clock.now += 61

    for store in new:
        assert move(old, store, [QUEUE, DEAD]).is_all
    assert move(new[1], new[0], [QUEUE, DEAD]).is_all
    town.check(new[0], "a")
