"""A task: what to call, with what, how, and its form in the queue."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import is_
from typing import Any, Self

from alligator import payloads
from alligator.backends.base import MAX_ID_BYTES, check_name
from alligator.constants import (
    CANCELED,
    DELAYED,
    FAILED,
    RETRYING,
    RUNNING,
    SUCCESS,
    WAITING,
)
from alligator.exceptions import InvalidArguments, InvalidOption, UnreadableTask
from alligator.signatures import path_of
from alligator.utils import import_attr, new_id, run_coroutine

log = logging.getLogger("alligator.task")

Hook = Callable[..., Any]

_HOOKS = ("on_start", "on_success", "on_error")


class Abandoned(BaseException):
    """Raised inside a running task whose worker may wait for it no longer; the task goes back."""


class Task:
    """A function to call, its arguments, and how to run it.

    Args:
        task_id: The caller's name for this piece of work; a new UUID by default. While a task of that id
            is queued or runs, pushing it again changes nothing.
        retries: How many more times to try after a failure.
        is_async: False runs the task at once, in this process, as if the function had been called.
            ``"False"``, ``"0"``, ``"no"`` and ``"off"`` mean False too: it may come from the environment.
        on_start: Called with the task, before the function. If it raises, the task has failed.
        on_success: Called with the task and the result.
        on_error: Called with the task and the exception, at each failure. It may raise ``task.retries``.
        depends_on: Reserved for the ids of tasks that must succeed first; refused at push until then.
        delay_by: Seconds to wait before the task may start.
        delay_until: When the task may start: a timestamp, or a datetime (a naive one is UTC).
        legacy: ``**{"async": False}``, the older spelling of ``is_async``.

    Raises:
        InvalidOption: A value makes no sense for its option, or there is no such option.

    Example:
        >>> from operator import add
        >>> task = Task(retries=3)
        >>> task.to_call(add, 101, 35)
        >>> task.run()
        136
    """

    def __init__(
        self,
        task_id: str | None = None,
        retries: int = 0,
        is_async: bool | str = True,
        on_start: Hook | None = None,
        on_success: Hook | None = None,
        on_error: Hook | None = None,
        depends_on: Sequence[Any] | None = None,
        delay_by: float | None = None,
        delay_until: float | datetime | None = None,
        **legacy: Any,
    ) -> None:
        is_async = legacy.pop("async", is_async)
        if legacy:
            raise InvalidOption(
                f"A task has no option {next(iter(legacy))!r}. "
                "The function's own arguments go to task(), not to options()."
            )
        self.task_id = new_id() if task_id is None else check_name("task_id", task_id, MAX_ID_BYTES)
        self.retries = _retries(retries)
        self.is_async = _flag(is_async)
        self.on_start = _hook("on_start", on_start)
        self.on_success = _hook("on_success", on_success)
        self.on_error = _hook("on_error", on_error)
        self.depends_on = depends_on
        self.delay_by = _delay(delay_by)
        self.due_at = _moment(delay_until)
        self.status = WAITING
        self.result: Any = None
        self.func: Callable[..., Any] | None = None
        self.func_args: Sequence[Any] = ()
        self.func_kwargs: dict[str, Any] = {}
        # As it came from the queue: a retry keeps what another version wrote into it, and gets the
        # arguments anew, whatever the function did to those that it was given.
        self._data: str | bytes = b""
        self._call_read: tuple[Any, ...] = (None, None, None)

    def __repr__(self) -> str:
        # Never the arguments: they may hold what a log must not.
        return f"<{type(self).__name__} {self.task_id!r} calling {self.func!r}>"

    def to_call(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Set the function to call when the task is processed, and its arguments.

        Example:
            >>> task = Task()
            >>> task.to_call(print, "later", end="!")
        """
        self.func = func
        self.func_args = args
        self.func_kwargs = kwargs

    def to_waiting(self) -> None:
        """Set the status to WAITING."""
        self.status = WAITING

    def to_delayed(self) -> None:
        """Set the status to DELAYED."""
        self.status = DELAYED

    def to_running(self) -> None:
        """Set the status to RUNNING."""
        self.status = RUNNING

    def to_success(self) -> None:
        """Set the status to SUCCESS."""
        self.status = SUCCESS

    def to_failed(self) -> None:
        """Set the status to FAILED."""
        self.status = FAILED

    def to_retrying(self) -> None:
        """Set the status to RETRYING."""
        self.status = RETRYING

    def to_canceled(self) -> None:
        """Set the status to CANCELED."""
        self.status = CANCELED

    def run(self) -> Any:
        """Call ``on_start``, the function, and ``on_success`` or ``on_error``; return the result.

        An ``async def`` function is run to its end. Hooks see the outcome in ``task.status``.

        Raises:
            BaseException: Whatever the function or ``on_start`` raised, after ``on_error`` has seen it.
        """
        if self.func is None:
            raise self._nothing_to_call()
        self.to_running()
        try:
            if self.on_start is not None:
                self.on_start(self)
            result = run_coroutine(self.func(*self.func_args, **self.func_kwargs))
        except Abandoned:
            raise
        except BaseException as err:
            self._failed(err)
            raise
        self.result = result
        self.to_success()
        if self.on_success is not None:
            self._hook(self.on_success, result)
        return result

    def serialize(self) -> str | bytes:
        """Return the task's form in the queue: a JSON object, as text.

        Raises:
            InvalidArguments: JSON cannot carry an argument. The message names it.
            UnknownModuleError, UnknownCallableError: The function or a hook cannot be imported by others.
        """
        if self.func is None:
            raise self._nothing_to_call()
        read = payloads.decode(self._data) if self._data else {}
        payload = {
            **read,
            "task_id": self.task_id,
            "retries": self.retries,
            "async": self.is_async,
            **self._call(self.func),
            "options": self._options(read.get("options", {})),
        }
        return payloads.encode(payload)

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        """Return the task that ``serialize`` made this of.

        Raises:
            UnreadableTask, InvalidOption: It is no such JSON object.
            UnknownModuleError, UnknownCallableError: The function or a hook cannot be imported.
        """
        payload = payloads.decode(data)
        is_async: Any = payload.get("async", payload.get("is_async", True))
        task = cls(task_id=payload["task_id"], retries=payload["retries"], is_async=is_async)
        func = import_attr(payload["module"], payload["callable"])
        task.to_call(func, *payload.get("args", ()), **payload.get("kwargs", {}))
        options = payload.get("options")
        if options:
            for hook in _HOOKS:
                if reference := options.get(hook):
                    setattr(task, hook, _referred(reference))
        task._data = data
        task._call_read = (task.func, task.func_args, task.func_kwargs)
        return task

    def _call(self, func: Callable[..., Any]) -> dict[str, Any]:
        """Return what to call, but for what is as it was read from the queue."""
        if all(map(is_, self._call_read, (func, self.func_args, self.func_kwargs))):
            return {}
        module, name = path_of(func)
        for place, value in enumerate(self.func_args, 1):
            payloads.check_carriable(value, f"Argument {place} of {module}.{name}")
        for key, value in self.func_kwargs.items():
            payloads.check_carriable(value, f"Argument {key!r} of {module}.{name}")
        return {
            "module": module,
            "callable": name,
            "args": self.func_args,
            "kwargs": self.func_kwargs,
        }

    def _options(self, read: dict[str, Any]) -> dict[str, Any]:
        options = dict(read)
        for key in _HOOKS:
            options.pop(key, None)
            if (hook := getattr(self, key)) is not None:
                module, name = path_of(hook)
                options[key] = {"module": module, "callable": name}
        return options

    def _nothing_to_call(self) -> InvalidArguments:
        return InvalidArguments(f"Task {self.task_id!r} has nothing to call: use to_call() first.")

    def _failed(self, err: BaseException) -> None:
        self.status = RETRYING if self.retries > 0 else FAILED
        if self.on_error is not None:
            self._hook(self.on_error, err)

    def _hook(self, hook: Hook, news: Any) -> None:
        """Call a hook that can no longer change what became of the task."""
        try:
            hook(self, news)
        except Abandoned:
            raise
        except BaseException:
            log.exception("Task %r: its hook %r raised; the outcome stands", self.task_id, hook)


def _referred(reference: Any) -> Any:
    """Return the hook that a payload refers to."""
    try:
        module, name = str(reference["module"]), str(reference["callable"])
    except (TypeError, KeyError):
        raise UnreadableTask(f"The payload's hook is {reference!r:.100}.") from None
    return import_attr(module, name)


def _hook(name: str, value: Hook | None) -> Hook | None:
    if value is not None and not callable(value):
        raise InvalidOption(f"{name} is a function to call, or None; not {value!r:.100}.")
    return value


def _flag(value: bool | int | str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise InvalidOption(f"is_async is True or False, or one of {', '.join(words)}; not {value!r}.")


def _retries(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # pyright: ignore[reportUnnecessaryIsInstance] -- it comes from users
        raise InvalidOption(f"retries is how many more times to try, 0 or more; not {value!r}.")
    return value


_AGES = 100 * 365.25 * 86400.0


def _delay(value: float | None) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _AGES:  # pyright: ignore[reportUnnecessaryIsInstance] -- it comes from users
        raise InvalidOption(f"delay_by is a number of seconds, from 0 to a century; not {value!r}.")
    return float(value)


def _moment(value: float | datetime | None) -> float:
    if value is None:
        return 0.0
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 3 * _AGES:  # pyright: ignore[reportUnnecessaryIsInstance] -- it comes from users
        raise InvalidOption(f"delay_until is a datetime or a timestamp; not {value!r}.")
    return float(value)
