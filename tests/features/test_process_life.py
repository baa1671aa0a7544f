"""What a worker process lives through: it grows, its code changes, it leaves in the midst of a task."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from alligator import Gator
from alligator.backends.base import Counts
from alligator.processes import memory
from alligator.processes.memory import resident_mib
from alligator.verify.journal import Journal
from tests.features import life_work, work
from tests.features import stop_work as jobs
from tests.features.work import QuietWorker, do, done
from tests.integration.scenes import BEFORE_LEASE, ROOT, Scene, kill, until

ON_SQLITE = pytest.mark.parametrize("scene", ["sqlite"], indirect=True)

# Memory.


def test_memory_that_is_taken_is_memory_that_is_seen() -> None:
    before = resident_mib()
    taken = bytearray(b"x") * (64 * 2**20)

    assert resident_mib() - before == pytest.approx(64, abs=16)
    assert len(taken) == 64 * 2**20


def test_where_the_system_does_not_tell_the_most_that_it_had_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = resident_mib()
    monkeypatch.setattr(memory, "_STATM", "/nonexistent/statm")

    assert resident_mib() >= now * 0.9


def test_a_process_that_has_grown_is_replaced_after_what_it_runs(scene: Scene) -> None:
    names = [f"t{number}" for number in range(4)]
    for name in names:
        scene.push(name, life_work.grow, 150)

    program = scene.latergator("--max-memory", "200", "--burst")

    assert program.wait() == 0
    runs = Counter(entry.pid for entry in scene.journal.entries("finish"))
    assert sorted(runs.values()) in ([2, 2], [1, 1, 2])  # the second task of each is too much
    assert scene.journal.names("start") == names
    assert scene.counts == Counts()
    assert "died" not in program.stderr
    assert "MiB" in program.stderr


def test_a_limit_that_is_too_small_lets_each_process_do_something(scene: Scene) -> None:
    names = [f"t{number}" for number in range(3)]
    scene.push_many(*names)

    program = scene.latergator("--max-memory", "1", "--burst")

    assert program.wait() == 0
    assert scene.journal.names("finish") == names
    assert len({entry.pid for entry in scene.journal.entries("start")}) > 1


def test_what_does_not_grow_stays(scene: Scene) -> None:
    names = [f"t{number}" for number in range(100)]
    scene.push_many(*names)

    program = scene.latergator("--max-memory", "500", "--burst")

    assert program.wait() == 0
    assert len({entry.pid for entry in scene.journal.entries("start")}) == 1
    assert program.stderr == ""


def test_a_worker_alone_leaves_when_it_has_grown(gator: Gator) -> None:
    for number in range(3):
        gator.task(do, number)
    worker = QuietWorker(gator, max_memory=1)

    worker.run_forever()

    assert done == [0]
    assert worker.is_used_up
    assert gator.len() == 2


# Code that changes.


class Project:
    """A folder of code that workers run, and that changes."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        folder.mkdir()
        self.write("first")

    def write(self, word: str) -> None:
        """Write the task anew, to note this word."""
        self._replace(
            "from alligator.verify.journal import Journal\n"
            "def tell(journal, name):\n"
            f"    Journal(journal).note({word!r}, name)\n"
        )

    def write_nonsense(self) -> None:
        """Write what is no Python."""
        self._replace("def tell(:\n")

    def _replace(self, text: str) -> None:
        (self.folder / "new").write_text(text)
        (self.folder / "new").replace(self.folder / "reloaded_tasks.py")

    def push(self, name: str) -> None:
        """Queue the task, which cannot be imported here."""
        body = (
            f'{{"task_id":"{name}","retries":0,"async":true,"module":"reloaded_tasks",'
            f'"callable":"tell","args":["{self.scene.journal.path}","{name}"],"kwargs":{{}}}}'
        )
        self.scene.gator.backend.push("all", name, body)

    def told(self, word: str, name: str) -> None:
        """Wait until a task has noted this word."""
        until(lambda: self.scene.journal.entries(word, name), f"{name} notes {word}")


@pytest.fixture
def project(scene: Scene) -> Project:
    return Project(scene, scene.folder / "project")


def start_reloading(project: Project, *options: str, target: str | None = None) -> None:
    words = [target or project.scene.dsn, "--reload", *options]
    code = (
        "import os, sys; os.chdir(sys.argv[1]); sys.argv[1:2] = []; "
        "from alligator.latergator import main; sys.exit(main())"
    )
    project.scene.python("-c", code, str(project.folder), *words, PYTHONPATH=f"{ROOT}:{ROOT}/src")


@ON_SQLITE
def test_new_code_is_run(project: Project) -> None:
    start_reloading(project)
    project.push("t1")
    project.told("first", "t1")
    program = project.scene.programs[0]
    [before] = program.children

    project.write("second")
    program.says("there is new code: reloaded_tasks.py")
    until(lambda: program.children not in ([], [before]), "it is started anew")
    project.push("t2")

    project.told("second", "t2")
    assert project.scene.journal.entries("first", "t2") == []
    assert program.stderr.count("new code") == 1
    assert "died" not in program.stderr


@ON_SQLITE
def test_what_runs_while_code_changes_is_run_again_and_not_counted(project: Project) -> None:
    scene = project.scene
    gate = str(scene.folder / "gate")
    scene.push("long", jobs.wait_at_gate, gate)
    start_reloading(project, "--grace", "30")
    first = scene.started("long")

    changed_at = time.monotonic()
    project.write("second")
    again = scene.started("long", 2)
    Path(gate).touch()
    scene.finished("long")

    print(f"started anew after {again.at - changed_at:.2f} s")
    assert again.at - changed_at < 1 + 1 + 5
    assert again.pid != first.pid
    assert scene.journal.names("delivery-1") == ["long", "long"]
    until(lambda: scene.counts == Counts(), "nothing is left to do")


@ON_SQLITE
def test_code_that_changes_again_and_again_puts_nothing_off(project: Project) -> None:
    """What runs has its time to finish, and no more of it with each change."""
    scene = project.scene
    gate = str(scene.folder / "gate")
    scene.push("long", jobs.wait_at_gate, gate)
    start_reloading(project, "--grace", "30")
    first = scene.started("long")
    words = iter(range(10**6))

    def is_started_anew() -> bool:
        project.write(f"word-{next(words)}")
        return len(scene.journal.entries("start", "long")) > 1

    until(is_started_anew, "it is started anew")
    Path(gate).touch()
    project.push("t1")
    until(lambda: scene.counts == Counts(), "nothing is left to do")

    assert first.pid not in scene.programs[0].members
    assert set(scene.journal.names("delivery-1")) == {"long"}
    assert scene.journal.names("delivery-2") == []


@ON_SQLITE
def test_nonsense_is_met_with_patience_and_mended_at_once(project: Project) -> None:
    (project.folder / "gators.py").write_text(
        f"import reloaded_tasks\nfrom alligator import Gator\ngator = Gator({project.scene.dsn!r})\n"
    )
    start_reloading(project, target="gators:gator")
    project.push("t1")
    project.told("first", "t1")
    program = project.scene.programs[0]

    project.write_nonsense()
    until(lambda: program.stderr.count("died (exit status") >= 3, "it has tried again and again")
    died = program.stderr.count("died (exit status")
    project.write("third")
    mended_at = time.monotonic()
    project.push("t2")
    project.told("third", "t2")

    took = time.monotonic() - mended_at
    print(f"{died} tries; mended after {took:.2f} s")
    assert took < BEFORE_LEASE
    assert program.runs


@ON_SQLITE
def test_in_a_burst_new_code_does_not_end_it(project: Project) -> None:
    scene = project.scene
    gate = str(scene.folder / "gate")
    scene.push("long", jobs.wait_at_gate, gate)
    start_reloading(project, "--burst")
    scene.started("long")

    project.write("second")
    scene.started("long", 2)
    project.push("t1")
    Path(gate).touch()

    assert scene.programs[0].wait() == 0
    assert scene.journal.entries("second", "t1") != []
    assert scene.counts == Counts()


# What is queued again and again.


def test_what_is_due_is_queued_by_whoever_is_told_to(scene: Scene) -> None:
    scene.gator.every(1, jobs.take, scene.journal.path, "tick", 0.0, name="tick")
    program = scene.latergator("--schedule")

    scene.finished("tick", 2)

    assert program.stderr == ""


def test_what_is_due_is_not_queued_by_others(scene: Scene) -> None:
    scene.gator.every(1, jobs.take, scene.journal.path, "tick", 0.0, name="tick")
    scene.latergator()
    other = scene.latergator("--schedule", "--queue", "elsewhere")
    other.says("starting")

    scene.push("t1", jobs.take, 3.0)
    scene.finished("t1")

    assert scene.journal.names("start") == ["t1"]


def test_a_worker_alone_queues_what_is_due(scene: Scene) -> None:
    scene.gator.every(1, jobs.take, scene.journal.path, "tick", 0.0, name="tick")

    scene.worker(schedule=True)

    scene.finished("tick", 2)


# Weights.


def test_queues_with_weights_take_turns(scene: Scene) -> None:
    """Each task takes about as long as one batch may: so there are many turns."""
    for queue_name in ("one", "other"):
        scene.gator.queue_name = queue_name
        for number in range(25):
            scene.push(f"{queue_name}-{number}", jobs.take, 0.03)

    program = scene.latergator("--queue", "one=5", "--queue", "other=5", "--burst", "--quiet")
    assert program.wait() == 0

    order = [name.partition("-")[0] for name in scene.journal.names("finish")]
    assert Counter(order) == {"one": 25, "other": 25}
    assert set(order[:25]) == {"one", "other"}  # in strict order, only the first would be there


@ON_SQLITE
@pytest.mark.parametrize(
    "words",
    [
        ["--queue", "a=1", "--queue", "b"],
        ["--queue", "a=0"],
        ["--queue", "a=1", "--queue", "a=2"],
        ["--max-memory", "-1"],
        ["--max-memory", "much"],
        ["--concurrency", "0"],
        ["--concurrency", "1000000"],
        ["--lease", "0.01"],
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str], scene: Scene) -> None:
    program = scene.latergator(*words)

    assert program.wait() == 2
    assert words[1].split("=")[0] in program.stderr
    assert "Traceback" not in program.stderr


def test_coroutines_of_one_process_run_at_the_same_time(scene: Scene) -> None:
    names = [f"t{number}" for number in range(20)]
    for name in names:
        scene.push(name, jobs.sleep_well, timeout=20)

    program = scene.latergator("--concurrency", "50")

    assert {scene.started(name).pid for name in names} == set(program.children)


@ON_SQLITE
def test_there_may_be_more_queues_than_a_pipe_holds(scene: Scene) -> None:
    names = [f"{number:03}" + "\u4e2d" * 60 for number in range(400)]
    words = [word for name in names for word in ("--queue", name)]
    scene.gator.queue_name = names[-1]
    scene.push("t1", jobs.take, 0.0)

    program = scene.latergator(*words, "--burst", "--quiet")

    assert program.wait() == 0
    assert scene.journal.names("finish") == ["t1"]


@ON_SQLITE
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_of_its_processes_lets_what_runs_finish(number: int, scene: Scene) -> None:
    """As a service manager sends it: to the children, too."""
    gate = str(scene.folder / "gate")
    scene.push("long", jobs.wait_at_gate, gate)
    program = scene.latergator("--workers", "2")
    child = scene.started("long").pid

    for pid in (child, program.pid):
        kill(pid, number)
    until(lambda: len(program.children) == 1, "the idle one has left")
    Path(gate).touch()

    assert program.wait() == 0
    assert scene.journal.names("start") == scene.journal.names("finish") == ["long"]
    assert scene.counts == Counts()


# Told to leave, or killed, in the midst of many items.


def items(journal: Journal, name: str) -> list[int]:
    """The items that a task went through, in all its runs."""
    numbers = (entry.kind for entry in journal.entries(name=name) if "item-" in entry.kind)
    return [int(kind.removeprefix("item-")) for kind in numbers]


def half_way(scene: Scene, name: str, count: int) -> None:
    """Wait until a task has gone through half of its items, and waits."""
    until(lambda: len(items(scene.journal, name)) > count // 2, "half of the items are done")


@pytest.mark.parametrize("alone", [False, True], ids=["latergator", "worker"])
def test_a_task_that_goes_through_items_leaves_with_its_worker_and_goes_on_elsewhere(
    alone: bool, scene: Scene
) -> None:
    gate = str(scene.folder / "gate")
    scene.push("t1", jobs.track_on, gate, 20)
    program = scene.worker() if alone else scene.latergator()
    half_way(scene, "t1", 20)

    told_at = program.signal(signal.SIGTERM)
    assert program.wait() == 0
    took = time.monotonic() - told_at
    Path(gate).touch()
    other = scene.latergator()
    scene.finished("t1")
    until(lambda: scene.counts == Counts(), "nothing is left to do")

    print(f"left after {took:.2f} s")
    assert took < BEFORE_LEASE
    assert other.runs
    assert items(scene.journal, "t1") == list(range(20))  # each once
    assert len(scene.journal.entries("start", "t1")) == 2


def leave_after(count: int, scene: Scene) -> None:
    """Tell a worker to leave when so many items are done."""
    program = scene.latergator()
    until(lambda: len(items(scene.journal, "t1")) >= count, f"{count} items are done")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_it_may_leave_again_and_again(scene: Scene) -> None:
    """That counts neither as a retry nor as a delivery."""
    scene.push("t1", jobs.track_slowly, 40)
    for number in range(6):
        leave_after(6 * (number + 1), scene)

    scene.latergator()
    scene.finished("t1")

    assert items(scene.journal, "t1") == list(range(40))
    assert set(scene.journal.names("delivery-1")) == {"t1"}
    assert scene.journal.names("delivery-2") == []
    until(lambda: scene.counts == Counts(), "nothing is left to do")
    assert scene.gator.backend.records is not None
    assert scene.gator.backend.records.list("progress") == {}


def test_after_a_kill_it_goes_on_where_it_last_said_that_it_was(scene: Scene) -> None:
    gate = str(scene.folder / "gate")
    scene.push("t1", jobs.track_on, gate, 20)
    program = scene.latergator()
    half_way(scene, "t1", 20)
    saved = {"passed": 0}

    def is_saved() -> bool:
        progress = scene.gator.status("t1").progress
        saved["passed"] = int(progress.done) if progress else 0
        return saved["passed"] > 0

    until(is_saved, "it is said how far it is")
    kill(scene.started("t1").pid, signal.SIGKILL)
    Path(gate).touch()
    scene.finished("t1")

    assert program.runs
    done_twice = [item for item, times in Counter(items(scene.journal, "t1")).items() if times > 1]
    assert set(items(scene.journal, "t1")) == set(range(20))
    assert all(item >= saved["passed"] for item in done_twice)


def test_a_later_task_of_that_id_begins_anew(gator: Gator) -> None:
    """Though one like it was given back once, and was dropped with all others then."""
    leaving = LeavesSoon(gator)
    with gator.options(task_id="t1") as opts:
        opts.task(go_through, 10, "first")
    leaving.run_forever()
    assert done == [("first", item) for item in range(5)]
    gator.backend.drop_all("all")
    done.clear()

    with gator.options(task_id="t1") as opts:
        opts.task(go_through, 10, "second")
    work.work_off(gator)

    assert done == [("second", item) for item in range(10)]
    assert gator.backend.records is not None
    assert gator.backend.records.list("progress") == {}


class LeavesSoon(QuietWorker):
    """Is told to leave when five items are done."""

    def run_forever(self) -> None:
        leaving.append(self)
        super().run_forever()


leaving: list[QuietWorker] = []


def go_through(count: int, word: str) -> None:
    from alligator import track

    for item in track(range(count)):
        done.append((word, item))
        if len(done) == 5 and leaving:
            leaving.pop().stop()


def test_what_was_said_last_is_forgotten_though_nothing_more_was_said(gator: Gator) -> None:
    """It was given back after its very last item; then there is nothing left to go through."""
    leaving.clear()
    worker = LeavesSoon(gator)
    with gator.options(task_id="t1") as opts:
        opts.task(go_through, 5, "only")
    worker.run_forever()
    assert len(done) == 5

    work.work_off(gator)

    assert len(done) == 5
    assert gator.backend.count("all") == Counts()
    assert gator.backend.records is not None
    assert gator.backend.records.list("progress") == {}
