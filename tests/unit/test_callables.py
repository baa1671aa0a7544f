"""What can be a task: anything that a worker can import by its name."""

import functools
import operator
import random
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.exceptions import (
    InvalidArguments,
    UnknownCallableError,
    UnknownModuleError,
)
from alligator.utils import determine_module, determine_name, import_attr, is_importable
from tests.unit import jobs
from tests.unit.five_methods import FiveMethods
from tests.unit.steps import popped

Call = tuple[Callable[..., Any], tuple[Any, ...], Any]

IMPORTABLE: list[Call] = [
    (jobs.add, (1, 2), 3),
    (jobs.Mailer.send_plain, ("you",), "plain to you"),
    (jobs.Mailer.send_as, ("you",), "Mailer to you"),
    (jobs.Newsletter.send_as, ("you",), "Newsletter to you"),
    (jobs.Newsletter.send_plain, ("you",), "plain to you"),
    (jobs.Mailer.Templates.render, ("hello",), "<hello>"),
    (jobs.double, (21,), 42),
    (jobs.cached, ("key",), "cached key"),
    (jobs.add_soon, (1, 2), 3),
    (random.choice, ([7],), 7),
    (datetime.fromisoformat, ("2026-01-02",), datetime(2026, 1, 2)),
    (len, ("four",), 4),
    (sorted, ([3, 1, 2],), [1, 2, 3]),
    (operator.add, (1, 2), 3),
    (dict, ([["a", 1]],), {"a": 1}),
    (sys.intern, ("text",), "text"),
]

UNIMPORTABLE: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (lambda: "anonymous", ()),
    (jobs.make_closure(), ()),
    (jobs.mailer.send, ("you",)),
    (functools.partial(jobs.mailer.send, "you"), ()),
    (jobs.increment, (2,)),
    (jobs.mailer, ("you",)),
    (jobs.halve, (2,)),
    (jobs.Unhashable().work, ()),
    (jobs.Unhashable(), ()),
    (" ".join, (["a"],)),
]


def name_of(part: Any) -> str:
    """What to call a parameter of a test: no address, which is another in every process."""
    return getattr(part, "__qualname__", type(part).__name__)


@pytest.mark.parametrize(("func", "args", "result"), IMPORTABLE, ids=name_of)
def test_whatever_can_be_imported_is_a_task(
    gator: Gator, func: Callable[..., Any], args: tuple[Any, ...], result: Any
) -> None:
    gator.task(func, *args)

    task = popped(gator)

    assert task.func == func
    assert task.result == result


@pytest.mark.parametrize(("func", "args", "result"), IMPORTABLE, ids=name_of)
def test_the_module_and_name_of_a_callable_lead_back_to_it(
    func: Callable[..., Any], args: tuple[Any, ...], result: Any
) -> None:
    assert is_importable(func)
    assert import_attr(determine_module(func), determine_name(func)) == func


@pytest.mark.parametrize(("func", "args"), UNIMPORTABLE, ids=name_of)
def test_what_no_worker_could_import_is_refused(
    gator: Gator, func: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    with pytest.raises((UnknownCallableError, UnknownModuleError), match=r"Queue|Put a plain"):
        gator.task(func, *args)

    assert gator.len() == 0


def test_a_refusal_names_the_callable_and_two_ways_out(gator: Gator) -> None:
    with pytest.raises(UnknownCallableError) as caught:
        gator.task(jobs.mailer.send, "you")

    message = str(caught.value)
    assert "tests.unit.jobs.Mailer.send " in message
    assert "a static or a class method" in message
    assert "is_async=False" in message


@pytest.mark.parametrize("hook", ["on_start", "on_success", "on_error"])
def test_a_hook_that_no_worker_could_import_is_refused(gator: Gator, hook: str) -> None:
    def ignore(*_: Any) -> None: ...

    with (
        gator.options(**{hook: ignore}) as opts,
        pytest.raises(UnknownCallableError, match="ignore"),
    ):
        opts.task(jobs.add, 1, 2)

    assert gator.len() == 0


@pytest.mark.parametrize(
    ("func", "args", "result"),
    [
        (lambda: "anonymous", (), "anonymous"),
        (jobs.make_closure(), (), "inner"),
        (jobs.mailer.send, ("you",), "sent to you"),
        (jobs.increment, (2,), 3),
        (jobs.mailer, ("you",), "called for you"),
        (jobs.Unhashable().work, (), "worked"),
    ],
    ids=name_of,
)
def test_what_cannot_be_imported_can_still_run_at_once(
    gator: Gator, func: Callable[..., Any], args: tuple[Any, ...], result: Any
) -> None:
    with gator.options(is_async=False) as opts:
        assert opts.task(func, *args).result == result


def test_what_cannot_be_imported_can_be_retried_at_once(gator: Gator) -> None:
    with gator.options(is_async=False, retries=2) as opts:
        task = opts.task(lambda: jobs.fail_until(2))

    assert task.result == "at last"


@pytest.mark.parametrize("thing", [None, 3, "jobs.add", jobs], ids=name_of)
@pytest.mark.parametrize("is_async", [True, False])
def test_what_cannot_be_called_is_no_task(gator: Gator, thing: Any, is_async: bool) -> None:
    with pytest.raises(InvalidArguments, match="cannot be called"):
        gator.push(Task(is_async=is_async), thing)

    assert gator.len() == 0


@pytest.fixture
def in_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function of the script that is running."""

    def job(*_: Any) -> str:
        return "done"

    job.__module__, job.__qualname__ = "__main__", "job"
    monkeypatch.setattr(sys.modules["__main__"], "job", job, raising=False)
    return job


def test_a_function_of_the_running_script_is_refused_where_another_process_works(
    in_main: Callable[..., Any],
) -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    with pytest.raises(UnknownCallableError, match="Move job into a module of its own"):
        gator.task(in_main)

    assert gator.len() == 0


@pytest.mark.parametrize("hook", ["on_start", "on_success", "on_error"])
def test_a_hook_of_the_running_script_is_refused_where_another_process_works(
    in_main: Callable[..., Any], hook: str
) -> None:
    gator = Gator("five://", backend_class=FiveMethods)

    with (
        gator.options(**{hook: in_main}) as opts,
        pytest.raises(UnknownCallableError, match="Move job into a module of its own"),
    ):
        opts.task(jobs.add, 1, 2)

    assert gator.len() == 0


def test_a_function_of_the_running_script_is_fine_in_memory(
    gator: Gator, in_main: Callable[..., Any]
) -> None:
    gator.task(in_main)

    assert popped(gator).result == "done"


def test_a_function_of_the_running_script_runs_at_once_anywhere(
    in_main: Callable[..., Any],
) -> None:
    with Gator("five://", backend_class=FiveMethods).options(is_async=False) as opts:
        assert opts.task(in_main).result == "done"
