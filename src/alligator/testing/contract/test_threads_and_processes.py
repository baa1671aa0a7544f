"""Threads, forked processes and other clients may use a store at once, and each task goes to one of them."""

from collections.abc import Callable
from itertools import chain

from alligator.backends.base import Ack, Backend, Counts, Reservation
from alligator.testing.running import Child, in_processes, in_threads
from alligator.testing.stores import (
    QUEUE,
    drain,
    ids,
    opened,
    push,
    skip_unless_it_makes_queues,
    skip_unless_it_picks,
    skip_unless_it_recovers,
    skip_unless_it_tells_what_is_late,
    skip_unless_others_settle,
    take,
    take_ready,
    until,
)


def consume(backend: Backend, worker: str, limit: int) -> list[str]:
    """Reserve and acknowledge until nothing is left; return what came."""
    done: list[str] = []
    held: list[Reservation] = []
    while True:
        acks = [Ack(one) for one in held]
        batch = backend.reserve([QUEUE], worker, limit=limit, settlements=acks)
        assert batch.late == []
        held = batch.reservations
        assert [one.body.decode() for one in held] == ids(held)
        if not held:
            return done
        done += ids(held)


def test_threads_that_share_a_client_get_their_own_answers(backend: Backend) -> None:
    skip_unless_it_makes_queues(backend)

    def work(number: int) -> None:
        name = f"queue {number}"
        acks: list[Ack] = []
        for turn in range(500):
            task_id = f"{number}-{turn}"
            assert push(backend, task_id, to=name) == [True]
            batch = backend.reserve([name], f"worker {number}", settlements=acks)
            [held] = batch.reservations
            assert (held.queue_name, held.task_id) == (name, task_id)
            assert (held.body, batch.late) == (task_id.encode(), [])
            acks = [Ack(held)]
        assert backend.settle(acks) == []

    in_threads(8, work)

    assert [backend.count(f"queue {number}") for number in range(8)] == [Counts()] * 8


def test_a_task_goes_to_one_of_many_threads(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1000)]
    push(backend, *names)

    done = in_threads(8, lambda number: consume(backend, f"worker {number}", limit=7))

    assert sorted(chain(*done)) == sorted(names)
    assert backend.count(QUEUE) == Counts()


def test_a_task_goes_to_one_of_many_processes(dsn: str, connect: Callable[[], Backend]) -> None:
    names = [f"t{number}" for number in range(1000)]
    with opened(dsn) as backend:
        push(backend, *names)

    def work(number: int) -> list[str]:
        with opened(dsn) as backend:
            return consume(backend, f"worker {number}", limit=7)

    done: list[list[str]] = in_processes(4, work)

    assert sorted(chain(*done)) == sorted(names)
    assert connect().count(QUEUE) == Counts()


def test_tasks_pushed_by_threads_while_others_consume_all_arrive(backend: Backend) -> None:
    def work(number: int) -> list[str]:
        if number % 2:
            for turn in range(100):
                push(backend, f"{number}-{turn}")
            return []
        done: list[str] = []
        while len(done) < 100:
            batch = backend.reserve(
                [QUEUE], f"worker {number}", limit=min(10, 100 - len(done)), wait=5
            )
            assert batch.reservations
            assert backend.settle([Ack(held) for held in batch.reservations]) == []
            done += ids(batch.reservations)
        return done

    done = in_threads(8, work)

    pushed = [f"{number}-{turn}" for number in (1, 3, 5, 7) for turn in range(100)]
    assert sorted(chain(*done)) == sorted(pushed)
    assert backend.count(QUEUE) == Counts()


def test_each_threads_tasks_keep_their_order(backend: Backend) -> None:
    def work(number: int) -> None:
        for turn in range(0, 100, 5):
            push(backend, *(f"{number}-{turn + more:02}" for more in range(5)))

    in_threads(4, work)
    done = drain(backend)

    for number in range(4):
        mine = [name for name in done if name.startswith(f"{number}-")]
        assert mine == sorted(mine)
        assert len(mine) == 100


def test_what_one_client_does_every_other_sees(connect: Callable[[], Backend]) -> None:
    skip_unless_others_settle(connect())
    one, two = connect(), connect()
    skip_unless_it_picks(one)
    push(one, "t1", "t2", "t3")

    assert two.count(QUEUE) == Counts(waiting=3)
    held = take(two)
    assert one.count(QUEUE) == Counts(waiting=2, running=1)
    assert one.settle([Ack(held)]) == []
    assert two.settle([Ack(held)]) == [Ack(held)]
    assert two.cancel(QUEUE, "t2") == b"t2"
    assert one.cancel(QUEUE, "t2") is None
    assert ids(take_ready(one)) == ["t3"]
    assert two.queues() == [QUEUE]


def test_tasks_outlast_the_clients_that_pushed_and_held_them(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    skip_unless_others_settle(connect())
    with opened(dsn) as gone:
        skip_unless_it_recovers(gone)
        push(gone, "t1", "t2")
        held = take(gone, worker="gone")

    backend = connect()

    assert backend.count(QUEUE) == Counts(waiting=1, running=1)
    assert backend.recover([QUEUE], "gone", started=["t1"]) == 1
    assert [(one.task_id, one.deliveries) for one in take_ready(backend)] == [("t1", 2), ("t2", 1)]
    assert backend.settle([Ack(held)]) == [Ack(held)]


def test_a_killed_process_leaves_what_it_held_to_others(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    def take_and_hang() -> None:
        with opened(dsn) as there:
            take(there, worker="killed", lease=0.3)
            there.reserve(["empty"], "killed", wait=60)

    with opened(dsn) as before:
        push(before, "t1")
    with Child(take_and_hang) as child:
        backend = connect()
        until(lambda: backend.count(QUEUE).running == 1, "the child's reserve")
        child.kill()
        again = take(backend)

    assert (again.task_id, again.deliveries) == ("t1", 2)


def test_a_client_works_on_in_a_forked_child_and_in_its_parent(
    connect: Callable[[], Backend],
) -> None:
    backend = connect()
    push(backend, "before")
    backend.settle([Ack(take(backend))])

    def work(who: str) -> list[str]:
        done: list[str] = []
        for turn in range(100):
            name = f"{who}-{turn}"
            assert push(backend, name, to=who) == [True]
            held = take(backend, of=who, worker=who)
            assert (held.task_id, held.body) == (name, name.encode())
            assert backend.settle([Ack(held)]) == []
            done.append(held.task_id)
        return done

    children = [Child(lambda: work("one")), Child(lambda: work("two"))]
    with children[0] as one, children[1] as two:
        assert work("parent") == [f"parent-{turn}" for turn in range(100)]
        assert one.result() == [f"one-{turn}" for turn in range(100)]
        assert two.result() == [f"two-{turn}" for turn in range(100)]

    assert [backend.len(name) for name in ("parent", "one", "two")] == [0, 0, 0]


def test_a_child_forked_while_a_task_is_held_may_settle_it(connect: Callable[[], Backend]) -> None:
    skip_unless_others_settle(connect())
    backend = connect()
    skip_unless_it_tells_what_is_late(backend)
    push(backend, "t1")
    held = take(backend)

    with Child(lambda: len(backend.settle([Ack(held)]))) as child:
        assert child.result() == 0

    assert backend.settle([Ack(held)]) == [Ack(held)]
    assert backend.count(QUEUE) == Counts()


def test_a_forked_child_may_wait_and_be_woken_by_its_parent(connect: Callable[[], Backend]) -> None:
    backend = connect()
    backend.reserve([QUEUE], "parent", wait=0.01)

    with Child(lambda: take(backend).task_id) as child:
        push(backend, "t1")
        assert child.result() == "t1"
