"""Limits that tasks share: how many run at a time, and how many start in a span of time."""

import itertools
import json
import random
import time
from typing import Any

import pytest

from alligator import Concurrency, Gator, Rate, Task, limits
from alligator.attempts import Runner
from alligator.backends.base import Ack, Bury, Message, Reservation, worker_of
from alligator.exceptions import (
    BackendUnavailable,
    InvalidOption,
    QueueFull,
    UnreadableTask,
)
from alligator.limits import Limit, limit_from_json, limit_in, limit_to_json
from alligator.limits.gates import NAP
from alligator.limits.lines import CHUNK
from alligator.limits.record import SAFETY
from alligator.runs import Run
from alligator.testing.running import in_a_thread
from alligator.testing.stores import let_pass, records_of, take, until
from alligator.utils import new_id
from tests.features import limit_work
from tests.features.limit_work import (
    Clock,
    Steps,
    Store,
    Sudden,
    be_inside,
    be_inside_soon,
    counted,
    fail_first,
    fragile,
    open_gate,
    patient,
    queue_of,
    wait_at,
)
from tests.features.work import QuietWorker, do, done, work_off

ONE = Concurrency("api", 1)
TWO = Concurrency("api", 2)


@pytest.fixture(autouse=True)
def nobody_inside() -> None:
    limit_work.inside.clear()
    limit_work.most.clear()
    limit_work.gates.clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    """A store in memory, by the test's clock."""
    return Store(clock)


# What can be asked for


@pytest.mark.parametrize(
    "limit", [Concurrency("api", 1), Rate("api", 5, 60), Rate("ž/🐊:%", 10_000, 0.25)]
)
def test_a_limit_goes_through_the_payload(limit: Limit) -> None:
    assert limit_from_json(json.loads(json.dumps(limit_to_json(limit)))) == limit


@pytest.mark.parametrize("key", ["", "x" * 201, "ž" * 101, "a\nb", "\ud800", 7, None, b"api"])
def test_a_key_is_a_name(key: Any) -> None:
    with pytest.raises(InvalidOption, match="key"):
        Concurrency(key, 1)
    with pytest.raises(InvalidOption, match="key"):
        Rate(key, 1, 1.0)


@pytest.mark.parametrize("n", [0, -1, 10_001, True, 1.0, "2", None])
def test_n_is_a_whole_number(n: Any) -> None:
    with pytest.raises(InvalidOption, match="from 1 to 10000"):
        Concurrency("api", n)
    with pytest.raises(InvalidOption, match="from 1 to 10000"):
        Rate("api", n, 1.0)


@pytest.mark.parametrize("per", [0, -1, True, float("nan"), float("inf"), 1e11, "60", None])
def test_per_is_a_number_of_seconds(per: Any) -> None:
    with pytest.raises(InvalidOption, match="per"):
        Rate("api", 1, per)


@pytest.mark.parametrize(
    "told",
    [
        None, [], {}, "rate", {"rate": []}, {"rate": ["api", 1]}, {"concurrency": ["api", 0]},
        {"concurrency": "ab"}, {"rate": ["api", 1, -1]}, {"concurrency": {"api": 1}},
    ],
)  # fmt: skip
def test_a_payload_that_tells_of_no_limit_is_refused(told: Any) -> None:
    with pytest.raises(UnreadableTask, match="limit"):
        limit_from_json(told)


def test_the_limit_of_a_queued_task_can_be_read(gator: Gator) -> None:
    with gator.options(limit=TWO) as opts:
        opts.task(do, 1)
    gator.task(do, 2)

    assert [limit_in(held.body) for held in (take(gator.backend), take(gator.backend))] == [
        TWO,
        None,
    ]
    assert limit_in(b"no JSON") is None


# How many run at a time


def test_never_more_run_than_may(gator: Gator) -> None:
    with gator.batch(limit=TWO) as batch:
        for number in range(30):
            batch.task(be_inside, number)

    work_off(gator, threads=5)

    assert len(limit_work.most) == 30
    assert max(limit_work.most) == 2


def test_first_come_first_served(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    [holder] = steps.begin(queue_name="elsewhere")
    with gator.batch(limit=ONE) as batch:
        for number in range(30):
            batch.task(do, number)
    work_off(gator)
    assert done == []

    steps.end(holder)
    work_off(gator, threads=4)

    assert done == list(range(30))


def test_others_go_on_meanwhile(gator: Gator) -> None:
    with gator.batch(limit=TWO) as batch:
        batch.task(wait_at, "gate")
        batch.task(wait_at, "gate")
        for number in range(300):
            batch.task(do, number)
    with gator.options(limit=Concurrency("other", 1)) as opts:
        opts.task(do, "another limit")
    gator.task(do, "no limit")
    gator.task(open_gate, "gate")

    work_off(gator, threads=3)

    assert {"another limit", "no limit", *range(300)} == set(done)
    assert len(done) == 302


def test_waiting_tasks_count_as_delayed_and_not_as_done(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    [holder] = steps.begin(queue_name="elsewhere")
    with gator.batch(limit=ONE) as batch:
        for number in range(3):
            batch.task(do, number)
    worker = QuietWorker(gator, burst=True)

    worker.run_forever()

    assert worker.tasks_complete == 0
    assert queue_of(gator) == (0, 3, 0)
    steps.end(holder)
    work_off(gator)
    assert done == [0, 1, 2]


def test_a_task_that_is_to_be_run_at_once_waits_like_all(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    [holder] = steps.begin(queue_name="elsewhere")
    with gator.options(limit=ONE, task_id="t1") as opts:
        opts.task(do, "t1")

    assert gator.pop() is not None
    assert gator.get("t1") is not None
    assert done == []

    steps.end(holder)
    assert gator.pop() is not None
    assert done == ["t1"]


def test_a_failed_attempt_leaves_its_place(gator: Gator) -> None:
    with gator.batch(limit=ONE, retries=1, backoff=3600) as batch:
        batch.task(fail_first, str(id(gator)))
        batch.task(do, "next")

    work_off(gator)

    assert done == ["next"]
    assert queue_of(gator) == (0, 1, 0)


def test_a_task_with_more_to_start_than_one_thread_keeps_no_slot(gator: Gator) -> None:
    """One thread, and the first of its batch is held up: the rest of the batch is not."""
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    [holder] = steps.begin(queue_name="elsewhere")
    with gator.batch() as batch:
        for number in range(20):
            with batch.options(limit=ONE) as opts:
                opts.task(do, f"limited {number}")
            batch.task(do, number)

    work_off(gator)

    assert done == list(range(20))
    steps.end(holder)
    work_off(gator)
    assert done[20:] == [f"limited {number}" for number in range(20)]


def test_what_waits_is_not_held_while_another_task_runs(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    [_] = steps.begin(queue_name="elsewhere")
    for number in range(50):  # a worker has learned by then to take several at once
        gator.task(do, number)
    with gator.options(limit=ONE) as opts:
        opts.task(do, "limited")
    gator.task(wait_at, "gate")

    with in_a_thread(lambda: work_off(gator)) as worker:
        until(lambda: queue_of(gator) == (0, 1, 1), "only the one that runs is held")
        open_gate("gate")
        worker.result()


def test_coroutines_wait_like_all(gator: Gator) -> None:
    with gator.batch(limit=TWO) as batch:
        for number in range(30):
            batch.task(be_inside_soon, number)
    gator.task(do, "no limit")

    work_off(gator, concurrency=20)

    assert len(limit_work.most) == 30
    assert max(limit_work.most) == 2
    assert done == ["no limit"]


@pytest.mark.parametrize("limit", [ONE, Rate("api", 100, 1.0)])
def test_a_task_that_finds_room_costs_two_calls_to_enter_and_two_to_leave(
    store: Store, limit: Limit
) -> None:
    steps = Steps(store, limit)
    steps.push("t1")
    held = take(store)
    calls: list[str] = []

    assert limits.enter(counted(store, calls), [held], limit)
    assert calls == ["get", "swap"]

    calls.clear()
    limits.leave(counted(store, calls), held, limit)
    assert calls == (["get", "swap"] if limit is ONE else [])


def test_a_thousand_who_wait_cost_few_calls(store: Store) -> None:
    steps = Steps(store, ONE)
    names = [f"t{number}" for number in range(1001)]
    store.push_many("all", [Message(name, b"{}") for name in names])
    [_] = steps.begin(limit=1)
    calls: list[str] = []
    steps.backend = counted(store, calls)

    for _ in range(4):
        steps.begin(limit=250)

    assert (
        len(calls) < 1000 + 100
    )  # each looks whether there is room; all the rest is done for many at once


def test_two_who_join_the_line_at_the_same_moment_lose_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(store, ONE)
    names = [f"t{number}" for number in range(5 * CHUNK)]
    store.push_many("all", [Message(name, b"{}") for name in names])
    [held] = steps.begin(limit=CHUNK // 2)
    rivals = [store.reserve(["all"], "rival", limit=2 * CHUNK).reservations]

    def after_a_rival(method: Any) -> Any:
        def call(*args: Any) -> Any:
            if rivals:
                steps.park([(one, ONE) for one in rivals.pop()])
            return method(*args)

        return call

    for name in ("swap", "set_many"):
        monkeypatch.setattr(store.records, name, after_a_rival(getattr(store.records, name)))
    steps.begin()
    assert not rivals
    seen = 1
    while seen < len(names):
        steps.end(held)
        [held] = steps.begin()
        seen += 1


def test_the_queues_of_a_store_share_a_limit(gator: Gator) -> None:
    steps = Steps(gator.backend, TWO)
    steps.push("a", "b", queue_name="one")
    steps.push("c", queue_name="other")

    first, second = steps.begin(queue_name="one")
    assert steps.begin(queue_name="other") == []

    steps.end(second)
    [third] = steps.begin(queue_name="other")
    assert third.task_id == "c"
    steps.end(first)


def test_keys_do_not_get_in_each_others_way(gator: Gator) -> None:
    odd = ["a", "a/b", "a:b", "a%2Fb", "A", " a", "{a}", "*", "ž🐊", "x" * 200]
    for number, key in enumerate(odd):
        for limit in (Concurrency(key, 1), Rate(key, 1, 3600)):
            steps = Steps(gator.backend, limit)
            first, second = (f"{which} {number} {limit}" for which in ("first", "second"))
            steps.push(first, second)
            assert steps.names() == [first]


def test_asking_again_gives_the_same_place(gator: Gator) -> None:
    for limit in (ONE, Rate("api", 1, 3600)):
        steps = Steps(gator.backend, limit)
        steps.push(f"first {limit}", f"second {limit}")
        [held] = steps.begin(limit=1)

        assert limits.enter(gator.backend, [held], limit)
        assert steps.begin() == []


def test_leaving_twice_makes_room_once(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("t1", "t2", "t3")
    [first] = steps.begin()
    limits.leave(gator.backend, first, ONE)
    limits.leave(gator.backend, first, ONE)
    gator.backend.settle([Ack(first)])

    [second] = steps.begin()
    limits.leave(gator.backend, first, ONE)  # much too late

    assert steps.begin() == []
    steps.end(second)
    assert steps.names() == ["t3"]


def test_who_is_called_returns_to_its_place_in_its_queue(gator: Gator) -> None:
    for limit, wait in ((ONE, 0.0), (Rate("api", 1, 0.2), 0.3)):
        steps = Steps(gator.backend, limit)
        steps.push("first", "next", "after it")
        [first] = steps.begin(limit=2)

        steps.end(first)
        let_pass(gator.backend, wait)

        held = take(gator.backend)
        assert held.task_id == "next"
        assert limits.enter(gator.backend, [held], limit)
        steps.end(held)
        gator.backend.drop_all("all")


def test_who_comes_later_stays_behind_the_line(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("t1", "t2")
    [first] = steps.begin()
    limits.leave(gator.backend, first, ONE)
    steps.push("new")
    by_id = gator.backend.reserve_task("all", "new", "w", 60.0)
    assert by_id is not None

    assert not limits.enter(gator.backend, [by_id], ONE)

    steps.park([(by_id, ONE)])
    [second] = steps.begin()
    assert second.task_id == "t2"
    steps.end(second)
    assert steps.names() == ["new"]


def test_a_raised_limit_lets_more_in(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("t1", "t2", "t3", "t4")
    [first] = steps.begin()

    steps.limit = Concurrency("api", 3)
    steps.end(first)

    assert steps.names() == ["t2", "t3", "t4"]


def test_a_lowered_limit_holds_for_those_who_come(gator: Gator) -> None:
    steps = Steps(gator.backend, Concurrency("api", 3))
    steps.push("t1", "t2", "t3", "t4")
    first, second, third = steps.begin()

    steps.limit = ONE
    steps.end(first)
    assert steps.begin() == []
    steps.end(second)
    assert steps.begin() == []
    steps.end(third)

    assert steps.names() == ["t4"]


def test_a_line_of_any_length_is_in_order(gator: Gator) -> None:
    names = [f"t{number}" for number in range(6 * CHUNK)]
    steps = Steps(gator.backend, ONE)
    gator.backend.push_many("all", [Message(name, b"{}") for name in names])
    seen: list[str] = []
    [held] = steps.begin(limit=3 * CHUNK)
    steps.begin(limit=3 * CHUNK)
    while len(seen) < len(names):
        seen.append(held.task_id)
        steps.end(held)
        held = (steps.begin() or [held])[0]

    assert seen == names
    assert records_of(gator.backend).list("parked:concurrency:api") == {}


def test_many_may_be_in(gator: Gator) -> None:
    steps = Steps(gator.backend, Concurrency("api", 300))
    gator.backend.push_many("all", [Message(f"t{number}", b"{}") for number in range(400)])

    held = steps.begin()
    assert len(held) == 300
    for one in held[:50]:
        steps.end(one)

    assert steps.names() == [f"t{number}" for number in range(300, 350)]


# Those who do not come back


def test_a_place_is_free_when_its_task_has_lapsed(store: Store, clock: Clock) -> None:
    steps = Steps(store, ONE, lease=10.0)
    steps.push("dies", "next")
    [dead] = steps.begin()
    store.settle([])
    clock.now += 20.0

    [again] = steps.begin()  # it comes first, and takes its own place
    assert again.task_id == dead.task_id
    steps.end(again)
    assert steps.names() == ["next"]


def test_a_place_is_free_when_its_task_is_gone(store: Store, clock: Clock) -> None:
    steps = Steps(store, ONE)
    steps.push("gone", "next")
    [gone] = steps.begin()
    store.settle([Bury(gone, "{}")])  # by someone who knows of no limits

    clock.now += SAFETY
    assert steps.names() == []  # it looks around
    clock.now += 0.01

    assert steps.names() == ["next"]


def test_a_place_is_free_when_nobody_takes_up_its_task(store: Store, clock: Clock) -> None:
    steps = Steps(store, ONE, lease=10.0)
    steps.push("dies", queue_name="without workers")
    [_] = steps.begin(queue_name="without workers")
    steps.push("next")
    assert steps.begin() == []

    clock.now += SAFETY
    steps.begin()
    clock.now += 1.0

    assert steps.names() == ["next"]


def test_one_who_was_called_does_not_come(store: Store, clock: Clock) -> None:
    steps = Steps(store, ONE)
    steps.push("first")
    [first] = steps.begin()
    steps.push("called", queue_name="without workers")
    assert steps.begin(queue_name="without workers") == []
    steps.push("next", "last")
    assert steps.begin() == []
    steps.end(first)
    assert steps.begin() == []  # the place is kept

    began = clock.now
    while not (started := steps.begin()):
        clock.now += 1.0
        assert clock.now - began <= 3 * SAFETY

    [held] = started
    assert held.task_id == "next"
    # It has not lost its turn for that; but there is no room for it now.
    assert steps.begin(queue_name="without workers") == []
    steps.end(held)
    [held] = steps.begin(queue_name="without workers")
    assert held.task_id == "called"
    steps.end(held)
    clock.now += 0.01
    assert steps.names() == ["last"]


def test_one_is_called_before_it_is_released(gator: Gator) -> None:
    for limit, wait in ((ONE, 0.0), (Rate("api", 1, 0.2), 0.3)):
        steps = Steps(gator.backend, limit)
        steps.push("first", "next")
        first, second = gator.backend.reserve(["all"], "w", limit=2).reservations
        assert limits.enter(gator.backend, [first], limit)
        parked = limits.park(gator.backend, [(second, limit)])
        steps.end(first)
        gator.backend.settle(parked.releases)

        parked.then()

        again = take(gator.backend)
        assert again.task_id == "next"
        gator.backend.settle([Ack(again)])
        limits.forget(gator.backend, "all", "next", limit)
        let_pass(gator.backend, wait)


def test_a_worker_that_was_too_slow_takes_nobodys_place(store: Store, clock: Clock) -> None:
    steps = Steps(store, ONE, lease=10.0)
    steps.push("t1", "t2")
    [slow] = steps.begin(limit=1)
    clock.now += 11.0
    [again] = steps.begin(limit=1)
    assert again.task_id == "t1"

    steps.end(slow)

    assert steps.begin() == []
    steps.end(again)
    assert steps.names() == ["t2"]


def test_who_was_called_by_one_that_died_at_once_hears_of_it_soon(store: Store) -> None:
    for limit in (ONE, Concurrency("other", 2)):
        steps = Steps(store, limit)
        steps.push("dies", *(f"t{number}" for number in range(limit.n)))
        dies, *others = steps.begin()
        steps.backend = fragile(store, 3, is_done=True)  # the record is swapped, and nobody told
        with pytest.raises(Sudden):
            steps.end(dies)
        steps.backend = store
        store.recover(["all"], worker_of(dies.token), ["dies"])
        others = [held for held in others if store.extend([held], 60.0) == []]

        seen = [held.task_id for held in [*steps.begin(), *steps.begin()]]

        assert f"t{limit.n - 1}" in seen
        store.drop_all("all")


@pytest.mark.parametrize(
    "limit", [Concurrency("api", 1), Concurrency("api", 3), Rate("api", 2, 1.0)]
)
def test_an_answer_that_got_lost_loses_nobody(limit: Limit) -> None:
    for calls in itertools.count(1):
        clock = Clock()
        store = Store(clock)
        steps = Steps(store, limit)
        steps.push(*(f"t{number}" for number in range(10)))
        [held, *others] = steps.begin()
        steps.push("new")
        left = [calls]
        steps.backend = patient(store, left)
        steps.begin()
        steps.end(held)
        steps.backend = store
        for one in others:
            steps.end(one)
        seen = 1 + len(others)
        while seen < 11:
            started = steps.begin()
            for held in started:
                seen += 1
                steps.end(held)
            clock.now += 0.1
            assert clock.now < 1_700_000_000 + 30.0, f"stuck after call {calls}"
        if left[0] > 0:
            assert calls > 5
            return


def test_canceled_tasks_are_passed_over(gator: Gator) -> None:
    names = [f"t{number}" for number in range(70)]
    steps = Steps(gator.backend, ONE)
    steps.push("first", *names, "last")
    [first] = steps.begin()
    for name in names:
        assert gator.backend.cancel("all", name)

    steps.end(first)

    assert steps.names() == ["last"]


def test_one_who_was_called_and_is_canceled_passes_it_on(gator: Gator) -> None:
    call_one(gator, ONE)

    assert gator.cancel("called")

    work_off(gator)
    assert done == ["last"]


@pytest.mark.parametrize("limit", [ONE, Rate("api", 1, 3600.0)])
def test_nothing_is_kept_for_one_who_was_called_and_is_canceled(gator: Gator, limit: Limit) -> None:
    call_one(gator, limit)

    assert gator.cancel("called")

    [record] = records_of(gator.backend).list("limits").values()
    assert "called" in json.loads(record)
    assert b"all:called" not in record


def test_one_of_the_line_that_is_canceled_costs_little(store: Store) -> None:
    steps = Steps(store, Rate("api", 50, 3600.0))
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(200)])
    steps.begin()
    calls: list[str] = []

    limits.forget(counted(store, calls), "all", "t170", steps.limit)

    assert calls == ["get"]


def test_a_task_is_canceled_though_its_limit_cannot_be_seen_to(
    gator: Gator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, error in (("get", BackendUnavailable("Gone")), ("swap", QueueFull("Full"))):
        call_one(gator, ONE)
        records = records_of(gator.backend)
        with monkeypatch.context() as patch:
            patch.setattr(records, name, failing_for_limits(getattr(records, name), error))

            assert gator.cancel("called")

        assert gator.backend.find("all", "called") is None
        assert "'called' is canceled" in caplog.text
        caplog.clear()
        limits.forget(gator.backend, "all", "called", ONE)
        work_off(gator)
        assert done.pop() == "last"


def call_one(gator: Gator, limit: Limit) -> None:
    """Let two tasks be in the line for a limit, of which one is called, as far as there is room."""
    steps = Steps(gator.backend, limit)
    holder = f"holder {new_id()}"
    steps.push(holder, queue_name="elsewhere")
    [held] = steps.begin(queue_name="elsewhere")
    with gator.batch(limit=limit) as batch:
        for name in ("called", "last"):
            with batch.options(task_id=name) as opts:
                opts.task(do, name)
    work_off(gator)
    steps.end(held)


def failing_for_limits(method: Any, error: Exception) -> Any:
    """Return a method of a store's records that fails for those of limits."""

    def call(key: str, *args: Any) -> Any:
        if key.startswith("limits/"):
            raise error
        return method(key, *args)

    return call


def test_a_canceled_task_takes_no_place_from_the_next_one_of_its_id(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("t1", "t2")
    [held] = steps.begin()

    limits.forget(gator.backend, "all", "t1", ONE)  # late: for one that was canceled before

    assert steps.begin() == []
    steps.end(held)
    assert steps.names() == ["t2"]


def test_one_who_was_called_and_is_canceled_without_a_word_holds_up_no_longer_than_a_guard_waits(
    store: Store, clock: Clock
) -> None:
    steps = Steps(store, ONE)
    steps.push("first", "canceled", "last")
    [first] = steps.begin()
    steps.end(first)
    assert store.cancel("all", "canceled")
    assert steps.begin() == []

    clock.now += SAFETY
    steps.begin()
    clock.now += 1.0

    assert steps.names() == ["last"]


def test_an_expired_task_passes_it_on(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("first", queue_name="elsewhere")
    [first] = steps.begin(queue_name="elsewhere")
    with gator.batch(limit=ONE) as batch:
        with batch.options(expires=0.05, task_id="expires") as opts:
            opts.task(do, "too late")
        batch.task(do, "next")
    work_off(gator)
    steps.end(first)
    gator.backend.push("clock", "tick", "{}")
    take(gator.backend, of="clock", lease=0.05)
    take(gator.backend, of="clock")  # so much time has passed

    work_off(gator)

    assert done == ["next"]
    assert [letter.task_id for letter in gator.backend.dead("all")] == ["expires"]


def test_a_task_that_kills_its_workers_leaves_its_place(gator: Gator) -> None:
    with gator.batch(limit=ONE) as batch:
        batch.task(do, "kills")
        batch.task(do, "next")
    for _ in range(3):
        held = take(gator.backend, worker="victim")
        assert limits.enter(gator.backend, [held], ONE)
        gator.backend.recover(["all"], "victim", [held.task_id])

    work_off(gator)

    assert done == ["next"]


def test_a_task_that_was_replaced_keeps_its_delay(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("first", "replaced", "next")
    [first] = steps.begin()
    again = Message("replaced", b"{}", delay=NAP / 3, replaces=True)
    gator.backend.push_many("all", [again])

    steps.end(first)

    assert steps.names() == ["next"]
    found = gator.backend.find("all", "replaced")
    assert found is not None
    assert found.due_at > gator.backend.now() + NAP / 4


def test_a_record_that_is_not_ours_is_written_anew(gator: Gator) -> None:
    for value in (b"", b"null", b"[1]", b"{", b'{"called":{"a":1}}', b'{"first":"x"}', b"\xff"):
        records_of(gator.backend).set("limits/concurrency:api", value)
        steps = Steps(gator.backend, ONE)
        steps.push("t1")
        [held] = steps.begin()
        steps.end(held)


def test_a_limit_that_nobody_uses_is_forgotten(store: Store, clock: Clock) -> None:
    for limit in (ONE, Rate("api", 1, 10.0)):
        steps = Steps(store, limit)
        steps.push("t1")
        [held] = steps.begin()
        steps.end(held)

    clock.now += 3600.0

    assert records_of(store).list("limits") == {}


def test_a_line_that_stands_still_costs_little(store: Store, clock: Clock) -> None:
    """Not every one of those who wait comes by every minute: all together they are one a second at most."""
    waiting = 5000
    steps = Steps(store, ONE, lease=1e6)
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(waiting + 1)])
    [_] = steps.begin(limit=100_000)
    began, came = clock.now, 0
    hours = 4 * 3600.0
    while clock.now < began + hours:
        clock.now = store.next_at
        batch = store.reserve(["all"], "w", limit=1000, lease=60.0)
        came += len(batch.reservations)
        steps.park([(held, ONE) for held in batch.reservations])

    assert waiting < came < hours
    line = json.loads(records_of(store).list("limits")["limits/concurrency:api"])
    assert line["tail_at"] + len(line["tail"]) - line["first"] < waiting * 1.1


# How many start in a span of time


@pytest.mark.parametrize(
    ("n", "per", "tasks"), [(1, 10.0, 30), (5, 1.0, 200), (20, 60.0, 200), (400, 10.0, 2000)]
)
def test_no_span_has_more_starts_than_it_may_and_few_have_less(
    store: Store, clock: Clock, n: int, per: float, tasks: int
) -> None:
    steps = Steps(store, Rate("api", n, per))
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(tasks)])
    starts: list[float] = []
    names: list[str] = []
    while len(names) < tasks:
        for held in steps.begin(limit=50):
            names.append(held.task_id)
            starts.append(clock.now)
            steps.end(held)
        if not store.count("all").waiting:
            clock.now = max(clock.now + 0.0005, store.next_at)

    for first, after in zip(starts, starts[n:], strict=False):
        assert after - first > per
    ideal = (tasks / n - 1) * per
    assert starts[-1] - starts[0] < ideal * 1.1
    assert all(abs(int(name[1:]) - place) < n for place, name in enumerate(names))


def test_a_rate_holds_for_what_really_starts(gator: Gator) -> None:
    rate = Rate("api", 5, 0.5)
    with gator.batch(limit=rate) as batch:
        for _ in range(20):
            batch.task(note_start)
    gator.task(do, "no limit")
    starts.clear()

    worker = QuietWorker(gator, max_tasks=21, threads=2)
    worker.run_forever()

    assert done == ["no limit"]
    assert len(starts) == 20
    for first, after in zip(starts, starts[5:], strict=False):
        assert (
            after - first > 0.4
        )  # it starts a moment after it was counted: on a busy machine, a long one


starts: list[float] = []


def note_start() -> None:
    starts.append(time.monotonic())


@pytest.mark.parametrize("n", [1, 300])
def test_a_span_may_be_as_short_as_it_likes(store: Store, clock: Clock, n: int) -> None:
    steps = Steps(store, Rate("api", n, 5e-324))
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(2 * n)])
    seen = steps.names()
    while len(seen) < 2 * n:
        clock.now += 0.001
        seen += steps.names()

    assert seen == [f"t{number}" for number in range(2 * n)]


def test_no_one_gets_an_opening_before_the_line(store: Store, clock: Clock) -> None:
    steps = Steps(store, Rate("api", 2, 10.0))
    steps.push("t1", "t2", "t3", "t4", "t5")
    assert steps.names() == ["t1", "t2"]
    seen: list[str] = []
    for number in range(400):
        if number % 20 == 0:
            steps.push(f"new {number}")
        clock.now += 0.1
        seen += steps.names()

    assert seen[:3] == ["t3", "t4", "t5"]
    assert seen[3:] == [f"new {20 * number}" for number in range(len(seen) - 3)]


def test_canceled_tasks_take_no_opening(store: Store, clock: Clock) -> None:
    steps = Steps(store, Rate("api", 1, 10.0))
    names = [f"t{number}" for number in range(100)]
    steps.push("first", *names, "last")
    assert steps.names() == ["first"]
    for name in names:
        if store.cancel("all", name):
            limits.forget(store, "all", name, steps.limit)
    clock.now += 10.5

    assert steps.names() == ["last"]


def test_a_raised_rate_holds_for_those_who_wait(store: Store, clock: Clock) -> None:
    steps = Steps(store, Rate("api", 1, 600.0))
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(100)])
    assert steps.names() == ["t0"]
    steps.limit = Rate("api", 50, 1.0)
    seen: list[str] = []
    began = clock.now
    while len(seen) < 99 and clock.now < began + 3600:
        clock.now = store.next_at
        seen += steps.names()

    assert len(seen) == 99
    assert clock.now < began + 700.0


def test_after_all_workers_were_away_no_crowd_comes_again_and_again(
    store: Store, clock: Clock
) -> None:
    steps = Steps(store, Rate("api", 5, 10.0))
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(100)])
    steps.begin()
    clock.now += 3600.0

    seen, handed_out = 0, 0
    while seen < 95:
        batch = store.reserve(["all"], "w", limit=1000, lease=60.0)
        handed_out += len(batch.reservations)
        for held in batch.reservations:
            if limits.enter(store, [held], steps.limit):
                seen += 1
                steps.end(held)
            else:
                steps.park([(held, steps.limit)])
        clock.now = max(clock.now, store.next_at)

    assert handed_out < 3 * 95


def test_a_clock_that_was_set_back_holds_up_nothing_for_long(store: Store, clock: Clock) -> None:
    steps = Steps(store, Rate("api", 1, 1.0))
    clock.now += 1e6
    steps.push("t1")
    [_] = steps.begin()
    clock.now -= 1e6
    steps.push("t2")
    began = clock.now
    while not steps.names():
        clock.now += 0.5
        assert clock.now < began + 60.0


def test_a_start_is_counted_when_it_comes_and_not_when_that_was_decided(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = records_of(store).swap

    def slow_swap(*args: Any) -> bool:
        clock.now += slow.pop() if slow else 0.0
        return swap(*args)

    monkeypatch.setattr(store.records, "swap", slow_swap)
    slow = [3.0]
    steps = Steps(store, Rate("api", 1, 10.0))
    steps.push("t1", "t2")
    [_] = steps.begin(limit=1)
    started_at = clock.now
    while not steps.names():
        clock.now += 0.01

    assert clock.now - started_at > 10.0


# Tasks that enter together

FAST = Rate("api", 1000, 1.0)


def test_only_tasks_of_a_fast_rate_enter_together() -> None:
    assert limits.together(FAST) > 10
    assert limits.together(Rate("api", 1_000, 60.0)) == 1
    assert limits.together(Concurrency("api", 1_000)) == 1


def test_tasks_that_enter_together_cost_as_much_as_one(store: Store) -> None:
    steps = Steps(store, Rate("api", 3, 10.0))
    steps.push("t1", "t2", "t3", "t4", "t5")
    helds = store.reserve(["all"], "w", limit=5).reservations
    calls: list[str] = []

    entries = limits.enter(counted(store, calls), helds, steps.limit)

    assert list(entries) == helds[:3]
    assert calls == ["get", "swap"]


def test_a_worker_lets_in_what_comes_next_too(store: Store) -> None:
    other = Rate("other", 1000, 1.0)
    gator = Gator("locmem://", backend_class=lambda _: store)
    for number in range(10):
        with gator.options(limit=other if number % 2 else FAST) as opts:
            opts.task(do, number)
    coming = store.reserve(["all"], "w", limit=10).reservations
    calls: list[str] = []
    runner = Runner(counted(store, calls), Task, coming=lambda: list(coming))
    calls.clear()
    while coming:
        held = coming.pop(0)
        run = runner.begin(held)
        assert isinstance(run, Run)
        assert run.task.limit in (FAST, other)

    assert calls == ["get", "swap"] * 2


def test_what_was_let_in_counts_as_late_though_others_came_first(
    store: Store, clock: Clock
) -> None:
    gator = Gator("locmem://", backend_class=lambda _: store)
    with gator.batch(limit=FAST) as batch:
        for number in range(limits.together(FAST) + 5):
            batch.task(do, number)
    helds = store.reserve(["all"], "w", limit=100).reservations
    calls: list[str] = []
    runner = Runner(counted(store, calls), Task, coming=lambda: helds)
    for held in helds[-2:]:  # in other threads; they let in the first, too
        runner.begin(held)
    clock.now += 0.5
    calls.clear()

    runner.begin(helds[0])

    assert calls == ["get", "swap"]


def test_those_who_start_late_count_as_late(store: Store, clock: Clock) -> None:
    steps = Steps(store, Rate("api", 3, 10.0))
    steps.push("t1", "t2", "t3", "t4", "t5")
    first, second, third, *_ = store.reserve(["all"], "w", limit=3).reservations
    entries = limits.enter(store, [first, second, third], steps.limit)
    assert entries[first].begin(first)
    clock.now += 4.0
    assert entries[second].begin(second)
    clock.now += 4.0
    assert entries[third].begin(third)
    began = clock.now
    starts: list[tuple[str, float]] = []
    while len(starts) < 2:
        starts += [(name, round(clock.now - began, 1)) for name in steps.names()]
        clock.now += 0.01

    assert starts == [("t4", 2.0), ("t5", 6.0)]


def test_who_starts_so_late_that_others_have_had_its_turn_may_not(
    store: Store, clock: Clock
) -> None:
    steps = Steps(store, Rate("api", 2, 10.0))
    steps.push("t1", "t2", "t3", "t4")
    helds = store.reserve(["all"], "w", limit=2).reservations
    entries = limits.enter(store, helds, steps.limit)
    clock.now += 11.0
    assert steps.names() == ["t3", "t4"]

    assert not any(entries[held].begin(held) for held in helds)

    steps.park([(held, steps.limit) for held in helds])
    began = clock.now
    seen: list[str] = []
    while len(seen) < 2:
        clock.now += 0.01
        seen += steps.names()
    assert seen == ["t1", "t2"]
    assert clock.now - began > 10.0


@pytest.mark.parametrize("n", [2, 300])
def test_no_span_has_more_starts_than_it_may_though_many_enter_together_and_start_late(
    store: Store, clock: Clock, n: int
) -> None:
    chance = random.Random(n)
    limit = Rate("api", n, 1.0)
    store.push_many("all", [Message(f"t{number}", b"{}") for number in range(5 * n)])
    starts: list[float] = []
    while len(starts) < 5 * n:
        batch = store.reserve(["all"], "w", limit=20, lease=1e6)
        coming = list(batch.reservations)
        waiting: list[Reservation] = []
        while coming:
            entries = limits.enter(store, coming[:10], limit)
            for held in coming[: max(1, len(entries))]:
                coming.remove(held)
                clock.now += chance.choice([0.0, 0.0, 0.001, 0.01, 1.5 / n])
                if held in entries and entries[held].begin(held):
                    starts.append(clock.now)
                    store.settle([Ack(held)])
                else:
                    waiting.append(held)
        if waiting:
            Steps(store, limit).park([(held, limit) for held in waiting])
        if not store.count("all").waiting:
            clock.now = max(clock.now + 0.0005, store.next_at)

    for first, after in zip(starts, starts[n:], strict=False):
        assert after - first > limit.per


# What others see


def test_several_limits_are_waited_for_at_a_time(gator: Gator) -> None:
    steps = Steps(gator.backend, ONE)
    steps.push("holder", queue_name="elsewhere")
    other = Steps(gator.backend, Concurrency("other", 1))
    other.push("other holder", queue_name="elsewhere")
    [holder] = steps.begin(1, queue_name="elsewhere")
    [other_holder] = other.begin(1, queue_name="elsewhere")
    with gator.batch() as batch:
        for number in range(10):
            with batch.options(limit=steps.limit if number % 2 else other.limit) as opts:
                opts.task(do, number)
    work_off(gator)
    assert done == []

    other.end(other_holder)
    work_off(gator)
    assert done == [0, 2, 4, 6, 8]
    steps.end(holder)
    work_off(gator)
    assert done[5:] == [1, 3, 5, 7, 9]


def test_names_that_nobody_can_have_hold_up_no_line(gator: Gator) -> None:
    odd = ["all:%u0000", "%uD800:t", "a%u0000:%uDCFF", ":"]
    told = {
        "inside": dict.fromkeys(odd, "w1.1.1"),
        "called": {ref: [1.0, 1.0, True] for ref in odd},
        "guard": [odd[0], 1.0],
        "head": odd,
        "first": 1,
        "tail_at": 5,
    }
    records_of(gator.backend).set("limits/concurrency:api", json.dumps(told).encode())
    with gator.options(limit=TWO) as opts:
        for number in range(3):
            opts.task(do, number)

    work_off(gator)

    assert sorted(done) == [0, 1, 2]
