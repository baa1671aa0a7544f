"""Who waits for a value has it soon after it is written, and can be called away."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from alligator.backends.base import Ack, Backend, Records
from alligator.bell import Bell
from alligator.testing.running import (
    A_MOMENT,
    Child,
    alarm,
    in_a_thread,
    in_processes,
    in_threads,
    later,
)
from alligator.testing.stores import (
    LONG,
    ODD_IDS,
    QUEUE,
    SOON,
    WORKER,
    at_rest,
    opened,
    push,
    records_of,
    soon_but_after,
    take,
    until,
    wait_for,
)

SHORT = 0.1
PROMPT = 0.5
"""Seconds that a wake-up takes at the most, as a rule."""


@pytest.fixture(autouse=True)
def _only_stores_that_keep_records(abilities: Backend) -> None:
    records_of(abilities)


def timed(wait: Callable[[], object]) -> float:
    """Return how many seconds a wait takes."""
    started = time.monotonic()
    wait()
    return time.monotonic() - started


def assert_prompt(took: list[float]) -> None:
    """Hardly any of some waits was slow: a store that looks by itself now and then hides lost wake-ups."""
    assert max(took) < SOON
    assert sum(one > PROMPT for one in took) <= len(took) / 10, sorted(took)


WRITES: dict[str, Callable[[Records], object]] = {
    "set": lambda records: records.set("results/1", b""),
    "set with a ttl": lambda records: records.set("results/1", b"", ttl=3600.0),
    "set_many": lambda records: records.set_many({"other/1": b"", "results/1": b"x"}),
    "set_many with a ttl": lambda records: records.set_many({"results/1": b"x"}, ttl=3600.0),
    "swap": lambda records: records.swap("results/1", None, b"x"),
}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=[*WRITES])


def test_nobody_waits_for_a_value_that_is_there(records: Records) -> None:
    records.set("results/1", b"")
    records.set("results/2", b"two", ttl=3600.0)

    for keys in (["results/1"], ["results/2"], ["results/3", "other/1", "results/2"]):
        with soon_but_after(0):
            records.wait(keys, LONG)


def test_a_wait_ends_when_nothing_is_written(records: Records) -> None:
    deadline = time.monotonic() + SHORT
    with soon_but_after(SHORT):
        while (left := deadline - time.monotonic()) > 0:
            records.wait(["results/1"], left)


def test_a_wait_of_no_time_or_for_nothing_ends_at_once(records: Records) -> None:
    with soon_but_after(0):
        for timeout in (0, -1, 1e-9):
            records.wait(["results/1"], timeout)
        records.wait([], SHORT)
        records.wait([], SHORT, Bell())


def test_who_waits_for_a_value_is_at_rest(records: Records) -> None:
    deadline, waits = time.monotonic() + 1.0, 0
    with soon_but_after(1.0), at_rest():
        while (left := deadline - time.monotonic()) > 0:
            records.wait(["results/1"], left)
            waits += 1
    assert waits < 20


@writes
def test_a_value_that_is_written_wakes_who_waits(
    records: Records, write: Callable[[Records], object]
) -> None:
    with soon_but_after(A_MOMENT), later(lambda: write(records)):
        wait_for(records, "results/1")


@writes
def test_a_value_that_another_client_writes_wakes_who_waits(
    connect: Callable[[], Backend], write: Callable[[Records], object]
) -> None:
    here, there = records_of(connect()), records_of(connect())

    with soon_but_after(A_MOMENT), later(lambda: write(there)):
        wait_for(here, "results/1")


@writes
def test_a_value_that_another_process_writes_wakes_who_waits(
    dsn: str, connect: Callable[[], Backend], write: Callable[[Records], object]
) -> None:
    records = records_of(connect())

    def write_there() -> None:
        with opened(dsn) as there:
            write(records_of(there))

    with soon_but_after(A_MOMENT), Child(write_there, after=A_MOMENT) as child:
        wait_for(records, "results/1")
        child.result()


def test_any_of_the_keys_wakes_who_waits(records: Records) -> None:
    keys = ["results/1", "results/2", "other/1", "results:all/1"]
    for key in keys:
        with soon_but_after(A_MOMENT), later(partial(records.set, key, b"")):
            wait_for(records, *keys)
        records.delete(key)


def test_one_of_hundreds_of_keys_wakes_who_waits(records: Records) -> None:
    keys = [f"results/{number}" for number in range(700)]

    with soon_but_after(A_MOMENT), later(lambda: records.set(keys[-1], b"")):
        wait_for(records, *keys)


def test_a_key_may_be_any_text_to_who_waits(records: Records) -> None:
    for name in ODD_IDS:
        key = f"results/{name}"
        with soon_but_after(0.01), later(partial(records.set, key, b""), after=0.01):
            wait_for(records, key)


def test_a_value_of_another_key_leaves_who_waits_waiting(records: Records) -> None:
    others = ["results/11", "results/", "other/1", "results/*", "results/?", "Results/1"]
    records.set_many(dict.fromkeys(others, b""))

    def write_others() -> None:
        for _ in range(20):
            records.set_many(dict.fromkeys(others, b""))
            records.delete(*others)

    with later(write_others, after=0.05):
        deadline = time.monotonic() + 4 * A_MOMENT
        while (left := deadline - time.monotonic()) > 0:
            records.wait(["results/1"], left)  # it may return; but there is nothing
            assert records.get("results/1") is None


def test_what_was_deleted_or_has_expired_is_waited_for(records: Records) -> None:
    records.set("results/1", b"")
    records.delete("results/1")
    records.set("results/2", b"", ttl=0.05)
    until(lambda: records.get("results/2") is None, "the expiry of the value")

    for key in ("results/1", "results/2"):
        with soon_but_after(A_MOMENT), later(partial(records.set, key, b"")):
            wait_for(records, "results/1", "results/2")
        records.delete(key)


def test_a_value_written_between_the_look_and_the_wait_is_not_missed(records: Records) -> None:
    for number in range(5):
        key = f"results/{number}"
        assert records.get(key) is None
        records.wait([key], 0.001)
        records.set(key, b"")
        with soon_but_after(0):
            records.wait([key], LONG)


def test_no_wake_up_is_lost_between_two_who_wait_for_each_other(records: Records) -> None:
    took = in_threads(2, lambda number: play(records, number, turns=100))

    assert_prompt([*took[0], *took[1]])


def test_no_wake_up_is_lost_between_two_processes_that_wait_for_each_other(dsn: str) -> None:
    with opened(dsn) as before:
        records_of(before)

    def work(number: int) -> list[float]:
        with opened(dsn) as backend:
            return play(records_of(backend), number, turns=100)

    took: list[list[float]] = in_processes(2, work)

    assert_prompt([*took[0], *took[1]])


def play(records: Records, player: int, turns: int, ball: str = "ball") -> list[float]:
    """Wait for the other's value, then write one, in turns; return how long each wait took."""
    took: list[float] = []
    for turn in range(turns):
        if turn % 2 == player:
            records.set(f"{ball}/{turn}", b"")
        else:
            took.append(timed(partial(wait_for, records, f"{ball}/{turn}")))
    return took


def test_many_who_wait_for_one_value_are_all_woken(records: Records) -> None:
    def wait(_: int, key: str) -> float:
        return timed(lambda: wait_for(records, key))

    took: list[float] = []
    for turn in range(5):
        key = f"results/{turn}"
        with later(partial(records.set, key, b"")):
            took += in_threads(8, partial(wait, key=key))

    assert_prompt([one - A_MOMENT for one in took])


def test_many_who_wait_for_values_of_their_own_are_all_woken(records: Records) -> None:
    def work(number: int) -> list[float]:
        pair, player = divmod(number, 2)
        return play(records, player, turns=20, ball=f"ball {pair}")

    took = in_threads(8, work)

    assert_prompt([one for some in took for one in some])


def test_many_processes_that_wait_for_one_value_are_all_woken(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    records = records_of(connect())

    def wait(number: int) -> float:
        with opened(dsn) as backend:
            there = records_of(backend)
            there.set(f"waiting/{number}", b"")
            wait_for(there, "results/1")
            return time.time()

    with ExitStack() as stack:
        children = [stack.enter_context(Child(partial(wait, number))) for number in range(4)]
        until(lambda: len(records.list("waiting")) == 4, "four who wait")
        time.sleep(A_MOMENT)  # until they wait: no store tells
        written_at = time.time()
        records.set("results/1", b"")
        woken_at: list[float] = [child.result() for child in children]

    took = sorted(at - written_at for at in woken_at)
    assert took[-1] < SOON
    assert took[1] < PROMPT


def test_a_bell_wakes_who_waits_for_a_value(records: Records) -> None:
    bell, took = Bell(), list[float]()
    for _ in range(5):
        with later(bell.ring):
            took.append(timed(lambda: records.wait(["results/1"], LONG, bell)))

    assert_prompt([sorted(took)[2] - A_MOMENT])


def test_a_bell_rung_before_the_wait_ends_it_at_once(records: Records) -> None:
    bell, took = Bell(), list[float]()
    for _ in range(10):
        bell.ring()
        took.append(timed(lambda: records.wait(["results/1"], LONG, bell)))

    assert_prompt(took)


def test_a_bell_rung_just_when_its_first_wait_begins_ends_it(records: Records) -> None:
    took: list[float] = []

    def work(number: int, bell: Bell) -> None:
        if number:
            bell.ring()
        else:
            took.append(timed(lambda: records.wait(["results/1"], LONG, bell)))

    for _ in range(100):
        in_threads(2, partial(work, bell=Bell()))

    assert_prompt(took)


def test_a_bell_ends_one_wait_and_not_the_next(records: Records) -> None:
    bell = Bell()
    bell.ring()
    records.wait(["results/1"], LONG, bell)

    deadline = time.monotonic() + 0.5
    with at_rest():
        while (left := deadline - time.monotonic()) > 0:
            records.wait(["results/1"], left, bell)
    with soon_but_after(A_MOMENT), later(lambda: records.set("results/1", b"")):
        wait_for(records, "results/1", bell=bell)


def test_a_bell_wakes_the_one_who_has_it(records: Records) -> None:
    bells = [Bell(), Bell()]
    with (
        in_a_thread(lambda: records.wait(["results/1"], LONG, bells[0])) as one,
        in_a_thread(lambda: wait_for(records, "results/1", bell=bells[1])) as two,
    ):
        time.sleep(A_MOMENT)  # until they wait
        bells[0].ring()
        one.result(SOON)
        assert not two.done()
        records.set("results/1", b"")
        two.result(SOON)


def test_a_signal_handler_may_ring_the_bell_of_who_waits(records: Records) -> None:
    bell, took = Bell(), list[float]()
    for _ in range(5):
        with alarm(bell.ring):
            took.append(timed(lambda: records.wait(["results/1"], LONG, bell)))

    assert_prompt([sorted(took)[2] - A_MOMENT])
    records.set("results/1", b"")
    assert records.get("results/1") == b""


# Waiting for a value beside those who wait for tasks.


def test_who_waits_for_a_value_takes_no_wake_up_from_workers(
    backend: Backend, records: Records
) -> None:
    def wait_for_task(name: str) -> None:
        assert backend.reserve([name], WORKER, wait=LONG).reservations

    with (
        in_a_thread(lambda: wait_for(records, "results/1")) as one,
        in_a_thread(lambda: wait_for_task("queue 1")) as two,
        in_a_thread(lambda: wait_for(records, "results/2")) as three,
        in_a_thread(lambda: wait_for_task("queue 2")) as four,
    ):
        acts: list[tuple[Future[None], Callable[[], object]]] = [
            (two, lambda: push(backend, "t1", to="queue 1")),
            (one, lambda: records.set("results/1", b"")),
            (four, lambda: push(backend, "t2", to="queue 2")),
            (three, lambda: records.set("results/2", b"")),
        ]
        for waiting, act in acts:
            time.sleep(A_MOMENT)  # until all of them wait
            assert not waiting.done()
            act()
            waiting.result(SOON)


def test_who_waits_for_a_value_in_another_process_takes_no_wake_up_from_workers(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    def wait_there() -> None:
        with opened(dsn) as there:
            wait_for(records_of(there), "results/1")

    backend = connect()
    records_of(backend)
    with Child(wait_there) as child:
        for turn in range(5):
            with soon_but_after(A_MOMENT), later(partial(push, backend, f"t{turn}")):
                backend.settle([Ack(take(backend))])
        records_of(backend).set("results/1", b"")
        child.result()


def test_values_that_are_written_leave_workers_waiting_and_at_rest(
    backend: Backend, records: Records
) -> None:
    def write() -> None:
        for number in range(20):
            records.set(f"results/{number}", b"")
            time.sleep(0.01)  # so that each comes by itself, in the time of the wait below

    with soon_but_after(1.0), later(write, after=0.0), at_rest():
        assert backend.reserve([QUEUE], WORKER, wait=1.0).reservations == []


def test_who_waits_for_a_value_takes_no_interrupt_from_a_worker(
    backend: Backend, records: Records
) -> None:
    backend.interrupt()
    records.wait(["results/1"], 0.05)

    with soon_but_after(0):
        assert backend.reserve([QUEUE], WORKER, wait=LONG).reservations == []


# Waiting for a value on bad days.


def test_a_forked_child_may_wait_for_a_value_of_its_parent(connect: Callable[[], Backend]) -> None:
    records = records_of(connect())
    records.wait(["results/1"], 0.01)

    with Child(lambda: wait_for(records, "results/1")) as child:
        records.wait(["results/2"], A_MOMENT)
        records.set("results/1", b"")
        with soon_but_after(0):
            child.result()


def test_a_client_that_was_closed_waits_again(backend: Backend) -> None:
    records = records_of(backend)
    records.wait(["results/1"], 0.01)
    backend.close()

    with soon_but_after(A_MOMENT), later(lambda: records.set("results/1", b"")):
        wait_for(records, "results/1")


def test_threads_that_waited_leave_no_files_open(records: Records) -> None:
    def wait(_: int) -> None:
        records.wait(["results/1"], 0.001)

    in_threads(2, wait)
    before = files_open()
    for _ in range(20):
        in_threads(2, wait)

    assert files_open() < before + 10


def files_open() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())
