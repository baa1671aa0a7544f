"""What the command ``alligator`` says: as text for people, and as JSON for programs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from alligator import payloads
from alligator.backends.base import Counts, DeadLetter
from alligator.commands.letters import Outcome, Ref, Story, callable_of
from alligator.commands.tables import (
    Column,
    ago,
    counted,
    duration,
    iso,
    moment,
    table,
)
from alligator.deaths import Death
from alligator.outbox.tables import Summary
from alligator.printable import indented, printable
from alligator.registry import Presence
from alligator.statuses import Progress

FEW = 10
"""Dead letters to name one by one; of more, their number."""

SIGNATURES = {
    "": "",
    "fits": "yes, by a key of ours",
    "refused": "not by a key of ours: workers with these keys refuse it",
    "unchecked": "yes, but by whom is not known: here are no keys (ALLIGATOR_KEYS)",
}
"""What to say of a task's signature; see ``payloads.signature_of``."""

_STATES = ("waiting", "delayed", "running", "dead")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-([0-9a-f]{12})")


def status_json(
    counts: Mapping[str, Counts], workers: Sequence[Presence], outbox: Summary | None = None
) -> dict[str, Any]:
    """Return how many tasks of each queue are in which state, who works, and what an outbox has."""
    told: dict[str, Any] = {
        "queues": [{"queue": name, **count._asdict()} for name, count in counts.items()],
        "workers": [{**asdict(one), "started_at": iso(one.started_at)} for one in workers],
    }
    return told if outbox is None else {**told, "outbox": outbox._asdict()}


def outbox_text(summary: Summary) -> str:
    """Return what an outbox has, in a sentence or two.

    Example:
        >>> outbox_text(Summary({"redis": 2}, 90.0, 1))
        'Outbox: 2 tasks to be forwarded, the oldest for 1 min. 1 task refused, and kept aside.'
    """
    number = sum(summary.waiting.values())
    since = f", the oldest for {duration(summary.oldest)}" if number else ""
    aside = f" {counted(summary.aside, 'task')} refused, and kept aside." if summary.aside else ""
    return f"Outbox: {counted(number, 'task')} to be forwarded{since}.{aside}"


def queues_text(counts: Mapping[str, Counts], width: int | None) -> str:
    """Return how many tasks of each queue are in which state, to fit a terminal of that width, if any."""
    rows = [
        [name, *(f"{count._asdict()[state]:,}" for state in _STATES)]
        for name, count in counts.items()
    ]
    numbers = [Column(state, "right") for state in _STATES]
    return table([Column("queue", keep="start"), *numbers], rows, width)


def workers_text(workers: Sequence[Presence], now: float, width: int | None) -> str:
    """Return who works, since when, and on what."""
    columns = [
        Column("worker", keep="start"),
        Column("pid", "right"),
        Column("up", "right"),
        Column("queues", keep="start"),
    ]
    rows = [
        [one.host, str(one.pid), duration(now - one.started_at), ", ".join(one.queues)]
        for one in workers
    ]
    return table(columns, rows, width)


def letters_text(letters: Sequence[DeadLetter], now: float, width: int | None) -> str:
    """Return dead letters, a line each. Without a terminal to fit they are told in full."""
    columns = [
        Column("id", keep="end"),
        Column("queue", keep="start"),
        Column("died"),
        Column("reason", keep="start"),
        Column("callable", keep="end"),
        Column("error", keep="start"),
    ]
    rows: list[list[str]] = []
    for letter in letters:
        story = Story.of(letter)
        rows.append(
            [
                letter.task_id if width is None else _short(letter.task_id),
                letter.queue_name,
                ago(now - letter.buried_at),
                story.reason,
                callable_of(letter.body) or "?",
                story.error_line,
            ]
        )
    return table(columns, rows, width)


def letter_text(letter: DeadLetter, now: float, *, with_payload: bool) -> str:
    """Return all about a dead letter; its payload, whose arguments may be secret, only if so asked."""
    story = Story.of(letter)
    size = counted(len(payloads.raw(letter.body)), "byte")
    fields = {
        "id": letter.task_id,
        "queue": letter.queue_name,
        "callable": callable_of(letter.body) or "unknown: the payload is in a form of its own",
        "died": f"{moment(letter.buried_at):%Y-%m-%d %H:%M:%S} UTC ({ago(now - letter.buried_at)})",
        "reason": story.reason,
        "error": story.error_line,
        "payload": size if with_payload else f"{size}; --payload shows it, secrets included",
    }
    if isinstance(letter.body, payloads.Refused):
        fields["callable"] = "unknown: nothing in it is read"
    if signature := payloads.signature_of(letter.body):
        fields["signed"] = SIGNATURES[signature]
    lines = [f"{name:8}  {printable(value)}" for name, value in fields.items()]
    if with_payload:
        lines.append(indented(_laid_out(payloads.raw(letter.body))))
    if story.progress:
        lines.append(f"progress  {printable(progress_text(story.progress, now))}")
    if story.death:
        lines += death_lines(story.death, now)
    if story.traceback:
        lines += ["traceback", indented(story.traceback.rstrip("\n"))]
    return "\n".join(lines)


def letter_json(
    letter: DeadLetter, *, in_full: bool = False, with_payload: bool = False
) -> dict[str, Any]:
    """Return a dead letter; ``in_full`` with its traceback."""
    story = Story.of(letter)
    told: dict[str, Any] = {
        **_ref_json(Ref.to(letter)),
        "buried_at": iso(letter.buried_at),
        "reason": story.reason,
        "callable": callable_of(letter.body),
        "error": story.error,
        "payload_bytes": len(payloads.raw(letter.body)),
        "signature": payloads.signature_of(letter.body) or None,
    }
    if in_full:
        told["traceback"] = story.traceback
        told["progress"] = progress_json(story.progress)
        told["death"] = death_json(story.death)
    if with_payload:
        told["payload"] = _text_of(payloads.raw(letter.body))
    return told


def outcome_json(done: str, outcome: Outcome, unknown: Sequence[str]) -> dict[str, Any]:
    """Return what was done, under that name, and what was not."""
    parts = {done: outcome.done, "stayed": outcome.stayed, "gone": outcome.gone}
    if outcome.waiting:
        parts["waiting"] = outcome.waiting
    if outcome.expired:
        parts["expired"] = outcome.expired
    return {
        **{name: [_ref_json(ref) for ref in refs] for name, refs in parts.items()},
        "not_found": list(unknown),
    }


def outcome_text(done: str, outcome: Outcome) -> str:
    """Return what was done, and what was not and why."""
    lines = [f"{counted(len(outcome.done), 'dead letter')} {done}."] if outcome.done else []
    if waiting := len(outcome.waiting):
        lines += [f"Of these, {waiting:,} {'wait' if waiting > 1 else 'waits'} for others of them."]
    lines += _each(outcome.stayed, "its task is queued again already, so this dead letter stays")
    if outcome.expired:
        lines += [
            f"{counted(len(outcome.expired), 'dead letter')} left out, for what has expired has to be named, "
            "and so has what failed because of it."
        ]
    lines += _each(outcome.gone, "it is gone, someone else has just retried or purged it")
    return "\n".join(lines)


def death_lines(death: Death, now: float) -> list[str]:
    """Return how a process ended, and below that the stack, if it is known."""
    when = f"{moment(death.at):%Y-%m-%d %H:%M:%S} UTC ({ago(now - death.at)})"
    line = f"{death.pid} of host {quoted(death.host)} {death.how()}, {death.seconds:,.1f} s into it, at {when}"
    return [f"process   {printable(line)}", *([indented(death.stack)] if death.stack else [])]


def death_json(death: Death | None) -> dict[str, Any] | None:
    """Return how a process ended."""
    return None if death is None else {**death._asdict(), "how": death.how(), "at": iso(death.at)}


def progress_text(progress: Progress, now: float) -> str:
    """Return how far a task is."""
    of = ""
    if progress.total:
        of = f" of {progress.total:,} ({100 * progress.done / progress.total:.0f} %)"
    note = f", {progress.note}" if progress.note else ""
    return f"{progress.done:,}{of}{note}; said {ago(now - progress.at)}"


def progress_json(progress: Progress | None) -> dict[str, Any] | None:
    """Return how far a task is."""
    return None if progress is None else {**asdict(progress), "at": iso(progress.at)}


def quoted(text: str) -> str:
    """Return a name in quotes, printable."""
    return f"'{printable(text)}'"


def _each(refs: Sequence[Ref], what: str) -> list[str]:
    lines = [
        f"{printable(ref.task_id)} in queue {quoted(ref.queue_name)}: {what}." for ref in refs[:FEW]
    ]
    if len(refs) > FEW:
        lines.append(f"So it is with {len(refs) - FEW:,} more.")
    return lines


def _ref_json(ref: Ref) -> dict[str, str]:
    return {"task_id": ref.task_id, "queue": ref.queue_name, "letter_id": ref.letter_id}


def _short(task_id: str) -> str:
    """Return the end of a UUID, which is enough to find it by; and any other id as it is."""
    uuid = _UUID.fullmatch(task_id)
    return uuid[1] if uuid else task_id


def _text_of(body: bytes) -> str:
    return body.decode(errors="backslashreplace")


def _laid_out(body: bytes) -> str:
    """Return a payload over several lines, if it is JSON."""
    try:
        behind = payloads.plain(body)
        signature = _text_of(body[: len(body) - len(behind)])
        return signature + json.dumps(json.loads(behind), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return _text_of(body)
