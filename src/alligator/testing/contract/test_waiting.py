"""Who waits for a task has it soon after it is ready, and can be called away."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from alligator.backends.base import Ack, Backend, Batch, Message, Release
from alligator.testing.running import A_MOMENT, Child, alarm, in_a_thread, later
from alligator.testing.stores import (
    FAR_OFF,
    IN_A_WHILE,
    LONG,
    PATIENCE,
    QUEUE,
    SOON,
    WORKER,
    buried,
    drain,
    ids,
    opened,
    push,
    skip_unless_it_delays,
    skip_unless_it_picks,
    skip_unless_it_recovers,
    soon_but_after,
    take,
    take_ready,
)
from alligator.utils import new_id


def wait_for_task(backend: Backend, *queue_names: str) -> Batch:
    return backend.reserve(queue_names or [QUEUE], new_id(), lease=60.0, wait=LONG)


def test_a_wait_ends_empty_when_nothing_comes(backend: Backend) -> None:
    with soon_but_after(A_MOMENT):
        batch = backend.reserve([QUEUE], WORKER, wait=A_MOMENT)

    assert (batch.reservations, batch.late) == ([], [])


def test_nobody_waits_for_what_is_ready(backend: Backend) -> None:
    push(backend, "t1")

    with soon_but_after(0):
        batch = backend.reserve([QUEUE], WORKER, limit=10, wait=LONG)

    assert ids(batch.reservations) == ["t1"]


def test_a_push_wakes_who_waits(backend: Backend) -> None:
    with soon_but_after(A_MOMENT), later(lambda: push(backend, "t1")):
        batch = wait_for_task(backend)

    assert ids(batch.reservations) == ["t1"]
    assert backend.settle([Ack(batch.reservations[0])]) == []


def test_a_push_to_any_of_its_queues_wakes_who_waits(backend: Backend) -> None:
    for name in ["high", "middle", "low"]:
        with soon_but_after(A_MOMENT), later(partial(push, backend, "t1", to=name)):
            batch = wait_for_task(backend, "high", "middle", "low")

        assert [held.queue_name for held in batch.reservations] == [name]


def test_a_push_by_another_client_wakes_who_waits(connect: Callable[[], Backend]) -> None:
    here, there = connect(), connect()

    with soon_but_after(A_MOMENT), later(lambda: push(there, "t1")):
        batch = wait_for_task(here)

    assert ids(batch.reservations) == ["t1"]


def test_a_push_by_another_process_wakes_who_waits(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    def push_there() -> None:
        with opened(dsn) as there:
            push(there, "t1")

    with Child(push_there, after=A_MOMENT) as child, soon_but_after(A_MOMENT):
        batch = wait_for_task(connect())
        child.result()

    assert ids(batch.reservations) == ["t1"]


def test_each_push_wakes_who_waits_anew(backend: Backend) -> None:
    for number in range(5):
        name = f"t{number}"
        with soon_but_after(0.05), later(partial(push, backend, name), after=0.05):
            batch = wait_for_task(backend)
        assert ids(batch.reservations) == [name]


def test_a_release_wakes_who_waits(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)

    with soon_but_after(A_MOMENT), later(lambda: backend.settle([Release(held)])):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_release_by_who_reserves_wakes_who_waits(backend: Backend) -> None:
    push(backend, "t1")
    held = take(backend)

    def release() -> None:
        backend.reserve(["another"], WORKER, settlements=[Release(held, body=b"new")])

    with soon_but_after(A_MOMENT), later(release):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_retried_dead_letter_wakes_who_waits(backend: Backend) -> None:
    letters = buried(backend, "t1")

    with soon_but_after(A_MOMENT), later(lambda: backend.retry_dead(QUEUE, letters)):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_recovering_wakes_who_waits(backend: Backend) -> None:
    skip_unless_it_recovers(backend)
    push(backend, "t1")
    take(backend, worker="dead")

    with soon_but_after(A_MOMENT), later(lambda: backend.recover([QUEUE], "dead")):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_task_that_falls_due_wakes_who_waits(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    with soon_but_after(A_MOMENT):
        push(backend, "t1", delay=A_MOMENT)
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_delay_that_began_during_the_wait_ends_it_too(backend: Backend) -> None:
    skip_unless_it_delays(backend)

    with soon_but_after(2 * A_MOMENT), later(lambda: push(backend, "t1", delay=A_MOMENT)):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_delay_sooner_than_the_one_waited_for_ends_the_wait(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    push(backend, "in a minute", delay=60.0)

    with soon_but_after(2 * A_MOMENT), later(lambda: push(backend, "soon", delay=A_MOMENT)):
        assert ids(wait_for_task(backend).reservations) == ["soon"]


def test_a_lapse_wakes_who_waits(backend: Backend) -> None:
    push(backend, "t1")
    with soon_but_after(A_MOMENT):
        take(backend, worker="died", lease=A_MOMENT)
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_a_lapse_of_what_was_handed_out_during_the_wait_ends_it_too(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    skip_unless_it_delays(backend)

    def take_and_die() -> None:
        push(backend, "t1", delay=FAR_OFF)  # so that it is not the one who waits that takes it
        assert backend.reserve_task(QUEUE, "t1", "died", lease=A_MOMENT) is not None

    with soon_but_after(2 * A_MOMENT, late=IN_A_WHILE), later(take_and_die):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


# Several who wait.


def test_a_push_wakes_who_waits_for_its_queue_whoever_else_waits(backend: Backend) -> None:
    names = ["a", "b", "c", "d"]
    for _ in range(3):
        waiting: dict[str, Future[Batch]] = {}
        with (
            in_a_thread(lambda: wait_for_task(backend, "a")) as waiting["a"],
            in_a_thread(lambda: wait_for_task(backend, "b")) as waiting["b"],
            in_a_thread(lambda: wait_for_task(backend, "c")) as waiting["c"],
            in_a_thread(lambda: wait_for_task(backend, "d")) as waiting["d"],
        ):
            time.sleep(0.1)  # until they wait
            for name in reversed(names):
                push(backend, "t1", to=name)
                [held] = waiting[name].result(SOON).reservations
                assert held.queue_name == name
                backend.settle([Ack(held)])


def test_one_push_of_many_tasks_wakes_all_who_wait(backend: Backend) -> None:
    with (
        in_a_thread(lambda: wait_for_task(backend)) as one,
        in_a_thread(lambda: wait_for_task(backend)) as two,
        in_a_thread(lambda: wait_for_task(backend)) as three,
        soon_but_after(A_MOMENT),
        later(lambda: push(backend, "t1", "t2", "t3")),
    ):
        batches = [waiting.result(PATIENCE) for waiting in (one, two, three)]

    assert sorted(ids(batch.reservations)[0] for batch in batches) == ["t1", "t2", "t3"]


def test_one_push_of_many_tasks_wakes_the_clients_that_wait(
    connect: Callable[[], Backend],
) -> None:
    here, there, pushing = connect(), connect(), connect()
    with (
        in_a_thread(lambda: wait_for_task(here)) as one,
        in_a_thread(lambda: wait_for_task(there)) as two,
        soon_but_after(A_MOMENT),
        later(lambda: push(pushing, "t1", "t2")),
    ):
        batches = [waiting.result(PATIENCE) for waiting in (one, two)]

    assert sorted(ids(batch.reservations)[0] for batch in batches) == ["t1", "t2"]


def test_who_leaves_off_waiting_takes_no_wake_up_along(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    with in_a_thread(lambda: wait_for_task(backend)) as patient:
        # The push finds two who wait. One of them leaves before the task is due.
        with later(lambda: push(backend, "t1", delay=8 * A_MOMENT)):
            left = backend.reserve([QUEUE], WORKER, wait=2 * A_MOMENT)
        assert left.reservations == []
        batch = patient.result(IN_A_WHILE)

    assert ids(batch.reservations) == ["t1"]


def test_a_lapse_wakes_another_who_waited_with_who_had_it(backend: Backend) -> None:
    # Both wait; one is handed the task, and does not live to settle it.
    def wait_and_die() -> Batch:
        return backend.reserve([QUEUE], new_id(), lease=A_MOMENT, wait=LONG)

    with (
        in_a_thread(wait_and_die) as one,
        in_a_thread(wait_and_die) as two,
        soon_but_after(2 * A_MOMENT, late=IN_A_WHILE),
        later(lambda: push(backend, "t1")),
    ):
        batches = [one.result(PATIENCE), two.result(PATIENCE)]

    assert [ids(batch.reservations) for batch in batches] == [["t1"], ["t1"]]
    assert sorted(batch.reservations[0].deliveries for batch in batches) == [1, 2]


# Interrupting.


def test_an_interrupt_ends_a_wait(backend: Backend) -> None:
    with soon_but_after(A_MOMENT), later(backend.interrupt):
        batch = wait_for_task(backend)

    assert (batch.reservations, batch.late) == ([], [])


def test_an_interrupt_before_the_wait_ends_it_at_once(backend: Backend) -> None:
    backend.interrupt()

    with soon_but_after(0):
        assert wait_for_task(backend).reservations == []


def test_an_interrupt_ends_one_wait_and_not_the_next(backend: Backend) -> None:
    backend.interrupt()
    wait_for_task(backend)

    with soon_but_after(A_MOMENT), later(lambda: push(backend, "t1")):
        assert ids(wait_for_task(backend).reservations) == ["t1"]


def test_an_interrupt_outlasts_a_reserve_that_need_not_wait(backend: Backend) -> None:
    push(backend, "t1", "t2")
    backend.interrupt()

    with soon_but_after(0):
        assert ids(wait_for_task(backend).reservations) == ["t1"]
        assert ids(take_ready(backend)) == ["t2"]
        assert take_ready(backend) == []
        assert wait_for_task(backend).reservations == []


def test_an_interrupted_wait_has_settled_what_it_was_given(backend: Backend) -> None:
    push(backend, "t1", "t2")
    one, two = take_ready(backend)
    backend.settle([Ack(two)])
    late = Ack(two)
    backend.interrupt()

    batch = backend.reserve([QUEUE], WORKER, wait=LONG, settlements=[Ack(one), late])

    assert batch.reservations == []
    assert [id(settlement) for settlement in batch.late] == [id(late)]
    assert backend.count(QUEUE).running == 0


def test_an_interrupt_of_one_client_is_no_other_clients(connect: Callable[[], Backend]) -> None:
    here, there = connect(), connect()
    there.interrupt()

    with soon_but_after(A_MOMENT), later(lambda: push(there, "t1")):
        assert ids(wait_for_task(here).reservations) == ["t1"]


def test_a_signal_handler_may_interrupt_a_wait(backend: Backend) -> None:
    with alarm(backend.interrupt), soon_but_after(A_MOMENT):
        assert wait_for_task(backend).reservations == []

    push(backend, "t1")
    assert ids(take_ready(backend)) == ["t1"]


def test_a_signal_handler_may_interrupt_before_the_wait(backend: Backend) -> None:
    handled: list[bool] = []

    def handler() -> None:
        backend.interrupt()
        handled.append(True)

    with alarm(handler, after=0.01):
        while not handled:
            push(backend, "t1")
            drain(backend)
    with soon_but_after(0):
        assert wait_for_task(backend).reservations == []


def test_a_signal_in_the_midst_of_any_call_does_no_harm(backend: Backend) -> None:
    signals: list[bool] = []

    def handler() -> None:
        signals.append(True)
        backend.interrupt()

    done: list[str] = []
    with alarm(handler, after=0.002, every=0.002):
        while len(signals) < 100:
            names = [f"t{len(done) + number}" for number in range(20)]
            assert push(backend, *names[:19]) == [True] * 19
            assert push(backend, names[19]) == [True]
            batch = backend.reserve([QUEUE], WORKER, limit=20, wait=0.01)
            assert ids(batch.reservations) == names
            assert [held.body.decode() for held in batch.reservations] == names
            assert backend.extend(batch.reservations, 60.0) == []
            assert backend.settle([Ack(held) for held in batch.reservations]) == []
            done += names

    assert backend.count(QUEUE).running == 0
    assert take_ready(backend) == []


def test_a_message_due_at_a_moment_wakes_who_waits(backend: Backend) -> None:
    skip_unless_it_delays(backend)
    with soon_but_after(A_MOMENT):
        backend.push_many(QUEUE, [Message("t1", b"", due_at=time.time() + A_MOMENT)])
        assert ids(wait_for_task(backend).reservations) == ["t1"]
