"""The ways to a Redis: TLS, a Unix socket, users, a prefix; each to a real server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from alligator.backends.base import Message
from alligator.exceptions import BackendRefused, BackendUnavailable
from alligator.testing.stores import (
    LONG,
    QUEUE,
    WORKER,
    drain,
    opened,
    push,
    records_of,
    take,
)
from tests.support.certificates import make_certificates
from tests.support.clusters import cluster, watched
from tests.support.kinds import empty_store
from tests.support.servers import Server
from tests.support.works import assert_works

# TLS.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def tls_server(folder: Path) -> Iterator[Server]:
    """A server that asks for a client's certificate."""
    with Server.redis(folder).by_tls(folder) as server:
        yield server


def with_files(folder: Path) -> str:
    """Return the options that name the files."""
    return (
        f"?ssl_ca_certs={folder}/ca.crt"
        f"&ssl_certfile={folder}/client.crt&ssl_keyfile={folder}/client.key"
    )


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_a_server_is_reached_by_tls(tls_server: Server, folder: Path, scheme: str) -> None:
    assert_works(tls_server.dsn.replace("rediss", scheme) + with_files(folder))


def test_a_server_that_nobody_known_vouches_for_is_not_talked_to(
    tls_server: Server, folder: Path
) -> None:
    files = with_files(folder).replace(f"ssl_ca_certs={folder}/ca.crt&", "")
    for dsn in (tls_server.dsn, tls_server.dsn + files):
        with (
            opened(dsn) as client,
            pytest.raises(BackendUnavailable, match="certificate verify failed"),
        ):
            push(client, "t1")


def test_a_certificate_of_another_host_is_not_taken(tls_server: Server, folder: Path) -> None:
    dsn = tls_server.dsn.replace("127.0.0.1", "localhost") + with_files(folder)
    with opened(dsn) as client, pytest.raises(BackendUnavailable, match="certificate"):
        push(client, "t1")

    assert_works(f"{dsn}&ssl_check_hostname=no")
    assert_works(f"{dsn}&ssl_cert_reqs=none")


def test_a_client_without_a_certificate_is_told_so(tls_server: Server, folder: Path) -> None:
    with (
        opened(f"{tls_server.dsn}?ssl_ca_certs={folder}/ca.crt") as client,
        pytest.raises((BackendUnavailable, BackendRefused)),
    ):
        push(client, "t1")


def test_the_nodes_of_a_cluster_are_reached_by_tls(tmp_path: Path, folder: Path) -> None:
    with cluster(tmp_path / "nodes", certificates=folder) as servers:
        dsn = servers.dsn + with_files(folder)
        assert dsn.startswith("rediss+cluster://")
        assert_works(dsn)
        with opened(dsn) as client:
            for name in ("one", "all", "three"):  # at three nodes
                push(client, "t1", to=name)
            assert sorted(client.queues()) == ["all", "one", "three"]
            assert client.reserve(["one", "all", "three"], WORKER, limit=3).reservations != []


def test_what_sentinels_watch_is_reached_by_tls(tmp_path: Path, folder: Path) -> None:
    with watched(tmp_path, certificates=folder) as servers:
        assert servers.dsn.startswith("rediss+sentinel://")
        assert_works(servers.dsn + with_files(folder))


# A Unix socket.


def test_a_server_is_reached_by_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "a b.sock"
    with Server.redis(tmp_path, "--unixsocket", str(socket)) as server:
        escaped = str(socket).replace(" ", "%20")
        assert_works(f"unix://{escaped}?db=3")
        with opened(server.dsn.replace("/0", "/3")) as client:
            assert client.queues() == [QUEUE]

        server.command("CONFIG", "SET", "requirepass", "hunter2")
        assert_works(f"unix://:hunter2@{escaped}?db=4")
        with opened(f"unix://:wrong-one@{escaped}") as client:
            with pytest.raises(BackendRefused) as caught:
                push(client, "t1")
            assert "wrong-one" not in str(caught.value)


def test_an_address_that_leads_to_another_server_since_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "primary.sock"
    with ExitStack() as stack:
        servers: list[Server] = []
        for name in ("old", "new"):
            folder = tmp_path / name
            folder.mkdir()
            socket = "--unixsocket", str(folder / "redis.sock")
            servers.append(stack.enter_context(Server.redis(folder, *socket)))
        link.symlink_to(tmp_path / "old" / "redis.sock")
        client = stack.enter_context(opened(f"unix://{link}"))
        push(client, "t1")

        # As when a name leads to another address: the old one is still there, and still connected.
        servers[0].command("REPLICAOF", "127.0.0.1", f"{servers[1].port}")
        link.unlink()
        link.symlink_to(tmp_path / "new" / "redis.sock")

        # The push is tried again by itself: it is the same task.
        assert push(client, "t2") == [True]
        assert drain(client) == ["t2"]


# Users.


def test_a_user_needs_no_more_rights_than_to_its_own_keys_and_channels(own_server: Server) -> None:
    rights = "~shop:alligator:*", "&shop:alligator:*", "+@all", "-@admin", "-@dangerous"
    own_server.command("ACL", "SETUSER", "shop", "on", ">hunter2", *rights)

    assert_works(own_server.dsn.replace("://", "://shop:hunter2@") + "?prefix=shop:")


def test_a_user_who_may_not_is_refused_and_shown_no_password(own_server: Server) -> None:
    own_server.command("ACL", "SETUSER", "shop", "on", ">hunter2", "~shop:*", "+@all")

    with opened(own_server.dsn.replace("://", "://shop:hunter2@")) as client:
        with pytest.raises(BackendRefused, match=r"(?i)permissions") as caught:
            push(client, "t1")
        assert "hunter2" not in str(caught.value)


# A prefix.


@pytest.mark.parametrize("kind", ["redis", "redis-cluster"])
def test_applications_with_prefixes_share_a_database(
    kind: str, request: pytest.FixtureRequest
) -> None:
    dsn = empty_store(kind, request)
    with opened(dsn) as plain, opened(f"{dsn}?prefix=a") as one, opened(f"{dsn}?prefix=b") as two:
        for client, name in ((plain, "plain"), (one, "one"), (two, "two")):
            client.push_many(name, [Message("t1", name.encode())])
            client.push_many(QUEUE, [Message("t1", name.encode())])
            records_of(client).set("results/1", name.encode())
            records_of(client).set(f"schedules:{QUEUE}/1", name.encode())
        for client, name in ((plain, "plain"), (one, "one"), (two, "two")):
            assert client.queues() == sorted([QUEUE, name])
            assert take(client).body == name.encode()
            assert records_of(client).get("results/1") == name.encode()
            assert records_of(client).list("results") == {"results/1": name.encode()}
            key = f"schedules:{QUEUE}/1"
            assert client.push_if(QUEUE, Message("t2", b""), key, name.encode(), b"")


def test_every_key_has_the_prefix(own_server: Server) -> None:
    assert_works(f"{own_server.dsn}?prefix=shop:")
    with opened(f"{own_server.dsn}?prefix=shop:") as client:
        push(client, "t1")
        push(client, "t2", delay=LONG)
        take(client)

    count = int(own_server.command("DBSIZE")[1:])
    assert own_server.command("EVAL", "\"return #redis.call('KEYS','shop:*')\"", "0") == f":{count}"
    assert count > 4
