"""A task: what to call, with what, how, and its form in the queue."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from operator import is_
from typing import Any, Protocol, Self

from alligator import options, payloads, retries
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
from alligator.exceptions import (
    Canceled,
    InvalidArguments,
    InvalidOption,
    ResultNotKept,
    Snooze,
    UnknownTask,
    UnreadableTask,
)
from alligator.limits import Limit
from alligator.options import OPTIONS
from alligator.raised import log_raised
from alligator.signatures import path_of
from alligator.utils import import_attr, new_id, run_coroutine

log = logging.getLogger("alligator.task")

Hook = Callable[..., Any]

_HOOKS = ("on_start", "on_success", "on_error")
_FIRST_OPTIONS = ("task_id", "retries", "is_async", *_HOOKS, "delay_by", "delay_until")


class Abandoned(BaseException):
    """Raised inside a running task whose worker may wait for it no longer; the task goes back."""


class GivenBack(Abandoned):
    """Raised by a running task that ends where it can be resumed, for its worker leaves."""


class Waits(Protocol):
    """What can wait for a task's result: the Gator that it was pushed with."""

    def result(self, task_id: str, timeout: float | None = None, *, push: str = "") -> Any:
        """Wait for a task to end, and return what it returned."""
        ...

    async def result_async(
        self,
        task_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 -- as of the one that blocks
        *,
        push: str = "",
    ) -> Any:
        """Wait for a task to end, without blocking the event loop."""
        ...


class Task:
    """A function to call, its arguments, and how to run it.

    Args:
        task_id: The caller's name for this piece of work; a new UUID by default. While a task of that id
            is queued or runs, pushing it again changes nothing.
        retries: How many more times to try after a failure.
        is_async: False runs the task at once, in this process, as if the function had been called.
            ``"False"``, ``"0"``, ``"no"`` and ``"off"`` mean False too: it may come from the environment.
            Hooks, ``timeout`` and ``retries`` (without a wait) are heeded; what tells the queue when to let a
            task run is not: ``delay_by``, ``delay_until``, ``expires``, ``backoff``, ``priority``, ``limit``,
            ``if_exists``. The result is kept in the task alone, and it cannot depend on others.
        on_start: Called with the task, before the function. If it raises, the task has failed.
        on_success: Called with the task and the result.
        on_error: Called with the task and the exception, at each failure. It may raise ``task.retries``.
        depends_on: Tasks that must succeed first, or their ids (of the same queue). If one fails for good or is
            canceled, so does this one. One that is over must be known to have succeeded: it had
            ``keep_result``, or others depended on it.
        delay_by: Seconds to wait before the task may start.
        delay_until: When the task may start: a timestamp, a datetime (a naive one is UTC), or a date.
        expires: Seconds from the push, or a datetime or date, after which no attempt is started any more: the
            task is a dead letter then.
        backoff: Seconds to wait before the first retry, at the most; doubled for each further one. The wait is
            a random part of that ("full jitter"), so that what failed together does not come back together.
        max_backoff: Seconds that a backoff grows to; an hour by default.
        retry_on: Types of exceptions that a retry may mend; for any other the task fails at once.
        give_up_on: Types of exceptions that no retry mends; these win over ``retry_on``.
        timeout: Seconds that an attempt may run. Then TaskTimeout is raised in it; 2 s later, under
            ``latergator``, its process is ended. Either counts as a failure.
        priority: Which tasks of a queue come first: the higher, the sooner, from -100 to 100; 0 by default.
        keep_result: Seconds to keep what the task returns, for ``wait()`` and ``Gator.result``.
        limit: A ``Concurrency`` or a ``Rate`` that the task shares with others.
        if_exists: What to do when a task of this ``task_id`` is queued or runs: "raise" TaskExists, "skip" (the
            default), or "replace" it (one that runs: queue this one when it is over).
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

    # None: not set, and so neither in the payload nor looked at when the task runs.
    depends_on: tuple[Any, ...] | None = None
    expires: tuple[float, float] | None = None
    backoff: float | None = None
    max_backoff: float | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    give_up_on: tuple[type[BaseException], ...] | None = None
    timeout: float | None = None
    priority: int = 0
    keep_result: float | None = None
    limit: Limit | None = None
    if_exists: str | None = None
    attempt: int = 1
    history: tuple[dict[str, Any], ...] = ()
    resumes: str | None = None
    """The hand-out whose checkpoint the next attempt resumes from."""
    push: str | None = None
    """What tells this push from another of the same id."""
    not_before: float | None = None
    """When it may start at the earliest, if that is signed: a store can be made to hand it out before."""
    queue_name: str | None = None
    """Where it was pushed to, or comes from."""
    gator: "Waits | None" = None
    """What it was pushed with."""
    _own_id = ""

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
        delay_until: float | date | None = None,
        *,
        expires: float | date | None = None,
        backoff: float | None = None,
        max_backoff: float | None = None,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | None = None,
        give_up_on: type[BaseException] | Sequence[type[BaseException]] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        keep_result: float | None = None,
        limit: Limit | None = None,
        if_exists: str | None = None,
        **legacy: Any,
    ) -> None:
        is_async = legacy.pop("async", is_async)
        if legacy:
            raise _no_option(next(iter(legacy)))
        if task_id is None:
            self.task_id = self._own_id = new_id()
        else:
            self.task_id = check_name("task_id", task_id, MAX_ID_BYTES)
        self.retries = options.retries(retries)
        self.is_async = options.flag(is_async)
        self.on_start = _hook("on_start", on_start)
        self.on_success = _hook("on_success", on_success)
        self.on_error = _hook("on_error", on_error)
        self.delay_by = 0.0 if delay_by is None else options.seconds("delay_by", delay_by)
        self.due_at = 0.0 if delay_until is None else options.moment("delay_until", delay_until)
        values = (
            depends_on, expires, backoff, max_backoff, retry_on, give_up_on, timeout, priority,
            keep_result, limit, if_exists,
        )  # fmt: skip
        if values.count(None) < len(values):
            self._tell(values)
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

    def depend_on(self, names: Sequence[tuple[str, str]]) -> None:
        """Set what the task depends on, by queues and ids."""
        self.depends_on = tuple(names)
        if not names:
            del self.depends_on

    def is_first_push(self) -> bool:
        """Return whether no other can have its id: made for it, not sent before. To ask counts as sending."""
        own_id, self._own_id = self._own_id, ""
        return own_id == self.task_id

    def run(self) -> Any:
        """Call ``on_start``, the function, and ``on_success`` or ``on_error``; return the result.

        An ``async def`` function is run to its end, and so is such a hook. Hooks see the outcome in
        ``task.status``.

        Raises:
            BaseException: Whatever the function or ``on_start`` raised, after ``on_error`` has seen it.
        """
        try:
            result = run_coroutine(self.begin())
        except BaseException as err:
            self.fail(err)
            raise
        self.succeed(result)
        return result

    def begin(self) -> Any:
        """The first part of ``run``: call ``on_start`` and the function; return what it returns.

        Of an ``async def`` function that is a coroutine, which the caller awaits. What is raised goes to
        ``fail``, the result to ``succeed``.
        """
        if self.func is None:
            raise self._nothing_to_call()
        self.to_running()
        if self.on_start is not None:
            run_coroutine(self.on_start(self))
        return self.func(*self.func_args, **self.func_kwargs)

    def succeed(self, result: Any) -> None:
        """The last part of ``run`` after a success: take the result, and call ``on_success``."""
        self.result = result
        self.to_success()
        if self.on_success is not None:
            self._hook("on_success", self.on_success, result)

    def fail(self, err: BaseException) -> None:
        """The last part of ``run`` after an exception: set the status; call ``on_error`` if it is a failure.

        A task that was canceled, put off (Snooze), or has to go back to its queue has not failed.
        """
        if isinstance(err, Canceled):
            self.to_canceled()
        elif isinstance(err, Snooze):
            self.to_delayed()
        elif not isinstance(err, Abandoned):
            self.status = RETRYING if self.retries > 0 and self.may_retry(err) else FAILED
            if self.on_error is not None:
                self._hook("on_error", self.on_error, err)

    def may_retry(self, err: BaseException) -> bool:
        """Return whether, for all that the task was told of exceptions, another attempt may mend this one."""
        return retries.is_worth_retrying(err, self.retry_on, self.give_up_on)

    def wait_before_retry(self, err: BaseException) -> float:
        """Return the seconds to wait before the attempt that follows this failure; in part by chance."""
        return retries.wait_before(err, self.attempt, base=self.backoff, cap=self.max_backoff)

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end of this task, which was queued with ``keep_result``, and return what it returned.

        If another push has replaced it, what comes of that one is told; never what came of one that this
        push replaced.

        Args:
            timeout: Seconds to wait; None: as long as it takes, 0: not at all.

        Raises:
            AlligatorException: As ``Gator.result``.
        """
        if not self.is_async:
            return self.result
        return self._waits().result(self.task_id, timeout, push=self._replacing())

    async def wait_async(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 -- as ``wait``
        """Wait for the end of this task, without blocking the event loop; as ``wait``."""
        if not self.is_async:
            return self.result
        return await self._waits().result_async(self.task_id, timeout, push=self._replacing())

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
            "options": self._to_json(read.get("options", {})),
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
        if told := payload.get("options"):
            task._read(told)
        task._data = data
        task._call_read = (task.func, task.func_args, task.func_kwargs)
        return task

    def check_arguments(self) -> None:
        """Check that JSON can carry what the function is to be called with.

        Raises:
            InvalidArguments: It cannot. The message names the argument.
            UnknownModuleError, UnknownCallableError: The function cannot be imported by others.
        """
        if self.func is None:
            raise self._nothing_to_call()
        self._check_arguments(*path_of(self.func))

    def _check_arguments(self, module: str, name: str) -> None:
        for place, value in enumerate(self.func_args, 1):
            payloads.check_carriable(value, f"Argument {place} of {module}.{name}")
        for key, value in self.func_kwargs.items():
            payloads.check_carriable(value, f"Argument {key!r} of {module}.{name}")

    def _call(self, func: Callable[..., Any]) -> dict[str, Any]:
        """Return what to call, but for what is as it was read from the queue."""
        if all(map(is_, self._call_read, (func, self.func_args, self.func_kwargs))):
            return {}
        module, name = path_of(func)
        self._check_arguments(module, name)
        return {
            "module": module,
            "callable": name,
            "args": self.func_args,
            "kwargs": self.func_kwargs,
        }

    def _tell(self, values: Sequence[Any]) -> None:
        """Set the options that are given; in the order of OPTIONS."""
        for (name, option), value in zip(OPTIONS.items(), values, strict=False):
            if value is not None and option.check is not None:
                setattr(self, name, option.check(value))

    def _to_json(self, read: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options' form in the payload; ``read``: what they were when it was read."""
        told = dict(read)
        for name in _HOOKS:
            told.pop(name, None)
            if (hook := getattr(self, name)) is not None:
                module, path = path_of(hook)
                told[name] = {"module": module, "callable": path}
        mine = self.__dict__
        if not OPTIONS.keys().isdisjoint(mine):
            for name, option in OPTIONS.items():
                if name in mine and option.encode is not None:
                    told[name] = option.encode(mine[name])
        return told

    def _read(self, told: Mapping[str, Any]) -> None:
        """Take up the options of a payload; what another version may have put there is left alone."""
        for name, value in told.items():
            if name in _HOOKS:
                if value:
                    setattr(self, name, options.referred(value))
            elif name in OPTIONS:
                try:
                    setattr(self, name, OPTIONS[name].decode(value))
                except (TypeError, ValueError, LookupError):
                    raise UnreadableTask(f"The payload's {name!r} is {value!r:.100}.") from None

    def _waits(self) -> Waits:
        if self.gator is None:
            raise UnknownTask(f"Task {self.task_id!r} has not been queued: nothing to wait for.")
        if self.keep_result is None:
            raise ResultNotKept(
                f"Task {self.task_id!r} was queued without keep_result: nothing is kept of it."
            )
        return self.gator

    def _replacing(self) -> str:
        """Return which push this is, if others of its id may have come before; empty: that does not matter."""
        return (self.push or "") if self.if_exists != "raise" else ""

    def _nothing_to_call(self) -> InvalidArguments:
        return InvalidArguments(f"Task {self.task_id!r} has nothing to call: use to_call() first.")

    def _hook(self, name: str, hook: Hook, news: Any) -> None:
        """Call a hook that can no longer change what became of the task."""
        try:
            run_coroutine(hook(self, news))
        except Abandoned:
            raise
        except BaseException as err:
            what = "Task %r: its hook %s raised; the outcome stands"
            log_raised(log, what, self.task_id, name, err=err)


def _no_option(name: str) -> InvalidOption:
    from difflib import get_close_matches  # here, for few need it

    known = [*_FIRST_OPTIONS, *(name for name, option in OPTIONS.items() if option.check)]
    near = get_close_matches(name, known, 1) or [one for one in known if one.startswith(name)]
    meant = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
    return InvalidOption(
        f"A task has no option {name!r}. {meant} "
        "The function's own arguments go to task(), not to options()."
    )


def _hook(name: str, value: Hook | None) -> Hook | None:
    if value is not None and not callable(value):
        raise InvalidOption(f"{name} is a function to call, or None; not {value!r:.100}.")
    return value
