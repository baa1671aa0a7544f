"""The moment of a delayed task can be changed; one that is never due waits for that."""

import time
from collections.abc import Callable

import pytest

from alligator.backends.base import (
    MAX_PRIORITY,
    NEVER,
    Ack,
    Backend,
    Bury,
    Counts,
    Message,
    Release,
)
from alligator.testing.running import A_MOMENT, in_a_thread, in_processes, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    LONG,
    ODD_IDS,
    QUEUE,
    SOON,
    TICK,
    WORKER,
    at_rest,
    buried,
    drain,
    ids,
    let_pass,
    opened,
    push,
    skip_unless_it_delays,
    skip_unless_it_finds,
    skip_unless_it_prioritizes,
    soon_but_after,
    take,
    take_ready,
    woken,
)

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_can(abilities: Backend) -> None:
    skip_unless_it_delays(abilities)
    skip_unless_it_finds(abilities)


def push_never(backend: Backend, *task_ids: str, priority: int = 0) -> None:
    """Push tasks that are never due, each with its id for a body."""
    backend.push_many(
        QUEUE,
        [Message(name, name.encode(), due_at=NEVER, priority=priority) for name in task_ids],
    )


# Never.


def test_a_task_that_is_never_due_is_delayed(backend: Backend) -> None:
    push_never(backend, "t1")
    backend.push_many(QUEUE, [Message("t2", b"", delay=0.01, due_at=NEVER)])
    push(backend, "t3")

    assert drain(backend) == ["t3"]
    let_pass(backend, SHORT)
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=2)
    assert backend.len(QUEUE) == 2
    assert push(backend, "t1") == [False]


def test_a_task_that_is_never_due_can_be_canceled_or_dropped(backend: Backend) -> None:
    push_never(backend, "t1", "t2")

    assert backend.cancel(QUEUE, "t1") == b"t1"
    assert backend.count(QUEUE) == Counts(delayed=1)
    backend.drop_all(QUEUE)
    assert backend.count(QUEUE) == Counts()


def test_a_task_that_is_never_due_can_be_taken_by_its_id(backend: Backend) -> None:
    push_never(backend, "t1", "t2")

    assert backend.get(QUEUE, "t1") == b"t1"
    held = backend.reserve_task(QUEUE, "t2", WORKER)
    assert held is not None
    assert backend.settle([Release(held)]) == []
    assert drain(backend) == ["t2"]


def test_a_task_that_is_never_due_leaves_who_waits_at_rest(backend: Backend) -> None:
    push_never(backend, "t1")

    with soon_but_after(1.0), at_rest():
        assert backend.reserve([QUEUE], WORKER, wait=1.0).reservations == []


def test_a_task_that_is_never_due_hides_no_wake_up(backend: Backend) -> None:
    push_never(backend, "t1")

    assert woken(backend, lambda: push(backend, "t2")).task_id == "t2"
    with soon_but_after(A_MOMENT):
        push(backend, "t3", delay=A_MOMENT)
        assert take(backend).task_id == "t3"
    with soon_but_after(A_MOMENT):
        push(backend, "t4")
        take(backend, worker="died", lease=A_MOMENT)
        assert take(backend).task_id == "t4"


# Rescheduling.


def test_a_delayed_task_becomes_ready_now(backend: Backend) -> None:
    push_never(backend, "t1")
    push(backend, "t2", delay=FAR_OFF)

    assert backend.reschedule(QUEUE, ["t1", "t2"]) == [True, True]

    assert backend.count(QUEUE) == Counts(waiting=2)
    assert [held.body for held in take_ready(backend)] == [b"t1", b"t2"]


def test_a_task_comes_at_its_new_moment_and_not_at_the_old(backend: Backend) -> None:
    push_never(backend, "t1")
    push(backend, "t2", delay=FAR_OFF)
    push(backend, "t3", delay=0.05)
    started = time.monotonic()

    assert backend.reschedule(QUEUE, ["t3"], backend.now() + FAR_OFF) == [True]
    assert backend.reschedule(QUEUE, ["t1", "t2"], backend.now() + SHORT) == [True, True]

    assert sorted([take(backend).task_id, take(backend).task_id]) == ["t1", "t2"]
    assert time.monotonic() - started >= SHORT - TICK
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1, running=2)


def test_a_moment_in_the_past_is_now(backend: Backend) -> None:
    push_never(backend, "t1", "t2")

    assert backend.reschedule(QUEUE, ["t1"], backend.now() - FAR_OFF) == [True]
    assert backend.reschedule(QUEUE, ["t2"], 1.0) == [True]

    assert ids(take_ready(backend)) == ["t1", "t2"]


def test_a_task_may_be_put_off_for_ever(backend: Backend) -> None:
    push(backend, "t1", delay=0.05)

    assert backend.reschedule(QUEUE, ["t1"], NEVER) == [True]

    let_pass(backend, SHORT)
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1)
    assert backend.reschedule(QUEUE, ["t1"]) == [True]
    assert drain(backend) == ["t1"]


def test_only_what_is_delayed_is_rescheduled(backend: Backend) -> None:
    buried(backend, "dead")
    push(backend, "held", "waiting")
    push_never(backend, "delayed")
    held = take(backend)
    names = ["held", "unknown", "delayed", "waiting", "dead"]

    rescheduled = backend.reschedule(QUEUE, names, backend.now() + FAR_OFF)

    assert rescheduled == [False, False, True, False, False]
    assert backend.count(QUEUE) == Counts(waiting=1, delayed=1, running=1, dead=1)
    assert backend.reschedule(QUEUE, names) == [False, False, True, False, False]
    assert backend.settle([Release(held)]) == []
    assert drain(backend) == ["held", "waiting", "delayed"]


def test_a_task_of_another_queue_is_out_of_reach(backend: Backend) -> None:
    backend.push_many("other", [Message("t1", b"", due_at=NEVER)])

    assert backend.reschedule(QUEUE, ["t1"]) == [False]
    assert backend.reschedule("never-used", ["t1"]) == [False]
    assert backend.reschedule("other", []) == []

    assert backend.count("other") == Counts(delayed=1)
    assert "never-used" not in backend.queues()


def test_a_released_task_that_waits_for_its_time_is_rescheduled(backend: Backend) -> None:
    push(backend, "t1")
    backend.settle([Release(take(backend), delay=FAR_OFF, lapsed=True)])

    assert backend.reschedule(QUEUE, ["t1"]) == [True]

    held = take(backend)
    assert (held.task_id, held.deliveries) == ("t1", 2)


def test_a_rescheduled_task_joins_the_end_of_its_priority(backend: Backend) -> None:
    push_never(backend, "t3", "t4", priority=5)
    push_never(backend, "t6")
    push(backend, "t5")
    backend.push_many(
        QUEUE, [Message("t1", b"", priority=5), Message("t2", b"", priority=5), Message("t7", b"")]
    )

    assert backend.reschedule(QUEUE, ["t3", "t6", "t4"]) == [True] * 3

    expected = ["t1", "t2", "t3", "t4", "t5", "t7", "t6"]
    if not backend.can_prioritize:
        expected = ["t5", "t1", "t2", "t7", "t3", "t6", "t4"]
    assert drain(backend) == expected


def test_a_task_that_was_given_back_returns_to_its_place(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")
    backend.push_many(QUEUE, [Message("t0", b"", priority=5)])
    held = take_ready(backend)
    assert backend.settle([Release(one, delay=FAR_OFF) for one in held]) == []
    push(backend, "t4")
    push_never(backend, "t6")
    assert backend.reschedule(QUEUE, ["t3", "t2"], backend.now() + 2 * FAR_OFF) == [True] * 2

    assert backend.reschedule(QUEUE, ["t6", "t3", "t0"]) == [True] * 3
    assert backend.reschedule(QUEUE, ["t2", "t1"], backend.now() + SHORT) == [True] * 2
    push(backend, "t5")
    let_pass(backend, 2 * SHORT)

    expected = ["t0", "t1", "t2", "t3", "t4", "t6", "t5"]
    if not backend.can_prioritize:
        expected = ["t1", "t2", "t3", "t0", "t4", "t6", "t5"]
    assert drain(backend) == expected


def test_rescheduling_wakes_who_waits(backend: Backend) -> None:
    push_never(backend, "t1", "t2")

    assert woken(backend, lambda: backend.reschedule(QUEUE, ["t1"])).task_id == "t1"
    soon = backend.now() + 2 * A_MOMENT
    assert woken(backend, lambda: backend.reschedule(QUEUE, ["t2"], soon)).task_id == "t2"


def test_rescheduling_wakes_all_who_wait(backend: Backend) -> None:
    push_never(backend, "t1", "t2", "t3")

    def wait_for_task() -> str:
        batch = backend.reserve([QUEUE], WORKER, wait=LONG)
        return batch.reservations[0].task_id

    with (
        in_a_thread(wait_for_task) as one,
        in_a_thread(wait_for_task) as two,
        in_a_thread(wait_for_task) as three,
    ):
        time.sleep(A_MOMENT)  # until they wait
        backend.reschedule(QUEUE, ["t1", "t2", "t3"])
        came = [waiting.result(SOON) for waiting in (one, two, three)]

    assert sorted(came) == ["t1", "t2", "t3"]


def test_hundreds_of_tasks_are_rescheduled_in_the_order_named(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1500)]
    push_never(backend, *names)
    named = names[::-1]

    assert backend.reschedule(QUEUE, [*named[:500], "unknown", *named[500:]]) == [
        *[True] * 500,
        False,
        *[True] * 1000,
    ]

    assert drain(backend, limit=100) == named
    assert backend.reschedule(QUEUE, named) == [False] * 1500


def test_odd_ids_are_rescheduled(backend: Backend) -> None:
    push_never(backend, *ODD_IDS)

    assert backend.reschedule(QUEUE, ODD_IDS, NEVER) == [True] * len(ODD_IDS)
    assert backend.reschedule(QUEUE, ODD_IDS) == [True] * len(ODD_IDS)

    assert drain(backend) == ODD_IDS


def test_a_task_canceled_after_it_was_rescheduled_does_not_come(backend: Backend) -> None:
    push_never(backend, "t1", "t2")
    backend.reschedule(QUEUE, ["t1", "t2"], backend.now() + 0.05)
    assert backend.cancel(QUEUE, "t1") == b"t1"
    push_never(backend, "t1")

    assert take(backend, lease=FAR_OFF).task_id == "t2"
    let_pass(backend, SHORT)
    assert take_ready(backend) == []
    assert backend.count(QUEUE) == Counts(delayed=1, running=1)


def test_of_many_threads_rescheduling_one_makes_each_ready(backend: Backend) -> None:
    names = [f"t{number}" for number in range(200)]
    push_never(backend, *names)

    answers = in_threads(8, lambda _: reschedule_in_parts(backend, names))

    assert [sum(answer) for answer in zip(*answers, strict=True)] == [1] * 200
    assert sorted(drain(backend)) == sorted(names)


def test_of_many_processes_rescheduling_one_makes_each_ready(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    names = [f"t{number}" for number in range(200)]
    with opened(dsn) as before:
        skip_unless_it_finds(before)
        push_never(before, *names)

    def reschedule(_: int) -> list[bool]:
        with opened(dsn) as backend:
            return reschedule_in_parts(backend, names)

    answers: list[list[bool]] = in_processes(4, reschedule)

    assert [sum(answer) for answer in zip(*answers, strict=True)] == [1] * 200
    assert sorted(drain(connect())) == sorted(names)


def reschedule_in_parts(backend: Backend, names: list[str]) -> list[bool]:
    """Make tasks ready, five at once."""
    return [
        answer
        for place in range(0, len(names), 5)
        for answer in backend.reschedule(QUEUE, names[place : place + 5])
    ]


# Dead letters tried again later.


def test_a_dead_letter_tried_again_waits_for_its_moment(backend: Backend) -> None:
    one, two, three, four = buried(backend, "t1", "t2", "t3", "t4")
    started = time.monotonic()

    # Long enough for what comes next, on the slowest machine.
    assert backend.retry_dead(QUEUE, [one], backend.now() + 2.0) == [one]
    assert backend.retry_dead(QUEUE, [two], NEVER) == [two]
    assert backend.retry_dead(QUEUE, [three], backend.now() + FAR_OFF) == [three]
    assert backend.retry_dead(QUEUE, [four], backend.now() - FAR_OFF) == [four]

    assert ids(take_ready(backend)) == ["t4"]
    assert take(backend).task_id == "t1"
    assert time.monotonic() - started >= 2.0 - TICK
    assert backend.count(QUEUE) == Counts(delayed=2, running=2)
    assert backend.reschedule(QUEUE, ["t2", "t3"]) == [True, True]
    assert [held.body for held in take_ready(backend)] == [b"t2", b"t3"]


def test_who_waits_is_woken_when_a_dead_letters_moment_comes(backend: Backend) -> None:
    letters = buried(backend, "t1")

    soon = backend.now() + 2 * A_MOMENT

    assert woken(backend, lambda: backend.retry_dead(QUEUE, letters, soon)).task_id == "t1"


def test_a_dead_letter_that_waits_for_its_moment_keeps_its_priority(backend: Backend) -> None:
    skip_unless_it_prioritizes(backend)
    backend.push_many(QUEUE, [Message("t1", b"", priority=MAX_PRIORITY)])
    backend.settle([Bury(take(backend), "note")])
    push(backend, "t2")

    [letter] = backend.dead(QUEUE)
    backend.retry_dead(QUEUE, [letter.letter_id], NEVER)
    assert backend.reschedule(QUEUE, ["t1"]) == [True]

    assert drain(backend) == ["t1", "t2"]


def test_a_task_that_is_over_cannot_be_rescheduled(backend: Backend) -> None:
    push_never(backend, "t1", "t2", "t3")
    backend.reschedule(QUEUE, ["t1"])
    backend.settle([Ack(take(backend))])
    backend.cancel(QUEUE, "t2")
    backend.drop_all(QUEUE)

    assert backend.reschedule(QUEUE, ["t1", "t2", "t3"]) == [False] * 3
    assert backend.count(QUEUE) == Counts()
