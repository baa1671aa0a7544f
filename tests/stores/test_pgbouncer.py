"""Behind a PgBouncer in transaction mode, each call may take another connection, and nothing is heard."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from alligator import Gator
from alligator.backends.base import Ack, Backend, Counts
from alligator.outbox import outbox_at
from alligator.outbox.forwarding import Forwarder
from alligator.testing.running import A_MOMENT, in_threads, later
from alligator.testing.stores import (
    IN_A_WHILE,
    QUEUE,
    drain,
    opened,
    push,
    records_of,
    soon_but_after,
    take,
    until,
)
from tests.support.postgres import PostgresServer
from tests.support.servers import free_port, kill_with_us, missing


@pytest.fixture
def bouncer(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of an empty store behind a PgBouncer with three connections."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/bin:/usr/bin")
    if program is None:
        missing("pgbouncer is not installed")
    postgres_server.empty()
    port = free_port()
    settings = postgres_server.folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres_server.port} user=alligator\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    settings.chmod(0o644)
    with (postgres_server.folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(
            [program, settings],
            stdout=log,
            stderr=log,
            user=postgres_server.user,
            group=postgres_server.user,
            extra_groups=postgres_server.groups,
        )
    guard = kill_with_us(process.pid)
    dsn = postgres_server.dsn.replace(f":{postgres_server.port}/", f":{port}/")
    try:
        until(lambda: _answers(process, Path(log.name)), "PgBouncer listens")
        yield dsn
    finally:
        guard.kill()
        guard.communicate()
        process.kill()
        process.wait()


def _answers(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return "process up" in log.read_text()


@pytest.fixture(params=["", "?listen=no"], ids=["listening", "listen=no"])
def backend(request: pytest.FixtureRequest, bouncer: str) -> Iterator[Backend]:
    with opened(bouncer + request.param) as backend:
        yield backend


def test_tasks_of_many_threads_pass_through_few_connections(backend: Backend) -> None:
    def work(number: int) -> list[str]:
        for turn in range(20):
            push(backend, f"{number}-{turn}", to=f"q{number}")
            records_of(backend).set(f"a/{number}", b"%d" % turn)
        return drain(backend, limit=3, of=f"q{number}")

    came = in_threads(8, work)

    assert came == [[f"{number}-{turn}" for turn in range(20)] for number in range(8)]
    assert records_of(backend).list("a") == {f"a/{number}": b"19" for number in range(8)}


def test_who_waits_finds_what_was_pushed_in_a_while(backend: Backend) -> None:
    for number in range(3):
        with (
            soon_but_after(A_MOMENT, late=IN_A_WHILE),
            later(partial(push, backend, f"t{number}")),
        ):
            held = take(backend)
        assert held.task_id == f"t{number}"
        assert backend.settle([Ack(held)]) == []

    assert backend.count(QUEUE) == Counts()


def test_who_waits_for_a_record_finds_it_in_a_while(backend: Backend) -> None:
    started = time.monotonic()
    with later(lambda: records_of(backend).set("a/b", b"")):
        while records_of(backend).get("a/b") is None:
            records_of(backend).wait(["a/b"], IN_A_WHILE)

    assert time.monotonic() - started < IN_A_WHILE


def test_an_outbox_is_forwarded(bouncer: str, tmp_path: Path) -> None:
    gator = Gator(f"sqlite://{tmp_path}/queue.db")
    forwarders = [Forwarder(gator, outbox_at(f"{bouncer}?listen=no")) for _ in range(2)]
    forwarders[0].forward_all()  # makes the table
    for _ in range(10):
        with psycopg.connect(bouncer) as connection, gator.using(connection):
            gator.task(print, "work")
        for forwarder in forwarders:
            forwarder.forward_all()

    assert gator.len() == 10
    for forwarder in forwarders:
        forwarder.close()
    gator.backend.close()
