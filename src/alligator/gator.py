"""The front door: queue a task, run one now, cancel one."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from alligator import inline, joining, pushing, stops
from alligator.backends import loading
from alligator.backends.abilities import is_possible, refusal
from alligator.backends.base import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    Backend,
    check_name,
)
from alligator.constants import ALL
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption, UnreadableTask
from alligator.payloads import Refused, plain
from alligator.queueing import Batch, Options, kept
from alligator.reading import reading_by
from alligator.tasks import Task

# What few programs need is imported where it is used: each module takes about a millisecond of every start.
if TYPE_CHECKING:
    from alligator.aliases import Aliases
    from alligator.allowing import Allowed
    from alligator.schedules import Schedule
    from alligator.signing import Keyring
    from alligator.statuses import Status

KEYS = "ALLIGATOR_KEYS"
"""The environment variable with keys, for a Gator that is given none: with blanks or commas between them."""


class Gator:
    """A queue in a store: where tasks are put, and where workers take them from.

    Args:
        conn_string: The store's DSN: ``sqlite:///tmp/queue.db``, ``redis://localhost:6379/0``,
            ``postgres://localhost/shop``, ``beanstalk://localhost:11300/``, ``sqs://us-west-2/``, ``locmem://``.
        queue_name: The queue to put tasks in.
        task_class: What makes tasks, and reads them.
        backend_class: Your own store, called with ``conn_string``, in place of the one that the
            DSN's scheme names.
        options: Options for every task that is made here, unless its own say otherwise; see ``Task``.
        results: The DSN of another store to keep results in, for a store that keeps none.
        max_length: How many tasks may wait or be delayed in the queue; a push beyond that raises QueueFull.
        store_name: What an outbox calls the store, where one table serves several of a kind; see ``using``.
        keys: Secrets of 32 bytes or more, as text or bytes: tasks are signed with the first one, and only what
            one of them has signed is run (docs/security.md). By default those in ``ALLIGATOR_KEYS``, if any.
        allow: Patterns of what may be queued here and run by this Gator's workers, such as
            ``["myapp.tasks.*"]`` (docs/security.md). By default, anything.
        aliases: New dotted paths of functions, classes or modules by old ones: what was queued under an old
            name finds the new one.

    Raises:
        InvalidOption: The DSN, a name, a key or a pattern makes no sense.
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
        *,
        options: Mapping[str, Any] | None = None,
        results: str | None = None,
        max_length: int | None = None,
        store_name: str | None = None,
        keys: Sequence[str | bytes] | None = None,
        allow: str | Sequence[str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.dsn = DSN.parse(conn_string)
        self.queue_name = check_name("queue_name", queue_name, MAX_NAME_BYTES)
        self.task_class = task_class
        self.backend_class = backend_class
        self.task_kwargs = kept(options or {})
        self.task_class(**self.task_kwargs)  # says now what is wrong with them
        if "task_id" in self.task_kwargs:
            raise InvalidOption(
                "With a task_id for all tasks there would be but one: leave it out."
            )
        self.max_length = _max_length(max_length)
        if store_name is not None:
            check_name("store_name", store_name, MAX_NAME_BYTES)
        self.store_name = store_name
        self.keyring = _keyring_of(keys)
        self.allowed = allowed_by(allow)
        self.aliases = _aliases_of(aliases)
        self.reading = reading_by(self.allowed, self.aliases)
        self.store = self.backend = self.build_backend(conn_string)
        if self.keyring is not None:
            from alligator.signed_store import SignedStore

            self.backend = SignedStore(self.store, self.keyring)
        kept_in = self.backend if results is None else loading.build(DSN.parse(results))
        self.results = kept_in.records

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
            TaskFailed, UnknownTask: It depends on one that has failed, or of which nothing is known.
            BackendUnavailable: The store did not answer; pushing the same task again is safe.

        Example:
            >>> from operator import add
            >>> on_queue = Gator("locmem://").task(add, 1, 2)
        """
        return self.push(self.task_class(**self.task_kwargs), func, *args, **kwargs)

    async def task_async(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a call of a function from an event loop, without blocking it; as ``task``."""
        return await self.options().task_async(func, *args, **kwargs)

    def map(self, func: Callable[[Any], Any], items: Iterable[Any], /) -> list[Task]:
        """Queue a call of a function for each item, a thousand in a round trip. Returns the tasks.

        Raises:
            AlligatorException: As ``task``. The thousands that were sent before it are queued.

        Example:
            >>> gator = Gator("locmem://")
            >>> tasks = gator.map(abs, [-1, -2, -3])
            >>> gator.len()
            3
        """
        return self.options().map(func, items)

    def batch(self, **kwargs: Any) -> Batch:
        """Return a context manager whose ``task()`` collects tasks with these options.

        They are queued when its block ends, with one round trip per thousand; if the block raises, none is.
        Should it be broken off between two thousands, then ``gator.send`` with the tasks that ``batch.task``
        returned queues the rest: a task that is queued already stays as it is.

        Raises, at its end:
            AlligatorException: As ``task``.

        Example:
            >>> from operator import add
            >>> with Gator("locmem://").batch(retries=2) as batch:
            ...     tasks = [batch.task(add, number, 1) for number in range(100)]
        """
        return Batch(self, **{**self.task_kwargs, **kwargs})

    def options(self, **kwargs: Any) -> Options:
        """Return a context manager whose ``task()`` queues tasks with these options (see ``Task``).

        Example:
            >>> from operator import add
            >>> with Gator("locmem://").options(retries=2, delay_by=60) as opts:
            ...     task = opts.task(add, 1, 2)
        """
        return Options(self, **{**self.task_kwargs, **kwargs})

    def using(self, connection: object) -> AbstractContextManager["Gator"]:
        """Return a context manager inside which tasks are queued in a transaction of your own.

        Rolled back, a task never was; committed, it surely is. Where your tables are in the database of the
        queue, the store takes part in the transaction; otherwise tasks go to an outbox beside them, which
        workers with ``--outbox`` forward: docs/stores.md tells what differs.

        Args:
            connection: Of psycopg 3 or of the sqlite3 module, or a SQLAlchemy 2 connection or session or a
                Django connection that uses one. You commit it, in the block or after it.

        Raises, at its beginning:
            InvalidOption: That is no such connection, it commits each statement at once, or there is neither
                the queue nor an outbox in its database.

        Example:
            >>> import sqlite3, tempfile
            >>> from operator import add
            >>> file = tempfile.mkdtemp() + "/shop.db"
            >>> gator = Gator(f"sqlite://{file}")
            >>> gator.len()
            0
            >>> connection = sqlite3.connect(file)
            >>> with connection, gator.using(connection):
            ...     created = connection.execute("CREATE TABLE orders (id INTEGER)")
            ...     task = gator.task(add, 1, 2)
            >>> gator.len()
            1
            >>> connection.close()
        """
        return joining.using(self, connection)

    def completing(self, connection: object) -> AbstractContextManager[None]:
        """Return a context manager for a task to commit what it writes together with its own end.

        Both are committed, or neither: so a crash at whatever moment never lets it write twice. The task is
        acknowledged when the block ends without an error, and you commit after that. If it returns without
        having committed, that is a failure. What it returns is kept and its hooks are called after it has
        returned, as ever. What it raises after the commit is logged, and changes nothing: it is done. Outside
        of a task, the block does nothing.

        Args:
            connection: As for ``using``. Its transaction must not be committed before the block ends.

        Raises, at its beginning:
            InvalidOption: As ``using``, or the queue is in another database; it is inside another such block,
                or the task was completed by one before.

        Raises, at its end:
            LeaseLost: The task went to another worker: the transaction cannot be committed any more.

        Example:
            >>> def pay(order_id: int) -> None:
            ...     with psycopg.connect(DSN) as connection, gator.completing(connection):
            ...         connection.execute("UPDATE accounts ...")
        """
        return joining.completing(self, connection)

    def push(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Queue a task that you made yourself, or, where its ``is_async`` is False, run it now.

        Returns:
            The task: WAITING or DELAYED, or as ``execute`` leaves it.

        Raises:
            InvalidArguments, UnknownModuleError, UnknownCallableError, TaskFailed, UnknownTask,
            BackendUnavailable: As ``task``.
            InvalidOption: The store cannot honour an option.

        Example:
            >>> from operator import add
            >>> Gator("locmem://").push(Task(is_async=False), add, 1, 2).result
            3
        """
        self.prepare(task, func, *args, **kwargs)
        if not task.is_async:
            return self.execute(task)
        self.send([task])
        return task

    def prepare(self, task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:
        """Set what a task calls, and check that it can be queued here; ``send`` then queues it."""
        pushing.prepare(self, task, func, *args, **kwargs)
        return task

    def send(self, tasks: Sequence[Task]) -> None:
        """Queue tasks that were prepared, in one round trip per thousand.

        Raises:
            TaskExists: One with ``if_exists="raise"`` is queued or runs already; the others are queued.
        """
        pushing.send(self, tasks)

    def execute(self, task: Task) -> Task:
        """Run a task here and now, hooks and retries included. Returns it, with its status and result.

        One that is not async is retried on the spot; another, while retries are left, is queued again and
        comes back as RETRYING. What says when a task may start (delays, expiry, limits) is not for one that is
        run by hand.

        Raises:
            BaseException: What the task raised, when no retries are left.

        Example:
            >>> from operator import add
            >>> task = Task(is_async=False, retries=5)
            >>> task.to_call(add, 101, 35)
            >>> Gator("locmem://").execute(task).result
            136
        """
        return inline.execute(self, task)

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
        return inline.pop(self)

    def get(self, task_id: str) -> Task | None:
        """Run one task of the queue by its id, here and now, whether or not its time has come.

        Returns and raises as ``pop``; None when no such task is waiting or delayed. InvalidOption is raised
        where the store takes out no task by its id.

        Example:
            >>> Gator("locmem://").get("a-specific-uuid-here")
        """
        self.check_can("get()")
        _check_id(task_id)
        return inline.get(self, task_id)

    def cancel(self, task_id: str) -> Task | None:
        """Take a task out of the queue before it runs, or ask one that runs to end.

        One that runs meets it in ``track`` and ``current_task().canceled``; one that has not ended after its
        worker's ``grace`` is ended with its process (under ``latergator``). What was to take its place
        (``if_exists="replace"``) is forgotten: all that has this id is canceled.

        Returns:
            The task: CANCELED, or RUNNING if it was asked to end. None when it is neither queued nor runs.

        Raises:
            InvalidOption: The store takes out no task by its id.
            UnreadableTask, UnknownModuleError, UnknownCallableError, TaskRefused: It is canceled, but cannot be
                read.

        Example:
            >>> from operator import add
            >>> gator = Gator("locmem://")
            >>> task = gator.task(add, 18, 9)
            >>> canceled = gator.cancel(task.task_id)
            >>> gator.len()
            0
        """
        self.check_can("cancel()")
        _check_id(task_id)
        canceled = stops.cancel(self.backend, self.results, self.queue_name, task_id)
        if canceled is None:
            return None
        if isinstance(canceled.body, Refused):
            raise UnreadableTask(f"Task {task_id!r} is canceled. {canceled.body.why}.")
        body = plain(canceled.body)
        task = (
            self.task_class.deserialize(body)
            if self.reading is None
            else self.reading.read(self.task_class, body)
        )
        if canceled.runs:
            task.to_running()
        else:
            task.to_canceled()
        return task

    def status(self, task_id: str) -> "Status":
        """Return what is known of a task of the queue, wherever it is.

        Raises:
            InvalidOption: The store knows no single tasks, and it is not known how this one ended.

        Example:
            >>> Gator("locmem://").status("a-specific-uuid-here").state
            'unknown'
        """
        from alligator import statuses

        _check_id(task_id)
        return statuses.status_of(self.dsn, self.backend, self.results, self.queue_name, task_id)

    def result(self, task_id: str, timeout: float | None = None, *, push: str = "") -> Any:
        """Wait for a task of the queue to end, and return what it returned; it needs ``keep_result`` for that.

        Of an id that was used before, and is neither queued nor runs, the last end is told that has left a
        trace: a success without ``keep_result`` leaves none. ``Task.wait`` knows which push it waits for.

        Args:
            task_id: Which.
            timeout: Seconds to wait; None: as long as it takes, 0: not at all.
            push: Which push of that id, as in ``Task.push``; one that replaced it counts, too. Empty: any.

        Raises:
            TaskFailed: It has failed for good; ``error_type``, ``error_message`` and ``traceback`` tell how.
            TaskCanceled: It was canceled.
            NotFinished: It is not over yet.
            ResultExpired: It is over, and so is its ``keep_result``.
            ResultNotKept: It has no ``keep_result``, or returned what JSON cannot carry.
            UnknownTask: Nothing is known of it.
        """
        from alligator.results import waiting

        _check_id(task_id)
        return waiting.result_of(
            self.backend, self.results, self.queue_name, task_id, timeout, push
        )

    async def result_async(
        self,
        task_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 -- as of result()
        *,
        push: str = "",
    ) -> Any:
        """Wait for a task of the queue to end, without blocking the event loop; as ``result``."""
        from alligator.results import async_waiting

        _check_id(task_id)
        return await async_waiting.result_of_async(
            self.backend, self.results, self.queue_name, task_id, timeout, push
        )

    def every(
        self,
        seconds: float,
        func: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Schedule":
        """Let a call of a function be queued every so many seconds; see ``Options.every``."""
        return self.options().every(seconds, func, *args, name=name, kwargs=kwargs)

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
        """Let a call of a function be queued at the times of a cron expression; see ``Options.cron``."""
        return self.options().cron(
            expression, func, *args, timezone=timezone, name=name, kwargs=kwargs
        )

    def schedules(self) -> "list[Schedule]":
        """Return what is queued here again and again, sorted by name."""
        from alligator import schedules

        return schedules.listed(self.backend, self.queue_name)

    def unschedule(self, name: str) -> bool:
        """Remove a schedule by its name; return whether there was one."""
        from alligator import schedules

        check_name("The name of a schedule", name, MAX_NAME_BYTES)
        return schedules.remove(self.backend, self.queue_name, name)

    def check_can(self, call: str) -> None:
        """Refuse a call that the store cannot carry out; see ``alligator.backends.abilities``.

        Raises:
            InvalidOption: So it is; and which stores can.

        Example:
            >>> Gator("locmem://").check_can("cancel()")
        """
        if not is_possible(self.backend, call):
            raise InvalidOption(refusal(self.dsn, call))

    def len(self) -> int:
        """Return how many tasks of the queue no worker has taken yet: waiting and delayed."""
        return self.backend.len(self.queue_name)


def _check_id(task_id: str) -> None:
    """Refuse what is the id of no task. Each store would say so in its own way, or not."""
    check_name("task_id", task_id, MAX_ID_BYTES)


def _keyring_of(keys: Sequence[str | bytes] | None) -> "Keyring | None":
    if keys is None and KEYS not in os.environ:
        return None
    from alligator.signing import keyring_of

    return keyring_of(keys, os.environ.get(KEYS, ""))


def allowed_by(patterns: str | Sequence[str] | None) -> "Allowed | None":
    """Return what patterns allow; None: anything."""
    if patterns is None:
        return None
    from alligator.allowing import Allowed

    return Allowed(patterns)


def _aliases_of(renamed: Mapping[str, str] | None) -> "Aliases | None":
    if renamed is None:
        return None
    from alligator.aliases import Aliases

    return Aliases(renamed)


def _max_length(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"max_length is how many tasks may wait, 1 or more; not {value!r}.")
    return value
