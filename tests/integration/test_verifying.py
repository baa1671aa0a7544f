"""``alligator verify``: users try their own store, with workers that are really killed and stopped."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alligator.testing.stores import opened, push
from tests.integration.scenes import Program, Scene, members_of, until
from tests.integration.test_cli import alligator, refused
from tests.support.kinds import empty_store
from tests.support.servers import Server
from tests.support.sqs import Sqs

SHORT = "--seconds", "3"
PROCESSES = 9
"""Of a trial: itself, two latergators, and of each two children and a guard."""
WITHIN = 60.0
"""Seconds for one to end that was told to."""


def verified(*words: object, status: int = 0, **environment: str) -> Any:
    """Return what came of a trial."""
    ran = alligator("verify", *words, *SHORT, "--json", **environment)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of this test alone, that keeps nothing."""
    with Server.redis(tmp_path, "--save", "", "--appendonly", "no") as server:
        yield server


@pytest.fixture
def trial(scene: Scene) -> Program:
    """A trial that is under way."""
    program = scene.python("-m", "alligator", "verify", scene.dsn, "--seconds", "60")
    program.says(" s  ", within=WITHIN)  # something is done to the workers
    return program


@pytest.mark.parametrize("kind", ["postgres", "beanstalk"])
def test_a_store_that_keeps_its_tasks_is_found_to(
    kind: str, request: pytest.FixtureRequest
) -> None:
    dsn = empty_store(kind, request)
    with opened(dsn) as backend:
        push(backend, "of-the-user", to="users")
        before = backend.queues()

        found = verified(dsn)

        assert found["verdict"] == "kept"
        assert found["pushed"] == found["finished"] > 0
        assert found["lost"] == found["unexpected"] == found["wrongly_dead"] == []
        assert found["double"]["unexplained"] == []
        assert min(found["kills"], found["stops"], found["cuts"]) > 0
        assert backend.queues() == before
        assert backend.count("users").waiting == 1


def test_a_store_that_loses_tasks_is_found_to(server: Server) -> None:
    found = verified("tests.integration.gators:careless", status=1, SCENE_DSN=server.dsn)

    assert found["verdict"] == "broken"
    assert found["lost"]
    assert found["finished"] == found["pushed"] - len(found["lost"])
    assert any("takes a task out before it runs" in warning for warning in found["warnings"])


@pytest.mark.parametrize("dsn", ["sqlite"], indirect=True)
def test_what_a_gator_demands_of_tasks_is_heeded_or_does_not_count(dsn: str) -> None:
    with opened(dsn) as backend:
        push(backend, "of-the-user")  # makes the file

        found = verified("tests.integration.gators:guarded", SCENE_DSN=dsn)

        assert found["verdict"] == "kept"
        assert found["pushed"] == found["finished"] > 0
        assert found["cuts"] == 0
        assert backend.queues() == ["all"]


def test_what_the_settings_endanger_is_told_and_nothing_is_left_in_redis(server: Server) -> None:
    ran = alligator("verify", server.dsn, *SHORT)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Trying redis://127.0.0.1" in ran.stdout
    assert "killed a worker process" in ran.stdout
    assert "writes nothing to its disk" in ran.stdout
    assert ran.stdout.endswith("Every promise was kept.\n")
    until(lambda: server.command("DBSIZE") == ":0", "records of workers that were killed are gone")


@pytest.mark.parametrize("dsn", ["redis"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_broken_off_leaves_nothing(
    trial: Program, scene: Scene, number: signal.Signals
) -> None:
    trial.signal(number)
    trial.signal(number)

    assert trial.wait(WITHIN) == 128 + signal.SIGINT
    assert "promise" not in trial.stdout
    assert scene.gator.backend.queues() == []
    assert trial.members == []


@pytest.mark.parametrize("dsn", ["redis"], indirect=True)
def test_workers_end_with_one_that_is_killed_also_those_it_has_stopped(trial: Program) -> None:
    trial.says("stopped a latergator", within=WITHIN)
    trial.signal(signal.SIGKILL)
    trial.wait()

    until(lambda: not members_of(trial.pid), "all have ended")


def test_a_password_is_in_no_command_line(server: Server, tmp_path: Path) -> None:
    server.command("CONFIG", "SET", "requirepass", "hunter2")
    dsn = server.dsn.replace("://", "://:hunter2@")
    program = Program(
        ["-m", "alligator", "verify", "--seconds", "60"],
        tmp_path / "program",
        {"ALLIGATOR_CONN": dsn},
    )
    try:
        until(lambda: len(program.members) >= PROCESSES, "workers are started", within=WITHIN)
        for pid in program.members:
            assert b"hunter2" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "hunter2" not in program.stdout + program.stderr
    finally:
        program.end()


def test_a_file_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = verified(f"sqlite://{tmp_path}/queue.db?sync=normal")

    assert found["verdict"] == "kept"
    assert "sync=normal" in found["warnings"][0]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_tried_is_refused(tmp_path: Path) -> None:
    file = f"sqlite://{tmp_path}/queue.db"

    for words, why in (
        (["locmem://"], "memory of another process"),
        (["redis://127.0.0.1:1/0"], "127.0.0.1:1"),
        ([file, "--queue", "mail"], "a new one is used"),
        (["no_such_module:gator"], "no_such_module"),
    ):
        ran = alligator("verify", *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert why in ran.stderr
        assert "Traceback" not in ran.stderr
    assert "no number of seconds" in refused("verify", file, "--seconds", "0", status=2)


def test_of_a_store_that_makes_no_queues_one_is_to_be_named_that_is_empty(sqs_server: Sqs) -> None:
    dsn = sqs_server.emptied(is_hasty=True)
    with opened(dsn) as backend:
        push(backend, "t1")

    none, full = alligator("verify", dsn), alligator("verify", dsn, "--queue", "all")

    assert (none.returncode, full.returncode) == (2, 2)
    assert "--queue NAME" in none.stderr
    assert "is not empty" in full.stderr
