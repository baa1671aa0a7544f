"""Each call to Redis or Valkey takes one round trip, however many tasks it is about."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from alligator.backends.base import NEVER, Ack, Backend, Bury, Message, Records, Release, Settlement
from alligator.testing.running import in_threads
from alligator.testing.stores import QUEUE, WORKER, drain, push, take, take_ready
from alligator.utils import new_id

pytestmark = pytest.mark.parametrize("backend", ["redis", "valkey"], indirect=True)


class Turns:
    """Counts how often this process sends something after it has asked for an answer.

    What it sends in several parts without a look at the answers is one turn. A proxy could not tell: the
    server answers the first part while the next is on its way.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._has_read = True
        for name in ("sendall", "send", "sendmsg"):
            monkeypatch.setattr(socket.socket, name, self._noting(name, self._sent))
        for name in ("recv", "recv_into", "recvmsg"):
            monkeypatch.setattr(socket.socket, name, self._noting(name, self._read))

    def of(self, call: Callable[[], Any]) -> int:
        """Return how many turns a call takes."""
        before, self._has_read = self.count, True
        call()
        return self.count - before

    def _noting(self, name: str, note: Callable[[], None]) -> Callable[..., Any]:
        method = getattr(socket.socket, name)

        def noting(its_socket: socket.socket, *args: Any) -> Any:
            note()
            return method(its_socket, *args)

        return noting

    def _sent(self) -> None:
        self.count += self._has_read
        self._has_read = False

    def _read(self) -> None:
        self._has_read = True


@pytest.fixture
def turns(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Counts from now on: the client is connected, the server knows the scripts and the queue's name."""
    push(backend, "warm-up")
    drain(backend)
    return Turns(monkeypatch)


def test_a_push_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    assert turns.of(lambda: push(backend, "t1")) == 1


def test_a_push_of_thousands_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    messages = [Message(f"t{number}", b"body" * 50) for number in range(3000)]

    assert turns.of(lambda: backend.push_many(QUEUE, messages)) == 1
    assert backend.len(QUEUE) == 3000


def test_the_first_push_to_a_queue_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    assert turns.of(lambda: push(backend, "t1", to="another")) == 1
    assert "another" in backend.queues()


def test_reserving_a_batch_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    push(backend, *(f"t{number}" for number in range(500)))

    assert turns.of(lambda: backend.reserve([QUEUE], WORKER, limit=500)) == 1
    assert backend.count(QUEUE).running == 500


def test_finding_nothing_ready_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    assert turns.of(lambda: backend.reserve([QUEUE], WORKER, limit=10)) == 1


def test_settling_and_reserving_the_next_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    push(backend, *(f"t{number}" for number in range(20)))
    first = take_ready(backend, 10)
    settlements: list[Settlement] = [Bury(first[0], "note"), Release(first[1], delay=60)]
    settlements += map(Ack, first[2:])

    def settle_and_reserve() -> None:
        backend.reserve([QUEUE], new_id(), limit=10, settlements=settlements)

    assert turns.of(settle_and_reserve) == 1
    counts = backend.count(QUEUE)
    assert (counts.running, counts.delayed, counts.dead) == (10, 1, 1)


def test_settling_in_several_queues_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    push(backend, "t1", to="one")
    push(backend, "t2", to="two")
    acks = [Ack(take(backend, of="one")), Ack(take(backend, of="two"))]

    assert turns.of(lambda: backend.settle(acks)) == 1
    assert backend.count("one").running == backend.count("two").running == 0


def test_extending_what_several_workers_hold_is_one_round_trip(
    backend: Backend, turns: Turns
) -> None:
    push(backend, *(f"t{number}" for number in range(20)))
    held = take_ready(backend, 10) + take_ready(backend, 10)

    assert turns.of(lambda: backend.extend(held, 60)) == 1
    assert backend.count(QUEUE).running == 20


def test_taking_a_task_by_its_id_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    push(backend, "t1")

    assert turns.of(lambda: backend.reserve_task(QUEUE, "t1", WORKER)) == 1
    assert backend.count(QUEUE).running == 1


def test_canceling_is_one_round_trip(backend: Backend, turns: Turns) -> None:
    push(backend, "t1")

    assert turns.of(lambda: backend.cancel(QUEUE, "t1")) == 1
    assert backend.len(QUEUE) == 0


def test_writing_and_deleting_several_values_is_one_round_trip_each(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"{family}/{number}": b"" for family in ("a", "b") for number in range(100)}
    records.set_many(values, ttl=60.0)
    records.delete(*values)
    turns = Turns(monkeypatch)

    assert turns.of(lambda: records.set_many(values)) == 1
    assert turns.of(lambda: records.set_many(values, ttl=60.0)) == 1
    assert len(records.list("a")) == len(records.list("b")) == 100
    assert turns.of(lambda: records.delete(*values)) == 1
    assert records.list("a") == records.list("b") == {}


def test_several_values_take_one_round_trip(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"{family}/{number}": b"" for number in range(100) for family in ("a", "b")}
    ttls = {"a/1": 60.0, "b/7": 3600.0}
    records.set_many(values, ttls)
    turns = Turns(monkeypatch)

    assert turns.of(lambda: records.set_many(values, ttls)) == 1
    assert turns.of(lambda: records.get_many(list(values))) == 1


def test_rescheduling_hundreds_is_one_round_trip(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"t{number}" for number in range(500)]
    backend.push_many(QUEUE, [Message(name, b"", due_at=NEVER) for name in names])
    backend.reschedule(QUEUE, names, NEVER)
    turns = Turns(monkeypatch)

    assert turns.of(lambda: backend.reschedule(QUEUE, names)) == 1
    assert backend.count(QUEUE).waiting == 500


def test_a_server_is_not_asked_for_the_time_again_and_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(backend, "warm-up")
    turns = Turns(monkeypatch)

    assert turns.of(backend.now) <= 1
    assert turns.of(lambda: [backend.now() for _ in range(1000)]) == 0
    assert in_threads(4, lambda _: turns.of(backend.now)) == [0] * 4
