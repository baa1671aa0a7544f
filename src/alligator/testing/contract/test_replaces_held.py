"""What is pushed in the place of a task that is held takes it when that hand-out ends, however it ends."""

import time
from collections.abc import Callable

import pytest

from alligator.backends.base import (
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
from alligator.testing.running import A_MOMENT
from alligator.testing.stores import (
    FAR_OFF,
    ODD_BODIES,
    ODD_IDS,
    QUEUE,
    TICK,
    WORKER,
    contents,
    drain,
    ids,
    lapsed,
    let_pass,
    push,
    ready,
    replace,
    skip_unless_it_finds,
    skip_unless_it_prioritizes,
    soon_but_after,
    take,
    take_ready,
    woken,
)

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_replace(abilities: Backend) -> None:
    skip_unless_it_finds(abilities)


def take_replaced(backend: Backend, *, worker: str = "", delay: float = 0.0) -> Reservation:
    """Push a task, reserve it, and push another in its place."""
    push(backend, "t1")
    held = take(backend, worker=worker)
    replace(backend, "t1", delay=delay)
    return held


Settle = Callable[[Backend, Reservation], object]

ENDINGS: dict[str, Settle] = {
    "ack": lambda backend, held: backend.settle([Ack(held)]),
    "ack as canceled": lambda backend, held: backend.settle([Ack(held, succeeded=False)]),
    "bury": lambda backend, held: backend.settle([Bury(held, "note")]),
    "release": lambda backend, held: backend.settle([Release(held)]),
    "release as lapsed": lambda backend, held: backend.settle([Release(held, lapsed=True)]),
    "release with a delay": lambda backend, held: backend.settle([Release(held, FAR_OFF)]),
    "retry": lambda backend, held: backend.settle([Release(held, body=b"retry")]),
    "later retry": lambda backend, held: backend.settle([Release(held, FAR_OFF, b"retry")]),
    "recover": lambda backend, held: backend.recover([QUEUE], WORKER, started=["t1"]),
}
ends = pytest.mark.parametrize("end", ENDINGS.values(), ids=[*ENDINGS])


def test_a_held_task_stays_as_it_is_until_its_end(backend: Backend) -> None:
    held = take_replaced(backend)

    assert backend.count(QUEUE) == Counts(running=1)
    assert take_ready(backend) == []
    assert push(backend, "t1") == [False]
    assert backend.reserve_task(QUEUE, "t1", WORKER) is None
    assert backend.extend([held], FAR_OFF) == []
    found = backend.find(QUEUE, "t1")
    assert found is not None
    assert (found.body, found.token) == (b"t1", held.token)


@ends
def test_the_replacement_becomes_the_task_however_its_hand_out_ends(
    backend: Backend, end: Settle
) -> None:
    held = take_replaced(backend, worker=WORKER)
    push(backend, "t2")

    end(backend, held)

    assert backend.count(QUEUE).waiting == 2
    came = take_ready(backend)
    assert contents(came) == [("t2", b"t2"), ("t1", b"new")]
    assert [one.deliveries for one in came] == [1, 1]
    assert backend.settle([Ack(one) for one in came]) == []
    assert backend.count(QUEUE).waiting == backend.count(QUEUE).running == 0
    assert push(backend, "t1") == [True]


@ends
def test_a_replacement_that_has_to_wait_is_delayed_then(backend: Backend, end: Settle) -> None:
    held = take_replaced(backend, worker=WORKER, delay=FAR_OFF)

    end(backend, held)

    assert backend.count(QUEUE).delayed == 1
    assert take_ready(backend) == []
    found = backend.find(QUEUE, "t1")
    assert found is not None
    assert abs(found.due_at - (backend.now() + FAR_OFF)) < 60
    assert backend.cancel(QUEUE, "t1") == b"new"


@ends
def test_a_replacement_has_its_own_priority_then(backend: Backend, end: Settle) -> None:
    skip_unless_it_prioritizes(backend)
    backend.push_many(QUEUE, [Message("t1", b"", priority=-5)])
    held = take(backend, worker=WORKER)
    replace(backend, "t1", priority=5)
    push(backend, "t2")

    end(backend, held)

    assert drain(backend) == ["t1", "t2"]


@ends
def test_a_replacement_that_is_held_may_be_replaced_again(backend: Backend, end: Settle) -> None:
    for number in range(3):
        replace(backend, "t1", b"%d" % number)
        held = take(backend, worker=WORKER)
        assert held.body == b"%d" % number
        replace(backend, "t1", b"%d" % (number + 1))
        end(backend, held)

    assert ready(backend) == [("t1", b"3")]


@ends
def test_a_held_task_is_replaced_once_only(backend: Backend, end: Settle) -> None:
    end(backend, take_replaced(backend, worker=WORKER))
    held = take(backend)
    assert held.body == b"new"

    assert backend.settle([Ack(held)]) == []

    assert backend.find(QUEUE, "t1") is None
    assert take_ready(backend) == []


def test_the_replacement_becomes_the_task_when_the_lease_lapses(backend: Backend) -> None:
    push(backend, "t1")
    slow = take(backend, lease=SHORT)
    replace(backend, "t1")
    push(backend, "t2")
    let_pass(backend, 2 * SHORT)

    fresh = take_ready(backend)

    assert contents(fresh) == [("t2", b"t2"), ("t1", b"new")]
    assert fresh[1].deliveries == 1
    assert backend.settle([Ack(slow)]) == [Ack(slow)]
    assert backend.settle([Ack(one) for one in fresh]) == []


def test_a_lapse_with_a_replacement_wakes_who_waits(backend: Backend) -> None:
    push(backend, "t1")
    with soon_but_after(A_MOMENT):
        take(backend, worker="died", lease=A_MOMENT)
        replace(backend, "t1")
        assert take(backend).body == b"new"


@ends
def test_the_end_of_a_replaced_task_wakes_who_waits(backend: Backend, end: Settle) -> None:
    held = take_replaced(backend, worker=WORKER)

    assert woken(backend, lambda: end(backend, held)).body == b"new"


def test_who_settles_gets_the_replacement_in_the_same_call(backend: Backend) -> None:
    held = take_replaced(backend)

    batch = backend.reserve([QUEUE], WORKER, settlements=[Ack(held)])

    assert contents(batch.reservations) == [("t1", b"new")]
    assert batch.late == []


def test_a_replaced_task_that_is_buried_leaves_its_dead_letter(backend: Backend) -> None:
    held = take_replaced(backend)

    assert backend.settle([Bury(held, "note")]) == []

    [letter] = backend.dead(QUEUE)
    assert (letter.task_id, letter.body, letter.note) == ("t1", b"t1", "note")
    assert backend.retry_dead(QUEUE, [letter.letter_id]) == []
    assert ready(backend) == [("t1", b"new")]


def test_the_delay_of_a_replacement_begins_with_its_push(backend: Backend) -> None:
    started = time.monotonic()
    held = take_replaced(backend, delay=SHORT)
    let_pass(backend, SHORT / 2)

    assert backend.settle([Release(held, delay=FAR_OFF)]) == []

    with soon_but_after(0):
        assert take(backend).body == b"new"
    assert time.monotonic() - started >= SHORT - TICK


def test_a_replacement_whose_time_came_meanwhile_is_ready_at_the_end(backend: Backend) -> None:
    held = take_replaced(backend, delay=SHORT / 2)
    let_pass(backend, SHORT)
    assert take_ready(backend) == []

    assert backend.settle([Ack(held)]) == []

    assert ready(backend) == [("t1", b"new")]


def test_a_replacement_that_is_never_due_waits_for_that(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)
    replace(backend, "t1", due_at=NEVER)
    assert backend.reschedule(QUEUE, ["t1"]) == [False]  # it is not delayed yet

    assert backend.settle([Ack(held)]) == []

    assert take_ready(backend) == []
    assert backend.reschedule(QUEUE, ["t1"]) == [True]
    assert ready(backend) == [("t1", b"new")]


def test_of_several_replacements_the_last_one_counts(backend: Backend) -> None:
    held = take_replaced(backend)
    replace(backend, "t1", b"newer", delay=FAR_OFF)
    replace(backend, "t1", b"newest")

    assert backend.settle([Ack(held)]) == []

    assert ready(backend) == [("t1", b"newest")]


def test_of_a_batch_each_task_is_replaced_by_its_own(backend: Backend) -> None:
    names = [f"t{number}" for number in range(300)]
    push(backend, *names)
    held = take_ready(backend)
    for name in names[::2]:
        replace(backend, name, name.encode() * 2)
    settlements: list[Settlement] = [
        (Ack(one), Bury(one, "note"), Release(one, body=b"again"))[number % 3]
        for number, one in enumerate(held)
    ]

    assert backend.settle(settlements) == []

    expected = [
        (name, name.encode() * 2 if number % 2 == 0 else b"again")
        for number, name in enumerate(names)
        if number % 2 == 0 or number % 3 == 2
    ]
    assert ready(backend) == expected
    assert backend.count(QUEUE) == Counts(running=len(expected), dead=100)


def test_canceling_a_held_task_forgets_its_replacement(backend: Backend) -> None:
    held = take_replaced(backend)

    assert backend.cancel(QUEUE, "t1") is None

    assert backend.settle([Release(held)]) == []
    assert ready(backend) == [("t1", b"t1")]


def test_dropping_all_forgets_the_replacements_of_what_is_held(backend: Backend) -> None:
    held = [take_replaced(backend)]
    push(backend, "t2", to="other")
    other = take(backend, of="other")
    backend.push_many("other", [Message("t2", b"new", replaces=True)])
    push(backend, *(f"more {number}" for number in range(200)))
    held += take_ready(backend)
    for one in held:
        replace(backend, one.task_id, delay=FAR_OFF)

    backend.drop_all(QUEUE)

    assert backend.count(QUEUE) == Counts(running=201)
    assert backend.settle([Ack(one) for one in held]) == []
    assert backend.count(QUEUE) == Counts()
    assert backend.settle([Ack(other)]) == []
    assert contents(take_ready(backend, of="other")) == [("t2", b"new")]


def test_a_task_replaced_after_its_replacement_was_forgotten_is_replaced(backend: Backend) -> None:
    held = take_replaced(backend)
    backend.cancel(QUEUE, "t1")
    replace(backend, "t1", b"newer")

    assert backend.settle([Ack(held)]) == []

    assert ready(backend) == [("t1", b"newer")]


def test_who_is_late_leaves_the_replacement_alone(backend: Backend) -> None:
    slow, fresh = lapsed(backend, "t1")
    replace(backend, "t1")
    late: list[Settlement] = [Ack(slow), Bury(slow, ""), Release(slow), Release(slow, body=b"x")]

    assert backend.settle(late) == late
    assert take_ready(backend) == []

    assert backend.settle([Ack(fresh)]) == []
    assert ready(backend) == [("t1", b"new")]
    assert backend.dead(QUEUE) == []


def test_who_held_the_task_before_its_replacement_is_late(backend: Backend) -> None:
    held = take_replaced(backend, worker=WORKER)
    assert backend.settle([Release(held)]) == []
    new = take(backend, worker=WORKER)

    assert backend.settle([Ack(held)]) == [Ack(held)]
    assert backend.extend([held], 60.0) == [held]

    assert backend.settle([Ack(new)]) == []


def test_recovering_hundreds_of_replaced_tasks_loses_none(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1500)]
    push(backend, *names)
    for limit in (500, 1000):
        assert len(backend.reserve([QUEUE], "dead", limit=limit).reservations) == limit
    backend.push_many(QUEUE, [Message(name, b"new", replaces=True) for name in names])

    assert backend.recover([QUEUE], "dead", started=names) == 1500

    held = take_ready(backend, 1500)
    assert sorted(ids(held)) == sorted(names)
    assert {(one.body, one.deliveries) for one in held} == {(b"new", 1)}


def test_replacements_may_be_any_bytes_under_any_id(backend: Backend) -> None:
    for name in ODD_IDS:
        for body in ODD_BODIES:
            push(backend, name)
            replace(backend, name, b"forgotten")
            replace(backend, name, body)
            held = take(backend)
            assert contents([held]) == [(name, body)]
            replace(backend, name, b"forgotten")
            replace(backend, name, body, due_at=NEVER)
            assert backend.settle([Ack(held)]) == []
            assert backend.reschedule(QUEUE, [name]) == [True]
            held = take(backend)
            assert contents([held]) == [(name, body)]
            assert backend.settle([Ack(held)]) == []
            assert backend.find(QUEUE, name) is None


# What follows.

FOLLOW = Follow("after", b"well", b"badly")
ANOTHER = Follow("another", b"other well", b"other badly")


def test_a_replaced_task_keeps_what_follows_it(backend: Backend) -> None:
    for delay in (0.0, FAR_OFF):
        backend.push_many(QUEUE, [Message("t1", b"old", delay, follow=FOLLOW)])

        replace(backend, "t1", follow=ANOTHER)
        assert backend.find(QUEUE, "after") is None
        assert backend.settle([Ack(take(backend))]) == []

        [held] = take_ready(backend)
        assert contents([held]) == [("after", b"well")]
        backend.settle([Ack(held)])


def test_a_replacement_may_bring_what_follows(backend: Backend) -> None:
    push(backend, "t1")
    replace(backend, "t1", follow=FOLLOW)
    replace(backend, "t2", follow=ANOTHER)

    one, two = take_ready(backend)
    assert backend.settle([Ack(one), Bury(two, "note")]) == []

    assert ready(backend) == [("after", b"well"), ("another", b"other badly")]


@ends
def test_the_end_of_a_replaced_task_is_not_followed_and_that_of_the_replacement_is(
    backend: Backend, end: Settle
) -> None:
    backend.push_many(QUEUE, [Message("t1", b"old", follow=FOLLOW)])
    held = take(backend, worker=WORKER)
    replace(backend, "t1", follow=ANOTHER)

    end(backend, held)

    [held] = take_ready(backend)
    assert held.body == b"new"
    assert backend.find(QUEUE, "after") is None
    assert backend.settle([Ack(held, succeeded=False)]) == []
    assert ready(backend) == [("after", b"badly")]


@ends
def test_a_replacement_of_a_held_task_may_bring_what_follows(backend: Backend, end: Settle) -> None:
    push(backend, "t1")
    held = take(backend, worker=WORKER)
    replace(backend, "t1", follow=FOLLOW)

    end(backend, held)
    assert backend.find(QUEUE, "after") is None
    assert backend.settle([Ack(take(backend))]) == []

    assert ready(backend) == [("after", b"well")]


def test_a_held_task_watched_while_it_has_a_replacement_is_followed_after_that(
    backend: Backend,
) -> None:
    held = take_replaced(backend)
    assert backend.watch(QUEUE, "t1", FOLLOW)

    assert backend.settle([Ack(held)]) == []
    [held] = take_ready(backend)
    assert held.body == b"new"
    assert backend.settle([Bury(held, "note")]) == []

    assert ready(backend) == [("after", b"badly")]


def test_a_task_whose_replacement_was_forgotten_is_followed(backend: Backend) -> None:
    forget: list[Callable[[], object]] = [
        lambda: backend.cancel(QUEUE, "t1"),
        lambda: backend.drop_all(QUEUE),
    ]
    for do in forget:
        backend.push_many(QUEUE, [Message("t1", b"old", follow=FOLLOW)])
        held = take(backend)
        replace(backend, "t1")

        do()
        assert backend.find(QUEUE, "after") is None
        assert backend.settle([Ack(held)]) == []

        [held] = take_ready(backend)
        assert contents([held]) == [("after", b"well")]
        backend.settle([Ack(held)])
