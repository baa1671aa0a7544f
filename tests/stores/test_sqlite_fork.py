"""A fork waits until no other thread is inside SQLite, and lets nobody in meanwhile."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alligator.backends.base import Message
from alligator.backends.sqlite import fork
from alligator.backends.sqlite.fork import INSIDE
from alligator.backends.sqlite_backend import Client
from alligator.testing.running import Child, in_a_thread, later
from alligator.testing.stores import QUEUE, push, until


@contextmanager
def a_thread_inside() -> Generator[threading.Event]:
    """A thread that is inside until the event is set."""
    leave, is_inside = threading.Event(), threading.Event()

    def stay() -> None:
        with INSIDE:
            is_inside.set()
            leave.wait()

    with in_a_thread(stay) as inside:
        is_inside.wait()
        try:
            yield leave
        finally:
            leave.set()
            inside.result()


def test_a_fork_waits_for_who_is_inside() -> None:
    with a_thread_inside() as leave, later(leave.set), Child(leave.is_set) as child:
        assert child.result() is True


def test_a_fork_does_not_wait_for_itself() -> None:
    with INSIDE, INSIDE, Child(lambda: "made") as child:
        assert child.result() == "made"


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "LONGEST_WAIT", 0.01)

    with a_thread_inside(), Child(lambda: "made") as child:
        assert child.result() == "made"


def test_nobody_gets_in_while_a_fork_is_made() -> None:
    def enter() -> str:
        with INSIDE:
            return "inside"

    INSIDE.shut()
    with in_a_thread(enter) as entering:
        until(lambda: threading.active_count() > 1, "the thread runs")
        assert not entering.done()
        INSIDE.open()
        assert entering.result() == "inside"


def test_threads_work_on_before_and_after_forks(tmp_path: Path) -> None:
    client, stop = Client(f"sqlite://{tmp_path}/queue.db"), threading.Event()

    def work() -> int:
        count = 0
        while not stop.is_set():
            count += 1
            client.push_many("others", [Message(f"t{count}", b"")])
        return count

    with in_a_thread(work) as worker:
        for number in range(20):
            with Child(lambda: push(client, f"t{number}")) as child:  # noqa: B023 -- called before the next
                assert child.result() == [True]
        stop.set()
        pushed = worker.result()  # first: it may be at its last one
        assert client.count("others").waiting == pushed
    assert client.count(QUEUE).waiting == 20
    client.close()
