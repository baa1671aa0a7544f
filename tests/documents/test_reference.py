"""The API reference, chapter 2 of both documents: every name, signature, default and example.

The reference of 0.5.0 is a part of that of 0.11.0-dev, word for word; so are its other examples.
"""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import choice
from typing import Any

import pytest

import alligator
import alligator.constants
import alligator.exceptions
from alligator import ALL, Gator, Options, Task, Worker
from alligator.exceptions import (
    AlligatorException,
    TaskFailed,
    UnknownCallableError,
    UnknownModuleError,
)
from alligator.utils import determine_module, determine_name, import_attr, import_module
from tests.unit.steps import import_from

# The functions of the examples, and what the hooks of the examples did.

parties: list[Any] = []


def add(a: int, b: int) -> int:
    return a + b


def increment(incr_by: int) -> int:
    return 1 + incr_by


def my_function(number: int, letter: str, another: bool) -> list[Any]:
    return [number, letter, another]


def party_time(task: Task, result: Any) -> None:
    # Throw a party in honor of this task completing.
    parties.append((task, result))


@pytest.fixture
def gator() -> Gator:
    parties.clear()
    return Gator("locmem://")


# 2.1 alligator.constants, 2.2 alligator.exceptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAITING", 0),
        ("SUCCESS", 1),
        ("FAILED", 2),
        ("DELAYED", 3),
        ("RETRYING", 4),
        ("CANCELED", 5),
        ("RUNNING", 6),
        ("ALL", "all"),
    ],
)
def test_constants(name: str, value: Any) -> None:
    assert getattr(alligator.constants, name) == value


def test_exceptions() -> None:
    assert issubclass(AlligatorException, Exception)
    for error in (TaskFailed, UnknownCallableError, UnknownModuleError):
        assert issubclass(error, AlligatorException)
        assert error.__module__ == "alligator.exceptions"


def test_every_exception_has_the_base_of_all() -> None:
    errors = [thing for thing in vars(alligator.exceptions).values() if inspect.isclass(thing)]

    assert len(errors) >= 4
    # Canceled is no error, and so no Exception.
    assert all(
        issubclass(error, AlligatorException) for error in errors if issubclass(error, Exception)
    )


# Signatures


def shown(function: Callable[..., Any]) -> list[str]:
    """Return the parameters of a function as the documents write them."""
    parameters = inspect.signature(function).parameters.values()
    names = [str(parameter.replace(annotation=parameter.empty)) for parameter in parameters]
    return [name for name in names if name != "self"]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            Gator,
            "conn_string, queue_name='all', task_class=<class 'alligator.tasks.Task'>, "
            "backend_class=None, options=None, results=None, max_length=None, store_name=None, "
            "keys=None, allow=None, aliases=None",
        ),
        (Gator.build_backend, "conn_string"),
        (Gator.cancel, "task_id"),
        (Gator.execute, "task"),
        (Gator.get, "task_id"),
        (Gator.len, ""),
        (Gator.options, "**kwargs"),
        (Gator.pop, ""),
        (Gator.push, "task, func, *args, **kwargs"),
        (Gator.task, "func, *args, **kwargs"),
        (Options, "gator, **kwargs"),
        (Options.task, "func, *args, **kwargs"),
        (Task.deserialize, "data"),
        (Task.run, ""),
        (Task.serialize, ""),
        (Task.to_call, "func, *args, **kwargs"),
        (Task.to_canceled, ""),
        (Task.to_failed, ""),
        (Task.to_retrying, ""),
        (Task.to_success, ""),
        (Task.to_waiting, ""),
        (determine_module, "func"),
        (determine_name, "func"),
        (import_attr, "module_name, attr_name"),
        (import_module, "module_name"),
        (Worker.ident, ""),
        (Worker.interrupt, ""),
        (Worker.result, "result"),
        (Worker.run_forever, ""),
        (Worker.starting, ""),
        (Worker.stopping, ""),
        (alligator.version, ""),
    ],
    ids=lambda part: getattr(part, "__qualname__", ""),
)
def test_signatures(function: Callable[..., Any], parameters: str) -> None:
    assert ", ".join(shown(function)) == parameters


def test_the_signature_of_a_task_begins_as_documented() -> None:
    # "async" has become a reserved word. What follows goes beyond the documents.
    assert shown(Task)[:7] == [
        "task_id=None",
        "retries=0",
        "is_async=True",
        "on_start=None",
        "on_success=None",
        "on_error=None",
        "depends_on=None",
    ]


def test_the_signature_of_a_worker_begins_as_documented() -> None:
    assert shown(Worker)[:4] == ["gator", "max_tasks=0", "to_consume='all'", "nap_time=0.1"]


def test_what_goes_beyond_the_signatures_has_to_be_named_or_has_a_default() -> None:
    for function, documented in [(Task, 7), (Worker, 4)]:
        added = list(inspect.signature(function).parameters.values())[documented:]
        for parameter in added:
            named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
            assert named or parameter.default is not parameter.empty


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("alligator", "Gator Task Worker version"),
        ("alligator.gator", "Gator Options"),
        ("alligator.tasks", "Task"),
        ("alligator.workers", "Worker"),
        ("alligator.utils", "determine_module determine_name import_attr import_module"),
        ("alligator.backends.locmem_backend", "Client"),
        ("alligator.backends.redis_backend", "Client"),
        ("alligator.backends.sqlite_backend", "Client"),
    ],
)
def test_names_are_where_existing_code_imports_them_from(module: str, names: str) -> None:
    for name in names.split():
        assert hasattr(importlib.import_module(module), name)


def test_the_version_is_told() -> None:
    assert alligator.version() == alligator.__version__
    assert re.fullmatch(r"0\.11\.\d+(\.?[a-z]+\d+)?", alligator.version())


def test_the_commands_have_their_documented_names() -> None:
    project = Path(alligator.__file__).parents[2] / "pyproject.toml"
    if not project.exists():
        pytest.skip("Alligator is installed, and its project file is not here")
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]

    assert scripts["latergator.py"] == scripts["latergator"] == "alligator.latergator:main"


# 2.3 alligator.gator


def test_build_backend(gator: Gator) -> None:
    backend = gator.build_backend("locmem://")

    assert backend.len(ALL) == 0


def test_build_backend_of_redis(gator: Gator) -> None:
    # ...or...
    backend = gator.build_backend("redis://127.0.0.1:6379/0")

    backend.close()  # it has not connected: a Gator is made without its store


def test_cancel(gator: Gator) -> None:
    task = gator.task(add, 18, 9)

    # Whoops, didn't mean to do that.
    canceled = gator.cancel(task.task_id)

    assert canceled is not None
    assert canceled.status == alligator.constants.CANCELED
    assert gator.len() == 0


@pytest.mark.parametrize("spelling", ["is_async", "async"])
def test_execute(gator: Gator, spelling: str) -> None:
    options: dict[str, Any] = {spelling: False}
    task = Task(**options, retries=5)
    task.to_call(add, 101, 35)
    finished_task = gator.execute(task)

    assert finished_task is task
    assert (task.result, task.retries) == (136, 5)


def test_get(gator: Gator) -> None:
    gator.push(Task(task_id="a-specific-uuid-here"), add, 1, 2)

    # Tasks were previously added, maybe by a different process or
    # machine...
    finished_task = gator.get("a-specific-uuid-here")

    assert finished_task is not None
    assert finished_task.result == 3


def test_len(gator: Gator) -> None:
    gator.task(add, 1, 2)

    assert gator.len() == 1


def test_options(gator: Gator) -> None:
    with gator.options(retries=2, on_success=party_time) as opts:
        opts.task(increment, incr_by=2678)

    task = gator.pop()

    assert parties == [(task, 2679)]
    assert task is not None
    assert task.retries == 2


def test_pop(gator: Gator) -> None:
    gator.task(add, 1, 2)
    gator.task(add, 3, 4)

    # Tasks were previously added, maybe by a different process or
    # machine...
    finished_topmost_task = gator.pop()

    assert finished_topmost_task is not None
    assert finished_topmost_task.result == 3


@pytest.mark.parametrize("spelling", ["is_async", "async"])
def test_push(gator: Gator, spelling: str) -> None:
    options: dict[str, Any] = {spelling: False}
    task = Task(**options, retries=3)
    finished = gator.push(task, increment, incr_by=2)

    assert finished is task
    assert finished.result == 3


def test_task(gator: Gator) -> None:
    on_queue = gator.task(increment, incr_by=2)

    assert isinstance(on_queue, Task)
    assert on_queue.status == alligator.constants.WAITING
    assert gator.len() == 1


# 2.4 alligator.tasks


def test_to_call() -> None:
    task = Task()
    task.to_call(my_function, 1, "c", another=True)

    assert task.run() == [1, "c", True]


def test_serialize_and_deserialize() -> None:
    task = Task(task_id="t1", retries=3, is_async=False)
    task.to_call(my_function, 1, "c", another=True)

    data = json.loads(task.serialize())

    assert {"task_id", "retries", "async"} <= set(data)
    back = Task.deserialize(json.dumps(data))
    assert (back.task_id, back.retries, back.is_async) == ("t1", 3, False)
    assert back.run() == [1, "c", True]


def test_run_is_passed_on_by_a_task_that_failed(gator: Gator) -> None:
    task = Task()
    task.to_call(add, 1, "b")

    with pytest.raises(TypeError):
        task.run()

    assert task.status == alligator.constants.FAILED


# 2.5 alligator.utils


def test_determine_module() -> None:
    assert determine_module(choice) == "random"


def test_determine_name() -> None:
    assert determine_name(choice) == "choice"


def test_import_attr() -> None:
    assert import_attr("random", "choice") == choice
    with pytest.raises(UnknownCallableError):
        import_attr("random", "no_such_choice")


def test_import_module() -> None:
    mod = import_module("random")

    assert mod.__name__ == "random"
    with pytest.raises(UnknownModuleError):
        import_module("no_such_module")


# 2.6 alligator.workers


def test_ident_includes_the_process_id(gator: Gator) -> None:
    assert str(os.getpid()) in Worker(gator).ident()


def test_a_worker_prints_to_stdout(gator: Gator, capsys: pytest.CaptureFixture[str]) -> None:
    worker = Worker(gator)

    said: list[str] = []
    for say in (worker.starting, worker.interrupt, worker.stopping):
        say()
        said.append(capsys.readouterr().out)
        assert worker.ident() in said[-1]
    worker.result({"the": "result"})
    said.append(capsys.readouterr().out)

    assert len(set(said)) == 4
    assert said[-1] == "{'the': 'result'}\n"
    assert capsys.readouterr().err == ""


def test_run_forever_ends_when_max_tasks_are_reached(
    gator: Gator, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        gator.task(add, number, 0)
    worker = Worker(gator, max_tasks=2)

    worker.run_forever()

    assert worker.tasks_complete == 2
    assert gator.len() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("0") < lines.index("1")
    assert worker.ident() in lines[0]
    assert worker.ident() in lines[-1]


def test_a_worker_has_what_the_documents_subclass_reads(gator: Gator) -> None:
    worker = Worker(gator, 5, "mail", 0.5)

    assert (worker.max_tasks, worker.to_consume, worker.nap_time) == (5, "mail", 0.5)
    assert (worker.gator, worker.tasks_complete) == (gator, 0)


def test_a_worker_of_all_consumes_its_gators_own_queue() -> None:
    gator = Gator("locmem://", queue_name="mail")
    gator.task(add, 1, 2)

    Worker(gator, max_tasks=1).run_forever()

    assert gator.len() == 0


def test_a_worker_consumes_the_queue_that_is_named() -> None:
    gator = Gator("locmem://")
    mail = Gator("locmem://", queue_name="mail", backend_class=lambda _: gator.backend)
    gator.task(add, 1, 2)
    mail.task(add, 3, 4)

    Worker(gator, max_tasks=1, to_consume="mail").run_forever()

    assert (gator.len(), mail.len()) == (1, 0)


# 1.6 Security

NOSY = """
import sys
from operator import add
from alligator import Gator, Worker
Gator("locmem://").task(add, 1, 2)  # whatever is imported late is imported now
gator = Gator("locmem://")
gator.task(add, 1, 2)
gator.pop()

opened = []
sys.addaudithook(lambda event, args: opened.append(args) if event == "open" else None)
gator = Gator("locmem://")
with gator.options(retries=1) as opts:
    opts.task(add, 1, 2)
    opts.task(add, 3, 4)
gator.pop()
assert gator.get("unknown") is None
assert not opened, opened
"""


def test_by_default_no_file_is_touched() -> None:
    source = Path(alligator.__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-c", NOSY],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_only_code_on_the_pythonpath_is_imported(
    gator: Gator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text("def job(): return 'ran'")
    payload = {"task_id": "t1", "retries": 0, "async": True, "module": "elsewhere"}
    data = json.dumps(payload | {"callable": "job"})

    with pytest.raises(UnknownModuleError):
        Task.deserialize(data)

    import_from(tmp_path, monkeypatch)
    assert Task.deserialize(data).run() == "ran"
    monkeypatch.delitem(sys.modules, "elsewhere")
