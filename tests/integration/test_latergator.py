"""The command ``latergator``: its options, and what it says."""

import signal
import socketserver
import threading
import tomllib
from collections import Counter
from operator import add
from pathlib import Path

import pytest

from alligator import Gator
from alligator.backends.base import Counts
from alligator.exceptions import UnknownTask
from tests.examples.commands import run
from tests.integration import jobs
from tests.integration.scenes import ON_SQLITE, ROOT, Scene, until


def test_burst_does_all_there_is_and_leaves(scene: Scene) -> None:
    names = [f"t{number}" for number in range(100)]
    scene.push_many(*names)

    program = scene.latergator("--burst", "--workers", "2")

    assert program.wait() == 0
    assert sorted(scene.journal.names("finish")) == sorted(names)
    assert scene.counts == Counts()
    assert program.stderr == ""


@ON_SQLITE
def test_burst_on_an_empty_queue_leaves_at_once(scene: Scene) -> None:
    program = scene.latergator("--burst")

    assert program.wait(within=5) == 0
    assert scene.journal.entries() == []


@ON_SQLITE
def test_burst_runs_retries_too_and_keeps_what_failed_for_good(scene: Scene) -> None:
    scene.push("t1", jobs.fail, "plain", retries=2)

    program = scene.latergator("--burst")

    assert program.wait() == 0
    assert scene.journal.names("start") == ["t1"] * 3
    assert scene.counts == Counts(dead=1)
    assert "ValueError: plain" in program.stderr


def test_tasks_that_come_while_it_waits_are_run(scene: Scene) -> None:
    program = scene.latergator()
    program.says("starting")

    for number in range(3):
        scene.push(f"t{number}")
        scene.finished(f"t{number}")

    until(lambda: scene.counts == Counts(), "the queue is empty")


def test_several_processes_run_tasks_at_the_same_time(scene: Scene) -> None:
    for name in ["t1", "t2", "t3"]:
        scene.push_gated(name)

    program = scene.latergator("--workers", "3")

    pids = {scene.started(name).pid for name in ["t1", "t2", "t3"]}
    assert pids == set(program.children)
    assert len(pids) == 3


def test_threads_run_tasks_at_the_same_time_in_one_process(scene: Scene) -> None:
    names = ["t1", "t2", "t3", "t4"]
    for name in names:
        scene.push_gated(name)

    program = scene.latergator("--threads", "4")

    assert {scene.started(name).pid for name in names} == set(program.children)
    for name in names:
        scene.open(name)
        scene.finished(name)
    until(lambda: scene.counts == Counts(), "the queue is empty")


def test_a_process_that_has_run_its_maximum_is_replaced(scene: Scene) -> None:
    names = [f"t{number}" for number in range(12)]
    scene.push_many(*names)

    program = scene.latergator("--max-tasks", "5", "--burst")

    assert program.wait() == 0
    runs = Counter(entry.pid for entry in scene.journal.entries("start"))
    assert sorted(runs.values()) == [2, 5, 5]
    assert sorted(scene.journal.names("finish")) == sorted(names)
    assert "It leaves after 5 tasks." in program.stdout
    assert program.stderr == ""  # this is no death


@ON_SQLITE
def test_replaced_processes_lose_and_repeat_nothing(scene: Scene) -> None:
    names = [f"t{number}" for number in range(100)]
    scene.push_many(*names)

    program = scene.latergator("--max-tasks", "10", "--workers", "2", "--burst")

    assert program.wait() == 0
    assert sorted(scene.journal.names("start")) == sorted(names)
    assert scene.counts == Counts()


def test_queues_are_consumed_in_strict_order(scene: Scene) -> None:
    names: list[str] = []
    for queue_name in ["low", "middle", "high", "other"]:
        scene.gator.queue_name = queue_name
        for number in range(3):
            names.append(f"{queue_name}-{number}")
            scene.push(names[-1])

    queues = ["--queue", "high", "--queue", "middle", "--queue", "low"]
    program = scene.latergator("--burst", *queues)

    assert program.wait() == 0
    order = [name for name in names if not name.startswith("other")]
    assert scene.journal.names("start") == order[6:9] + order[3:6] + order[0:3]
    assert scene.counts == Counts(waiting=3)
    assert "consuming 'high', 'middle', 'low'" in program.stdout


@ON_SQLITE
def test_a_later_queue_wakes_it_too(scene: Scene) -> None:
    program = scene.latergator("--queue", "high", "--queue", "low")
    program.says("starting")

    scene.gator.queue_name = "low"
    scene.push("t1")

    scene.finished("t1", within=5)


# Where the store is named.


@ON_SQLITE
def test_the_environment_names_the_store(scene: Scene) -> None:
    scene.push("t1")

    program = scene.python("-m", "alligator.latergator", "--burst", ALLIGATOR_CONN=scene.dsn)

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t1"]


@ON_SQLITE
def test_a_target_goes_before_the_environment(scene: Scene) -> None:
    scene.push("t1")

    program = scene.latergator("--burst", ALLIGATOR_CONN="redis://127.0.0.1:1/0")

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t1"]


def test_a_configured_gator_brings_its_class_of_tasks(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCENE_DSN", scene.dsn)
        from tests.integration import gators

    skinny = Gator(scene.dsn, task_class=gators.SkinnyTask)
    with skinny.options(task_id="t1") as opts:
        opts.task(jobs.work, scene.journal.path, "t1")
    with skinny.options(retries=1, task_id="t2") as opts:
        opts.task(jobs.fail, scene.journal.path, "t2", "plain")
    assert skinny.backend.get("all", "no such task") is None

    program = scene.latergator(
        "--burst", target="tests.integration.gators:skinny", SCENE_DSN=scene.dsn
    )

    assert program.wait() == 0
    assert scene.journal.names("start") == ["t1", "t2", "t2"]
    assert scene.journal.names("finish") == ["t1"]
    assert scene.counts == Counts(dead=1)
    assert scene.dead[0].body.startswith(b"BZh")


@ON_SQLITE
@pytest.mark.parametrize("how", ["target", "environment"])
def test_a_configured_gator_brings_its_queue(scene: Scene, how: str) -> None:
    scene.gator.queue_name = "elsewhere"
    scene.push("t1")
    name = "tests.integration.gators:elsewhere"
    words = [name] if how == "target" else []
    environment = {} if how == "target" else {"ALLIGATOR_CONN": name}

    program = scene.python(
        "-m", "alligator.latergator", "--burst", *words, SCENE_DSN=scene.dsn, **environment
    )

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t1"]


def test_results_are_kept_where_it_is_told(scene: Scene) -> None:
    kept = f"sqlite://{scene.folder}/results.db"
    gator = Gator(scene.dsn, results=kept)
    with gator.options(keep_result=60) as opts:
        task = opts.task(add, 1, 2)

    assert scene.latergator("--burst", "--results", kept).wait() == 0

    assert task.wait(0) == 3
    with pytest.raises(UnknownTask):
        scene.gator.result(task.task_id, 0)
    refused = scene.latergator(
        "--results", kept, target="tests.integration.gators:skinny", SCENE_DSN=scene.dsn
    )
    assert refused.wait() == 2
    assert "leave --results out" in refused.stderr


def test_both_documented_names_of_the_command_are_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]

    assert scripts["latergator.py"] == scripts["latergator"] == "alligator.latergator:main"


# What it says.


@ON_SQLITE
def test_it_prints_who_starts_and_who_leaves(scene: Scene) -> None:
    scene.push("t1")
    program = scene.latergator("--burst")

    assert program.wait() == 0
    pid = scene.finished("t1").pid
    assert program.stdout.splitlines() == [
        f"Alligator worker #{pid} starting, consuming 'all'.",
        f"Alligator worker #{pid} leaving. It consumed 1 task.",
    ]


@ON_SQLITE
def test_verbose_prints_results_too(scene: Scene) -> None:
    scene.push("t1")
    program = scene.latergator("--burst", "--verbose")

    assert program.wait() == 0
    assert "result of t1\n" in program.stdout


@ON_SQLITE
def test_quiet_prints_problems_only(scene: Scene) -> None:
    scene.push("t1")
    scene.push("t2", jobs.fail, "plain")
    program = scene.latergator("--burst", "--quiet")

    assert program.wait() == 0
    assert program.stdout == ""
    assert "Task 't2' failed" in program.stderr
    assert "'t1'" not in program.stderr


@ON_SQLITE
def test_progress_off_a_terminal_is_one_line_at_the_end(scene: Scene) -> None:
    scene.push("t1")
    scene.push("t2", jobs.fail, "plain", retries=1)
    program = scene.latergator("--burst", "--progress")

    assert program.wait() == 0
    [line] = program.stdout.splitlines()
    assert line.startswith("1 done, 1 failed, 1 retried in ")


@ON_SQLITE
def test_hostile_results_ids_and_errors_harm_no_output(scene: Scene) -> None:
    scene.push("t1", jobs.fail, "hostile")
    with scene.gator.options(task_id="tásk-\u202e-☃") as opts:
        opts.task(jobs.return_hostile)
    scene.push("t2")
    program = scene.latergator("--burst", "--verbose", PYTHONIOENCODING="ascii:strict", LC_ALL="C")

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t2"]
    assert scene.counts == Counts(dead=1)
    assert "surrogate \\udcff" in program.stdout
    assert "Worker process" not in program.stderr


@ON_SQLITE
def test_an_error_can_forge_no_line_of_the_log(scene: Scene) -> None:
    scene.push("t1", jobs.fail, "hostile")
    scene.push("t2", jobs.fail, "hostile", retries=1)
    program = scene.latergator("--burst", "--verbose")

    assert program.wait() == 0
    assert "\x1b" not in program.stderr
    assert "break" in program.stderr
    for line in program.stderr.splitlines():
        assert line.startswith(("    ", "20")), line


class _Hostile(socketserver.StreamRequestHandler):
    """Says no to each command of Redis, in words for a terminal."""

    def handle(self) -> None:
        for line in self.rfile:
            if line.startswith(b"*"):
                self.wfile.write(b"-ERR nope \x1b]0;pwned\x07\x1b[31m\r\n")


def test_a_server_can_send_nothing_to_the_terminal(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dsn = f"redis://127.0.0.1:{server.server_address[1]}/0"
        ran = [run(name, dsn, folder=tmp_path) for name in ("latergator", "alligator status")]
        server.shutdown()

    for one in ran:
        assert one.returncode == 1
        assert "nope \\x1b]0;pwned\\x07\\x1b[31m" in one.stderr
        assert "\x1b" not in one.stderr + one.stdout


def test_a_module_can_forge_no_line_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "hostile.py").write_text(
        "raise ValueError('no\\n2026-01-01 00:00:00,000 INFO alligator: all is well\\x1b[31m')\n"
    )

    ran = run("latergator hostile:gator", folder=tmp_path)

    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert line.startswith("latergator: Cannot import module 'hostile': ValueError: no\\n2026")
    assert "\x1b" not in line


@ON_SQLITE
def test_output_that_nobody_reads_stops_nothing(scene: Scene) -> None:
    program = scene.shell("exec {latergator} --verbose 2>/dev/null | head -n 1")
    program.says("starting")
    names = [f"t{number}" for number in range(30)]
    for name in names:
        scene.push(name)

    scene.finished(names[-1])
    until(lambda: scene.counts == Counts(), "the queue is empty")


@ON_SQLITE
def test_the_summary_may_find_nobody_to_read_it(scene: Scene) -> None:
    scene.push("t1")

    shell = scene.shell("{{ {latergator} --burst --progress; echo status $? >&2; }} | true")

    assert shell.wait() == 0
    assert shell.stderr == "status 0\n"


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_output_stops_nothing(scene: Scene, closed: str) -> None:
    """As daemons start programs. What is opened next gets the numbers of what is closed."""
    names = [f"t{number}" for number in range(30)]
    scene.push_many(*names)
    scene.push("bad", jobs.fail, "plain")
    scene.push("long", jobs.work, 2.0)

    program = scene.shell("exec {latergator} --burst --verbose --workers 2 --lease 1 " + closed)

    assert program.wait() == 0
    assert sorted(scene.journal.names("start")) == sorted([*names, "bad", "long"])
    assert sorted(scene.journal.names("finish")) == sorted([*names, "long"])
    assert scene.counts == Counts(dead=1)


@ON_SQLITE
def test_a_terminal_that_hangs_up_tells_it_to_leave(scene: Scene) -> None:
    program = scene.latergator()
    program.says("starting")

    program.signal(signal.SIGHUP)

    assert program.wait() == 0


@ON_SQLITE
def test_nohup_lets_it_outlive_its_terminal(scene: Scene) -> None:
    program = scene.shell("trap '' HUP; exec {latergator}")
    program.says("starting")

    for number in range(3):
        program.signal(signal.SIGHUP)
        scene.push(f"t{number}")
        scene.finished(f"t{number}")

    assert "leaving" not in program.stdout
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
