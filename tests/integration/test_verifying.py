"""``alligator verify``: users try their own store, with workers that are really killed and stopped."""

import json
import os
import signal
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from alligator import keys
from alligator.commands.verifying import verdict_text
from alligator.testing.stores import opened, push
from alligator.verify.crew import Crew, children_of
from alligator.verify.crews import CREWS, Crews
from alligator.verify.files import is_written_to
from alligator.verify.findings import Findings
from alligator.verify.trial import Verdict
from tests.examples.commands import clean_environment
from tests.integration.scenes import ON_SQLITE, Program, Scene, members_of, until
from tests.integration.test_cli import alligator, refused
from tests.support import forked
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
        assert min(found["pushed"], found["finished"]) > 0
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
    trial: Program, scene: Scene, redis_server: Server, number: signal.Signals
) -> None:
    # That of tasks whose process was killed is there by chance, so here is some for sure.
    [queue] = scene.gator.backend.queues()
    records = scene.gator.backend.records
    assert records is not None
    families = keys.DEATHS, keys.PROGRESS, keys.STOPS
    records.set_many({f"{family}/{keys.ref(queue, 't0')}": b"{}" for family in families})
    of_others = [f"{family}/{keys.ref('users', queue)}" for family in families]
    records.set_many(dict.fromkeys(of_others, b"{}"))

    trial.signal(number)
    trial.signal(number)

    assert trial.wait(WITHIN) == 128 + signal.SIGINT
    assert "promise" not in trial.stdout
    assert scene.gator.backend.queues() == []
    assert trial.members == []
    assert list(records.get_many(of_others)) == of_others
    records.delete(*of_others)
    until(lambda: redis_server.command("DBSIZE") == ":0", "what is told of killed workers is gone")


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
    # Its name is also in what goes before it.
    words = ["verify", "sqlite://q?sync=normal", *SHORT, "--json"]
    ran = forked.run(words, tmp_path, clean_environment())

    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
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

    made = f"alligator-verify-{uuid4().hex}"
    assert alligator("migrate", dsn, "--create-queues", "--queue", made).returncode == 0
    with opened(dsn) as backend:
        push(backend, "t2", to=made)

    none, used, full = (
        alligator("verify", dsn, *words) for words in ([], ["--queue", "all"], ["--queue", made])
    )

    assert (none.returncode, used.returncode, full.returncode) == (2, 2, 2)
    assert "--queue NAME" in none.stderr
    assert "begins with alligator-verify-" in used.stderr  # empty or not, somebody may use it
    assert "is not empty" in full.stderr


@pytest.fixture
def crew(scene: Scene, tmp_path: Path) -> Iterator[Crew]:
    """A latergator as a trial starts it, with one process."""
    words = ["tests.integration.gators:plain", "--quiet", "--workers", "1"]
    environment = clean_environment(SCENE_DSN=scene.dsn)
    is_busy = partial(is_written_to, scene.gator.dsn)
    crew = Crew(words, environment, tmp_path / "crew.log", scene.journal, is_busy)
    crew.start()
    yield crew
    crew.kill()


@ON_SQLITE
def test_a_latergator_that_ends_by_itself_is_at_fault(crew: Crew, scene: Scene) -> None:
    until(lambda: crew.children, "it has a process")

    os.kill(crew.pids[0], signal.SIGKILL)
    until(lambda: not crew.runs, "it has ended")
    crew.tell_to_leave()
    crew.end()

    [fault] = crew.faults
    assert "ended by itself, with status -9" in fault


@ON_SQLITE
def test_a_latergator_that_does_not_leave_is_at_fault(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alligator.verify.crew.LEAVE_WITHIN", 0.1)
    until(lambda: crew.children, "it has a process")
    os.kill(crew.pids[0], signal.SIGSTOP)

    crew.tell_to_leave()
    crew.end()

    [fault] = crew.faults
    assert "did not leave within 0.1 s" in fault


@ON_SQLITE
def test_a_latergator_that_is_told_to_leave_or_killed_is_not_at_fault(crew: Crew) -> None:
    until(lambda: crew.children, "it has a process")
    crew.kill()
    crew.start()
    until(lambda: crew.children, "it has a process")
    crew.tell_to_leave()
    crew.end()
    crew.start()
    crew.tell_to_leave()  # as it starts, which is before it can heed that
    crew.end()

    assert crew.faults == []


@ON_SQLITE
def test_nobody_is_stopped_who_keeps_all_others_from_the_file(crew: Crew, scene: Scene) -> None:
    until(lambda: crew.children, "it has a process")
    scene.push("t1")
    lock = Path(f"{scene.gator.dsn.rest}-lock")

    with lock.open("rb") as file:
        flock(file, LOCK_EX)
        while_written_to = crew.stop()
    states = {one.state for one in members_of(os.getsid(0)) if one.pid in crew.pids}

    assert while_written_to == 0
    assert "T" not in states
    assert crew.stop() == len(crew.pids) == 2
    crew.go()


@ON_SQLITE
def test_of_a_crew_that_has_left_nothing_is_kept(scene: Scene, tmp_path: Path) -> None:
    made: list[Crew] = []

    def make() -> Crew:
        words = ["tests.integration.gators:plain", "--quiet", "--workers", "1"]
        environment = clean_environment(SCENE_DSN=scene.dsn)
        made.append(Crew(words, environment, tmp_path / f"{len(made)}.log", scene.journal))
        return made[-1]

    before = guards()
    crews = Crews(make, scene.journal)
    crews.start()
    try:
        for count in (1, 2):
            crews.replace()
            until(lambda: sum(not crew.runs for crew in made) == count, "it has left")  # noqa: B023
        assert guards() - before == CREWS + 1
    finally:
        crews.end()
    assert guards() == before


def guards() -> int:
    """Return how many shells this process has started."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(os.getpid())]
    return sum(line.startswith(b"/bin/sh") for line in lines)


def test_workers_at_fault_are_a_broken_promise() -> None:
    nothing = Findings(3, 3, [], [], 0, [], [], [], 1)
    for faults in ([], ["a latergator did not leave within 10 s."]):
        verdict = Verdict(nothing, [], 0, 1, 1, faults)

        assert verdict.is_good == (not faults)
        assert all(fault in verdict_text(verdict, []) for fault in faults)
