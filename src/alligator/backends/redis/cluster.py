"""A Redis Cluster: each command goes to the node that has its key's slot, over connections of that node.

All keys that a script touches lie in one slot, by the hash tag in their names. Where a command cannot be
carried out there, because the slot has moved or is just being moved, it was not begun, and is sent again.
"""

import itertools
import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from alligator.backends.redis.address import Address, Where
from alligator.backends.redis.connection import Command, Server, ours, text_of
from alligator.backends.redis.waits import Wait, wait_for_any
from alligator.bell import Bell
from alligator.exceptions import AlligatorException, BackendRefused, BackendUnavailable

SLOTS = 16384
PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds before a command that a node has not begun goes out again. As a rule a slot moves within that."""

# ASK says that the node is just handing over the slot, and that a key is not, or not any more, here. We do not
# follow it: a script would find some keys there and others here. The first key of each, the name of its queue,
# never exists: so while its slot moves no script runs at either end, and when it has moved MOVED tells where.
_NOT_BEGUN = ("MOVED", "ASK", "TRYAGAIN")
_NOTED = "alligator:queues"
"""A key whose node tells the time."""


class Cluster:
    """The nodes of a cluster, as one server.

    Args:
        address: How to connect to them, and where some of them are.
    """

    def __init__(self, address: Address) -> None:
        self.dsn = address.dsn
        self.prefix = address.prefix
        self._address = address
        # Replaced as a whole, so that no thread sees it half made. Empty: it is not known, or in doubt.
        self._by_slot: list[Server | None] = []
        self._nodes: dict[Where, Server] = {}
        self._known: list[Where] = []
        self._in_doubt: Server | None = None
        self._lines: dict[tuple[Where, str], Server] = {}

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in this order, each by itself, and return their answers.

        Neighbours that go to one node take one round trip.

        Raises:
            BackendUnavailable, BackendRefused, QueueFull: As for any ``Backend``.
        """
        return self._run(commands, set())

    def run_and_try(self, commands: Sequence[Command], more: Command) -> tuple[list[Any], bool]:
        """As ``run``, and then try one more; return whether that was done, too.

        If the others are carried out, and that one's node is away or refuses it, it is no error.
        """
        answers = self.run(commands)
        try:
            self.run([more])
        except (BackendUnavailable, BackendRefused):
            return answers, False
        return answers, True

    def run_apart(self, commands: Sequence[Command]) -> list[Any]:
        """As ``run``; one that fails keeps nothing from the others. The error comes in the end.

        Only those for a node that has not answered here are left out.
        """
        answers: list[Any] = []
        failures: list[AlligatorException] = []
        silent: set[Server] = set()
        for command in commands:
            try:
                # Once: each time may take as long as we wait for an answer, and leases end meanwhile.
                if self._node_of(_key(command)) not in silent:
                    answers += self._run([command], silent)
            except (BackendUnavailable, BackendRefused) as err:
                failures.append(err)
        if failures:
            raise failures[0]
        return answers

    def block(self, keys: Sequence[str], timeout: float, bell: Bell) -> bool:
        """Wait for an element in one of some lists, and take it. Returns whether the bell interrupted it."""
        with self._doubting():
            if len(keys) == 1:
                return self._node_of(keys[0]).block(keys, timeout, bell)
            # One connection can wait in one slot only.
            waits = [self._wait(key) for key in dict.fromkeys(keys)]
            was_interrupted, surplus = wait_for_any(waits, timeout, bell)
            if surplus:
                # Others may be waiting for what these stand for.
                self._answers([("RPUSH", key, 1) for key in surplus], set())
            return was_interrupted

    def listen(
        self, channels: Sequence[str], timeout: float, bell: Bell, has_come: Callable[[], bool]
    ) -> None:
        """Wait until what is announced on some channels has come, the time is over, or the bell rings."""
        with self._doubting():
            # Every node hears what is announced at any of them.
            self._node_of(channels[0]).listen(channels, timeout, bell, has_come)

    def now(self) -> float:
        """Return the time of one of the nodes, in seconds since 1970."""
        with self._doubting():
            return self._node_of(_NOTED).now()

    def primaries(self) -> list[Server]:
        """Return the servers that hold what is stored here."""
        with self._doubting():
            return [node for node in dict.fromkeys(self._slots()) if node is not None]

    def close(self) -> None:
        """Close the connections, of this thread at once and of others when they are done."""
        for server in (*self._nodes.values(), *self._lines.values()):
            server.close()

    def _run(self, commands: Sequence[Command], silent: set[Server]) -> list[Any]:
        """As ``run``; a node that does not answer is added to the silent ones."""
        with self._doubting():
            answers = self._answers(commands, silent)
            for answer in answers:
                if isinstance(answer, exceptions.ResponseError):
                    raise ours(answer, self._address) from answer
            return answers

    def _answers(self, commands: Sequence[Command], silent: set[Server]) -> list[Any]:
        """Carry out commands; the errors that some are answered with are returned, too."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for pause in PAUSES:
            if pause:
                time.sleep(pause)  # a slot is being moved, and no node tells when that is done
            for node, some in itertools.groupby(left, lambda at: self._node_of(_key(commands[at]))):
                places = list(some)
                try:
                    with self._doubting(node):
                        got = node.answers([commands[at] for at in places])
                except BackendUnavailable:
                    silent.add(node)
                    raise
                for at, answer in zip(places, got, strict=True):
                    answers[at] = answer
            left = [at for at in left if _is_not_begun(answers[at])]
            if not left:
                break
            self._by_slot = []
        return answers

    def _wait(self, key: str) -> Wait:
        node = self._node_of(key)
        # A server of its own: it is waited for with others at once, and a connection can wait for one.
        line = self._lines.setdefault((node.where, key), Server(self._address, node.where))
        return Wait(key, line, node)

    def _node_of(self, key: str) -> Server:
        slot = key_slot(key.encode(errors="surrogateescape"))
        node = self._slots()[slot]
        if node is None:
            raise BackendUnavailable(f"{self._address.dsn}: no node serves slot {slot} now.")
        return node

    def _slots(self) -> list[Server | None]:
        """Return the node of each slot."""
        return self._by_slot or self._learn()

    def _learn(self) -> list[Server | None]:
        """Ask the nodes, one after the other until one answers, who has which slots."""
        failures: list[AlligatorException] = []
        for where in self._in_any_order():
            asked = self._node_at(where)
            try:
                [ranges] = asked.run([("CLUSTER", "SLOTS")])
            except (BackendUnavailable, BackendRefused) as err:
                failures.append(err)
                continue
            by_slot: list[Server | None] = [None] * SLOTS
            for first, last, primary, *_ in ranges:
                node = self._node_at(_where(primary, asked))
                by_slot[first : last + 1] = [node] * (last + 1 - first)
            self._known = [_where(node, asked) for _, _, *nodes in ranges for node in nodes]
            if asked not in by_slot:
                asked.hang_up()
            self._forget_others({node.where for node in by_slot if node is not None})
            self._by_slot = by_slot
            return by_slot
        refusals = [err for err in failures if isinstance(err, BackendRefused)]
        raise (refusals or failures)[0]

    def _in_any_order(self) -> list[Where]:
        """Return where the nodes are that are known, and those of the DSN; the one that failed last comes last.

        One that is cut off from the others may still answer, with what was: so not always the same one first.
        """
        failed = self._in_doubt.where if self._in_doubt else None
        known = {*self._known, *self._address.hosts}
        return sorted(known, key=lambda where: (where == failed, random.random()))

    def _node_at(self, where: Where) -> Server:
        # One step: two threads may learn at once.
        return self._nodes.setdefault(where, Server(self._address, where))

    def _forget_others(self, kept: set[Where]) -> None:
        for where in set(self._nodes) - kept:
            self._nodes.pop(where, None)
        for line in [line for line in list(self._lines) if line[0] not in kept]:
            self._lines.pop(line, None)

    @contextmanager
    def _doubting(self, node: Server | None = None) -> Generator[None]:
        """Ask anew who has which slots after a node did not answer."""
        try:
            yield
        except BackendUnavailable:
            self._in_doubt = node or self._in_doubt
            self._by_slot = []
            raise


def _key(command: Command) -> str:
    """Return the first key of one of our commands."""
    key: Any = command[3] if command[0] == "EVALSHA" else command[1]
    return key.decode() if isinstance(key, bytes) else key


def _is_not_begun(answer: Any) -> bool:
    return isinstance(answer, exceptions.ResponseError) and text_of(answer).startswith(_NOT_BEGUN)


def _where(node: Sequence[Any], asked: Server) -> Where:
    """Return where a node is that another one has named."""
    host: bytes | None = node[0]
    # None or empty: it knows no other name for itself than the one by which it was asked.
    return (host.decode() if host and host != b"?" else asked.where[0]), int(node[1])
