"""A cluster on its bad days: slots that move, nodes that are away; and waiting at several nodes."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alligator.backends.base import Ack, Backend, Counts, Release, Reservation
from alligator.backends.redis.connection import Command
from alligator.backends.redis.connection import Server as Connected
from alligator.backends.redis.records import name_of
from alligator.bell import Bell
from alligator.exceptions import AlligatorException, BackendRefused, BackendUnavailable
from alligator.testing.running import A_MOMENT, in_a_thread, later
from alligator.testing.stores import (
    FAR_OFF,
    LONG,
    QUEUE,
    WORKER,
    drain,
    ids,
    opened,
    push,
    records_of,
    soon_but_after,
    take,
    take_ready,
    until,
    wait_for,
)
from tests.support.clusters import Cluster, cluster
from tests.support.servers import Server

EACH = ["one", "all", "three"]
"""Queues at three nodes."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this module, whose slots come back to where they were."""
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def client(servers: Cluster) -> Iterator[Backend]:
    """A client of an empty cluster."""
    servers.empty()
    with opened(servers.dsn) as backend:
        yield backend


def key_of(queue_name: str) -> str:
    return f"alligator:{{{queue_name}}}:"


# Slots that move.


@dataclass(frozen=True, slots=True)
class Move:
    """A queue's slot on its way from one node to another."""

    slot: str
    source: Server
    target: Server
    others: tuple[Server, ...]

    def finish(self) -> None:
        """Move the keys, and tell all nodes."""
        while (name := self._a_key()) is not None:
            where = "127.0.0.1", f"{self.target.port}"
            self.source.command("MIGRATE", *where, name, "0", "5000")
        for node in (self.target, self.source, *self.others):
            node.command("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.command(*_MY_ID))

    def call_off(self) -> None:
        for node in (self.target, self.source):
            node.command("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def _a_key(self) -> str | None:
        """Return a key that is still in the slot, of those whose names have no spaces."""
        script = f"return redis.call('CLUSTER','GETKEYSINSLOT',{self.slot},1)[1]"
        return self.source.command("EVAL", f'"{script}"', "0") or None


_MY_ID = "CLUSTER", "MYID"


@contextmanager
def moving(servers: Cluster, queue_name: str = QUEUE) -> Generator[Move]:
    """A queue's slot is being moved; in the end it is where it was."""
    slot = servers.primaries[0].command("CLUSTER", "KEYSLOT", key_of(queue_name))[1:]
    source = servers.primary_of(key_of(queue_name))
    target, other = (node for node in servers.primaries if node is not source)
    there, back = Move(slot, source, target, (other,)), Move(slot, target, source, (other,))
    _begin(there)
    try:
        yield there
    finally:
        there.finish()
        _begin(back)
        back.finish()


def _begin(move: Move) -> None:
    move.target.command("CLUSTER", "SETSLOT", move.slot, "IMPORTING", move.source.command(*_MY_ID))
    move.source.command("CLUSTER", "SETSLOT", move.slot, "MIGRATING", move.target.command(*_MY_ID))


def test_what_is_in_a_slot_that_moves_is_there_afterwards(
    servers: Cluster, client: Backend
) -> None:
    push(client, "t1", "t2", "t3", "t4")
    push(client, "later", delay=LONG)
    one, two = take_ready(client, 2)

    with moving(servers) as move:
        for call in (
            lambda: push(client, "t5"),
            lambda: client.settle([Ack(one)]),
            lambda: client.find(QUEUE, "t3"),
            lambda: take_ready(client, 1),
        ):
            # Not at either end: a script would find some keys here and others there.
            with pytest.raises(BackendUnavailable):
                call()
        assert push(client, "elsewhere", to="b") == [True]
        move.finish()

        assert client.count(QUEUE) == Counts(waiting=2, delayed=1, running=2)
        assert client.settle([Ack(one), Release(two)]) == []
        assert push(client, "t5") == [True]
        assert drain(client) == ["t2", "t3", "t4", "t5"]
    assert client.count(QUEUE) == Counts(delayed=1)


def test_a_slot_that_moves_in_a_moment_is_waited_for(servers: Cluster, client: Backend) -> None:
    push(client, "t1")

    with moving(servers) as move, later(move.finish, after=A_MOMENT):
        assert push(client, "t2") == [True]
        assert drain(client) == ["t1", "t2"]


def test_who_waits_where_a_slot_leaves_waits_on_where_it_goes(
    servers: Cluster, client: Backend
) -> None:
    def wait() -> list[str]:
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:  # a wait may end early
            if batch := there.reserve([QUEUE], WORKER, wait=LONG).reservations:
                return ids(batch)
        return []

    with opened(servers.dsn) as there, in_a_thread(wait) as waiting:
        time.sleep(A_MOMENT)  # until it waits
        with moving(servers) as move:
            move.finish()
            with soon_but_after(0):
                push(client, "t1")
                assert waiting.result(LONG) == ["t1"]


def neighbours(servers: Cluster, node: Server) -> list[str]:
    """Return names of queues at a node, each in a slot of its own."""
    names = (f"q{number}" for number in range(100))
    return [name for name in names if servers.primary_of(key_of(name)) is node][:3]


def lapses_late(client: Backend, *queue_names: str) -> bool:
    """Whether the leases of the one task in each queue have been extended far."""
    found = [client.find(name, name) for name in queue_names]
    return all(one is not None and one.lapses_at > time.time() + FAR_OFF / 2 for one in found)


def held_in(client: Backend, queue_names: Sequence[str], worker: str) -> list[Reservation]:
    for name in queue_names:
        push(client, name, to=name)
    return [held for name in queue_names for held in client.reserve([name], worker).reservations]


def assert_the_others_are_seen_to(
    client: Backend, held: Sequence[Reservation], error: type[AlligatorException]
) -> None:
    """Extend and recover, which fails for the first queue and for no other."""
    first, *others = [one.queue_name for one in held]
    with pytest.raises(error):
        client.extend(held, FAR_OFF)
    assert lapses_late(client, *others)
    with pytest.raises(error):
        client.recover([first, *others], "one")
    assert [client.count(name) for name in others] == [Counts(waiting=1)] * len(others)


def test_a_slot_that_moves_keeps_no_lease_from_its_neighbours(
    servers: Cluster, client: Backend
) -> None:
    first, *others = neighbours(servers, servers.primaries[0])
    held = held_in(client, [first, *others], "one")

    with moving(servers, first):
        assert_the_others_are_seen_to(client, held, BackendUnavailable)

    assert client.count(first) == Counts(running=1)


def test_a_queue_that_is_refused_keeps_no_lease_from_its_neighbours(
    servers: Cluster, client: Backend
) -> None:
    node = servers.primaries[0]
    first, *others = neighbours(servers, node)
    held = held_in(client, [first, *others], "one")
    node.command("SET", f"{key_of(first)}leases", "another-kind")

    assert_the_others_are_seen_to(client, held, BackendRefused)


def test_a_slot_that_went_to_a_node_that_is_away_keeps_no_lease_from_its_old_neighbours(
    servers: Cluster, client: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = neighbours(servers, servers.primaries[0])
    held = held_in(client, [first, *others], "one")

    with moving(servers, first) as move:
        move.finish()
        be_away(move.target, monkeypatch)
        with pytest.raises(BackendUnavailable):
            client.extend(held, FAR_OFF)
        monkeypatch.undo()
        assert lapses_late(client, *others)
        assert not lapses_late(client, first)


def test_records_in_a_slot_that_moves_are_there_afterwards(
    servers: Cluster, client: Backend
) -> None:
    records = records_of(client)
    key = f"schedules:{QUEUE}/1"
    records.set(key, b"old")

    with moving(servers) as move:
        with pytest.raises(BackendUnavailable):
            records.set(f"{key}2", b"")
        assert records.get(key) == b"old"
        move.finish()
        assert records.swap(key, b"old", b"new")
        assert records.list(f"schedules:{QUEUE}") == {key: b"new"}


# Waiting at several nodes.


def test_these_queues_are_at_three_nodes(servers: Cluster) -> None:
    assert len({servers.primary_of(key_of(name)).port for name in EACH}) == 3


def may_unblock(servers: Cluster, *, may: bool) -> None:
    for node in servers.primaries:
        node.command("ACL", "SETUSER", "default", f"{'+' if may else '-'}client|unblock")


@pytest.fixture(params=["unblocks", "may not unblock"])
def waiting_client(
    request: pytest.FixtureRequest, servers: Cluster, client: Backend
) -> Iterator[Backend]:
    """A client that has the right to end its own waits, or not."""
    may_unblock(servers, may=request.param == "unblocks")
    yield client
    may_unblock(servers, may=True)


def test_a_push_at_any_node_wakes_who_waits_at_all(
    servers: Cluster, waiting_client: Backend
) -> None:
    with opened(servers.dsn) as there:
        for turn in range(3):
            for name in EACH:
                task_id = f"{name} {turn}"
                with soon_but_after(A_MOMENT), later(lambda: push(there, task_id, to=name)):  # noqa: B023
                    batch = waiting_client.reserve(EACH, WORKER, wait=LONG)
                assert ids(batch.reservations) == [task_id]
                waiting_client.settle([Ack(held) for held in batch.reservations])


def test_who_waited_at_several_nodes_leaves_the_wake_ups_of_others(
    servers: Cluster, client: Backend
) -> None:
    for turn in range(10):
        with (
            opened(servers.dsn) as there,
            in_a_thread(lambda: client.reserve(EACH, "one", wait=LONG)) as one,
            in_a_thread(lambda: there.reserve(EACH, "two", wait=LONG)) as two,
        ):
            time.sleep(0.05)  # until both wait
            with opened(servers.dsn) as producer, soon_but_after(0):
                for name in EACH[:2]:
                    push(producer, f"{turn}", to=name)
                found = [*one.result(LONG).reservations, *two.result(LONG).reservations]
        assert sorted(held.queue_name for held in found) == sorted(EACH[:2])
        client.settle([Ack(held) for held in found])


def test_a_wake_up_that_was_left_ends_a_wait_at_several_nodes_at_once(
    servers: Cluster, client: Backend
) -> None:
    for name in EACH:
        servers.primary_of(key_of(name)).command("RPUSH", f"{key_of(name)}wake", "1")
        push(client, "later", to=name, delay=0.5)
        with soon_but_after(0.5):
            [held] = client.reserve(EACH, WORKER, wait=LONG).reservations
        client.settle([Ack(held)])


def test_who_waits_at_several_nodes_takes_one_wake_up(servers: Cluster, client: Backend) -> None:
    server: Any = vars(client)["_server"]
    lists = {f"{key_of(name)}wake": servers.primary_of(key_of(name)) for name in EACH}
    for _ in range(50):
        for name, node in lists.items():
            node.command("RPUSH", name, "1")

        with soon_but_after(0):
            assert not server.block(list(lists), LONG, Bell())

        left = [node.command("LLEN", name) for name, node in lists.items()]
        assert sorted(left) == [":0", ":1", ":1"]
        servers.empty()


def test_an_interrupt_ends_a_wait_at_several_nodes(client: Backend) -> None:
    with soon_but_after(A_MOMENT), later(client.interrupt):
        assert client.reserve(EACH, WORKER, wait=LONG).reservations == []
    push(client, "t1", to="three")
    assert ids(client.reserve(EACH, WORKER, wait=LONG).reservations) == ["t1"]


def test_a_value_at_any_node_wakes_who_waits_for_values_at_all(
    servers: Cluster, client: Backend
) -> None:
    keys = ["results/1", "parked/1", "progress/1"]
    assert len({servers.primary_of(name_of("", key)).port for key in keys}) == 3
    records = records_of(client)
    with opened(servers.dsn) as there:
        for key in keys:
            with soon_but_after(A_MOMENT), later(lambda: records_of(there).set(key, b"")):  # noqa: B023
                wait_for(records, *keys)
            records.delete(key)


# Nodes that are away.


def test_a_node_that_is_away_keeps_nothing_from_the_others(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = stack.enter_context(cluster(tmp_path, "--cluster-require-full-coverage", "no"))
        client = stack.enter_context(opened(servers.dsn))
        for name in EACH:
            push(client, name, to=name)
        held = [take(client, of=name, lease=LONG) for name in EACH]
        # The node of this queue; and the one where the names of queues are noted.
        assert servers.primary_of(key_of(EACH[0])) is servers.primary_of("alligator:queues")
        servers.primary_of(key_of(EACH[0])).kill()

        with pytest.raises(BackendUnavailable):
            client.extend(held, lease=LONG + 100)
        with pytest.raises(BackendUnavailable):
            client.recover(EACH, "another")
        with pytest.raises(BackendUnavailable):
            push(client, "t1", to=EACH[0])
        with opened(servers.dsn) as producer:
            assert push(producer, "new", to=EACH[1]) == [True]
        assert client.cancel(EACH[1], "new") is not None
        for name in EACH[1:]:
            found = client.find(name, name)
            assert found is not None
            assert found.lapses_at > time.time() + LONG + 50
            assert take_ready(client, of=name) == []

        servers.primary_of(key_of(EACH[0])).start()
        until(lambda: comes_back(client, EACH[0]), "the node is back")


def be_away(away: Server, monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Let a node not answer; return the scripts that it is asked for from now on."""
    asked: list[Command] = []
    answers = Connected.answers

    def answers_unless_away(node: Connected, commands: Sequence[Command]) -> list[Any]:
        if node.where[1] == away.port:
            asked.extend(command for command in commands if command[0] == "EVALSHA")
            raise BackendUnavailable("no answer")
        return answers(node, commands)

    monkeypatch.setattr(Connected, "answers", answers_unless_away)
    return asked


def test_a_node_that_is_away_is_waited_for_once(
    servers: Cluster, client: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"q{number}" for number in range(20)]
    for name in names:
        push(client, name, to=name)
    held = [take(client, of=name) for name in names]
    away = servers.primary_of(key_of(names[0]))
    asked = be_away(away, monkeypatch)
    for call in (lambda: client.extend(held, FAR_OFF), lambda: client.recover(names, "another")):
        asked.clear()
        with pytest.raises(BackendUnavailable):
            call()
        assert len(asked) == 1

    monkeypatch.undo()
    for name in names:
        found = client.find(name, name)
        is_there = servers.primary_of(key_of(name)) is not away
        assert found is not None
        assert (found.lapses_at > time.time() + FAR_OFF / 2) is is_there


def test_a_task_is_queued_also_if_the_node_that_notes_the_queues_is_full(
    servers: Cluster, client: Backend
) -> None:
    notes = servers.primary_of("alligator:queues")
    elsewhere = next(name for name in EACH if servers.primary_of(key_of(name)) is not notes)
    notes.command("CONFIG", "SET", "maxmemory", "1mb")  # less than it uses already
    try:
        assert push(client, "t1", to=elsewhere) == [True]
    finally:
        notes.command("CONFIG", "SET", "maxmemory", "0")
    assert client.queues() == []

    assert push(client, "t2", to=elsewhere) == [True]
    assert client.queues() == [elsewhere]


def comes_back(client: Backend, queue_name: str) -> bool:
    try:
        return client.count(queue_name) == Counts()  # it keeps nothing on disk
    except BackendUnavailable:
        return False


def test_a_cluster_that_is_gone_says_so(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers, opened(servers.dsn) as client:
        push(client, "t1")
        for node in servers.primaries:
            node.kill()

        for call in (
            lambda: push(client, "t2"),
            client.queues,
            client.now,
            lambda: records_of(client).wait(["results/1"], 0.1),
            lambda: client.reserve(EACH, WORKER, wait=LONG),
        ):
            with pytest.raises(BackendUnavailable, match="does not answer"):
                call()


# Addresses that lead elsewhere.


def test_a_node_taken_for_a_single_server_says_what_to_write(servers: Cluster) -> None:
    hint = r"write redis\+cluster://"
    for node in servers.primaries:
        with opened(node.dsn) as client, pytest.raises(BackendRefused, match=hint):
            for name in EACH:
                push(client, "t1", to=name)


def test_a_single_server_taken_for_a_cluster_says_so(redis_server: Server) -> None:
    dsn = f"redis+cluster://127.0.0.1:{redis_server.port}"
    with opened(dsn) as client, pytest.raises(BackendRefused, match="cluster support disabled"):
        push(client, "t1")
