"""What may run: patterns of names, and all the ways to get around them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.allowing import Allowed
from alligator.exceptions import InvalidOption, TaskRefused
from alligator.reading import Reading
from alligator.schedules import Scheduler
from tests.features import allowed_work, work
from tests.features.allowed_work import Mailer, fail, hook, send, send_soon
from tests.features.schedules_work import OddTask
from tests.features.schedules_work import Scene as Turned
from tests.features.work import work_off

HERE = allowed_work.__name__
UNUSED = "antigravity"
"""A module that nobody needs, so that it shows if it is imported."""


@pytest.fixture
def gator() -> Gator:
    return Gator("locmem://", allow=[f"{HERE}.*"])


def push(gator: Gator, module: str, name: str, *args: Any, **options: Any) -> None:
    """Queue a call as somebody else would who can write to the store."""
    payload = {
        "task_id": "t1",
        "retries": 2,
        "async": True,
        "module": module,
        "callable": name,
        "args": args,
    }
    gator.backend.push("all", "t1", json.dumps({**payload, "options": options}))


def why_refused(gator: Gator) -> str:
    """Return why the only task was refused; and that it was at once, though it had retries left."""
    work_off(gator)
    [letter] = gator.backend.dead("all")
    note = json.loads(letter.note)
    assert note["reason"] == "refused"
    assert sum(gator.backend.count("all")) == 1
    return str(note["message"])


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("app.tasks.send", ["app.tasks.send"], ["app.tasks.send2", "app.tasks", "xapp.tasks.send"]),
        ("app.tasks.*", ["app.tasks.send"], ["app.tasks._send", "app.tasks.M.send", "app.tasks."]),
        ("app.*.send", ["app.tasks.send"], ["app._tasks.send", "app.a.b.send", "app.send"]),
        ("app.tasks.send_*", ["app.tasks.send_", "app.tasks.send_all"], ["app.tasks.send"]),
        ("app.tasks.*_all", ["app.tasks.send_all"], ["app.tasks._all", "app.tasks.all"]),
        ("app.tasks._*", ["app.tasks._send"], ["app.tasks.send"]),
        (
            "app.s*_*_to",
            ["app.s__to", "app.send_mail_to", "app.s_to_to"],
            ["app.s_to", "app.s_a.b_to", "app.send_mail_too"],
        ),
        (
            "app.*_*_*.*a*",
            ["app.a__.a", "app.a_b_c.da"],
            ["app.__a_.a", "app.a_b.a", "app.a_b_c._a"],
        ),
        ("app.**", ["app.send", "app.a.b.C.send"], ["app", "app.a._b.send", "app._a", "app..a"]),
        ("**", ["os.system", "app.send"], ["_operator.add", "app.tasks._send", ""]),
        ("app.tásks.*", ["app.tásks.sénd"], ["app.tasks.send", "app.tásks.sénd\n"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], does_not: list[str]) -> None:
    allowed = Allowed([pattern])

    assert [path for path in [*fits, *does_not] if path in allowed] == fits


@pytest.mark.parametrize("pattern", ["app.*_a*_a*_a*_b", "app.*_a*_a*_a*_a*.b", "app.**"])
def test_a_name_of_any_length_is_refused_at_once(pattern: str) -> None:
    # Were all ways to divide it looked at, this would not end.
    assert "app." + 20_000 * "_a" not in Allowed([pattern])
    assert "app.a" + 20_000 * "_a" + "." not in Allowed([pattern])
    assert "app" + 20_000 * ".a" + "." not in Allowed([pattern])


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "app.",
        ".app",
        "app..tasks",
        "app.**.send",
        "app.se**",
        "***",
        "app.[ab]",
        "a?",
        "a b",
        7,
    ],
)
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(InvalidOption, match="no dotted path"):
        Gator("locmem://", allow=[pattern])


@pytest.mark.parametrize("patterns", [[], (), 7])
def test_to_allow_nothing_is_a_mistake(patterns: Any) -> None:
    with pytest.raises(InvalidOption, match="allow lists what may run"):
        Gator("locmem://", allow=patterns)


def test_what_is_allowed_runs(gator: Gator) -> None:
    with gator.options(on_start=hook, on_success=hook, retry_on=LookupError) as opts:
        opts.task(send)
    gator.task(send_soon)
    first = gator.task(send, "first")
    with gator.options(depends_on=[first]) as opts:
        opts.task(send, "second")

    work_off(gator)

    assert work.done == ["hook", "sent", "hook", "sent soon", "first", "second"]


def test_methods_of_a_class_have_to_be_named(gator: Gator) -> None:
    with pytest.raises(TaskRefused, match=r"Mailer\.by_class' is not among what may run here"):
        gator.task(Mailer.by_class)
    for allow in ([f"{HERE}.Mailer.*"], [f"{HERE}.**"]):
        other = Gator("locmem://", allow=allow)
        other.task(Mailer.by_class)
        other.task(Mailer.plainly)
        work_off(other)

    assert work.done == ["Mailer", "plainly"] * 2


def test_what_is_not_allowed_is_not_imported(gator: Gator) -> None:
    push(gator, UNUSED, "run")

    assert why_refused(gator) == (
        f"'{UNUSED}.run' is not among what may run here: allow has {HERE}.*"
    )
    assert UNUSED not in sys.modules


@pytest.mark.parametrize("name", ["on_start", "on_success", "on_error"])
def test_nor_are_hooks(gator: Gator, name: str) -> None:
    push(gator, HERE, "send", **{name: {"module": UNUSED, "callable": "run"}})

    assert f"{UNUSED}.run" in why_refused(gator)
    assert UNUSED not in sys.modules
    assert work.done == []


@pytest.mark.parametrize("name", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(("module", "kind"), [(UNUSED, "Error"), ("os", "system"), ("os", "path")])
def test_nor_are_exceptions(gator: Gator, name: str, module: str, kind: str) -> None:
    push(gator, HERE, "send", **{name: [{"module": module, "callable": kind}]})

    assert "is no exception of a module that is loaded here" in why_refused(gator)
    assert UNUSED not in sys.modules


@pytest.mark.parametrize(
    ("module", "name", "why"),
    [
        (HERE, "_hidden", "is not among"),
        (HERE, "os.system", "is not among"),
        (HERE, "system", "'posix.system' is not among"),
        (HERE, "do", "'tests.features.work.do' is not among"),
        (HERE, "Mailer", "is no function"),
        (HERE, "path", "is no function"),
        (HERE, "thing", "is no function"),
        (HERE, "", "is not among"),
        (HERE, "send\n", "is not among"),
        (HERE.rpartition(".")[0], "allowed_work.send", "leads through something that is no class"),
        ("", "send", "is not among"),
    ],
)
def test_no_name_leads_around_it(gator: Gator, module: str, name: str, why: str) -> None:
    push(gator, module, name)

    assert why in why_refused(gator)
    assert work.done == []


def test_all_below_does_not_open_what_is_imported_there() -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.**"])
    push(gator, HERE, "os.system")

    assert "leads through something that is no class" in why_refused(gator)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Archive.open", "'tarfile.TarFile.open', which it is, is not among"),
        ("Listing.open", "'tarfile.TarFile.open', which it is, is not among"),
        ("Shelf.Tape.open", "'tarfile.TarFile.open', which it is, is not among"),
        ("TarFile.open", "'tarfile.TarFile.open', which it is, is not among"),
        ("open_archive", "'tarfile.TarFile.open', which it is, is not among"),
        ("Archive.add", "'tarfile.TarFile.add', which it is, is not among"),
        ("Archive.mro", "belongs to what the class is made by"),
        ("Made.add_to_class", "belongs to what the class is made by"),
        ("Box.fromkeys", "'builtins.dict.fromkeys', which it is, is not among"),
        ("Text.maketrans", "'builtins.str.maketrans', which it is, is not among"),
        ("Kind.mro", "'builtins.type.mro', which it is, is not among"),
    ],
)
def test_what_a_class_has_from_elsewhere_is_not_its_own(
    tmp_path: Path, name: str, why: str
) -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.**"])
    written = tmp_path / "written"
    push(gator, HERE, name, str(written), "w")

    assert why in why_refused(gator)
    assert not written.exists()
    assert work.done == []


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("Archive.own", "own"),
        ("Listing.own", "own"),
        ("Shelf.Tape.own", "own"),
        ("Archive.taken", "Mailer"),
    ],
)
def test_what_a_class_has_from_another_of_its_module_is(name: str, does: str) -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.**"])
    push(gator, HERE, name)

    work_off(gator)

    assert work.done == [does]
    assert sum(gator.backend.count("all")) == 0


def test_what_a_class_has_from_elsewhere_runs_where_that_is_allowed_too() -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.**", "builtins.dict.fromkeys"])
    task = gator.options(keep_result=60).task(allowed_work.Box.fromkeys, ["a"])

    work_off(gator)

    assert task.wait(timeout=5) == {"a": None}


def test_nor_is_it_queued() -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.**"])
    for func, args in ((allowed_work.Archive.open, "x"), (allowed_work.Archive.mro, "")):
        with pytest.raises(TaskRefused):
            gator.task(func, *args)
    gator.task(allowed_work.Listing.own)
    work_off(gator)

    assert work.done == ["own"]


def test_a_function_of_elsewhere_runs_if_it_is_allowed_by_its_own_name() -> None:
    """Also one that is a method of an object: another name than its own leads to it."""
    gator = Gator("locmem://", allow=[f"{HERE}.*", "random.choice"])
    push(gator, HERE, "choice", [1])

    work_off(gator)

    assert sum(gator.backend.count("all")) == 0


def test_what_has_moved_runs_under_its_old_name_if_both_are_allowed() -> None:
    gator = Gator("locmem://", allow=[f"{HERE}.*", "tests.features.work.do"])
    gator.backend.push(
        "all",
        "t1",
        json.dumps({"task_id": "t1", "retries": 0, "module": HERE, "callable": "do", "args": [1]}),
    )
    work_off(gator)

    assert work.done == [1]


def test_what_may_not_run_is_not_queued(gator: Gator) -> None:
    with pytest.raises(TaskRefused, match="allow has"):
        gator.task(work.do, 1)
    with pytest.raises(TaskRefused, match=r"work\.do"):
        gator.options(on_error=work.do).task(send)
    assert gator.len() == 0


def test_a_worker_may_be_told_something_else() -> None:
    gator = Gator("locmem://")
    gator.task(send)
    with gator.options(task_id="t1") as opts:
        opts.task(work.do, "not allowed")
    work_off(gator, allow=f"{HERE}.*")

    assert work.done == ["sent"]
    assert [letter.task_id for letter in gator.backend.dead("all")] == ["t1"]


def test_what_is_run_by_hand_has_to_be_allowed(gator: Gator) -> None:
    push(gator, UNUSED, "run")
    with pytest.raises(TaskRefused):
        gator.pop()
    push(gator, UNUSED, "run")
    with pytest.raises(TaskRefused):
        gator.get("t1")
    push(gator, UNUSED, "run")
    with pytest.raises(TaskRefused):
        gator.cancel("t1")
    assert UNUSED not in sys.modules


def test_at_once_in_this_process_anything_runs(gator: Gator) -> None:
    gator.options(is_async=False).task(work.do, "here")

    assert work.done == ["here"]


class Sly(OddTask):
    """Imports by itself."""

    @classmethod
    def deserialize(cls, data: str | bytes) -> "Sly":
        task = cls(task_id="t1")
        task.to_call(work.do, data)
        return task


def test_a_form_of_its_own_is_looked_at_when_it_is_read(gator: Gator) -> None:
    odd = Gator("locmem://", task_class=OddTask, allow=[f"{HERE}.*"])
    odd.task(send)
    work_off(odd)
    sly = Gator("locmem://", task_class=Sly, allow=[f"{HERE}.*"])
    sly.backend.push("all", "t1", b"?")

    assert "work.do" in why_refused(sly)
    assert work.done == ["sent"]


def test_a_schedule_of_a_form_of_its_own_is_read_as_a_task_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Turned("locmem://") as scene:
        scene.gator(task_class=OddTask).every(60, work.do, "not allowed", name="n")
        scene.clock.turn(61)
        allowed = Allowed([f"{HERE}.*"])
        Scheduler(scene.backend, ["all"], OddTask, reading=Reading(allowed, None)).tick()

        assert not scene.queued()
        assert "TaskRefused" in caplog.text


def test_a_module_may_look_for_functions_while_it_is_imported(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that adds its schedules."""
    (tmp_path / "adds_schedules.py").write_text(
        "import operator\nfrom alligator import Gator\n"
        "Gator('locmem://').every(60, operator.add, 1, 2)\n"
        "def run(): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    gator = Gator("locmem://", allow=["adds_schedules.run"])
    push(gator, "adds_schedules", "run")

    work_off(gator)

    assert sum(gator.backend.count("all")) == 0
    del sys.modules["adds_schedules"]


def test_what_fails_and_is_allowed_is_tried_again(gator: Gator) -> None:
    with gator.options(retries=1, retry_on=[LookupError], task_id="t1") as opts:
        opts.task(fail)
    work_off(gator)

    assert work.done == ["failed", "failed"]
    assert Task(task_id="t1").task_id == gator.backend.dead("all")[0].task_id
