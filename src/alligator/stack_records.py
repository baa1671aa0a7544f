"""Asking those who run tasks where these are now, by way of the store: a question and its answers, as records.

Whoever runs a task for a while looks once a second whether it is to end (``stops``). The question stands in the
same family of records, and so costs no look of its own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

from alligator import keys
from alligator.backends.base import Records
from alligator.payloads import encode, number, object_in
from alligator.registry import Presence
from alligator.utils import new_id

ASKED_FOR = 15.0
"""Seconds for which a question stands."""
ANSWERED_FOR = 60.0
"""Seconds for which an answer stands."""
MAX_ANSWER = 2**20
"""Characters of the stacks of one process; of what is beyond, only the names."""

_QUESTION = f"{keys.STOPS}/{keys.STACKS}-"  # no ref: that has a ":"


class Told(NamedTuple):
    """Where a task is now."""

    queue_name: str
    task_id: str
    token: str
    seconds: float
    """For how long it has run."""
    stack: str
    """The most recent call last; empty if nobody could say."""


class Answer(NamedTuple):
    """What runs in a process."""

    worker: str
    host: str
    pid: int
    tasks: tuple[Told, ...] = ()


def ask(records: Records) -> str:
    """Ask all who run tasks where these are; return the name of the question."""
    question = new_id()
    records.set(_QUESTION + question, b"{}", ASKED_FOR)
    return question


def take_back(records: Records, question: str) -> None:
    """Remove a question, and its answers."""
    family = f"{keys.STACKS}/{question}/"
    answers = [key for key in records.list(keys.STACKS) if key.startswith(family)]
    records.delete(_QUESTION + question, *answers)


def questions_in(stops: Collection[str]) -> list[str]:
    """Return the questions that are asked, by the keys of all that stands in the family of stops."""
    asked = [key.removeprefix(_QUESTION) for key in stops if key.startswith(_QUESTION)]
    # In a queue whose name begins as our key does, a task may be asked to end.
    return [question for question in asked if ":" not in question]


def answer(
    records: Records, question: str, answers: Sequence[tuple[Presence, Sequence[Told]]]
) -> None:
    """Say what runs in some processes."""
    values = {
        f"{keys.STACKS}/{question}/{presence.worker}": encode(
            {"host": presence.host, "pid": presence.pid, "tasks": _bounded(tasks)}
        ).encode()
        for presence, tasks in answers
    }
    if values:
        records.set_many(values, ANSWERED_FOR)


def answers_to(records: Records, question: str) -> dict[str, Answer]:
    """Return the answers so far, by worker."""
    family = f"{keys.STACKS}/{question}/"
    return {
        key.removeprefix(family): _read(key.removeprefix(family), object_in(value))
        for key, value in records.list(keys.STACKS).items()
        if key.startswith(family)
    }


def _bounded(tasks: Sequence[Told]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    room = MAX_ANSWER
    for task in tasks:
        room -= len(task.stack)
        told.append({**task._asdict(), "stack": task.stack if room >= 0 else ""})
    return told


def _read(worker: str, told: Mapping[str, Any]) -> Answer:
    found = told.get("tasks")
    tasks = cast(list[object], found) if isinstance(found, list) else []
    return Answer(
        worker,
        str(told.get("host", "")),
        int(number(told.get("pid")) or 0),
        tuple(_told(cast(dict[str, Any], one)) for one in tasks if isinstance(one, dict)),
    )


def _told(one: Mapping[str, Any]) -> Told:
    return Told(
        str(one.get("queue_name", "")),
        str(one.get("task_id", "")),
        str(one.get("token", "")),
        number(one.get("seconds")) or 0.0,
        str(one.get("stack", "")),
    )
