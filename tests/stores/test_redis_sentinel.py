"""A primary that Sentinels name: finding it, and what is said when nobody can."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from alligator.backends.base import Backend
from alligator.backends.redis.address import Address, Where
from alligator.backends.redis.connection import Command
from alligator.backends.redis.connection import Server as Connected
from alligator.backends.redis.sentinel import Sentinels
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable
from alligator.testing.running import in_threads
from alligator.testing.stores import (
    LONG,
    WORKER,
    drain,
    opened,
    push,
    take_ready,
    until,
)
from tests.support.clusters import Watched, is_primary, is_replica, watched
from tests.support.servers import Server
from tests.support.works import assert_works

NOBODY = "127.0.0.1:1"
DEMOTED = 40.0
"""Seconds."""


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, its replica and a Sentinel."""
    with watched(tmp_path_factory.mktemp("watched")) as servers:
        yield servers


def test_the_first_sentinel_that_answers_tells(servers: Watched) -> None:
    assert_works(servers.dsn.replace("://", f"://{NOBODY},") + "?prefix=shop:")


def test_databases_and_logins_are_those_of_the_servers_and_of_the_sentinels(
    servers: Watched,
) -> None:
    servers.primary.command("ACL", "SETUSER", "shop", "on", ">hunter2", "~*", "&*", "+@all")
    servers.sentinel.command("ACL", "SETUSER", "default", "resetpass", ">theirs")
    dsn = servers.dsn.replace("://", "://shop:hunter2@").replace("/queues/0", "/queues/5")

    with opened(dsn) as client, pytest.raises(BackendRefused) as caught:
        push(client, "t1")
    assert "hunter2" not in str(caught.value)
    assert_works(f"{dsn}?sentinel_password=theirs")
    assert servers.primary.command("INFO", "keyspace").count("db5:") == 1


def test_many_threads_ask_several_sentinels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(sentinel: Connected, commands: Sequence[Command]) -> list[Any]:
        if random.random() < 0.5:
            raise BackendUnavailable("one of them is away now")
        return [[b"127.0.0.1", b"1"]]

    monkeypatch.setattr(Connected, "run", answer)
    hosts = ",".join(f"host-{number}" for number in range(20))
    sentinels = Sentinels(Address.parse(DSN.parse(f"redis+sentinel://{hosts}/queues")))

    found = in_threads(4, lambda _: {sentinels.primary() for _ in range(500)})

    assert found == [{("127.0.0.1", 1)}] * 4


def test_an_unknown_service_is_refused(servers: Watched) -> None:
    with opened(servers.dsn.replace("queues", "others")) as client:
        with pytest.raises(BackendRefused, match="knows no service 'others'"):
            push(client, "t1")
        with pytest.raises(BackendRefused, match="knows no service 'others'"):
            client.reserve(["all"], WORKER, wait=LONG)


def test_sentinels_that_are_gone_are_said_to_be(servers: Watched) -> None:
    with opened(servers.dsn) as client, opened(servers.dsn) as other:
        push(client, "t1")
        servers.sentinel.kill()

        push(client, "t2")  # who is connected does not ask
        with pytest.raises(BackendUnavailable, match="does not answer"):
            push(other, "t3")

        servers.sentinel.start()
        assert push(other, "t3") == [True]


def test_a_primary_that_its_sentinel_does_not_know_to_be_none_is_not_asked(
    servers: Watched,
) -> None:
    servers.primary.command("REPLICAOF", "127.0.0.1", f"{servers.replica.port}")
    with opened(servers.dsn) as client:
        for call in (lambda: client.count("all"), lambda: take_ready(client)):
            with pytest.raises(BackendUnavailable, match="is no primary any more"):
                call()


def test_connections_to_a_primary_that_was_demoted_are_not_used_on(servers: Watched) -> None:
    with opened(servers.dsn) as client, opened(servers.dsn) as producer:
        push(producer, "t1")
        assert drain(client) == ["t1"]
        until(lambda: fails_over(servers), "the Sentinel has looked at the replica")
        # Only some seconds after the other has taken over: the Sentinel looks at it every ten.
        until(lambda: is_replica(servers.primary), "it follows the other", within=DEMOTED)

        until(lambda: pushes(producer), "a push to the new primary")
        until(lambda: drains(client), "the other client finds it there, too")
        assert is_primary(servers.replica)


def test_a_new_primary_is_followed_while_the_old_one_lives(tmp_path: Path) -> None:
    with ExitStack() as stack:
        folders = [tmp_path / name for name in ("old", "new")]
        for folder in folders:
            folder.mkdir()
        old, new = (stack.enter_context(Server.redis(folder)) for folder in folders)
        named, asked = [old], list[float]()

        def find() -> Where:
            asked.append(time.monotonic())
            if not named:
                raise BackendUnavailable("nobody answers")
            return "127.0.0.1", named[0].port

        client = Connected(Address.parse(DSN.parse(old.dsn)), find=find)
        stack.callback(client.close)
        client.run([("SET", "key", "1")])
        named.clear()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:  # as long as nobody can tell, it is as it was
            client.run([("SET", "key", "2")])
        assert old.command("GET", "key") == "2"
        assert len(asked) == 2  # and they are not asked each time

        named.append(new)
        until(lambda: client.run([("SET", "key", "3")]) and written(new), "it goes to the new", 30)


def written(server: Server) -> bool:
    return server.command("GET", "key") == "3"


def fails_over(servers: Watched) -> bool:
    try:
        return servers.sentinel.command("SENTINEL", "FAILOVER", "queues") == "+OK"
    except RuntimeError:  # it does not know yet whether the replica is fit
        return False


def pushes(client: Backend) -> bool:
    try:
        push(client, "t2")
    except BackendUnavailable:
        return False
    return True


def drains(client: Backend) -> bool:
    try:
        return drain(client) == ["t2"]
    except BackendUnavailable:
        return False
