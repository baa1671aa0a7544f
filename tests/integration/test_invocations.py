"""Wrong invocations of ``latergator``: one clear line, no traceback, an exit status; and never a password."""

import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.scenes import Program, Scene, played, until
from tests.support.servers import Server

SECRET = "s3cr3t-word"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene on a file; these tests look at what happens before any store has a part."""
    with played(f"sqlite://{tmp_path}/queue.db", tmp_path) as scene:
        yield scene


@pytest.fixture
def locked_server(tmp_path: Path) -> Iterator[Server]:
    """A Redis server that wants a password. The helper's own commands do not know it."""
    with Server.redis(tmp_path, "--requirepass", SECRET, "--save", "") as server:
        yield server


def told(program: Program) -> str:
    """Wait for the end of a program that must fail; return the one line that it says."""
    assert program.wait() not in (0, None)
    assert program.stdout == ""
    assert "Traceback" not in program.stderr
    lines = program.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def nobody_listens() -> int:
    """Return a port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_no_target(scene: Scene) -> None:
    line = told(scene.python("-m", "alligator.latergator"))

    assert line.startswith("latergator: No target.")
    assert "ALLIGATOR_CONN" in line


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("redis", "neither a DSN"),
        ("redis:/localhost", "'redis:/localhost' is neither"),
        ("://x", "no DSN"),
        ("reddis://localhost", "redis"),
        ("kafka://localhost", "Known: locmem, sqlite, postgres"),
        ("locmem://", "memory of another process"),
        ("redis://localhost:port/0", "no Redis DSN"),
        ("redis://localhost:99999/0", "no Redis DSN"),
        ("redis://.example/0", "no Redis DSN"),
        ("redis://localhost/0?no_such_option=1", "no_such_option"),
        ("sqlite://", "names no file"),
        ("sqlite:///tmp/x.db?sync=never", "sync=full"),
        ("sqlite:///no/such/folder/x.db", "/no/such/folder/x.db"),
        ("no_such_module:gator", "no_such_module"),
        ("tests.integration.jobs:no_such_gator", "no_such_gator"),
        ("tests.integration.gators:no_gator", "not a Gator"),
        ("tests.integration.gators:plain", "SCENE_DSN"),
    ],
)
def test_a_target_that_leads_nowhere(scene: Scene, target: str, what: str) -> None:
    variables = {} if target.endswith(":plain") else {"SCENE_DSN": "locmem://"}
    line = told(scene.latergator(target=target, **variables))

    assert line.startswith("latergator: ")
    assert what in line


def test_a_file_that_is_no_database(scene: Scene) -> None:
    (scene.folder / "queue.db").write_text("no database, but a text of some length\n" * 100)

    assert "is no SQLite file" in told(scene.latergator())


def test_a_configured_gator_on_memory(scene: Scene) -> None:
    line = told(scene.latergator(target="tests.integration.gators:plain", SCENE_DSN="locmem://"))

    assert "memory of another process" in line


def test_an_unreachable_server(scene: Scene) -> None:
    port = nobody_listens()

    line = told(scene.latergator(target=f"redis://127.0.0.1:{port}/0"))

    assert f"redis://127.0.0.1:{port}/0 does not answer" in line


def test_a_server_of_another_kind(scene: Scene) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        line = told(scene.latergator(target=f"redis://127.0.0.1:{port}/0"))

    assert f"redis://127.0.0.1:{port}/0" in line


def test_a_server_that_hangs_up(scene: Scene) -> None:
    with answering(b"") as port:
        line = told(scene.latergator(target=f"redis://127.0.0.1:{port}/0"))

    assert f"redis://127.0.0.1:{port}/0 does not answer" in line


@contextmanager
def answering(answer: bytes) -> Generator[int]:
    """A server that says one thing to everybody, and hangs up; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # it was shut down
                    return
                with connection:
                    connection.recv(1)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_client_library_that_is_not_installed(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError(name='redis')\n")
    here = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))

    line = told(scene.latergator(target="redis://localhost:6379/0", PYTHONPATH=here))

    assert "pip install 'alligator[redis]'" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--workers", "0"],
        ["--workers", "two"],
        ["--threads", "-1"],
        ["--max-tasks", "-1"],
        ["--lease", "0"],
        ["--lease", "nan"],
        ["--grace", "inf"],
        ["--nap", "soon"],
        ["--queue", ""],
        ["--queue", "a\nb"],
        ["--queue", "q" * 201],
        ["--no-such-option"],
    ],
)
def test_an_option_that_makes_no_sense(scene: Scene, options: list[str]) -> None:
    program = scene.latergator(*options)

    assert program.wait() == 2
    assert program.stderr.splitlines()[-1].startswith("latergator: error: ")
    assert "Traceback" not in program.stderr


def test_help_names_every_option(scene: Scene) -> None:
    program = scene.python("-m", "alligator.latergator", "--help")

    assert program.wait() == 0
    names = "queue workers threads max-tasks burst lease grace nap progress quiet verbose"
    for option in names.split():
        assert f"--{option}" in program.stdout


# A DSN's password.


@pytest.mark.parametrize(
    "dsn",
    [
        "redis://:{secret}@127.0.0.1:{port}/0",
        "redis://user:{secret}@127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0?password={secret}",
        "redis://:{secret}@no-such-host.invalid:{port}/0",
        "redis://:{secret}@127.0.0.1:port/0",
        "redis://:{secret}@[127.0.0.1:{port}/0",
        "redis://:{secret}@127.0.0.1:{port}/zero",
        "redis://:a/{secret}@127.0.0.1:{port}/0",
        "redis://:{secret}/@127.0.0.1:{port}/0",
        "redis://:#{secret}@127.0.0.1:{port}/0",
        "redis://:?{secret}@127.0.0.1:{port}/0",
        "redis://:a@{secret}@127.0.0.1:{port}/0",
        "redis://:{secret}@127.0.0.1:{port}/0?socket_timeout=x",
        "redis://:{secret}@127.0.0.1:{port}/0?no_such_option=1",
        "rediss://:{secret}@127.0.0.1:{port}/0",
        "reddis://:{secret}@127.0.0.1:{port}/0",
        "postgresql://user:{secret}@127.0.0.1:{port}/db",
        "locmem://:{secret}@",
        ":{secret}@127.0.0.1:{port}",
        "redis:/:{secret}@127.0.0.1:{port}",
    ],
)
@pytest.mark.parametrize("place", ["argument", "environment"])
def test_no_password_is_shown_when_a_store_cannot_be_used(
    scene: Scene, dsn: str, place: str
) -> None:
    dsn = dsn.format(secret=SECRET, port=nobody_listens())
    words = ["-m", "alligator.latergator", "--verbose"]

    if place == "argument":
        program = scene.python(*words, dsn)
    else:
        program = scene.python(*words, ALLIGATOR_CONN=dsn)

    told(program)
    assert SECRET not in program.stderr


def test_a_wrong_password_is_not_shown(scene: Scene, locked_server: Server) -> None:
    where = f"127.0.0.1:{locked_server.port}/0"
    for dsn in [f"redis://:wrong-{SECRET}@{where}", f"redis://me:wrong-{SECRET}@{where}"]:
        line = told(scene.latergator("--verbose", target=dsn))
        assert SECRET not in line
        assert where in line

    assert where in told(scene.latergator(target=f"redis://{where}"))


def test_no_password_is_shown_by_workers_at_work(tmp_path: Path, locked_server: Server) -> None:
    dsn = f"redis://:{SECRET}@127.0.0.1:{locked_server.port}/0"
    with played(dsn, tmp_path) as scene:
        program = scene.python(
            "-m", "alligator.latergator", "--verbose", "--workers", "2", ALLIGATOR_CONN=dsn
        )
        until(lambda: program.stdout.count("starting") == 2, "both processes started")
        scene.push_gated("t1")
        scene.started("t1")
        shown = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in program.members)
        assert "alligator.processes.child" in shown

        locked_server.kill()
        program.says("does not answer")
        locked_server.start()
        scene.push("t2")
        scene.finished("t2")
        scene.open("t1")
        scene.finished("t1")
        until(lambda: scene.counts.running == 0, "all is settled")
        program.signal(signal.SIGTERM)

        assert program.wait() == 0
        assert SECRET not in shown + program.stdout + program.stderr


def test_children_are_not_given_the_password_of_an_argument(
    tmp_path: Path, locked_server: Server
) -> None:
    """The command line of the parent is the caller's own; ALLIGATOR_CONN keeps it out of there, too."""
    dsn = f"redis://:{SECRET}@127.0.0.1:{locked_server.port}/0"
    with played(dsn, tmp_path) as scene:
        program = scene.latergator()
        program.says("starting")

        for pid in program.children:
            assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert SECRET.encode() not in environment
