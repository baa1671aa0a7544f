"""What Redis and Valkey say of how they are set up, to those who start workers."""

import pytest

from alligator.backends.base import Bury
from alligator.exceptions import BackendUnavailable
from alligator.testing.stores import QUEUE, opened, push, take
from tests.support.servers import Server

EVICTING = ["allkeys-lru", "allkeys-random", "volatile-ttl"]


@pytest.mark.parametrize("policy", EVICTING)
def test_a_server_that_evicts_is_warned_of(own_server: Server, policy: str) -> None:
    own_server.command("CONFIG", "SET", "maxmemory-policy", policy)

    with opened(own_server.dsn) as backend:
        [warning] = backend.warnings()

    assert own_server.dsn in warning
    assert policy in warning
    assert "noeviction" in warning


def test_a_dead_letter_that_was_evicted_hides_no_other(own_server: Server) -> None:
    with opened(own_server.dsn) as backend:
        for task_id in ("t1", "t2"):
            push(backend, task_id)
            backend.settle([Bury(take(backend), "note")])
        first = backend.dead(QUEUE, task_id="t1")[0].letter_id

        own_server.command("DEL", f"alligator:{{{QUEUE}}}:dead:{first}")

        assert [letter.task_id for letter in backend.dead(QUEUE)] == ["t2"]


def test_a_server_that_writes_nothing_to_disk_is_warned_of(own_server: Server) -> None:
    own_server.command("CONFIG", "SET", "appendonly", "no")
    own_server.command("CONFIG", "SET", "save", '""')

    with opened(own_server.dsn) as backend:
        [warning] = backend.warnings()

    assert "writes nothing to its disk" in warning


@pytest.mark.parametrize(("save", "appendonly"), [("'3600 1'", "no"), ('""', "yes")])
def test_a_server_that_writes_to_disk_in_either_way_is_not(
    own_server: Server, save: str, appendonly: str
) -> None:
    own_server.command("CONFIG", "SET", "save", save)
    own_server.command("CONFIG", "SET", "appendonly", appendonly)

    with opened(own_server.dsn) as backend:
        assert backend.warnings() == []


def test_what_a_managed_server_does_not_tell_is_not_warned_of(own_server: Server) -> None:
    own_server.command("CONFIG", "SET", "appendonly", "no")
    own_server.command("CONFIG", "SET", "save", '""')
    own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own_server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config")
    with opened(own_server.dsn.replace("://", "://app:secret@")) as backend:
        [warning] = backend.warnings()
    assert "allkeys-lru" in warning

    own_server.command("ACL", "SETUSER", "app", "-info")
    with opened(own_server.dsn.replace("://", "://app:secret@")) as backend:
        assert backend.warnings() == []


def test_a_server_that_is_gone_says_so_when_asked_for_warnings(own_server: Server) -> None:
    own_server.kill()

    with opened(own_server.dsn) as backend, pytest.raises(BackendUnavailable):
        backend.warnings()


@pytest.mark.parametrize(
    ("save", "appendonly", "fsync", "risk"),
    [
        ("'3600 1'", "no", "always", "writes snapshots now and then"),
        ('""', "yes", "everysec", "a second or two"),
        ('""', "yes", "no", "half a minute or more"),
    ],
)
def test_what_a_server_may_lose_that_writes_to_disk_is_a_risk(
    own_server: Server, save: str, appendonly: str, fsync: str, risk: str
) -> None:
    own_server.command("CONFIG", "SET", "save", save)
    own_server.command("CONFIG", "SET", "appendonly", appendonly)
    own_server.command("CONFIG", "SET", "appendfsync", fsync)

    with opened(own_server.dsn) as backend:
        [told] = backend.risks("all")

    assert risk in told


def test_a_server_that_waits_for_its_disk_is_none(own_server: Server) -> None:
    own_server.command("CONFIG", "SET", "appendonly", "yes")
    own_server.command("CONFIG", "SET", "appendfsync", "always")

    with opened(own_server.dsn) as backend:
        assert backend.risks("all") == []
