"""Whether this version of a program can run what is queued, as ``alligator check`` tells it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alligator import notes, schedules
from alligator.attempts import Runner
from alligator.backends.abilities import refusal
from alligator.commands import letters, listing
from alligator.commands.passing import PassingOver
from alligator.commands.tables import (
    counted,
)
from alligator.exceptions import AlligatorException, InvalidOption
from alligator.gator import Gator
from alligator.payloads import Refused
from alligator.printable import indented, printable
from alligator.reading import Reading
from alligator.signatures import check_arguments

NAMED = 3
"""Tasks of a kind that are named; of more, how many they are."""


@dataclass(slots=True)
class Fault:
    """What this version of the program cannot run, and for which tasks that is so."""

    callable: str
    problem: str
    tasks: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Some of them, by queue and id."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what was found."""

    looked_at: int
    faults: list[Fault]

    @property
    def at_fault(self) -> int:
        """How many tasks cannot be run."""
        return sum(fault.tasks for fault in self.faults)


def report(
    gator: Gator, queue_names: Sequence[str], passed: PassingOver, reading: Reading | None
) -> Report:
    """Read all that is queued or dead, and what schedules queue, as a worker would; run nothing.

    Args:
        gator: Where to look.
        queue_names: In which queues.
        passed: Told of what changes meanwhile.
        reading: How names lead to functions; None: as anywhere.

    Raises:
        InvalidOption: The store cannot list its tasks.
    """
    if not gator.backend.can_walk:
        raise InvalidOption(refusal(gator.dsn, "alligator check"))
    faults: dict[tuple[str, str], Fault] = {}
    looked_at = 0
    runner = Runner(gator.backend, gator.task_class, reading=reading)
    for queue_name, task_id, body in _bodies(gator, queue_names, passed):
        looked_at += 1
        problem = _problem_of(body, runner)
        if problem is None:
            continue
        name = letters.callable_of(body) or "?"
        fault = faults.setdefault((name, problem), Fault(name, problem))
        fault.tasks += 1
        if len(fault.examples) < NAMED:
            fault.examples.append((queue_name, task_id))
    return Report(looked_at, sorted(faults.values(), key=lambda one: (-one.tasks, one.callable)))


def _problem_of(body: bytes, runner: Runner) -> str | None:
    """Return why a worker with this version of the program could not run a queued task; None: it could."""
    if isinstance(body, Refused):
        return body.why
    try:
        task = runner.task_in(body)
        if task.func is not None:
            check_arguments(task.func, task.func_args, task.func_kwargs)
        for name, hook, takes in (
            ("on_start", task.on_start, 1),
            ("on_success", task.on_success, 2),
            ("on_error", task.on_error, 2),
        ):
            if hook is not None:
                _check_hook(name, hook, takes)
    except AlligatorException as err:
        return str(err)
    except (Exception, SystemExit) as err:  # of a module's own, as it is imported, or of a class
        return notes.describe(err)
    return None


def report_json(found: Report) -> dict[str, Any]:
    """Return a report for programs to read."""
    return {
        "looked_at": found.looked_at,
        "at_fault": found.at_fault,
        "faults": [
            {
                "callable": fault.callable,
                "problem": fault.problem,
                "tasks": fault.tasks,
                "examples": [{"queue": queue, "task_id": name} for queue, name in fault.examples],
            }
            for fault in found.faults
        ],
    }


def report_text(found: Report) -> str:
    """Return a report for a terminal."""
    what = counted(found.looked_at, "task")
    if not found.faults:
        return f"{what} looked at: this version of the program can run them all."
    parts = [_fault_text(fault) for fault in found.faults]
    return "\n\n".join(
        [*parts, f"{what} looked at: {found.at_fault:,} cannot be run by this version."]
    )


def _fault_text(fault: Fault) -> str:
    names = ", ".join(printable(f"{task_id} in {queue}") for queue, task_id in fault.examples)
    more = fault.tasks - len(fault.examples)
    others = f" and {more:,} more" if more else ""
    lines = [
        f"{printable(fault.callable)}: {counted(fault.tasks, 'task')}",
        indented(fault.problem),
        indented(f"{names}{others}"),
    ]
    return "\n".join(lines)


def _bodies(
    gator: Gator, queue_names: Sequence[str], passed: PassingOver
) -> Iterator[tuple[str, str, bytes]]:
    """Return whatever is to be run some day: by queue and id, or the name of a schedule."""
    for queue_name in queue_names:
        for state in listing.STATES:
            for task in listing.walked(gator.backend, queue_name, state):
                yield queue_name, task.task_id, task.body
    for letter in letters.newest(gator.backend, queue_names, passed=passed):
        yield letter.queue_name, letter.task_id, letter.body
    for queue_name in queue_names:
        for name, body in schedules.bodies(gator.backend, queue_name):
            yield queue_name, f"schedule {name}", body


def _check_hook(name: str, hook: Callable[..., Any], takes: int) -> None:
    try:
        check_arguments(hook, [None] * takes, {})
    except AlligatorException as err:
        raise InvalidOption(f"As {name}: {err}") from None
