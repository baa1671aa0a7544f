"""What follows a task is queued in the same step in which the task is over, and at no other time."""

import random
from collections.abc import Callable

import pytest

from alligator.backends.base import (
    MAX_PRIORITY,
    NEVER,
    Ack,
    Backend,
    Bury,
    Counts,
    Follow,
    Message,
    Release,
    Reservation,
    Settlement,
)
from alligator.testing.stores import (
    FAR_OFF,
    ODD_BODIES,
    ODD_IDS,
    QUEUE,
    WORKER,
    buried,
    ids,
    lapsed,
    let_pass,
    push,
    ready,
    skip_unless_it_finds,
    take,
    take_ready,
    woken,
)

FOLLOW = Follow("after", b"well", b"badly")
ANOTHER = Follow("another", b"other well", b"other badly")
SHORT = 0.05


@pytest.fixture(autouse=True)
def _only_stores_that_follow(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)


def push_followed(
    backend: Backend, task_id: str = "t1", follow: Follow = FOLLOW, *, delay: float = 0.0
) -> None:
    """Push a task that another one follows."""
    message = Message(task_id, task_id.encode(), delay, follow=follow)
    assert backend.push_many(QUEUE, [message]) == [True]


def take_followed(backend: Backend) -> Reservation:
    """Push a task that another one follows, and reserve it."""
    push_followed(backend)
    return take(backend)


# How a task can be over.

End = Callable[[Backend], object]

ENDINGS: dict[str, tuple[End, bytes]] = {
    "ack": (lambda backend: backend.settle([Ack(take(backend))]), b"well"),
    "ack as canceled": (
        lambda backend: backend.settle([Ack(take(backend), succeeded=False)]),
        b"badly",
    ),
    "ack with the next reserve": (
        lambda backend: backend.reserve(["empty"], WORKER, settlements=[Ack(take(backend))]),
        b"well",
    ),
    "bury": (lambda backend: backend.settle([Bury(take(backend), "note")]), b"badly"),
    "cancel": (lambda backend: backend.cancel(QUEUE, "t1"), b"badly"),
    "drop_all": (lambda backend: backend.drop_all(QUEUE), b"badly"),
    "pop": (lambda backend: backend.pop(QUEUE), b"well"),
    "get": (lambda backend: backend.get(QUEUE, "t1"), b"well"),
}


@pytest.mark.parametrize(("end", "body"), ENDINGS.values(), ids=[*ENDINGS])
def test_what_follows_is_queued_when_the_task_is_over(
    backend: Backend, end: End, body: bytes
) -> None:
    push_followed(backend)
    assert backend.find(QUEUE, "after") is None

    end(backend)

    assert backend.find(QUEUE, "t1") is None
    assert ready(backend) == [("after", body)]
    assert backend.count(QUEUE).waiting == backend.count(QUEUE).delayed == 0


@pytest.mark.parametrize(("end", "body"), ENDINGS.values(), ids=[*ENDINGS])
def test_what_was_told_to_follow_later_is_queued_too(
    backend: Backend, end: End, body: bytes
) -> None:
    push(backend, "t1")
    assert backend.watch(QUEUE, "t1", FOLLOW)

    end(backend)

    assert ready(backend) == [("after", body)]


@pytest.mark.parametrize(("end", "body"), ENDINGS.values(), ids=[*ENDINGS])
def test_what_nothing_follows_ends_alone(backend: Backend, end: End, body: bytes) -> None:
    push(backend, "t1")

    end(backend)

    assert ready(backend) == []
    assert backend.find(QUEUE, "after") is None


@pytest.mark.parametrize(("end", "body"), ENDINGS.values(), ids=[*ENDINGS])
def test_an_id_pushed_again_is_not_followed_by_what_followed_its_predecessor(
    backend: Backend, end: End, body: bytes
) -> None:
    push_followed(backend)
    end(backend)
    assert ready(backend) == [("after", body)]
    push(backend, "t1")

    assert backend.settle([Ack(take(backend))]) == []

    assert ready(backend) == []


def test_an_ack_that_did_not_succeed_removes_the_task_for_good(backend: Backend) -> None:
    push(backend, "t1")

    assert backend.settle([Ack(take(backend), succeeded=False)]) == []

    assert backend.count(QUEUE) == Counts()
    assert push(backend, "t1") == [True]


# What does not end it.

GiveBack = Callable[[Backend, Reservation], object]

RETURNS: dict[str, GiveBack] = {
    "release": lambda backend, held: backend.settle([Release(held)]),
    "release as lapsed": lambda backend, held: backend.settle([Release(held, lapsed=True)]),
    "release for a retry": lambda backend, held: backend.settle([Release(held, body=b"new")]),
    "release with a delay": lambda backend, held: backend.settle([Release(held, SHORT)]),
    "release for a later retry": lambda backend, held: backend.settle(
        [Release(held, SHORT, b"new")]
    ),
    "lapse": lambda backend, held: backend.extend([held], SHORT),
    "recover": lambda backend, held: backend.recover([QUEUE], WORKER),
}


@pytest.mark.parametrize("give_back", RETURNS.values(), ids=[*RETURNS])
def test_a_task_that_comes_back_is_followed_when_it_is_over(
    backend: Backend, give_back: GiveBack
) -> None:
    push_followed(backend)
    give_back(backend, take(backend, worker=WORKER))

    held = take(backend)
    assert held.task_id == "t1"
    assert backend.find(QUEUE, "after") is None
    assert backend.settle([Ack(held)]) == []

    assert ready(backend) == [("after", b"well")]


def test_a_task_that_has_to_wait_is_followed_when_it_is_over(backend: Backend) -> None:
    push_followed(backend, delay=FAR_OFF)
    backend.reschedule(QUEUE, ["t1"], NEVER)
    let_pass(backend, SHORT)
    assert ready(backend) == []

    backend.reschedule(QUEUE, ["t1"])
    assert backend.settle([Ack(take(backend))]) == []

    assert ready(backend) == [("after", b"well")]


def test_a_delayed_task_that_is_canceled_or_dropped_is_followed(backend: Backend) -> None:
    push_followed(backend, delay=FAR_OFF)
    assert backend.cancel(QUEUE, "t1") == b"t1"
    assert ready(backend) == [("after", b"badly")]

    push_followed(backend, "t2", ANOTHER, delay=FAR_OFF)
    backend.drop_all(QUEUE)
    assert ready(backend) == [("another", b"other badly")]


LATE: dict[str, Callable[[Reservation], Settlement]] = {
    "ack": Ack,
    "ack as canceled": lambda held: Ack(held, succeeded=False),
    "bury": lambda held: Bury(held, "stale"),
    "release for a retry": lambda held: Release(held, body=b"stale"),
}


@pytest.mark.parametrize("settle_as", LATE.values(), ids=[*LATE])
def test_a_late_settlement_is_not_followed(
    backend: Backend, settle_as: Callable[[Reservation], Settlement]
) -> None:
    slow, fresh = lapsed(backend, "t1")
    assert backend.watch(QUEUE, "t1", FOLLOW)

    assert backend.settle([settle_as(slow)]) == [settle_as(slow)]
    assert backend.find(QUEUE, "after") is None

    assert backend.settle([Ack(fresh)]) == []
    assert backend.settle([settle_as(fresh)]) == [settle_as(fresh)]
    assert ready(backend) == [("after", b"well")]


def test_a_failed_cancel_is_not_followed(backend: Backend) -> None:
    held = take_followed(backend)

    assert backend.cancel(QUEUE, "t1") is None
    assert backend.cancel("other", "t1") is None
    backend.drop_all(QUEUE)
    assert ready(backend) == []

    assert backend.settle([Ack(held)]) == []
    assert ready(backend) == [("after", b"well")]


# Watching.


def test_a_task_is_watched_in_every_state(backend: Backend) -> None:
    push(backend, "held", "waiting")
    push(backend, "delayed", delay=FAR_OFF)
    held = take(backend)

    for name in ["held", "waiting", "delayed"]:
        assert backend.watch(QUEUE, name, Follow(f"after {name}", b"well", b"badly"))

    assert backend.settle([Ack(held)]) == []
    assert ready(backend) == [("after held", b"well"), ("waiting", b"waiting")]
    assert backend.cancel(QUEUE, "delayed") == b"delayed"
    assert ready(backend) == [("after delayed", b"badly")]


def test_what_is_over_unknown_or_elsewhere_cannot_be_watched(backend: Backend) -> None:
    push(backend, "elsewhere", to="other")
    buried(backend, "dead")
    push(backend, "done")
    backend.settle([Ack(take(backend))])

    for name in ["elsewhere", "dead", "done", "unknown"]:
        assert not backend.watch(QUEUE, name, FOLLOW), name
        push(backend, name)
        backend.settle([Ack(take(backend))])

    assert ready(backend) == []
    assert not backend.watch("never-used", "t1", FOLLOW)
    assert "never-used" not in backend.queues()


def test_the_first_follow_stays(backend: Backend) -> None:
    push_followed(backend)

    assert backend.watch(QUEUE, "t1", ANOTHER)
    assert backend.push_many(QUEUE, [Message("t1", b"", follow=ANOTHER)]) == [False]
    assert backend.settle([Ack(take(backend))]) == []

    assert ready(backend) == [("after", b"well")]


def test_a_push_of_an_id_that_is_queued_lets_nothing_follow(backend: Backend) -> None:
    push(backend, "t1")

    assert backend.push_many(QUEUE, [Message("t1", b"", follow=FOLLOW)]) == [False]
    assert backend.settle([Ack(take(backend))]) == []

    assert ready(backend) == []


def test_watching_moves_nothing(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")
    held = take(backend)
    push(backend, "t4", delay=FAR_OFF)

    for name in ["t1", "t2", "t4"]:
        backend.watch(QUEUE, name, FOLLOW)

    assert backend.count(QUEUE) == Counts(waiting=2, delayed=1, running=1)
    assert backend.settle([Release(held, lapsed=True)]) == []
    assert [(one.task_id, one.deliveries) for one in take_ready(backend)] == [
        ("t1", 2),
        ("t2", 1),
        ("t3", 1),
    ]


# The task that follows.


def test_what_follows_comes_before_all_others(backend: Backend) -> None:
    push_followed(backend)
    held = take(backend)
    priority = MAX_PRIORITY if backend.can_prioritize else 0
    backend.push_many(QUEUE, [Message("urgent", b"", priority=priority)])
    push(backend, "normal")

    batch = backend.reserve([QUEUE], WORKER, limit=10, settlements=[Ack(held)])

    if backend.can_prioritize:
        assert ids(batch.reservations) == ["after", "urgent", "normal"]
    assert sorted(ids(batch.reservations)) == ["after", "normal", "urgent"]


def test_what_follows_is_a_task_like_others(backend: Backend) -> None:
    backend.settle([Ack(take_followed(backend))])
    found = backend.find(QUEUE, "after")
    assert found is not None
    assert (found.body, found.position, found.deliveries) == (b"well", 0, 0)
    assert push(backend, "after") == [False]

    held = take(backend, lease=SHORT)
    held = take(backend)
    assert (held.task_id, held.body, held.deliveries) == ("after", b"well", 2)
    backend.settle([Release(held, body=b"again")])
    backend.settle([Bury(take(backend), "note")])
    assert [letter.body for letter in backend.dead(QUEUE)] == [b"again"]
    backend.retry_dead(QUEUE, [letter.letter_id for letter in backend.dead(QUEUE)])
    assert backend.cancel(QUEUE, "after") == b"again"
    assert backend.count(QUEUE) == Counts()


def test_what_follows_may_be_followed_itself(backend: Backend) -> None:
    push_followed(backend)
    backend.settle([Ack(take(backend))])

    assert backend.watch(QUEUE, "after", ANOTHER)
    backend.settle([Ack(take(backend), succeeded=False)])

    assert ready(backend) == [("another", b"other badly")]


def test_what_is_queued_already_does_not_follow_again(backend: Backend) -> None:
    for name in ["t1", "t2", "t3"]:
        push_followed(backend, name)
    one, two, three = take_ready(backend)

    backend.settle([Ack(one), Bury(two, "note")])
    held = take(backend)
    assert (held.task_id, held.body) == ("after", b"well")
    backend.settle([Ack(three)])

    assert backend.count(QUEUE) == Counts(running=1, dead=1)
    assert backend.settle([Ack(held)]) == []
    assert ready(backend) == []


def test_what_is_delayed_under_the_id_of_a_follow_stays_as_it_is(backend: Backend) -> None:
    held = take_followed(backend)
    push(backend, "after", delay=FAR_OFF)

    assert backend.settle([Ack(held)]) == []

    assert ready(backend) == []
    assert backend.cancel(QUEUE, "after") == b"after"


def test_a_dead_letter_is_no_obstacle_to_a_follow_of_its_id(backend: Backend) -> None:
    buried(backend, "after")

    backend.settle([Ack(take_followed(backend))])

    assert ready(backend) == [("after", b"well")]


def test_a_follow_stays_in_the_queue_of_its_task(backend: Backend) -> None:
    push(backend, "t1", to="other")
    push_followed(backend)

    backend.settle([Ack(take(backend, of="other"))])
    assert backend.count("other") == Counts()
    backend.settle([Ack(take(backend))])

    assert backend.count("other") == Counts()
    assert ready(backend) == [("after", b"well")]


def test_what_follows_a_batch_comes_in_the_order_of_its_settlements(backend: Backend) -> None:
    names = [f"t{number}" for number in range(300)]
    for name in names:
        push_followed(backend, name, Follow(f"after {name}", b"well", b"badly"))
    held = take_ready(backend)
    chance = random.Random(1)
    settlements: list[Settlement] = [
        Ack(one) if chance.random() < 0.5 else Bury(one, "note") for one in chance.sample(held, 300)
    ]

    assert backend.settle(settlements) == []

    assert ready(backend) == [
        (f"after {one.reservation.task_id}", b"well" if isinstance(one, Ack) else b"badly")
        for one in settlements
    ]


def test_what_follows_may_be_any_bytes_under_any_id(backend: Backend) -> None:
    for number, name in enumerate(ODD_IDS):
        for body in ODD_BODIES:
            for succeeded in (True, False):
                after = ODD_IDS[number - 1]
                bodies = (body, b"not this") if succeeded else (b"not this", body)
                push_followed(backend, name, Follow(after, *bodies))
                backend.settle([Ack(take(backend), succeeded=succeeded)])
                [held] = take_ready(backend)
                assert (held.task_id, held.body) == (after, body)
                backend.settle([Ack(held)])


def test_the_follow_of_a_watched_task_may_be_any_bytes_under_any_id(backend: Backend) -> None:
    for number, name in enumerate(ODD_IDS):
        push(backend, name)
        after, well, badly = ODD_IDS[number - 1], ODD_BODIES[number % 5], ODD_BODIES[-1]
        assert backend.watch(QUEUE, name, Follow(after, well, badly))
        backend.settle([Bury(take(backend), "note")])
        [held] = take_ready(backend)
        assert (held.task_id, held.body) == (after, badly)
        backend.settle([Ack(held)])


# Waking who waits.


def test_what_follows_wakes_who_waits(backend: Backend) -> None:
    held = take_followed(backend)

    assert woken(backend, lambda: backend.settle([Ack(held)])).body == b"well"
    assert take_ready(backend) == []


def test_what_follows_a_task_buried_canceled_or_dropped_wakes_who_waits(backend: Backend) -> None:
    ends: list[Callable[[], object]] = [
        lambda: backend.cancel(QUEUE, "t1"),
        lambda: backend.drop_all(QUEUE),
    ]
    for end in ends:
        push_followed(backend, delay=FAR_OFF)
        held = woken(backend, end)
        assert held.body == b"badly"
        backend.settle([Ack(held)])

    held = take_followed(backend)
    assert woken(backend, lambda: backend.settle([Bury(held, "note")])).body == b"badly"


def test_what_follows_an_ack_by_who_reserves_elsewhere_wakes_who_waits(backend: Backend) -> None:
    held = take_followed(backend)

    def acknowledge() -> None:
        backend.reserve(["another"], WORKER, settlements=[Ack(held)])

    assert woken(backend, acknowledge).task_id == "after"


# Dropping.


def test_what_follows_is_dropped_later_like_others(backend: Backend) -> None:
    push_followed(backend)
    push(backend, "t2")

    backend.drop_all(QUEUE)
    assert backend.count(QUEUE) == Counts(waiting=1)
    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts()


def test_what_follows_a_dropped_task_is_queued_though_it_was_dropped_itself(
    backend: Backend,
) -> None:
    follow = Follow("another", b"well", b"badly")
    push(backend, "after")
    push_followed(backend)
    push_followed(backend, "t2", follow, delay=FAR_OFF)
    push_followed(backend, "t3", follow)
    push(backend, "another")

    backend.drop_all(QUEUE)

    assert sorted(ready(backend)) == [("after", b"badly"), ("another", b"badly")]


def test_dropping_thousands_queues_all_that_follows(backend: Backend) -> None:
    messages = [
        Message(
            f"t{number}",
            b"",
            delay=FAR_OFF if number % 3 == 0 else 0.0,
            due_at=NEVER if number % 7 == 0 else 0.0,
            follow=Follow(f"after {number}", b"well", b"badly") if number % 2 else None,
        )
        for number in range(5000)
    ]
    backend.push_many(QUEUE, messages)

    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts(waiting=2500)
    held = take_ready(backend, 2500)
    assert {one.body for one in held} == {b"badly"}
    assert sorted(ids(held)) == sorted(f"after {number}" for number in range(1, 5000, 2))
