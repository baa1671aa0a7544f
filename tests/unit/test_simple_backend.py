"""A client with only the five documented methods: it works, at most once."""

import bz2
import json
import threading
from typing import Any

import pytest

from alligator import ALL, Gator, Task
from alligator.backends.base import Ack, Counts, Release
from alligator.backends.simple import SimpleBackend
from alligator.constants import CANCELED, DELAYED, RETRYING, SUCCESS
from alligator.exceptions import UnknownModuleError, UnreadableTask
from tests.unit import jobs
from tests.unit.conftest import Clock
from tests.unit.five_methods import FiveMethods
from tests.unit.steps import popped


class Store(FiveMethods):
    """The five methods, how often something was taken out, and whether it was closed."""

    closed = False
    pops = 0

    def pop(self, queue_name: str) -> Any:
        self.pops += 1
        return super().pop(queue_name)

    def close(self) -> None:
        self.closed = True


class Zipped(Task):
    """Bytes that no store can read."""

    def serialize(self) -> bytes:
        text = super().serialize()
        assert isinstance(text, str)
        return bz2.compress(text.encode())

    @classmethod
    def deserialize(cls, data: str | bytes) -> "Zipped":
        assert isinstance(data, bytes)
        return super().deserialize(bz2.decompress(data))


@pytest.fixture
def store() -> Store:
    return Store("five://")


@pytest.fixture
def gator(store: Store) -> Gator:
    return Gator("five://", backend_class=lambda _: store)


def test_tasks_go_in_and_come_out_in_order(gator: Gator, store: Store) -> None:
    tasks = [gator.task(jobs.echo, number) for number in range(5)]

    assert gator.len() == store.len(ALL) == 5
    assert list(store.queues[ALL]) == [task.task_id for task in tasks]
    assert [popped(gator).result for _ in range(5)] == [0, 1, 2, 3, 4]
    assert gator.pop() is None


def test_the_client_is_given_what_serialize_returned(gator: Gator, store: Store) -> None:
    task = gator.task(jobs.echo, "é")

    assert store.queues[ALL][task.task_id] == task.serialize()


@pytest.mark.parametrize(
    "back", [str, bytes, bytearray, memoryview], ids=lambda kind: kind.__name__
)
def test_the_client_may_give_back_text_or_bytes(store: Store, gator: Gator, back: Any) -> None:
    task = gator.task(jobs.add, 1, 2)
    data = store.queues[ALL][task.task_id]
    store.queues[ALL][task.task_id] = data if back is str else back(data.encode())

    assert popped(gator).result == 3


@pytest.mark.parametrize("nothing", [None, "", b""], ids=repr)
def test_the_client_may_say_in_several_ways_that_there_is_nothing(nothing: Any) -> None:
    class Empty(FiveMethods):
        def pop(self, queue_name: str) -> Any:
            return nothing

        def get(self, queue_name: str, task_id: str) -> Any:
            return nothing

    gator = Gator("five://", backend_class=Empty)

    assert gator.pop() is None
    assert gator.get("t1") is None
    assert gator.cancel("t1") is None


def test_one_task_can_be_run_or_canceled_by_its_id(gator: Gator) -> None:
    one, two = gator.task(jobs.add, 1, 2), gator.task(jobs.add, 3, 4)

    got = gator.get(two.task_id)
    canceled = gator.cancel(one.task_id)

    assert got is not None
    assert (got.status, got.result) == (SUCCESS, 7)
    assert canceled is not None
    assert (canceled.status, canceled.task_id) == (CANCELED, one.task_id)
    assert gator.len() == 0


@pytest.mark.parametrize("task_class", [Task, Zipped])
def test_tasks_to_be_retried_do_not_get_in_each_others_way(
    store: Store, task_class: type[Task]
) -> None:
    gator = Gator("five://", task_class=task_class, backend_class=lambda _: store)
    with gator.options(retries=1) as opts:
        tasks = [opts.task(jobs.fail_until, 3) for _ in range(3)]

    assert [popped(gator).status for _ in tasks] == [RETRYING] * 3
    assert gator.len() == 3
    again = [popped(gator) for _ in tasks]

    assert [task.task_id for task in again] == [task.task_id for task in tasks]
    assert [task.result for task in again] == ["at last"] * 3


def test_a_retried_task_keeps_its_id_in_the_store(gator: Gator, store: Store) -> None:
    with gator.options(retries=1, task_id="t1") as opts:
        opts.task(jobs.fail)
    popped(gator)

    assert list(store.queues[ALL]) == ["t1"]
    assert gator.cancel("t1") is not None


def test_ctrl_c_puts_the_task_back_under_its_id(gator: Gator, store: Store) -> None:
    with gator.options(task_id="t1") as opts:
        opts.task(jobs.interrupt)

    with pytest.raises(KeyboardInterrupt):
        gator.pop()

    assert list(store.queues[ALL]) == ["t1"]


def test_what_failed_for_good_is_logged_without_its_arguments(
    gator: Gator, caplog: pytest.LogCaptureFixture
) -> None:
    task = gator.task(jobs.fail_at, {"password": "s3cr3t-pw"})

    with pytest.raises(ValueError, match="gone wrong"):
        gator.pop()

    assert gator.len() == 0
    assert "This store keeps no dead letters" in caplog.text
    assert f"task {task.task_id!r} of {len(task.serialize())} bytes" in caplog.text
    assert "s3cr3t-pw" not in caplog.text
    assert "ValueError: gone wrong" in caplog.text


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("no task", UnreadableTask),
        (
            json.dumps({"task_id": "t1", "retries": 3, "module": "no.such", "callable": "x"}),
            UnknownModuleError,
        ),
    ],
)
def test_what_cannot_be_read_is_logged_and_does_not_go_round(
    gator: Gator, caplog: pytest.LogCaptureFixture, body: str, error: type[Exception]
) -> None:
    gator.backend.push(ALL, "t1", body)

    with pytest.raises(error):
        gator.pop()

    assert gator.len() == 0
    assert f"of {len(body)} bytes" in caplog.text
    assert body not in caplog.text


# What puts itself off.


@pytest.fixture
def backend(store: Store, clock: Clock) -> SimpleBackend:
    """A backend whose clock is turned."""
    return SimpleBackend(store, clock)


@pytest.mark.parametrize("task_class", [Task, Zipped])
def test_a_task_that_snoozes_is_safe_in_the_store_and_not_run_before_its_time(
    store: Store, backend: SimpleBackend, clock: Clock, task_class: type[Task]
) -> None:
    gator = Gator("five://", task_class=task_class, backend_class=lambda _: backend)
    with gator.options(task_id="t1") as opts:
        opts.task(jobs.snooze_until, 2, 60)

    for turn in (1, 2):
        assert popped(gator).status == DELAYED
        clock.turn(59)
        assert gator.pop() is None
        assert jobs.seen == ["try"] * turn
        assert gator.len() == 1
        clock.turn(1)

    assert popped(gator).result == "at last"
    assert gator.len() == 0
    assert task_class is Zipped or store.pops < 20


def test_a_retry_waits_for_as_long_as_the_task_says(backend: SimpleBackend, clock: Clock) -> None:
    gator = Gator("five://", backend_class=lambda _: backend)
    with gator.options(retries=1) as opts:
        opts.task(jobs.retry_until, 1, 60)

    assert popped(gator).status == RETRYING
    assert gator.pop() is None
    clock.turn(60)
    assert popped(gator).result == "at last"


def test_what_cannot_be_pushed_again_runs_early_and_is_not_lost(
    store: Store, backend: SimpleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    gator = Gator("five://", backend_class=lambda _: backend)
    gator.task(jobs.snooze_until, 2, 60)
    assert popped(gator).status == DELAYED

    def refuse(*args: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "push", refuse)
        [held] = backend.reserve([ALL], "me").reservations
    backend.settle([Release(held)])

    assert gator.len() == 1


def test_what_is_over_is_not_kept_in_mind(backend: SimpleBackend, clock: Clock) -> None:
    gator = Gator("five://", backend_class=lambda _: backend)
    for _ in range(3):
        gator.task(jobs.snooze_until, 1, 60)
        popped(gator)
    clock.turn(60)
    while gator.pop():
        pass

    assert vars(backend)["_put_off"] == {}


def test_nothing_fits_into_a_full_queue(backend: SimpleBackend) -> None:
    gator = Gator("five://", backend_class=lambda _: backend)
    gator.task(jobs.add, 1, 2)

    assert backend.push_many(ALL, [], max_length=0) == []


def test_what_is_put_off_keeps_nothing_else_from_being_run(
    backend: SimpleBackend, clock: Clock
) -> None:
    gator = Gator("five://", backend_class=lambda _: backend)
    for _ in range(3):
        gator.task(jobs.snooze_until, 3, 60)
        popped(gator)

    later = [gator.task(jobs.echo, number) for number in range(3)]
    assert [popped(gator).result for _ in later] == [0, 1, 2]
    assert gator.pop() is None

    clock.turn(60)
    assert [popped(gator).result for _ in range(3)] == ["at last"] * 3


def test_another_process_does_not_know_what_is_put_off(
    store: Store, backend: SimpleBackend
) -> None:
    backend.push(ALL, "t1", "body")
    [held] = backend.reserve([ALL], "worker").reservations
    backend.settle([Release(held, delay=60)])

    other = SimpleBackend(store)

    assert backend.reserve([ALL], "worker").reservations == []
    assert [one.body for one in other.reserve([ALL], "other").reservations] == [b"body"]
    assert store.len(ALL) == 0


def test_what_is_queued_anew_in_the_same_words_is_not_put_off(backend: SimpleBackend) -> None:
    backend.push(ALL, "t1", "body")
    [held] = backend.reserve([ALL], "worker").reservations
    backend.settle([Release(held, delay=60)])
    assert backend.cancel(ALL, held.task_id) == b"body"

    backend.push(ALL, "t1", "body")

    [held] = backend.reserve([ALL], "worker").reservations
    assert backend.settle([Ack(held)]) == []


def test_a_worker_that_waits_looks_at_its_pace_though_tasks_are_put_off(
    store: Store, backend: SimpleBackend
) -> None:
    for number in range(100):
        backend.push(ALL, f"t{number}", f"body {number}")
    for held in [backend.reserve([ALL], "worker").reservations[0] for _ in range(100)]:
        backend.settle([Release(held, delay=60)])
    store.pops = 0

    assert backend.reserve([ALL], "worker", wait=0.3, nap=0.05).reservations == []

    assert store.pops <= 2 * 101  # in the beginning, and in the end
    assert store.len(ALL) == 100


def test_a_store_of_five_methods_says_what_it_cannot_do(gator: Gator) -> None:
    backend = gator.backend

    assert (backend.can_lease, backend.can_delay, backend.records) == (False, False, None)
    assert backend.dead(ALL) == []
    assert backend.retry_dead(ALL, ["1"]) == []
    assert backend.purge_dead(ALL, ["1"]) == []
    assert backend.recover([ALL], "worker") == 0


def test_counting_dropping_and_listing(gator: Gator, store: Store) -> None:
    gator.task(jobs.add, 1, 2)
    gator.task(jobs.add, 3, 4)
    assert gator.backend.count(ALL) == Counts(waiting=2)
    assert gator.backend.queues() == [ALL]

    gator.backend.drop_all(ALL)

    assert gator.len() == store.len(ALL) == 0


def test_a_reserve_that_waits_finds_what_comes(gator: Gator) -> None:
    pusher = threading.Timer(0.05, lambda: gator.task(jobs.echo, "here"))
    pusher.start()

    batch = gator.backend.reserve(["empty", ALL], "worker", wait=10, nap=0.01)

    pusher.join()
    [reservation] = batch.reservations
    assert Task.deserialize(reservation.body).func_args == ("here",)
    assert gator.backend.extend([reservation], 30) == []


def test_a_reserve_that_waits_can_be_interrupted(gator: Gator) -> None:
    gator.backend.interrupt()

    assert gator.backend.reserve([ALL], "worker", wait=60, nap=60).reservations == []


def test_closing_closes_a_client_that_can_be_closed(gator: Gator, store: Store) -> None:
    gator.backend.close()
    Gator("five://", backend_class=FiveMethods).backend.close()

    assert store.closed
