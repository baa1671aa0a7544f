"""``alligator check``: before a deploy, what of that which is queued the new version could not run."""

import json
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator
from alligator.backends.base import Bury, Release
from tests.examples.commands import output, run
from tests.integration.scenes import ON_SQLITE

OLD = """\
def stays(a): pass
def is_renamed(a): pass
def takes_more(a): pass
def before(task): pass
"""
NEW = """\
def stays(a): pass
def takes_more(a, b): pass
"""
PUSHES = """\
import sys, shop
from alligator import Gator

gator = Gator(sys.argv[1])
for number in range(5):
    with gator.options(task_id=f"r{number}", delay_by=60 * (number % 2)) as opts:
        opts.task(shop.is_renamed, number)
with gator.options(task_id="dead") as opts:
    opts.task(shop.takes_more, "secret")
with gator.options(task_id="hooked", on_start=shop.before) as opts:
    opts.task(shop.stays, 1)
gator.task(shop.stays, 1)
gator.every(60, shop.is_renamed, 1, name="hourly")
"""


@pytest.fixture
def shop(dsn: str, tmp_path: Path) -> Path:
    """The folder of a program that has queued tasks, one of which is dead, and was changed since."""
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "shop.py").write_text(OLD)
    (folder / "push.py").write_text(PUSHES)
    output("python push.py", dsn, folder=folder)
    gator = Gator(dsn)
    for held in gator.backend.reserve([gator.queue_name], "worker", limit=10).reservations:
        is_dead = held.task_id == "dead"
        gator.backend.settle([Bury(held, "{}") if is_dead else Release(held)])
    (folder / "shop.py").write_text(NEW)
    return folder


def checked(folder: Path, dsn: str, status: int, *words: str) -> Any:
    ran = run("alligator check --json", dsn, *words, folder=folder)
    assert (ran.returncode, ran.stderr) == (status, "")
    return json.loads(ran.stdout)


def test_what_the_new_version_cannot_run_is_told_by_function_and_reason(
    dsn: str, shop: Path
) -> None:
    found = checked(shop, dsn, 1)

    renamed, hook, more = sorted(found["faults"], key=lambda one: (-one["tasks"], one["callable"]))
    assert (found["looked_at"], found["at_fault"]) == (9, 8)
    assert (renamed["callable"], renamed["tasks"]) == ("shop.is_renamed", 6)
    assert "Module 'shop' has no 'is_renamed'" in renamed["problem"]
    assert len(renamed["examples"]) == 3
    assert (hook["callable"], hook["tasks"]) == ("shop.stays", 1)
    assert "Module 'shop' has no 'before'" in hook["problem"]
    assert hook["examples"] == [{"queue": "all", "task_id": "hooked"}]
    assert (more["callable"], more["tasks"]) == ("shop.takes_more", 1)
    assert more["problem"].startswith("takes_more(a, b) cannot be called like this: missing")


def test_a_person_reads_it_and_no_argument_is_shown(dsn: str, shop: Path) -> None:
    ran = run("alligator check", dsn, folder=shop)

    assert ran.returncode == 1
    assert "shop.is_renamed: 6 tasks\n    Module 'shop' has no 'is_renamed'." in ran.stdout
    assert ran.stdout.endswith("9 tasks looked at: 8 cannot be run by this version.\n")
    assert "secret" not in ran.stdout + ran.stderr


def test_nothing_is_wrong_with_the_old_version(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text(OLD)

    assert output("alligator check", dsn, folder=shop) == (
        "9 tasks looked at: this version of the program can run them all.\n"
    )


def test_a_module_that_cannot_be_imported_is_told_of(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text("raise SystemExit('told to leave')\n")

    found = checked(shop, dsn, 1)

    assert (found["looked_at"], found["at_fault"]) == (9, 9)
    assert {"told to leave" in fault["problem"] for fault in found["faults"]} == {True}


def test_an_error_that_cannot_be_told_is_a_fault_like_any_other(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text(
        "class Leaves(Exception):\n    def __str__(self): raise SystemExit\nraise Leaves\n"
    )

    assert checked(shop, dsn, 1)["at_fault"] == 9


def test_what_is_not_allowed_is_a_fault_and_not_imported(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text("open('imported', 'w').close()\n" + OLD)

    [*faults] = checked(shop, dsn, 1, "--allow", "shop.sta*", "--allow", "other.*")["faults"]

    assert {fault["callable"]: fault["tasks"] for fault in faults} == {
        "shop.is_renamed": 6,
        "shop.takes_more": 1,
        "shop.stays": 1,  # for its hook
    }
    assert all("is not among what may run here" in fault["problem"] for fault in faults)

    (shop / "imported").unlink()
    assert checked(shop, dsn, 1, "--allow", "other.*")["at_fault"] == 9
    assert not (shop / "imported").exists()


ELSEWHERE = """\
from alligator import Gator
from alligator.dsn import DSN

gator = Gator("sqlite://queue.db", {options})
gator.dsn = DSN.parse("redis://:s3cr3t-pw@cache:6379/0")
"""


@pytest.mark.parametrize(
    "command", ["alligator check there:gator", "latergator there:gator --burst"]
)
@pytest.mark.parametrize(
    ("options", "words", "warns"),
    [("", "", 1), ("", "--allow shop.*", 0), ("allow='**'", "", 0)],
)
def test_who_looks_at_another_machine_hears_what_strangers_may_do(
    tmp_path: Path, command: str, options: str, words: str, warns: int
) -> None:
    (tmp_path / "there.py").write_text(ELSEWHERE.format(options=options))

    ran = run(command, *words.split(), folder=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("can run any function here") == warns
    assert "s3cr3t-pw" not in ran.stderr


def test_what_a_gators_aliases_lead_to_can_be_run(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text(f"{NEW}def has_a_new_name(a): pass\n")
    aliases = {"shop.is_renamed": "shop.has_a_new_name", "shop.before": "shop.stays"}
    (shop / "deploy.py").write_text(
        f"from alligator import Gator\ngator = Gator({dsn!r}, aliases={aliases!r})\n"
    )

    found = checked(shop, "deploy:gator", 1)

    assert [(one["callable"], one["tasks"]) for one in found["faults"]] == [("shop.takes_more", 1)]


def test_what_modules_print_is_no_part_of_the_report(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text(f"{OLD}print('shop is here')\n")
    (shop / "deploy.py").write_text(
        f"from alligator import Gator\ngator = Gator({dsn!r})\nprint('deploy is here')\n"
    )

    ran = run("alligator check --json deploy:gator", folder=shop)

    assert json.loads(ran.stdout) == {"looked_at": 9, "at_fault": 0, "faults": []}
    assert ran.stderr.splitlines() == ["deploy is here", "shop is here"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("sqlite://nowhere.db", "There is no file nowhere.db"),
        ("redis://127.0.0.1:1/0", "does not answer"),
        ("{dsn} --allow a..b", "a..b"),
        ("nowhere:gator", "Cannot import module 'nowhere'"),
    ],
)
def test_what_cannot_be_checked_is_no_fault_of_the_tasks(
    dsn: str, shop: Path, words: str, problem: str
) -> None:
    ran = run(f"alligator check {words.format(dsn=dsn)}", folder=shop)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert problem in ran.stderr


def test_another_queue_is_not_looked_at(dsn: str, shop: Path) -> None:
    assert checked(shop, dsn, 0, "--queue", "other") == {
        "looked_at": 0,
        "at_fault": 0,
        "faults": [],
    }


def test_what_nobody_can_read_is_told_of(dsn: str, shop: Path) -> None:
    (shop / "shop.py").write_text(OLD)
    Gator(dsn).backend.push("all", "garbage", b"\x00 no JSON")

    [fault] = checked(shop, dsn, 1)["faults"]

    assert fault["callable"] == "?"
    assert fault["examples"] == [{"queue": "all", "task_id": "garbage"}]
