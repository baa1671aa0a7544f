"""Real servers of Redis that belong together: a cluster, and a primary with a replica and a Sentinel."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import RARELY_SAVED, Server, free_port

TOGETHER_WITHIN = 30.0
"""Seconds until servers know each other."""
AWAY_AFTER = "1500"
"""Milliseconds after which a server that is silent counts as gone."""
AT_ONCE = "--repl-diskless-sync-delay", "0"
"""Else a primary waits some seconds for more replicas to come."""
SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]
"""The first and the last slot of each primary."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of three primaries, with a replica each or without."""

    primaries: Sequence[Server]
    replicas: Sequence[Server] = ()

    @property
    def dsn(self) -> str:
        """Names all nodes but the first: the client has to find that."""
        nodes = [*self.primaries, *self.replicas][1:]
        return f"{nodes[0].scheme}+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"

    def empty(self) -> None:
        """Forget all that is stored."""
        for node in self.primaries:
            node.command("FLUSHALL")

    def primary_of(self, key: str) -> Server:
        """Return the node that has a key's slot, as long as none moves."""
        slot = int(self.primaries[0].command("CLUSTER", "KEYSLOT", key)[1:])
        [place] = [at for at, (first, last) in enumerate(SLOTS) if first <= slot <= last]
        return self.primaries[place]


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary and its replica, and the Sentinel that watches them."""

    primary: Server
    replica: Server
    sentinel: Server

    @property
    def dsn(self) -> str:
        return f"{self.sentinel.scheme}+sentinel://127.0.0.1:{self.sentinel.port}/queues/0"


@dataclass(frozen=True, slots=True)
class Pair:
    """The server that has the queue "all", and the one that is to take over."""

    dsn: str
    primary: Server
    replica: Server


@contextmanager
def by_sentinel(folder: Path) -> Generator[Pair]:
    """Run a pair that a Sentinel watches."""
    with watched(folder) as servers:
        yield Pair(servers.dsn, servers.primary, servers.replica)


@contextmanager
def by_cluster(folder: Path) -> Generator[Pair]:
    """Run a cluster, and find the pair in it."""
    with cluster(folder, "--appendonly", "yes", replicas=True) as servers:
        primary = servers.primary_of("alligator:{all}:")
        replica = servers.replicas[servers.primaries.index(primary)]
        yield Pair(servers.dsn, primary, replica)


@contextmanager
def cluster(
    folder: Path, *options: str, replicas: bool = False, certificates: Path | None = None
) -> Generator[Cluster]:
    """Run a cluster while the block lasts; by TLS if there are certificates."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(_node(folder / f"node-{number}", certificates, *options))
            for number in range(6 if replicas else 3)
        ]
        primaries, others = nodes[:3], nodes[3:]
        for number, (node, (first, last)) in enumerate(zip(primaries, SLOTS, strict=True)):
            node.command("CLUSTER", "ADDSLOTSRANGE", f"{first}", f"{last}")
            node.command("CLUSTER", "SET-CONFIG-EPOCH", f"{number + 1}")
        bus = nodes[0].command("CLUSTER", "NODES").partition("@")[2].partition(" ")[0]
        for node in nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", f"{nodes[0].port}", bus)
        known = f"cluster_known_nodes:{len(nodes)}"
        _until(lambda: all(known in node.command("CLUSTER", "INFO") for node in nodes), "all meet")
        for node, primary in zip(others, primaries, strict=bool(others)):
            node.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))
        ready = "cluster_state:ok"
        _until(lambda: all(ready in node.command("CLUSTER", "INFO") for node in nodes), "all serve")
        for node in others:
            in_step(node)
        yield Cluster(primaries, others)


@contextmanager
def watched(folder: Path, certificates: Path | None = None) -> Generator[Watched]:
    """Run a primary, its replica and a Sentinel while the block lasts; by TLS if there are certificates."""

    def with_tls(server: Server) -> Server:
        return server.by_tls(certificates) if certificates else server

    with ExitStack() as stack:
        durable = "--appendonly", "yes", *AT_ONCE
        primary = with_tls(Server.redis(_made(folder / "primary"), *durable))
        stack.enter_context(primary)
        where = f"127.0.0.1 {primary.port}"
        follows = "--replicaof", "127.0.0.1", f"{primary.port}"
        replica = with_tls(Server.redis(_made(folder / "replica"), *durable, *follows))
        stack.enter_context(replica)
        in_step(replica)
        sentinel = with_tls(Server.sentinel(_made(folder / "sentinel")))
        file = sentinel.folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor queues {where} 1\n"
            f"sentinel down-after-milliseconds queues {AWAY_AFTER}\n"
            "sentinel failover-timeout queues 5000\n"
        )
        stack.enter_context(sentinel)
        # It asks the primary for its replicas; until it has done so nobody could take over.
        knows = "SENTINEL", "REPLICAS", "queues"
        _until(lambda: sentinel.command(*knows) == "*1", "the Sentinel knows the replica")
        yield Watched(primary, replica, sentinel)


def in_step(replica: Server) -> None:
    """Wait until a replica follows its primary."""
    _until(
        lambda: "master_link_status:up" in replica.command("INFO", "replication"), "it replicates"
    )


def has_all(replica: Server, primary: Server) -> bool:
    """Whether a replica has got all that its primary had until now."""
    sent = _field("master_repl_offset", primary)
    return int(_field("slave_repl_offset", replica) or 0) >= int(sent)


def is_primary(server: Server) -> bool:
    return _has_role(server, "master")


def is_replica(server: Server) -> bool:
    return _has_role(server, "slave")


def _has_role(server: Server, role: str) -> bool:
    try:
        return f"role:{role}" in server.command("INFO", "replication")
    except OSError:  # who gives it another role cuts its connections
        return False


def _field(name: str, server: Server) -> str:
    lines = server.command("INFO", "replication").splitlines()
    return next((line for line in lines if line.startswith(f"{name}:")), ":").partition(":")[2]


def _node(folder: Path, certificates: Path | None, *options: str) -> Server:
    node = Server.redis(
        _made(folder),
        *("--cluster-enabled", "yes", "--cluster-port", f"{free_port()}"),
        *("--cluster-node-timeout", AWAY_AFTER, "--cluster-replica-validity-factor", "0"),
        *AT_ONCE,
        *(("--tls-cluster", "yes") if certificates else ()),
        *(options or RARELY_SAVED),
    )
    return node.by_tls(certificates) if certificates else node


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TOGETHER_WITHIN
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Not within {TOGETHER_WITHIN} s: {what}")
        time.sleep(0.02)
