"""Ways to queue: with options, many at once, again and again; each ends in ``Gator.send`` or in a schedule."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from alligator.backends.base import Backend, as_bytes
from alligator.exceptions import InvalidOption
from alligator.tasks import Task

if TYPE_CHECKING:
    from alligator.schedules import Schedule

AT_ONCE = 1000
"""Tasks that ``map`` keeps in memory and sends in one round trip."""


class Queue(Protocol):
    """What is queued to: a Gator."""

    backend: Backend
    queue_name: str
    task_class: type[Task]

    def push(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a task, or run it now."""
        ...

    def prepare(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Set and check what a task is to call."""
        ...

    def send(self, tasks: Sequence[Task]) -> None:
        """Queue tasks that are prepared."""
        ...

    def execute(self, task: Task) -> Task:
        """Run a task here and now."""
        ...

    def check_can(self, call: str) -> None:
        """Refuse what the store cannot do."""
        ...


def kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that can be used again and again: what could be gone through only once is a tuple."""
    return {
        name: tuple(value) if hasattr(value, "__next__") else value
        for name, value in options.items()
    }


class _Block:
    """A ``with`` block, which may also do without the ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class Options(_Block):
    """Options for every task queued with its ``task()``, made by ``Gator.options``.

    Raises:
        InvalidOption: There is no such option, or its value makes no sense.
    """

    def __init__(self, gator: Queue, **kwargs: Any) -> None:
        self.gator = gator
        self.task_kwargs = kept(kwargs)
        gator.task_class(**self.task_kwargs)  # says at the "with" what is wrong, not at each task

    def task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a call of a function, as ``Gator.task`` does, with these options."""
        return self.gator.push(self.gator.task_class(**self.task_kwargs), func, *args, **kwargs)

    async def task_async(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a call of a function from an event loop, without blocking it."""
        import asyncio  # here, for it takes longer to import than all of Alligator

        return await asyncio.to_thread(self.task, func, *args, **kwargs)

    def map(self, func: Callable[[Any], Any], items: Iterable[Any], /) -> list[Task]:
        """Queue a call of a function for each item, as ``Gator.map`` does, with these options."""
        tasks: list[Task] = []
        rest = iter(items)
        while some := list(islice(rest, AT_ONCE)):
            with Batch(self.gator, **self.task_kwargs) as batch:
                tasks += [batch.task(func, item) for item in some]
        return tasks

    def every(
        self,
        seconds: float,
        func: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Schedule":
        """Let a call of a function be queued every so many seconds, by the workers that run ``--schedule``.

        An application may say so at each start: what is there already, stays as it is. After a time without
        such workers there is one run, not one for each that was missed.

        Args:
            seconds: How often; from 1. It counts from now on, or from when it was told first.
            func: What to call.
            args: Its arguments.
            name: By what it can be removed; a schedule of the same name is replaced. By default that of the
                function, with a few digits for its arguments if it has any. A schedule that is not told any
                more, or under another name, stays until it is removed.
            kwargs: The function's arguments by name.

        Raises:
            InvalidOption: A value makes no sense, or an option that needs to be told anew each time is set.
            AlligatorException: As ``Gator.task``.

        Example:
            >>> from alligator import Gator
            >>> gator = Gator("locmem://")
            >>> gator.options(retries=2).every(60, print, "a minute has passed").name
            'builtins.print-2ec86ddc'
        """
        return self._repeat(name, func, args, kwargs or {}, every=seconds)

    def cron(
        self,
        expression: str,
        func: Callable[..., Any],
        /,
        *args: Any,
        timezone: str = "UTC",
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Schedule":
        """Let a call of a function be queued at the times of a cron expression, by workers with ``--schedule``.

        An application may say so at each start, as with ``every``. It needs ``pip install 'alligator[cron]'``.

        Args:
            expression: Minute, hour, day of the month, month and day of the week, such as ``"*/5 * * * *"``; or
                ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.
            func: What to call.
            args: Its arguments.
            timezone: Whose clocks the expression means, such as "Europe/Berlin". A time that is skipped when
                they are set forward comes at the next moment there is; one that comes twice counts once. What
                comes in every hour goes on at its pace.
            name: As for ``every``.
            kwargs: The function's arguments by name.

        Raises:
            InvalidOption: The expression or the timezone cannot be understood.
            AlligatorException: As ``Gator.task``.
        """
        return self._repeat(name, func, args, kwargs or {}, cron=expression, timezone=timezone)

    def _repeat(
        self,
        name: str | None,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        **when: Any,
    ) -> "Schedule":
        """Store a schedule of a call."""
        self.gator.check_can("every() and cron()")
        task = self.gator.task_class(**self.task_kwargs)
        task.is_async = True  # whatever is_async says: it is for now, and a schedule for later
        self.gator.prepare(task, func, *args, **kwargs)
        expires_once = task.expires is not None and task.expires[1]
        if task.depends_on or task.delay_by or task.due_at or expires_once:
            raise InvalidOption(
                "What is queued again and again cannot have depends_on, delay_by, delay_until, or a moment at "
                "which it expires (seconds are fine)."
            )
        own_id = self.task_kwargs.get("task_id")
        if own_id is None:
            # Each run has an id of its own. Here, the same call must look the same at each start.
            task.task_id = "scheduled"
        elif task.if_exists == "raise":
            raise InvalidOption(
                'What is queued again and again cannot have if_exists="raise": nobody is there to be told. '
                '"skip" leaves out a run while the one before is queued or runs.'
            )
        from alligator import schedules  # here, for few need it

        body = as_bytes(task.serialize())
        return schedules.add(
            self.gator.backend,
            self.gator.queue_name,
            schedules.name_of(func, args, kwargs) if name is None else name,
            body,
            task_id=own_id,
            replaces=task.if_exists == "replace",
            **when,
        )


class Batch(_Block):
    """Tasks that are queued together when the block ends, or none if it raises; made by ``Gator.batch``.

    A task may depend on those before it. With ``is_async=False`` they are run when the block ends, in order.

    Example:
        >>> from operator import add
        >>> from alligator import Gator
        >>> gator = Gator("locmem://")
        >>> with gator.batch(retries=2) as batch:
        ...     first = batch.task(add, 1, 2)
        ...     with batch.options(depends_on=[first], priority=5) as opts:
        ...         second = opts.task(add, 3, 4)
        >>> gator.len()
        2
    """

    def __init__(self, gator: Queue, **kwargs: Any) -> None:
        self.gator = gator
        self.task_class = gator.task_class
        self.task_kwargs = kept(kwargs)
        self._tasks: list[Task] | None = None
        gator.task_class(**self.task_kwargs)
        if "task_id" in self.task_kwargs:
            raise InvalidOption(
                "Of many tasks with the same task_id, one would be queued: use batch.options(task_id=...)."
            )

    def __enter__(self) -> Self:
        """Begin to collect."""
        self._tasks = []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Queue what was collected, unless the block raised."""
        tasks, self._tasks = self._tasks or [], None
        if kind is None:
            for task in tasks:
                if not task.is_async:
                    self.gator.execute(task)
            self.gator.send([task for task in tasks if task.is_async])

    def __len__(self) -> int:
        return len(self._tasks or ())

    def task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Put a call of a function into the batch, as ``Gator.task`` does; nothing is queued yet."""
        return self.push(self.task_class(**self.task_kwargs), func, *args, **kwargs)

    def options(self, **kwargs: Any) -> "BatchOptions":
        """Return a context manager whose ``task()`` puts tasks into the batch with further options."""
        return BatchOptions(self, **{**self.task_kwargs, **kwargs})

    def push(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Put a task that you made yourself into the batch."""
        if self._tasks is None:
            raise InvalidOption("A batch is queued when its block ends: use it inside a `with`.")
        self.gator.prepare(task, func, *args, **kwargs)
        task.check_arguments()  # here, where the mistake is
        self._tasks.append(task)
        return task


class BatchOptions(_Block):
    """Options for some tasks of a batch."""

    def __init__(self, batch: Batch, **kwargs: Any) -> None:
        self.batch = batch
        self.task_kwargs = kept(kwargs)
        batch.task_class(**self.task_kwargs)

    def task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Put a call of a function into the batch, with these options."""
        task = self.batch.task_class(**self.task_kwargs)
        return self.batch.push(task, func, *args, **kwargs)
