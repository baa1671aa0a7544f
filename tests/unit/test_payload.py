"""The form of a task in its queue: as documented, and read with a kind eye."""

import json
from typing import Any

import pytest

from alligator import ALL, Gator, Task
from alligator.exceptions import (
    InvalidArguments,
    InvalidOption,
    UnknownCallableError,
    UnknownModuleError,
    UnreadableTask,
)
from tests.unit import jobs
from tests.unit.steps import import_from, payload_of, popped


def made(**changes: Any) -> bytes:
    """A payload as released versions wrote it, but for some changes."""
    payload = {
        "task_id": "t1",
        "retries": 2,
        "async": True,
        "module": "tests.unit.jobs",
        "callable": "add",
        "args": [1],
        "kwargs": {"b": 2},
        "options": {"on_start": {"module": "tests.unit.jobs", "callable": "note_start"}},
    }
    return json.dumps(payload | changes).encode()


def without(*keys: str) -> bytes:
    payload = json.loads(made())
    return json.dumps({key: payload[key] for key in payload if key not in keys}).encode()


def test_the_payload_is_the_documented_object() -> None:
    task = Task(
        task_id="t1", retries=2, on_start=jobs.note_start, on_error=jobs.note_error, delay_by=5
    )
    task.to_call(jobs.take, 1, "c", another=True)

    assert payload_of(task) == {
        "task_id": "t1",
        "retries": 2,
        "async": True,
        "module": "tests.unit.jobs",
        "callable": "take",
        "args": [1, "c"],
        "kwargs": {"another": True},
        "options": {
            "on_start": {"module": "tests.unit.jobs", "callable": "note_start"},
            "on_error": {"module": "tests.unit.jobs", "callable": "note_error"},
        },
    }


def test_a_task_without_hooks_has_no_options() -> None:
    task = Task()
    task.to_call(jobs.take)

    assert payload_of(task)["options"] == {}


def test_a_payload_is_text_of_ascii_alone() -> None:
    task = Task(task_id="tâche")
    task.to_call(jobs.echo, "\U0001f40a\x00\u2028")

    data = task.serialize()

    assert isinstance(data, str)
    assert data.isascii()
    assert data.isprintable()
    assert Task.deserialize(data).task_id == "tâche"


def test_a_task_with_nothing_to_call_has_no_form_in_the_queue() -> None:
    with pytest.raises(InvalidArguments, match="use to_call"):
        Task().serialize()


@pytest.mark.parametrize("as_text", [True, False])
def test_a_task_is_read_from_text_and_from_bytes(as_text: bool) -> None:
    task = Task.deserialize(made().decode() if as_text else made())

    assert (task.task_id, task.retries, task.is_async) == ("t1", 2, True)
    assert (task.func, list(task.func_args), task.func_kwargs) == (jobs.add, [1], {"b": 2})
    assert (task.on_start, task.on_success, task.on_error) == (jobs.note_start, None, None)


def test_the_key_is_async_is_read_as_well() -> None:
    payload = json.loads(without("async"))

    assert Task.deserialize(json.dumps(payload | {"is_async": False})).is_async is False


@pytest.mark.parametrize("key", ["args", "kwargs", "options", "async"])
def test_what_a_payload_may_leave_out(key: str) -> None:
    task = Task.deserialize(without(key))

    assert task.task_id == "t1"
    assert task.is_async is True
    assert list(task.func_args) == ([] if key == "args" else [1])
    assert task.func_kwargs == ({} if key == "kwargs" else {"b": 2})
    assert task.on_start is (None if key == "options" else jobs.note_start)


@pytest.mark.parametrize("key", ["task_id", "retries", "module", "callable"])
def test_what_a_payload_must_have(key: str) -> None:
    with pytest.raises(UnreadableTask, match=key):
        Task.deserialize(without(key))


@pytest.mark.parametrize(
    "changes",
    [
        {"task_id": 7},
        {"task_id": ""},
        {"task_id": "line\nbreak"},
        {"task_id": "x" * 256},
        {"retries": "2"},
        {"retries": -1},
        {"retries": True},
        {"retries": 1.5},
        {"retries": None},
        {"async": "perhaps"},
        {"async": None},
        {"async": []},
        {"module": 7},
        {"callable": None},
        {"args": {}},
        {"args": None},
        {"kwargs": []},
        {"options": []},
        {"options": None},
        {"options": {"on_start": "note_start"}},
        {"options": {"on_start": ["tests.unit.jobs", "note_start"]}},
        {"options": {"on_start": {"module": "tests.unit.jobs"}}},
        {"options": {"on_error": {"callable": "note_error"}}},
        {"options": {"on_error": 7}},
        {"options": {"retry_on": [{"module": "tests.unit.jobs", "callable": "add"}]}},
        {"options": {"give_up_on": [{"module": "datetime", "callable": "date"}]}},
        {"options": {"priority": "high"}},
        {"options": {"priority": 101}},
    ],
    ids=str,
)
def test_a_payload_of_wrong_types_is_unreadable(changes: dict[str, Any]) -> None:
    with pytest.raises((UnreadableTask, InvalidOption)) as caught:
        Task.deserialize(made(**changes))

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "no.such.module"},
        {"module": ""},
        {"module": ".jobs"},
        {"module": "tests.unit.jobs.add"},
        {"module": "a\x00b"},
        {"callable": "no_such_function"},
        {"callable": ""},
        {"callable": "Mailer.no_such_method"},
        {"callable": "add.."},
        {"options": {"on_start": {"module": "no.such.module", "callable": "x"}}},
        {"options": {"on_start": {"module": 7, "callable": 7}}},
        {"options": {"on_success": {"module": "tests.unit.jobs", "callable": "no_such_hook"}}},
    ],
    ids=str,
)
def test_a_payload_that_refers_to_nothing_says_what_is_missing(changes: dict[str, Any]) -> None:
    with pytest.raises((UnknownModuleError, UnknownCallableError)):
        Task.deserialize(made(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"task"',
        b"\xff\xfe\x00",
        b"\x80abc",
        b"not json",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"task_id": NaN}',
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_task_at_all_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableTask) as caught:
        Task.deserialize(data)

    assert len(str(caught.value)) < 400


def test_a_module_that_breaks_while_it_is_imported_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "breaks_on_import.py").write_text("raise RuntimeError('half deployed')")
    import_from(folder, monkeypatch)

    with pytest.raises(UnknownModuleError, match="RuntimeError: half deployed"):
        Task.deserialize(made(module="breaks_on_import"))


def test_what_another_version_wrote_survives_a_retry(gator: Gator) -> None:
    data = made(
        callable="fail",
        args=[],
        kwargs={},
        signature="abc",
        options={
            "on_error": {"module": "tests.unit.jobs", "callable": "note_error"},
            "priority": 7,
            "limits": {"rate": [1, 2]},
        },
    )
    gator.backend.push(ALL, "t1", data)

    popped(gator)

    [reservation] = gator.backend.reserve([ALL], "worker").reservations
    again = json.loads(reservation.body)
    assert again["options"].pop("attempt") == 2
    [before] = again["options"].pop("history")
    assert before.keys() == {"attempt", "error", "at", "token"}
    assert (before["attempt"], before["error"]) == (1, "ValueError: broken")
    assert again == json.loads(data) | {"retries": 1}


def test_a_hook_may_be_taken_away_before_a_retry() -> None:
    task = Task.deserialize(made(options={"on_start": None, "priority": 7}))
    assert payload_of(task)["options"] == {"priority": 7}

    task = Task.deserialize(made())
    task.on_start = None

    assert payload_of(task)["options"] == {}


def test_a_payload_written_by_a_released_version_runs(gator: Gator) -> None:
    gator.backend.push(ALL, "t1", made().decode())

    task = popped(gator)

    assert task.result == 3
    assert [entry[0] for entry in jobs.seen] == ["start"]
