"""What every running task is doing now, as ``alligator stacks`` shows it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alligator import keys, registry, stack_records
from alligator.backends.abilities import is_possible, refusal
from alligator.backends.base import Backend, Listed, Records, worker_of
from alligator.commands.letters import callable_of
from alligator.commands.listing import walked
from alligator.commands.reports import quoted
from alligator.commands.tables import counted
from alligator.exceptions import InvalidOption
from alligator.printable import indented, printable
from alligator.stack_records import Answer, Told

WITHIN = 5.0
"""Seconds for all who run something to answer: they look once a second, and may have to ask their processes."""
LOOK_EVERY = 0.3
"""Seconds between two looks whether those who have not answered still hold anything."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A worker that holds tasks, and has not answered."""

    worker: str
    tasks: int
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs."""

    is_busy: bool = False
    """Whether anything was held at all."""
    answers: list[Answer] = field(default_factory=list[Answer])
    callables: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    """What tasks call, by their queues and ids."""
    silent: list[Silent] = field(default_factory=list[Silent])


def seen(store: object, backend: Backend, queue_names: Sequence[str]) -> Seen:
    """Ask where all tasks of some queues are that run.

    Raises:
        InvalidOption: The store cannot carry the question, or list what runs.
    """
    records = backend.records
    if records is None or not is_possible(backend, "alligator stacks"):
        raise InvalidOption(refusal(store, "alligator stacks"))
    held = _held(backend, queue_names)
    if not held:
        return Seen()
    question = stack_records.ask(records)
    try:
        answers, still = _wait(backend, records, queue_names, question, _by_token(held))
    finally:
        stack_records.take_back(records, question)
    found = [
        Answer(one.worker, one.host, one.pid, of_queues)
        for one in answers.values()
        if (of_queues := tuple(task for task in one.tasks if task.queue_name in queue_names))
    ]
    held |= _held(backend, queue_names)
    names = [(task.queue_name, task.task_id) for one in found for task in one.tasks]
    bodies = {name: held[name].body for name in names if name in held}
    callables = {name: callable_of(body) or "" for name, body in bodies.items()}
    return Seen(True, found, callables, _silent(backend, still, answers))


def _held(backend: Backend, queue_names: Sequence[str]) -> dict[tuple[str, str], Listed]:
    """Return what is held now."""
    return {
        (name, task.task_id): task
        for name in queue_names
        for task in walked(backend, name, "running")
    }


def _by_token(held: dict[tuple[str, str], Listed]) -> dict[str, int]:
    """Return how many tasks each hand-out has."""
    tokens = [task.token for task in held.values()]
    return {token: tokens.count(token) for token in set(tokens)}


def _wait(
    backend: Backend,
    records: Records,
    queue_names: Sequence[str],
    question: str,
    asked: dict[str, int],
) -> tuple[dict[str, Answer], dict[str, int]]:
    """Wait until all who held something have answered, or hold it no more.

    Returns:
        The answers, and the hand-outs of those who have not answered, with their numbers of tasks.
    """
    ends_at = time.monotonic() + WITHIN
    while True:
        answers = stack_records.answers_to(records, question)
        still = {token: size for token, size in asked.items() if worker_of(token) not in answers}
        if still:  # what has ended meanwhile needs no answer
            now = _by_token(_held(backend, queue_names))
            still = {token: now[token] for token in still if token in now}
        left = ends_at - time.monotonic()
        if not still or left <= 0:
            return answers, still
        missing = {worker_of(token) for token in still}
        awaited = [f"{keys.STACKS}/{question}/{worker}" for worker in missing]
        records.wait(awaited, min(LOOK_EVERY, left))


def _silent(backend: Backend, still: dict[str, int], answers: dict[str, Answer]) -> list[Silent]:
    known = {one.worker: one for one in registry.present(backend)} if still else {}
    tasks: dict[str, int] = {}
    for token, size in still.items():
        worker = worker_of(token)
        if worker not in answers:
            tasks[worker] = tasks.get(worker, 0) + size
    found = [(worker, size, known.get(worker)) for worker, size in tasks.items()]
    return [
        Silent(worker, size, one.host, one.pid) if one else Silent(worker, size)
        for worker, size, one in found
    ]


def seen_json(seen: Seen) -> dict[str, Any]:
    """Return what runs for programs to read."""
    return {
        "tasks": [
            {
                "task_id": task.task_id,
                "queue": task.queue_name,
                "callable": seen.callables.get((task.queue_name, task.task_id)) or None,
                "seconds": task.seconds,
                "worker": one.worker,
                "host": one.host,
                "pid": one.pid,
                "stack": task.stack or None,
            }
            for one in seen.answers
            for task in one.tasks
        ],
        "silent": [
            {
                "worker": one.worker,
                "host": one.host or None,
                "pid": one.pid or None,
                "tasks": one.tasks,
            }
            for one in seen.silent
        ],
    }


def seen_text(seen: Seen) -> str:
    """Return what runs, some lines a task."""
    ordered = sorted(seen.answers, key=lambda one: (one.host, one.pid))
    parts = [_task_text(seen, one, task) for one in ordered for task in one.tasks]
    parts += [_silent_text(one) for one in seen.silent]
    return "\n\n".join(parts) or "What runs is short: nothing has run for a second."


def _task_text(seen: Seen, one: Answer, task: Told) -> str:
    name = seen.callables.get((task.queue_name, task.task_id)) or "?"
    head = (
        f"{quoted(task.task_id)} in queue {quoted(task.queue_name)}, {printable(name)}, "
        f"for {task.seconds:,.1f} s in process {one.pid} of host {quoted(one.host)}"
    )
    return f"{head}\n{indented(task.stack or '(its stack could not be had)')}"


def _silent_text(one: Silent) -> str:
    who = "A worker that is not registered"
    if one.pid:
        who = f"Process {one.pid} of host {quoted(one.host)}"
    return (
        f"{who} has {counted(one.tasks, 'task')} and did not answer: it is busy with short ones, or with one "
        "call into C that no parent process can look into; it is stopped, or it is gone."
    )
