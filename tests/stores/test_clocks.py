"""Stores whose clock can be handed in; and a server whose clock is behind that of the one before it."""

from collections.abc import Callable

import pytest

from alligator.backends.base import Ack, Backend, Bury, Release, Reservation, reserved_at
from alligator.backends.locmem_backend import Client as Memory
from alligator.backends.sqlite_backend import Client as SQLite
from alligator.testing.stores import FAR_OFF, QUEUE, WORKER, drain, opened, push, take
from tests.support.servers import Server


@pytest.mark.parametrize("scheme", ["locmem", "sqlite"])
def test_a_clock_that_was_handed_in_tells_the_time(
    scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moments = [1000.5]

    def clock() -> float:
        return moments[-1]

    backend: Backend = Memory("locmem://", clock)
    if scheme == "sqlite":
        backend = SQLite(f"sqlite://{tmp_path_factory.mktemp('clock')}/queue.db", clock)

    assert backend.now() == 1000.5
    push(backend, "t1", delay=10.0)
    moments.append(1010.5)
    assert backend.now() == 1010.5
    assert drain(backend) == ["t1"]
    backend.close()


ENDS: dict[str, Callable[[Backend, Reservation], object]] = {
    "it lapses": lambda client, held: client.extend([held], -1.0),
    "its worker dies": lambda client, held: client.recover([QUEUE], WORKER),
    "it is given back": lambda client, held: client.settle([Release(held)]),
    "it failed": lambda client, held: client.settle([Release(held, body=b"again")]),
    "it is buried": lambda client, held: client.settle([Bury(held, "")]),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_later_hand_out_has_a_later_token_whatever_the_next_servers_clock(
    how: str, redis_server: Server
) -> None:
    redis_server.clear()
    with opened(redis_server.dsn) as client:
        push(client, "t1")
        first = by_another_clock(redis_server, take(client, worker=WORKER))
        ENDS[how](client, first)
        client.retry_dead(QUEUE, [letter.letter_id for letter in client.dead(QUEUE)])

        second = take(client)
        client.settle([Release(second)])
        third = take(client)

        assert reserved_at(first.token) < reserved_at(second.token) < reserved_at(third.token)
        for late in (Ack(first), Ack(second)):
            assert client.settle([late]) == [late]
        assert client.settle([Ack(third)]) == []


def by_another_clock(server: Server, held: Reservation) -> Reservation:
    """Let a hand-out have been made by a server whose clock is an hour ahead, and which is no more."""
    whose, _, at = held.token.rpartition(".")
    token = f"{whose}.{int(at) + round(FAR_OFF * 1000)}"
    key = f"alligator:{{{QUEUE}}}:"
    server.command("RENAME", f"{key}held:{held.token}", f"{key}held:{token}")
    lapses_at = server.command("ZSCORE", f"{key}leases", held.token)
    server.command("ZREM", f"{key}leases", held.token)
    server.command("ZADD", f"{key}leases", lapses_at, token)
    return held._replace(token=token)
