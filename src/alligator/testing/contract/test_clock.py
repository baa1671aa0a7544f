"""The store's own clock tells the time to all its clients, and when each hand-out was made."""

import time
from collections.abc import Callable

from alligator.backends.base import Backend, Reservation, reserved_at, token_of, worker_of
from alligator.testing.running import Child, in_threads
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    TICK,
    WORKER,
    drain,
    let_pass,
    push,
    skip_unless_it_picks,
    take,
    take_ready,
)
from alligator.utils import new_id


def assert_right(backend: Backend) -> None:
    before = time.time()
    now = backend.now()
    assert before - TICK <= now <= time.time() + TICK


def test_the_time_is_right(backend: Backend) -> None:
    # The servers of these tests run on the same machine.
    assert_right(backend)
    assert_right(backend)


def test_the_time_goes_on(backend: Backend) -> None:
    before, started = backend.now(), time.monotonic()
    let_pass(backend, 0.1)

    passed = backend.now() - before

    assert 0.1 - TICK <= passed <= time.monotonic() - started + TICK


def test_the_time_does_not_jump(backend: Backend) -> None:
    moments = [backend.now() for _ in range(2000)]

    assert moments == sorted(moments)


def test_the_time_is_right_in_every_thread(backend: Backend) -> None:
    def look(_: int) -> None:
        for _ in range(100):
            assert_right(backend)

    in_threads(8, look)


def test_the_time_is_right_in_a_forked_child(connect: Callable[[], Backend]) -> None:
    backend = connect()
    assert_right(backend)

    with Child(lambda: assert_right(backend)) as child:
        assert child.result() is None

    assert_right(backend)


def test_the_time_is_right_in_a_client_that_was_closed(backend: Backend) -> None:
    assert_right(backend)
    backend.close()

    assert_right(backend)


def test_a_delay_ends_by_this_clock(backend: Backend) -> None:
    push(backend, "t1", delay=0.1)
    due_at = backend.now() + 0.1

    take(backend)

    assert backend.now() >= due_at - TICK


# The time of a hand-out.


def hand_outs(backend: Backend, worker: str) -> list[Reservation]:
    """Reserve a task with others, and one by its id."""
    push(backend, "t1", "t2", "t3")
    by_id = backend.reserve_task(QUEUE, "t3", worker)
    assert by_id is not None
    return [*backend.reserve([QUEUE], worker, limit=10).reservations, by_id]


def test_a_token_tells_who_holds_a_task_since_when(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    for worker in (WORKER, "a worker – ž"):
        before = backend.now()
        held = hand_outs(backend, worker)
        after = backend.now()

        assert len(held) == 3
        for one in held:
            assert worker_of(one.token) == worker
            assert before - TICK <= reserved_at(one.token) <= after + TICK
        backend.drop_all(QUEUE)
        backend.recover([QUEUE], worker)
        drain(backend)


def test_each_hand_out_has_a_token_of_its_own(backend: Backend) -> None:
    names = [f"t{number}" for number in range(400)]
    push(backend, *names)

    def work(_: int) -> list[str]:
        tokens: list[str] = []
        for _ in range(50):
            batch = backend.reserve([QUEUE], WORKER)
            tokens += [held.token for held in batch.reservations]
        return tokens

    tokens = [token for some in in_threads(8, work) for token in some]

    assert len(set(tokens)) == len(tokens) == 400


def test_a_lapsed_hand_out_has_another_token_than_the_next(backend: Backend) -> None:
    push(backend, "t1")
    first = take(backend, worker=WORKER, lease=0.05)

    second = take(backend, worker=WORKER)

    assert reserved_at(second.token) >= reserved_at(first.token) + 0.05 - TICK
    assert first.token != second.token


def test_a_moment_far_away_is_told_to_the_millisecond() -> None:
    for now in (0.0, 1.001, 1700000000.25, 9999999999.999):
        token = token_of("worker", 12345, now)
        assert (worker_of(token), reserved_at(token)) == ("worker", now)


def test_a_dead_worker_is_known_by_the_tokens_of_its_hand_outs(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    worker = new_id()
    held = hand_outs(backend, worker)
    push(backend, "t4")
    other = take(backend, worker=f"{worker}2", lease=FAR_OFF)

    assert backend.recover([QUEUE], worker) == 3

    assert backend.extend([*held, other], 60.0) == held
    assert len(take_ready(backend)) == 3
