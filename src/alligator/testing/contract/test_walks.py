"""Long random walks through the states of a few tasks: a store does, step by step, what memory does."""

import random
from collections.abc import Callable

import pytest

from alligator.backends.base import (
    NEVER,
    Ack,
    Backend,
    Bury,
    Follow,
    Found,
    Message,
    Release,
    Reservation,
    Settlement,
)
from alligator.backends.locmem_backend import Client as Memory
from alligator.testing.stores import (
    FAR_OFF,
    contents,
    opened,
    records_of,
    skip_if_it_names_tasks,
    skip_unless_it_finds,
)

QUEUES = ["high", "low"]
TASKS = [f"t{number}" for number in range(8)]
FOLLOWS = [f"after {number}" for number in range(3)]
DELAYED = [f"delayed {number}" for number in range(3)]
ALL = [*TASKS, *FOLLOWS, *DELAYED]
PRIORITIES = [-100, -1, 0, 0, 0, 0, 50, 100]
WORKERS = ["one", "two"]
STEPS = 800

Both = tuple[Reservation, Reservation]


@pytest.fixture(autouse=True)
def _only_stores_that_can_all(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)
    records_of(abilities)
    skip_if_it_names_tasks(abilities)


class Walk:
    """A store and a memory, which are asked the same and have to answer the same.

    Nothing lapses, and nothing falls due but by rescheduling. What is not laid down does not happen either:
    where a delayed task stands that somebody has reserved by its id and given back; in what order several
    replacements of a dead worker's tasks join the end (here they differ in priority); what becomes of the
    follow of a replacement that is forgotten (here they bring none); whether a task is still there for one that
    it follows, when one call settles both.
    """

    def __init__(self, store: Backend, seed: int) -> None:
        self.sides: list[Backend] = [Memory("locmem://"), store]
        self.chance = random.Random(seed)
        self.held: list[Both] = []  # some of them settled, or recovered: those have to be late
        self.bodies = 0
        for side in self.sides:
            records_of(side).set_many({record_of(name): b"0" for name in QUEUES})

    def step(self) -> None:
        choices = [self.push, self.reserve, self.settle, self.reserve_task, self.cancel, self.watch]
        rare = [self.drop, self.recover, self.extend, self.retry, self.purge, self.push_if]
        self.chance.choice(choices * 4 + rare + [self.reschedule] * 3)()
        self.same(lambda side: [side.count(name) for name in QUEUES])
        if self.chance.random() < 0.2:
            self.look()

    def look(self) -> None:
        """All tasks are where they should be."""

        def tasks(side: Backend) -> list[object]:
            return [outline(side.find(name, task_id)) for name in QUEUES for task_id in ALL]

        self.same(tasks)

    def same(self, ask: Callable[[Backend], object]) -> None:
        expected, actual = (ask(side) for side in self.sides)
        assert actual == expected

    def a_queue(self) -> str:
        return self.chance.choice(QUEUES)

    def a_task(self) -> str:
        return self.chance.choice([*TASKS, *FOLLOWS])

    def a_body(self) -> bytes:
        self.bodies += 1
        return b"%d" % self.bodies

    def a_follow(self) -> Follow:
        task_id = self.chance.choice(FOLLOWS)
        # Which of several that are dropped is over first is not laid down: they all say the same.
        return Follow(task_id, self.a_body(), f"{task_id} badly".encode())

    def a_message(self) -> Message:
        task_id, body = self.chance.choice(ALL), self.a_body()
        delay, due_at = (FAR_OFF, self.chance.choice([0, NEVER])) if task_id in DELAYED else (0, 0)
        if self.chance.random() < 0.25:
            return Message(task_id, body, delay, due_at, ALL.index(task_id) + 1, replaces=True)
        follow = self.a_follow() if self.chance.random() < 0.3 and task_id not in FOLLOWS else None
        return Message(task_id, body, delay, due_at, self.chance.choice(PRIORITIES), follow=follow)

    def push(self) -> None:
        messages = [self.a_message() for _ in range(self.chance.randrange(1, 5))]
        name = self.a_queue()
        self.same(lambda side: side.push_many(name, messages))

    def push_if(self) -> None:
        name, message = self.a_queue(), self.a_message()
        record, old = record_of(name), b"%d" % self.chance.randrange(2)
        new = b"%d" % self.chance.randrange(2)
        self.same(lambda side: side.push_if(name, message, record, old, new))
        self.same(lambda side: records_of(side).get(record))

    def watch(self) -> None:
        name, follow = self.a_queue(), self.a_follow()
        task_id = self.chance.choice([*TASKS, *DELAYED])
        self.same(lambda side: side.watch(name, task_id, follow))

    def reschedule(self) -> None:
        name, some = self.a_queue(), self.chance.sample(ALL, k=len(ALL) // 2)
        due_at = self.chance.choice([0.0, 0.0, NEVER, 4e9])
        self.same(lambda side: side.reschedule(name, some, due_at))

    def reserve(self) -> None:
        names = self.chance.sample(QUEUES, k=self.chance.randrange(1, 3))
        worker, limit = self.chance.choice(WORKERS), self.chance.randrange(1, 5)
        settlements = self.some_settlements()
        batches = [
            side.reserve(names, worker, limit=limit, lease=FAR_OFF, settlements=settled)
            for side, settled in zip(self.sides, settlements, strict=True)
        ]
        self.same_late([batch.late for batch in batches], settlements)
        self.note(*(batch.reservations for batch in batches))

    def reserve_task(self) -> None:
        name, task_id, worker = self.a_queue(), self.a_task(), self.chance.choice(WORKERS)
        found = [side.reserve_task(name, task_id, worker, FAR_OFF) for side in self.sides]
        self.note(*([one] if one else [] for one in found))

    def note(self, expected: list[Reservation], actual: list[Reservation]) -> None:
        def content(held: Reservation) -> tuple[object, ...]:
            return held.queue_name, held.task_id, held.body, held.deliveries

        assert [content(held) for held in actual] == [content(held) for held in expected]
        self.held += zip(expected, actual, strict=True)

    def some_settlements(self) -> list[list[Settlement]]:
        recent = self.held[-12:]
        chosen = self.chance.sample(recent, k=min(self.chance.randrange(5), len(recent)))
        is_of_follows = self.chance.random() < 0.3
        chosen = [both for both in chosen if (both[0].task_id in FOLLOWS) == is_of_follows]
        ways = [self.a_way() for _ in chosen]
        return [
            [way(both[place]) for way, both in zip(ways, chosen, strict=True)] for place in (0, 1)
        ]

    def a_way(self) -> Callable[[Reservation], Settlement]:
        body, lapsed = self.a_body(), self.chance.random() < 0.5
        ways: list[Callable[[Reservation], Settlement]] = [
            Ack,
            lambda held: Ack(held, succeeded=False),
            lambda held: Release(held, a_delay(held), lapsed=lapsed),
            lambda held: Release(held, a_delay(held), body=body),
            lambda held: Bury(held, f"note {body!r}"),
        ]
        return self.chance.choice(ways)

    def settle(self) -> None:
        settlements = self.some_settlements()
        late = [side.settle(settled) for side, settled in zip(self.sides, settlements, strict=True)]
        self.same_late(late, settlements)

    def same_late(self, late: list[list[Settlement]], settlements: list[list[Settlement]]) -> None:
        expected, actual = (
            [any(one is other for other in side_late) for one in settled]
            for side_late, settled in zip(late, settlements, strict=True)
        )
        assert actual == expected, settlements[1]

    def extend(self) -> None:
        sides = [[both[place] for both in self.held] for place in (0, 1)]
        gone = [side.extend(held, FAR_OFF) for side, held in zip(self.sides, sides, strict=True)]
        assert [sides[1].index(one) for one in gone[1]] == [sides[0].index(one) for one in gone[0]]

    def recover(self) -> None:
        worker, started = self.chance.choice(WORKERS), self.chance.sample(TASKS, k=3)
        self.same(lambda side: side.recover(QUEUES, worker, started))

    def cancel(self) -> None:
        name, task_id = self.a_queue(), self.chance.choice(ALL)
        self.same(lambda side: side.cancel(name, task_id))

    def drop(self) -> None:
        name = self.a_queue()
        for side in self.sides:
            side.drop_all(name)
        # What follows the dropped ones is queued in some order. From here on in one.
        self.same(lambda side: in_order_of_ids(side, name))

    def some_letters(self, name: str) -> list[list[str]]:
        letters = [side.dead(name, limit=1000) for side in self.sides]
        expected, actual = (
            [(letter.task_id, letter.body, letter.note) for letter in side] for side in letters
        )
        assert actual == expected
        chosen = self.chance.sample(range(len(expected)), k=min(3, len(expected)))
        return [[side[place].letter_id for place in chosen] for side in letters]

    def retry(self) -> None:
        name = self.a_queue()
        letters = self.some_letters(name)
        moved = [
            side.retry_dead(name, chosen) for side, chosen in zip(self.sides, letters, strict=True)
        ]
        assert [letters[1].index(one) for one in moved[1]] == [
            letters[0].index(one) for one in moved[0]
        ]

    def purge(self) -> None:
        name = self.a_queue()
        letters = self.some_letters(name)
        for side, chosen in zip(self.sides, letters, strict=True):
            assert side.purge_dead(name, chosen) == chosen


def record_of(queue_name: str) -> str:
    return f"schedules:{queue_name}/1"


def a_delay(held: Reservation) -> float:
    return FAR_OFF if held.task_id in DELAYED else 0.0


def outline(found: Found | None) -> object:
    """What is the same of a task in two stores whose clocks and tokens are not."""
    if found is None:
        return None
    due = "never" if found.due_at == NEVER else found.due_at > 0
    held = bool(found.token), found.lapses_at > 0
    return found.body, due, held, found.position, found.deliveries, found.priority


def in_order_of_ids(side: Backend, queue_name: str) -> list[tuple[str, bytes]]:
    """Put what waits into the order of its ids, and return it."""
    batch = side.reserve([queue_name], "sorter", limit=100)
    held = sorted(batch.reservations, key=lambda one: one.task_id)
    assert side.settle([Release(one, body=one.body) for one in held]) == []
    return contents(held)


@pytest.mark.parametrize("seed", range(4))
def test_a_store_does_step_by_step_what_memory_does(dsn: str, seed: int) -> None:
    with opened(dsn) as store:
        walk = Walk(store, seed)
        for _ in range(STEPS):
            walk.step()
