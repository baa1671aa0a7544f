"""The front door: queue a task, run one now, cancel one."""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from alligator import signatures
from alligator.attempts import VOID, Attempt, attempt, deliveries_of, take_retry
from alligator.backends import loading
from alligator.backends.base import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    Backend,
    Message,
    Release,
    Reservation,
    as_bytes,
    check_name,
)
from alligator.constants import ALL, RETRYING
from alligator.dsn import DSN
from alligator.exceptions import InvalidArguments, InvalidOption
from alligator.keeper import LEASE, keeping
from alligator.tasks import Task
from alligator.utils import new_id

log = logging.getLogger("alligator.gator")


class Gator:
    """A queue in a store: where tasks are put, and where workers take them from.

    Args:
        conn_string: The store's DSN, such as ``redis://localhost:6379/0``, ``sqlite:///tmp/queue.db``
            or ``locmem://``.
        queue_name: The queue to put tasks in.
        task_class: What makes tasks, and reads them.
        backend_class: Your own store, called with ``conn_string``, in place of the one that the
            DSN's scheme names.

    Raises:
        InvalidOption: The DSN or the name makes no sense.
        BackendMissing: Nothing is known of the DSN's scheme, or its client library is not installed.

    Example:
        >>> from operator import add
        >>> gator = Gator("locmem://")
        >>> task = gator.task(add, 18, 9)
        >>> gator.pop().result
        27
    """

    def __init__(
        self,
        conn_string: str,
        queue_name: str = ALL,
        task_class: type[Task] = Task,
        backend_class: Callable[[str], Any] | None = None,
    ) -> None:
        self.dsn = DSN.parse(conn_string)
        self.queue_name = check_name("queue_name", queue_name, MAX_NAME_BYTES)
        self.task_class = task_class
        self.backend_class = backend_class
        self.backend = self.build_backend(conn_string)

    def __repr__(self) -> str:
        return f"<Gator {str(self.dsn)!r}, queue {self.queue_name!r}>"

    def build_backend(self, conn_string: str) -> Backend:
        """Return the client of the store that a DSN names.

        Raises:
            BackendMissing: Nothing is known of its scheme, or its client library is not installed.

        Example:
            >>> gator = Gator("locmem://")
            >>> backend = gator.build_backend("locmem://")
        """
        return loading.build(DSN.parse(conn_string), self.backend_class)

    # The "/" leaves every name to the function's own arguments: one called "task" is none of ours.
    def task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a call of a function, with these arguments. Returns the task.

        Raises:
            InvalidArguments: They do not fit the function, or JSON cannot carry them.
            UnknownModuleError, UnknownCallableError: A worker could not import the function.
            BackendUnavailable: The store did not answer; pushing the same task again is safe.

        Example:
            >>> from operator import add
            >>> on_queue = Gator("locmem://").task(add, 1, 2)
        """
        return self.push(self.task_class(), func, *args, **kwargs)

    def options(self, **kwargs: Any) -> "Options":
        """Return a context manager whose ``task()`` queues tasks with these options (see ``Task``).

        Example:
            >>> from operator import add
            >>> with Gator("locmem://").options(retries=2, delay_by=60) as opts:
            ...     task = opts.task(add, 1, 2)
        """
        return Options(self, **kwargs)

    def push(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a task that you made yourself, or, where its ``is_async`` is False, run it now.

        Returns:
            The task: WAITING or DELAYED, or as ``execute`` leaves it.

        Raises:
            InvalidArguments, UnknownModuleError, UnknownCallableError, BackendUnavailable: As ``task``.
            InvalidOption: The store cannot honour an option.

        Example:
            >>> from operator import add
            >>> Gator("locmem://").push(Task(is_async=False), add, 1, 2).result
            3
        """
        if not callable(func):
            raise InvalidArguments(f"A task calls a function; {func!r} cannot be called.")
        if task.depends_on:
            raise InvalidOption(
                "depends_on is not available yet. Queue the next task from on_success."
            )
        task.to_call(func, *args, **kwargs)
        signatures.check_arguments(func, args, kwargs)
        if not task.is_async:
            return self.execute(task)
        self._check_possible(task, func)
        self._queue(task, as_bytes(task.serialize()))
        return task

    def execute(self, task: Task) -> Task:
        """Run a task here and now, hooks and retries included. Returns it, with its status and result.

        One that is not async is retried on the spot; another, while retries are left, is queued again and
        comes back as RETRYING.

        Raises:
            BaseException: What the task raised, when no retries are left.

        Example:
            >>> from operator import add
            >>> task = Task(is_async=False, retries=5)
            >>> task.to_call(add, 101, 35)
            >>> Gator("locmem://").execute(task).result
            136
        """
        while True:
            try:
                task.run()
            except Exception:
                if not self._try_again(task):
                    raise
                if task.is_async:
                    return task
            else:
                return task

    def pop(self) -> Task | None:
        """Run the first task of the queue, here and now.

        The task is held, not removed, until it is done: should this process die, another worker runs it.

        Returns:
            The task, with its status and result; RETRYING if it failed and has retries left. None when
            nothing is ready.

        Raises:
            BaseException: What the task raised, when no retries are left; it is in the dead letters then.

        Example:
            >>> Gator("locmem://").pop()
        """
        batch = self.backend.reserve([self.queue_name], new_id(), lease=LEASE)
        return self._run(batch.reservations[0]) if batch.reservations else None

    def get(self, task_id: str) -> Task | None:
        """Run one task of the queue by its id, here and now, whether or not its time has come.

        Returns and raises as ``pop``; None when no such task is waiting or delayed.

        Example:
            >>> Gator("locmem://").get("a-specific-uuid-here")
        """
        reservation = self.backend.reserve_task(self.queue_name, task_id, new_id(), LEASE)
        return self._run(reservation) if reservation else None

    def cancel(self, task_id: str) -> Task | None:
        """Take a task out of the queue before it runs.

        Returns:
            The canceled task; None when no such task is waiting or delayed.

        Raises:
            UnreadableTask, UnknownModuleError, UnknownCallableError: It is canceled, but cannot be read.

        Example:
            >>> from operator import add
            >>> gator = Gator("locmem://")
            >>> task = gator.task(add, 18, 9)
            >>> canceled = gator.cancel(task.task_id)
            >>> gator.len()
            0
        """
        body = self.backend.cancel(self.queue_name, task_id)
        if body is None:
            return None
        task = self.task_class.deserialize(body)
        task.to_canceled()
        return task

    def len(self) -> int:
        """Return how many tasks of the queue no worker has taken yet: waiting and delayed."""
        return self.backend.len(self.queue_name)

    def _check_possible(self, task: Task, func: Callable[..., Any]) -> None:
        if not self.backend.in_process:
            for call in (func, task.on_start, task.on_success, task.on_error):
                if call is not None:
                    signatures.check_other_process(call)
        if (task.delay_by or task.due_at) and not self.backend.can_delay:
            raise InvalidOption(
                f"The store {self.dsn} cannot delay a task: leave out delay_by and delay_until, or use "
                "a store that can (locmem, sqlite, redis)."
            )

    def _queue(self, task: Task, body: bytes) -> None:
        if task.delay_by or task.due_at:
            task.to_delayed()
        else:
            task.to_waiting()
        check_name("task_id", task.task_id, MAX_ID_BYTES)  # it may have been set since
        message = Message(task.task_id, body, task.delay_by, task.due_at)
        self.backend.push_many(self.queue_name, [message])

    def _try_again(self, task: Task) -> bool:
        """Take one of a failed task's retries, and queue it if it is async; False when none is left."""
        if not take_retry(task):
            return False
        if task.is_async:
            body = as_bytes(task.serialize())
            self.backend.push_many(self.queue_name, [Message(task.task_id, body)])
        return True

    def _run(self, reservation: Reservation) -> Task | None:
        with keeping(self.backend, reservation):
            outcome = attempt(
                reservation, self.task_class, max_deliveries=deliveries_of(self.backend)
            )
        if isinstance(outcome.error, KeyboardInterrupt):
            # The person who waited stops waiting: no failure.
            outcome = Attempt(Release(reservation), error=outcome.error)
        if self.backend.settle([outcome.settlement]):
            log.warning(VOID, reservation.task_id)
        if outcome.error is not None and (outcome.task is None or outcome.task.status != RETRYING):
            raise outcome.error
        return outcome.task


class Options:
    """Options for every task queued with its ``task()``, made by ``Gator.options``.

    Raises:
        InvalidOption: There is no such option, or its value makes no sense.
    """

    def __init__(self, gator: Gator, **kwargs: Any) -> None:
        self.gator = gator
        self.task_kwargs = kwargs
        gator.task_class(**kwargs)  # says at the "with" what is wrong, not at each task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a call of a function, as ``Gator.task`` does, with these options."""
        return self.gator.push(self.gator.task_class(**self.task_kwargs), func, *args, **kwargs)
