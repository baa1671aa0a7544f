"""What ``alligator move`` says: as text for people, and as JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from alligator.backends.base import Counts
from alligator.commands.move.moved import Moved
from alligator.commands.reports import quoted, status_json
from alligator.commands.tables import counted
from alligator.registry import Presence

FEW = 10
"""Tasks to name one by one; of more, their number."""


def moved_json(moved: Moved) -> dict[str, Any]:
    """Return what has been moved, and what stays."""
    return {
        **asdict(moved),
        "clashing": [{"queue": queue, "task_id": id} for queue, id in moved.clashing],
        "clashing_schedules": [
            {"queue": queue, "name": name} for queue, name in moved.clashing_schedules
        ],
        "skipped": [
            {"queue": queue, "task_id": id, "why": why} for queue, id, why in moved.skipped
        ],
    }


def moved_text(moved: Moved) -> str:
    """Return what has been moved, and what stays, in sentences.

    Example:
        >>> print(moved_text(Moved(waiting=12, delayed=3, dead=2, running=1)))
        Moved 12 waiting, 3 delayed, 2 dead letters.
        1 task runs, and stays: run this again when it is done.
    """
    lines = [f"{line_text(moved)}."]
    if moved.running:
        run = (
            "1 task runs, and stays"
            if moved.running == 1
            else f"{moved.running:,} tasks run, and stay"
        )
        done = "it is" if moved.running == 1 else "they are"
        lines.append(f"{run}: run this again when {done} done.")
    if moved.blocked:
        what = counted(moved.blocked, "task")
        lines.append(f"{what} depending on such, or on what is only just over: again.")
    lines += staying_text(
        [(*name, "another of that id is queued there.") for name in moved.clashing] + moved.skipped
    )
    lines += [
        f"Schedule {quoted(name)} of queue {quoted(queue)} stays: there is one of that name there."
        for queue, name in moved.clashing_schedules[:FEW]
    ]
    for number, what in ((moved.dead_stay, "dead letter"), (moved.schedules_stay, "schedule")):
        if number:
            lines.append(f"{counted(number, what)} stay{'s' if number == 1 else ''}.")
    other = moved.stay - moved.blocked - len(moved.clashing) - len(moved.skipped)
    if other > 0:
        meanwhile = "came or changed meanwhile"
        hidden = ", or cannot be seen before it is due" if moved.at_least_once else ""
        lines.append(f"{counted(other, 'task')} more that {meanwhile}{hidden}: run this again.")
    if moved.at_least_once:
        lines.append("Had this been killed, some tasks would be in both stores, and run twice.")
    return "\n".join(lines)


def line_text(moved: Moved) -> str:
    """Return what has been moved so far, in one line."""
    parts = [
        f"{moved.waiting:,} waiting",
        f"{moved.delayed:,} delayed",
        counted(moved.dead, "dead letter"),
    ]
    if moved.schedules:
        parts.append(counted(moved.schedules, "schedule"))
    return f"Moved {', '.join(parts)}"


def plan_json(
    counts: Mapping[str, Counts], staying: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Return what there is to be moved, and what would stay."""
    skipped = [{"queue": queue, "task_id": id, "why": why} for (queue, id), why in staying.items()]
    return {**status_json(counts, []), "skipped": skipped}


def plan_text(counts: Mapping[str, Counts], staying: Mapping[tuple[str, str], str]) -> str:
    """Return what would be moved."""
    waiting = sum(count.waiting for count in counts.values())
    delayed = sum(count.delayed for count in counts.values())
    dead = sum(count.dead for count in counts.values())
    running = sum(count.running for count in counts.values())
    text = (
        f"Would move {waiting:,} waiting, {delayed:,} delayed, {counted(dead, 'dead letter')} of "
        f"{counted(len(counts), 'queue')}; {running:,} running would stay."
    )
    if staying:
        text += f" Of the others, {len(staying):,} would stay:"
    return "\n".join([text, *staying_text([(*name, why) for name, why in staying.items()])])


def staying_text(tasks: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return for the first few of tasks that stay, by queue, id and reason, a line each."""
    lines = [
        f"{quoted(id)} of queue {quoted(queue)} stays: {why}" for queue, id, why in tasks[:FEW]
    ]
    if len(tasks) > FEW:
        lines.append(f"... and {len(tasks) - FEW:,} more.")
    return lines


def workers_text(workers: Sequence[Presence]) -> str:
    """Return the warning that others work on what is to be moved."""
    return (
        f"{counted(len(workers), 'worker')} of the old store still run: what they take, they finish there. "
        "Stop them to move all."
    )
