"""Tasks that fork and terminate, processes that die or stop at the worst moment, ids that cannot be."""

import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import redis

from alligator import Task, current_task, track
from alligator.backends.base import Ack, Counts, Message, as_bytes
from alligator.backends.redis import scripts
from alligator.backends.sqlite import file
from alligator.backends.sqlite.file import Database
from alligator.exceptions import BackendUnavailable, InvalidOption
from alligator.testing.running import Child
from alligator.testing.stores import ids
from alligator.verify.journal import Journal
from tests.integration import jobs
from tests.integration.scenes import ON_SQLITE, Program, Scene, kill, until
from tests.support.servers import Server

ON_REDIS = pytest.mark.parametrize("dsn", ["redis"], indirect=True)
LAPSES = "alligator:{all}:lapses"


# What workers run here:


def fork(journal: str, name: str, copy_does: str) -> None:
    """Fork; the copy comes out of the task in some way, and must not live on as a second worker."""
    Journal(journal).note("start", name)
    copy = os.fork()
    if copy == 0:
        if copy_does == "exit":
            sys.exit(0)
        if copy_does == "raise":
            raise ValueError("raised in the copy")
        if copy_does == "hear Ctrl-C":  # as all processes of a terminal do
            raise KeyboardInterrupt
        return
    os.waitpid(copy, 0)
    Journal(journal).note("finish", name)


def fork_when_told_to_leave(journal: str, name: str) -> None:
    """Fork when the worker leaves; the copy ends where a task could be resumed."""
    Journal(journal).note("start", name)
    while not current_task().leaving:
        time.sleep(0.01)
    copy = os.fork()
    if copy == 0:
        for _ in track(range(3)):
            pass
    os.waitpid(copy, 0)
    Journal(journal).note("finish", name)


def fork_in_hook(task: Task, news: object) -> None:
    """Fork, and come out of the hook in both processes."""
    copy = os.fork()
    if copy:
        os.waitpid(copy, 0)


def terminate_a_child(journal: str, name: str) -> None:
    """Start a process and terminate it, as a pool does at its end."""
    Journal(journal).note("start", name)
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe()
    child = forking.Process(target=_sleep, args=(theirs,))
    child.start()
    ours.recv_bytes()
    child.terminate()
    child.join()
    if child.exitcode != -signal.SIGTERM:
        raise AssertionError(f"It ended with {child.exitcode}")
    Journal(journal).note("finish", name)


def _sleep(ready: Connection) -> None:
    ready.send_bytes(b"ready")
    time.sleep(600)


def body_of(scene: Scene, name: str) -> bytes:
    """A task's body, as the store gets it."""
    task = scene.gator.task_class(task_id=name)
    task.to_call(jobs.work, scene.journal.path, name)
    return as_bytes(task.serialize())


def client_of(scene: Scene) -> Any:
    """A client of the server that knows nothing of Alligator."""
    client: Any = redis.Redis
    return client.from_url(scene.dsn)


# Tasks that fork:


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("copy_does", ["exit", "raise", "return"])
def test_a_copy_that_a_task_forks_is_no_second_worker(
    copy_does: str, threads: str, scene: Scene
) -> None:
    scene.push("forks", fork, copy_does)
    program = scene.latergator("--threads", threads)
    scene.finished("forks")
    scene.push("t1")
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "all is settled, nothing is dead")

    [worker] = program.children
    assert set(program.members) == {program.pid, worker}
    assert scene.journal.names("start") == ["forks", "t1"]
    assert {entry.pid for entry in scene.journal.entries("finish")} == {worker}
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.members == []


@ON_SQLITE
@pytest.mark.parametrize("copy_does", ["exit", "raise", "return", "hear Ctrl-C"])
def test_a_copy_that_a_task_forks_does_not_come_back_from_pop(copy_does: str, scene: Scene) -> None:
    scene.push("forks", fork, copy_does)
    program = scene.python(
        "-c",
        f"from alligator import Gator; print('popped', Gator({scene.dsn!r}).pop().status, flush=True)",
    )

    assert program.wait() == 0
    assert program.stdout.count("popped") == 1
    assert scene.counts == Counts()
    assert scene.journal.names("finish") == ["forks"]


@ON_SQLITE
def test_a_copy_that_could_be_resumed_elsewhere_gives_nothing_back(scene: Scene) -> None:
    scene.push("forks", fork_when_told_to_leave)
    program = scene.worker()
    scene.started("forks")
    program.signal(signal.SIGTERM)

    assert program.wait() == 0
    assert program.stdout.count(" leaving. ") == 1
    assert scene.counts == Counts()
    assert scene.journal.names("finish") == ["forks"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("func", "hook", "left"),
    [(jobs.work, "on_success", Counts()), (jobs.fail_once, "on_error", Counts(dead=1))],
)
def test_a_copy_that_a_hook_forks_is_no_second_worker(
    func: Callable[..., Any], hook: str, left: Counts, scene: Scene
) -> None:
    options: dict[str, Any] = {hook: fork_in_hook}
    scene.push("forks", func, **options)
    program = scene.worker(burst=True)

    assert program.wait() == 0
    assert program.stdout.count(" leaving. ") == 1
    assert scene.counts == left


def _latergator(scene: Scene) -> Program:
    return scene.latergator()


def _worker(scene: Scene) -> Program:
    return scene.worker()


@ON_SQLITE
@pytest.mark.parametrize("start", [_latergator, _worker])
def test_a_task_can_terminate_a_process_that_it_started(
    start: Callable[[Scene], Program], scene: Scene
) -> None:
    scene.push("terminates", terminate_a_child)
    program = start(scene)

    scene.finished("terminates")
    until(lambda: scene.counts == Counts(), "it is done")
    scene.push("t1")
    assert scene.finished("t1").pid == scene.started("terminates").pid
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


# Processes that die or stop at the worst moment:


@ON_SQLITE
def test_processes_killed_as_soon_as_they_are_there_are_replaced_until_one_lives(
    scene: Scene,
) -> None:
    program = scene.latergator("--workers", "2", "--quiet")
    killed: set[int] = set()

    def kill_the_new() -> bool:
        for pid in set(program.children) - killed:
            kill(pid)
            killed.add(pid)
        return len(killed) >= 4

    until(kill_the_new, "four were there to be killed")
    scene.push("t1")

    assert scene.finished("t1").pid not in killed
    assert program.runs
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert "Traceback" not in program.stderr


@ON_SQLITE
def test_a_process_that_has_just_died_when_all_are_told_to_leave_is_no_trouble(
    scene: Scene,
) -> None:
    program = scene.latergator("--workers", "2")
    until(lambda: program.stdout.count("starting") == 2, "both work")

    program.signal(signal.SIGSTOP)
    kill(program.children[0])
    program.signal(signal.SIGTERM)
    program.signal(signal.SIGCONT)

    assert program.wait() == 0
    assert "Traceback" not in program.stderr


@ON_SQLITE
def test_a_task_whose_lease_somebody_deleted_is_run_by_another_worker(
    scene: Scene, tmp_path: Path
) -> None:
    scene.push("t1")
    assert scene.gator.backend.reserve(["all"], "gone", lease=3600.0).reservations
    db = sqlite3.connect(tmp_path / "queue.db")
    with db:
        assert db.execute("DELETE FROM alligator_leases").rowcount == 1
    db.close()

    scene.latergator()

    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "it is settled")


@contextmanager
def stuck_writer(path: Path, *, forks: bool) -> Generator[Child]:
    """A process in the midst of a write, perhaps with a child that it has forked there."""
    reading, writing = os.pipe()

    def write() -> None:
        with Database(path, "NORMAL").write():
            copy = os.fork() if forks else 0
            if forks and copy == 0:
                os.write(writing, f"{os.getpid()}\n".encode())
            elif not forks:
                os.write(writing, b"0\n")
            signal.pause()

    with Child(write) as writer:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            forked = int(pipe.readline())
        try:
            yield writer
        finally:
            if forked:
                os.kill(forked, signal.SIGKILL)


@ON_SQLITE
def test_what_a_killed_writer_has_forked_keeps_nobody_from_writing(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.push("t1")
    with stuck_writer(tmp_path / "queue.db", forks=True) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(file, "LOCK_TIMEOUT", 0.3)
            with pytest.raises(BackendUnavailable):  # the fork did not let go of the writer's lock
                scene.push("t2")
        writer.kill()

        scene.push("t3")

    assert list(scene.deliveries()) == ["t1", "t3"]


@ON_SQLITE
def test_a_writer_that_was_stopped_lets_others_fail_and_not_hang(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.push("t1")
    with stuck_writer(tmp_path / "queue.db", forks=False) as writer:
        os.kill(writer.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(file, "LOCK_TIMEOUT", 0.3)
            with pytest.raises(BackendUnavailable, match="does not go on"):
                scene.push("t2")
            assert scene.counts == Counts(waiting=1)  # who only reads is not held up
        writer.kill()

        scene.push("t2")

    assert list(scene.deliveries()) == ["t1", "t2"]


# Ids that cannot be:


@ON_SQLITE
def test_a_task_given_an_impossible_id_after_it_was_made_is_refused(scene: Scene) -> None:
    task = Task(task_id="possible")
    task.task_id = "a\nb"

    with pytest.raises(InvalidOption, match="task_id"):
        scene.gator.push(task, jobs.work, scene.journal.path, "t1")

    assert scene.counts == Counts()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_id_with_a_newline_in_the_store_is_buried_and_stops_nobody(
    threads: str, scene: Scene
) -> None:
    scene.gator.backend.push_many("all", [Message("a\nb", body_of(scene, "impossible"))])
    scene.push("t1")
    program = scene.latergator("--threads", threads)

    scene.finished("t1")
    until(lambda: scene.counts == Counts(dead=1), "one is done, the other buried")
    [letter] = scene.dead
    assert letter.task_id == "a\nb"
    assert '"unreadable"' in letter.note
    assert scene.journal.entries("start", "impossible") == []
    assert program.children == [scene.finished("t1").pid]


def test_an_id_with_a_newline_in_the_store_is_buried_by_pop(scene: Scene) -> None:
    scene.gator.backend.push_many("all", [Message("a\nb", body_of(scene, "impossible"))])

    with pytest.raises(InvalidOption, match="control characters"):
        scene.gator.pop()

    assert scene.counts == Counts(dead=1)
    assert scene.journal.entries("start", "impossible") == []


@ON_REDIS
def test_an_id_that_is_no_text_in_the_store_is_buried_and_stops_nobody(scene: Scene) -> None:
    with client_of(scene) as client:
        client.hset("alligator:{all}:tasks", b"\xff", body_of(scene, "impossible"))
        client.zadd("alligator:{all}:waiting", {b"\xff": 0})
    scene.push("t1")
    program = scene.latergator()

    scene.finished("t1")
    until(lambda: scene.counts == Counts(dead=1), "one is done, the other buried")
    [letter] = scene.dead
    assert os.fsencode(letter.task_id) == b"\xff"
    assert scene.journal.entries("start", "impossible") == []
    assert program.children == [scene.finished("t1").pid]


# Redis:


@ON_REDIS
@pytest.mark.parametrize("known", ["RESERVE", "SETTLE"])
def test_a_server_that_knows_some_scripts_hands_out_and_settles_once(
    known: str, scene: Scene
) -> None:
    backend = scene.gator.backend
    scene.push_many("t1", "t2", "t3")
    [first] = backend.reserve(["all"], "worker").reservations
    with client_of(scene) as client:
        client.script_flush()
        client.script_load(getattr(scripts, known))

    batch = backend.reserve(["all"], "worker", settlements=[Ack(first)])

    assert ids(batch.reservations) == ["t2"]
    assert batch.late == []
    assert scene.counts == Counts(waiting=1, running=1)
    assert scene.deliveries() == {"t3": 1}


class Cutter:
    """Stands between a server and its clients, and cuts the connection in place of handing on a task.

    Args:
        port: The server's.
        times: So often; then it hands on everything.
        on_cut: Called each time, while the client waits for what will not come.
    """

    def __init__(self, port: int, times: int, on_cut: Callable[[], None]) -> None:
        self.cuts = 0
        self._server_port, self._times, self._on_cut = port, times, on_cut
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "Cutter":
        self._run(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        _shut(self._listener)
        self._threads[0].join()
        for end in self._open:
            _shut(end)
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._open]:
            end.close()

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._open += [client, server]
            self._run(self._pump, client, server, False)
            self._run(self._pump, server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if is_answer and b'"task_id"' in data and self._cuts_now():
                    break
                target.sendall(data)
        except OSError:
            pass
        _shut(source)
        _shut(target)

    def _cuts_now(self) -> bool:
        with self._lock:
            if self.cuts == self._times:
                return False
            self._on_cut()
            self.cuts += 1
            return True


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@ON_REDIS
def test_tasks_in_answers_that_were_lost_get_no_strike_for_it(
    scene: Scene, redis_server: Server
) -> None:
    strikes: list[int] = []
    names = ["t1", "t2", "t3"]
    scene.push_many(*names)
    with (
        client_of(scene) as client,
        Cutter(redis_server.port, 5, lambda: strikes.append(client.hlen(LAPSES))) as cutter,
    ):
        program = scene.latergator(target=f"redis://127.0.0.1:{cutter.port}/0")
        for name in names:
            scene.finished(name)
        until(lambda: scene.counts == Counts(), "all is done, nothing is dead")
        program.end()

        assert cutter.cuts == 5
        assert strikes == [0] * 5
        assert sorted(scene.journal.names("start")) == names
        assert client.hlen(LAPSES) == 0
