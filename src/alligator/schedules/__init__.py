"""Tasks that are queued again and again, at times told in advance.

A schedule is a record: what to queue, how often, and when next. Whoever finds it due makes two changes in one
atomic step of the store: the task is queued, and the record is due at the next time. The step is made only
where the record still is as it was read. So any number of schedulers may be at work, be killed anywhere, and
ask again where an answer was lost: what is due is queued once.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from alligator import keys, payloads
from alligator.backends.abilities import refusal
from alligator.backends.base import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    MAX_PRIORITY,
    Backend,
    Message,
    as_bytes,
    check_name,
    is_name,
)
from alligator.exceptions import AGES, InvalidOption, UnreadableTask
from alligator.peeks import Peek
from alligator.raised import line_of
from alligator.schedules import moments
from alligator.schedules import schedule_records as form
from alligator.schedules.cron import Cron
from alligator.signatures import path_of
from alligator.tasks import Task

if TYPE_CHECKING:
    from alligator.reading import Reading

log = logging.getLogger("alligator.schedules")

LOOK_EVERY = 1.0
"""Seconds after which a scheduler sees what others have added, changed or removed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A call that is queued again and again. Moments are UTC timestamps."""

    name: str
    queue_name: str
    every: float | None = None
    """Seconds; None: it goes by a cron expression."""
    cron: str | None = None
    """The expression; None: it comes every so many seconds."""
    timezone: str | None = None
    """Whose clocks the expression means."""
    callable: str = ""
    """What is called, such as "myapp.tasks.report"; empty if only the task's own class can tell."""
    next_at: float = 0.0
    """When it is due."""
    last_at: float | None = None
    """When it was queued the last time; None: it has not been yet."""


def add(
    backend: Backend,
    queue_name: str,
    name: str,
    body: bytes,
    *,
    every: float | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
    task_id: str | None = None,
    replaces: bool = False,
) -> Schedule:
    """Store a schedule in place of the one of that name, if any. One and the same may be added again and again.

    Args:
        backend: The store.
        queue_name: Where to queue.
        name: The schedule's own.
        body: The task, as it is to be queued but for its id.
        every: Seconds from one run to the next; or
        cron: an expression for the times of the runs.
        timezone: Whose clocks the expression means.
        task_id: The id of all its tasks, where the caller chose one; else each has an id of its own.
        replaces: Whether a task takes the place of one of that id.

    Raises:
        InvalidOption: A value makes no sense, or the store cannot do it.
        BackendMissing: cronsim is not installed.
    """
    check_name("The name of a schedule", name, MAX_NAME_BYTES)
    if backend.records is None or not backend.can_find:
        raise InvalidOption(refusal(type(backend).__module__, "every() and cron()"))
    if every is None and cron is None:
        raise InvalidOption(
            "A schedule needs a number of seconds, or a cron expression; None is neither."
        )
    definition: dict[str, Any] = {
        "every": None if every is None else _interval(every),
        "cron": None if cron is None else Cron(cron, timezone).expression,
        "timezone": None if cron is None else timezone,
        "task_id": task_id,
        "replaces": replaces,
        **form.body_to_json(body),
    }
    key = form.key_of(queue_name, name)
    # First: a schedule whose queue is not listed would be seen by nobody; a queue that has none does no harm.
    backend.records.swap(f"{keys.SCHEDULES}/{keys.escaped(queue_name)}", None, b"{}")
    while True:
        old = backend.records.get(key)
        before = None if old is None else form.readable(old)
        told = _defined(definition, before, backend.now())
        if told == before or backend.records.swap(key, old, form.to_bytes(told)):
            return _schedule(queue_name, key, told)


def listed(backend: Backend, queue_name: str) -> list[Schedule]:
    """Return the schedules of a queue, sorted by name; but for those that this version cannot read."""
    if backend.records is None:
        return []
    found = backend.records.list(form.family(queue_name))
    told = [(key, form.readable(value)) for key, value in found.items()]
    schedules = [_schedule(queue_name, key, one) for key, one in told if one is not None]
    return sorted(schedules, key=lambda schedule: schedule.name)


def bodies(backend: Backend, queue_name: str) -> list[tuple[str, bytes]]:
    """Return what the schedules of a queue are to queue, by their names; of one that cannot be read, why."""
    if backend.records is None:
        return []
    found = backend.records.list(form.family(queue_name))
    return [(form.name_in(key), _body_in(value)) for key, value in found.items()]


def unreadable(backend: Backend, queue_name: str) -> dict[str, str]:
    """Return why some schedules of a queue cannot be read, by their names: they queue nothing here."""
    found = sorted(bodies(backend, queue_name))
    return {name: body.why for name, body in found if isinstance(body, payloads.Refused)}


def _body_in(value: bytes) -> bytes:
    try:
        return form.body_of(form.read(value))
    except (ValueError, RecursionError) as err:
        if isinstance(value, payloads.Refused):
            return value
        return payloads.Refused.of(value, f"It cannot be read: {err}")


def remove(backend: Backend, queue_name: str, name: str) -> bool:
    """Remove a schedule; return whether there was one. Once this has returned, it queues nothing more."""
    if backend.records is None:
        return False
    key = form.key_of(queue_name, name)
    was_there = backend.records.get(key) is not None
    backend.records.delete(key)
    return was_there


def queues(backend: Backend) -> list[str]:
    """Return the names of the queues that have schedules, sorted; some that had any may be among them."""
    if backend.records is None:
        return []
    names = map(form.name_in, backend.records.list(keys.SCHEDULES))
    return sorted(name for name in names if is_name(name, MAX_NAME_BYTES))


def name_of(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a name for a call, such as "myapp.tasks.report-5f3a0c81": no arguments, which may be secret.

    Example:
        >>> from operator import add
        >>> name_of(add, (1,), {"b": 2}), name_of(add, (), {})
        ('_operator.add-6765bc51', '_operator.add')
    """
    name = ".".join(path_of(func))
    if args or kwargs:
        told = payloads.encode([list(args), sorted(kwargs.items())])
        name += f"-{crc32(told.encode()):08x}"
    return name


class Scheduler:
    """Queues what is due in some queues. Any number of them may be at work at the same time.

    Args:
        backend: The store.
        queue_names: The queues.
        task_class: What reads tasks whose form is not Alligator's own.
        reading: How names in these lead to functions; None: as anywhere.
    """

    def __init__(
        self,
        backend: Backend,
        queue_names: Sequence[str],
        task_class: type[Task],
        *,
        reading: "Reading | None" = None,
    ) -> None:
        self._backend = backend
        self._queue_names = queue_names
        self._task_class = task_class
        self._reading = reading
        self._looked_at = self._next_at = -math.inf
        self._complaints: dict[str, bytes] = {}

    def tick(self) -> None:
        """Queue what is due by the store's clock. To be called again and again, every fraction of a second.

        Of the times that have passed while no scheduler was there, only the last one counts.

        Raises:
            BackendUnavailable, BackendRefused: The store did not answer, or would not. The next call makes up
                for it, and queues nothing twice.
        """
        records = self._backend.records
        if records is None or not self._backend.can_find:
            return
        now = self._backend.now()
        # abs: a clock that was set back is no reason to wait until it is where it was.
        if abs(now - self._looked_at) < LOOK_EVERY and now < self._next_at:
            return
        next_at = math.inf
        for queue_name in self._queue_names:
            for key, value in records.list(form.family(queue_name)).items():
                next_at = min(next_at, self._see_to(queue_name, key, value, now))
        self._looked_at, self._next_at = now, next_at

    def _see_to(self, queue_name: str, key: str, value: bytes, now: float) -> float:
        """Queue a schedule's task, if that is due. Returns when it is to be looked at again, at the latest."""
        try:
            told = form.read(value)
            if moments.is_to_wait(told, now):
                return cast(float, told["due_at"])
            due_at, new = moments.step(told, now)
            message = None if due_at is None else self._message(form.name_in(key), told, due_at)
        except Exception as err:
            # The task's own class may raise any; and the other schedules go on.
            self._complain(queue_name, key, value, err)
            return math.inf
        if not self._changed(queue_name, message, key, value, form.to_bytes(new)):
            return now  # another has queued it, or the schedule was changed or removed
        return cast(float, new["due_at"])

    def _changed(
        self, queue_name: str, message: Message | None, key: str, old: bytes, new: bytes
    ) -> bool:
        """Change a record, and queue a task with it, if any. Returns whether the record was as it was read."""
        if message is not None:
            is_done = self._backend.push_if(queue_name, message, key, old, new)
            if is_done:
                log.debug("Task %r is queued by its schedule", message.task_id)
            return is_done
        records = self._backend.records
        return records is not None and records.swap(key, old, new)

    def _message(self, name: str, told: Mapping[str, Any], due_at: float) -> Message:
        task_id = told["task_id"] or f"{name}@{_iso(due_at)}"
        read = self._task_class.deserialize
        if self._reading is not None:
            read = partial(self._reading.read, self._task_class)
        body, priority = _run_of(form.body_of(told), task_id, due_at, read)
        check_name("task_id", task_id, MAX_ID_BYTES)  # whoever has written the record
        return Message(task_id, body, priority=priority, replaces=told["replaces"])

    def _complain(self, queue_name: str, key: str, value: bytes, err: Exception) -> None:
        if self._complaints.get(key) != value:
            self._complaints[key] = value
            what = "Schedule %r of queue %r queues nothing: %s"
            log.error(what, form.name_in(key), queue_name, line_of(err))


def _interval(value: object) -> float:
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and form.SHORTEST <= value < AGES
    ):
        return float(value)
    raise InvalidOption(
        f"every is a number of seconds, from {form.SHORTEST:g} to a century; not {value!r:.100}."
    )


def _defined(
    definition: Mapping[str, Any], before: Mapping[str, Any] | None, now: float
) -> dict[str, Any]:
    """Return the record of a schedule that was perhaps there before."""
    if before and all(before[part] == definition[part] for part in ("every", "cron", "timezone")):
        # An application adds its schedules at each start. What is due stays due, whatever it calls by now.
        return {**before, **definition}
    told = {"last_due_at": None, "last_at": None, **(before or {}), **definition}
    told["start_at"] = round(now, 3)
    # What has been queued does not come again, though another process's idea of now be a moment older.
    told["due_at"] = moments.first_due(told, told["start_at"])
    return told


def _run_of(
    body: bytes, task_id: str, due_at: float, read: Callable[[bytes], Task]
) -> tuple[bytes, int]:
    """Return a schedule's task as one run of it has it, and its priority.

    A task whose form is not Alligator's own is ``read`` for that.
    """
    try:
        payload = payloads.decode(body)
    except UnreadableTask:
        task = read(body)
        task.task_id = task_id
        if task.expires is not None and task.expires[0]:
            task.expires = 0.0, due_at + task.expires[0]
        return as_bytes(task.serialize()), task.priority
    payload["task_id"] = task_id
    options = payload.get("options", {})
    if isinstance(expires := options.get("expires"), list):
        options["expires"] = due_at + cast(list[float], expires)[0]
    priority = options.get("priority", 0)
    if not isinstance(priority, int) or abs(priority) > MAX_PRIORITY:
        raise UnreadableTask(f"The payload's 'priority' is {priority!r:.100}.")
    return payloads.encode(payload).encode(), priority


def _iso(moment: float) -> str:
    """Return a moment as a part of an id; two of one schedule are never as near as a millisecond."""
    at = datetime.fromtimestamp(round(moment, 3), UTC).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds") + "Z"


def _schedule(queue_name: str, key: str, told: Mapping[str, Any]) -> Schedule:
    return Schedule(
        form.name_in(key),
        queue_name,
        every=told["every"],
        cron=told["cron"],
        timezone=told["timezone"],
        callable=Peek.into(form.body_of(told)).callable,
        next_at=told["due_at"],
        last_at=told["last_at"],
    )
