"""Queueing tasks for a Gator: what it can queue, in which form, and who takes it: its store, or an outbox."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alligator import joining, signatures
from alligator.backends.abilities import RESULTS_ELSEWHERE, is_possible, refusal
from alligator.backends.base import MAX_ID_BYTES, Message, as_bytes, check_name
from alligator.exceptions import InvalidArguments, InvalidOption, TaskExists
from alligator.options import OPTIONS
from alligator.tasks import Task
from alligator.utils import new_id

if TYPE_CHECKING:
    from alligator.gator import Gator


def prepare(
    gator: "Gator", task: Task, func: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> None:
    """Set what a task calls, and check that it can be queued; see ``Gator.prepare``."""
    if not callable(func):
        raise InvalidArguments(f"A task calls a function; {func!r} cannot be called.")
    task.to_call(func, *args, **kwargs)
    signatures.check_arguments(func, args, kwargs)
    if task.depends_on is not None:
        from alligator.dependencies import depending

        depending.resolve(task, gator.queue_name)
    if task.is_async:
        _check_possible(gator, task, func)
    elif task.depends_on:
        raise InvalidOption(
            "A task with is_async=False runs at once: it cannot depend on what a worker runs."
        )
    task.gator, task.queue_name = gator, gator.queue_name


def send(gator: "Gator", tasks: Sequence[Task]) -> None:
    """Queue tasks that were prepared; see ``Gator.send``."""
    messages = [_message(gator, task) for task in tasks]
    outbox = joining.outbox_of(gator)
    if outbox is not None:
        from alligator.outbox import writing

        writing.write(gator, outbox, tasks, messages)
        return
    backend = joining.backend_of(gator)
    if not backend.keeps_ids:
        _send_unnamed(gator, tasks, messages)
        return
    push = backend.push_many
    if [task for task in tasks if task.depends_on]:
        from alligator.dependencies import depending

        kept_here = gator.results is gator.backend.records
        push = depending.pushing(backend, backend.records if kept_here else gator.results, tasks)
    queued = push(gator.queue_name, messages, max_length=gator.max_length)
    if all(queued):
        return
    for task, is_new in zip(tasks, queued, strict=True):
        if not is_new and task.if_exists == "raise" and not _is_ours(gator, task):
            raise TaskExists(
                f"Task {task.task_id!r} is queued or runs in {gator.queue_name!r} already."
            )


def fix_expiry(gator: "Gator", task: Task) -> None:
    """Let its seconds count from now on."""
    if task.expires is not None and task.expires[0]:
        task.expires = 0.0, _now(gator) + task.expires[0]


def _now(gator: "Gator") -> float:
    # By way of an outbox, the store is not asked for anything: it may be away.
    return gator.backend.now() if joining.outbox_of(gator) is None else time.time()


def _check_possible(gator: "Gator", task: Task, func: Callable[..., Any]) -> None:
    if gator.allowed is not None:
        for call in (func, task.on_start, task.on_success, task.on_error):
            if call is not None:
                gator.allowed.check(call)
    if gator.backend.spans_processes:
        hooks = (task.on_start, task.on_success, task.on_error)
        for call in (func, *hooks, *(task.retry_on or ()), *(task.give_up_on or ())):
            if call is not None:
                signatures.check_other_process(call)
    backend = gator.backend
    has_records = backend.records is not None and gator.results is not None
    if not (backend.can_delay and backend.can_prioritize and backend.can_find and has_records):
        _check_store_can(gator, task)


def _check_store_can(gator: "Gator", task: Task) -> None:
    """Refuse the options of a task that the store cannot honour."""
    if task.keep_result and gator.results is None:
        way_out = f"leave it out, {RESULTS_ELSEWHERE}"
        raise InvalidOption(refusal(gator.dsn, "keep_result", way_out=way_out))
    for option, is_asked in (
        ("delay_by", task.delay_by),
        ("delay_until", task.due_at),
        ("backoff", task.backoff),
        ("priority", task.priority),
        ("if_exists", task.if_exists),
        ("depends_on", task.depends_on),
        ("limit", task.limit),
    ):
        if is_asked and not is_possible(gator.backend, option):
            raise InvalidOption(refusal(gator.dsn, option, way_out="leave it out"))


def _message(gator: "Gator", task: Task) -> Message:
    fix_expiry(gator, task)
    if task.delay_by or task.due_at or task.depends_on:
        task.to_delayed()
    else:
        task.to_waiting()
    check_name("task_id", task.task_id, MAX_ID_BYTES)  # it may have been set since
    if gator.keyring is not None and gator.backend.can_find and (task.delay_by or task.due_at):
        # For the delay itself is the store's: who can write to it, can end it.
        task.not_before = max(task.due_at, _now(gator) + task.delay_by)
    replaces = task.if_exists == "replace"
    # A store that names tasks may do so from the beginning again, once it is started anew.
    may_repeat = replaces or not gator.backend.keeps_ids
    if task.if_exists == "raise" or (may_repeat and task.keep_result is not None):
        task.push = _new_push()
    body = as_bytes(task.serialize())
    if type(task).serialize is not Task.serialize:
        _check_form(task, body)
    return Message(task.task_id, body, task.delay_by, task.due_at, task.priority, replaces)


def _send_unnamed(gator: "Gator", tasks: Sequence[Task], messages: Sequence[Message]) -> None:
    """Queue tasks in a store that names them, and call them so; in the payload, nothing changes."""
    given = gator.backend.push_named(gator.queue_name, messages, max_length=gator.max_length)
    for task, task_id in zip(tasks, given, strict=True):
        task.task_id = task_id


def _is_ours(gator: "Gator", task: Task) -> bool:
    """Whether what is queued under a task's id is this very push, sent again since its answer was lost."""
    found = joining.backend_of(gator).find(gator.queue_name, task.task_id)
    from alligator import peeks

    return found is not None and peeks.Peek.into(found.body).push == task.push


def _new_push() -> str:
    """Return what tells a push from others of its id; by one clock, a later one is greater."""
    return f"{time.time_ns():020}-{new_id()[-12:]}"


def _check_form(task: Task, body: bytes) -> None:
    """Check that a class with a form of its own has told all that the task was told.

    Raises:
        InvalidOption: It has not: a worker would ignore that option.
    """
    back = type(task).deserialize(body)
    for name in OPTIONS.keys() & task.__dict__.keys():
        if name == "depends_on" or OPTIONS[name].encode is None:
            continue  # the first is checked where dependencies are queued
        if OPTIONS[name].check is None and not (name == "push" and task.if_exists != "raise"):
            continue
        if getattr(back, name) != getattr(task, name):
            raise InvalidOption(
                f"{type(task).__name__} does not carry {name}: let its serialize() and deserialize() do so, "
                "for instance by calling those of Task, or leave the option out."
            )
