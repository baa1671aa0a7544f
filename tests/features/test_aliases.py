"""What was queued under an old name runs under the new one."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator
from alligator.exceptions import TaskFailed, TaskRefused
from tests.features import work
from tests.features.work import done, work_off

OLD = "shop_of_old.mail"
NEW = "tests.features.work"


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that looks for a function when it is imported, as one does that adds schedules."""
    name = "pack_of_today"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(
        "from alligator.utils import import_attr\nfrom tests.features.work import done\n"
        "done.append('imported')\nimport_attr('operator', 'add')\n"
    )
    (tmp_path / name / "mail.py").write_text("from tests.features.work import do as do\n")
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    yield name
    for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[loaded]


def push_old(gator: Gator, name: str, *args: Any, **options: Any) -> None:
    """Queue a call as a version of the program did that called it otherwise."""
    payload = {
        "task_id": "t1",
        "retries": 0,
        "async": True,
        "module": OLD,
        "callable": name,
        "args": args,
        "kwargs": {},
        "options": options,
    }
    gator.backend.push(gator.queue_name, "t1", json.dumps(payload).encode())


def renamed(gator: Gator, renames: dict[str, str], **settings: Any) -> Gator:
    """Return a Gator of today's program."""
    today = Gator(str(gator.dsn.url), aliases=renames, **settings)
    today.backend = gator.backend  # memory is a client's own
    return today


def test_a_function_by_its_old_name(gator: Gator) -> None:
    push_old(gator, "send_note", "hello")

    work_off(renamed(gator, {f"{OLD}.send_note": f"{NEW}.do"}))

    assert done == ["hello"]


def test_hooks_and_exceptions_by_the_old_name_of_their_module(gator: Gator) -> None:
    hook = {"module": OLD, "callable": "note_start"}
    push_old(gator, "do", "hello", on_start=hook, retry_on=[{"module": OLD, "callable": "Rare"}])

    work_off(renamed(gator, {OLD: NEW}))

    assert done == ["start", "hello"]


def test_without_an_alias_the_old_name_leads_nowhere(gator: Gator) -> None:
    push_old(gator, "do", "hello")

    work_off(renamed(gator, {"shop_of_old.post": NEW}), code_wait=0.0)

    assert done == []
    assert [letter.task_id for letter in gator.backend.dead(gator.queue_name)] == ["t1"]


def test_popped_and_canceled_by_the_old_name(gator: Gator) -> None:
    today = renamed(gator, {OLD: NEW})
    push_old(gator, "do", "hello")
    popped = today.pop()
    push_old(gator, "do", "again")
    canceled = today.cancel("t1")

    assert popped is not None
    assert canceled is not None
    assert (popped.func, canceled.func) == (work.do, work.do)
    assert done == ["hello"]


def test_it_is_the_new_name_that_has_to_be_allowed(gator: Gator) -> None:
    push_old(gator, "do", "hello")
    work_off(renamed(gator, {OLD: NEW}, allow=f"{NEW}.*"))
    push_old(gator, "do", "again")

    with pytest.raises((TaskRefused, TaskFailed)):
        renamed(gator, {OLD: NEW}, allow=f"{OLD}.*").pop()

    assert done == ["hello"]


def test_nothing_is_imported_to_find_out_what_is_not_allowed(gator: Gator, pack: str) -> None:
    push_old(gator, "send", "hello")

    with pytest.raises((TaskRefused, TaskFailed), match="allow has"):
        renamed(gator, {OLD: f"{pack}.mail"}, allow=[f"{NEW}.*"]).pop()

    assert (pack in sys.modules, done) == (False, [])


def test_nor_for_an_exception(gator: Gator, pack: str) -> None:
    rare = {"module": OLD, "callable": "Rare"}
    push_old(gator, "do", "hello", retry_on=[rare])
    renames = {OLD: f"{pack}.mail", f"{OLD}.do": f"{NEW}.do"}

    with pytest.raises((TaskRefused, TaskFailed), match="no exception of a module that is loaded"):
        renamed(gator, renames, allow=[f"{NEW}.*"]).pop()

    assert (pack in sys.modules, done) == (False, [])


def test_an_exception_by_its_old_name_where_only_some_may_run(gator: Gator) -> None:
    push_old(gator, "do", "hello", retry_on=[{"module": OLD, "callable": "Rare"}])

    work_off(renamed(gator, {OLD: NEW}, allow=[f"{NEW}.*"]))

    assert done == ["hello"]


def test_what_the_module_is_in_may_look_for_functions_as_it_is_imported(
    gator: Gator, pack: str
) -> None:
    push_old(gator, "do", "hello")

    work_off(renamed(gator, {OLD: f"{pack}.mail"}, allow=[f"{pack}.mail.do", f"{NEW}.do"]))

    assert done == ["imported", "hello"]
