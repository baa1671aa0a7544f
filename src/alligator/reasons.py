"""Why a task does not run, or what became of it, in one sentence each."""

from collections.abc import Callable, Sequence

from alligator.commands.tables import CUT, counted, duration, moment
from alligator.dependencies.edges import Name
from alligator.limits import Rate
from alligator.limits.gates import LOOK_AT
from alligator.statuses import MANY, Status

FEW = 3
"""Tasks to name in a sentence; of more, how many they are."""
LONGEST = 300
"""Characters of an error that a sentence has room for."""


def why(status: Status) -> str:
    """Return in one sentence what a task waits for, or what became of it.

    It may have characters in it that are not fit for a terminal: of a name, or an error.

    Example:
        >>> why(Status("t1", "mail", "waiting", position=0, consumers=0))
        "Task 't1' is next in line, but no worker that is alive takes from queue 'mail'."
    """
    text = f"Task {status.task_id!r} {_SENTENCES[status.state](status)}"
    return text if text.endswith(("!", "?", CUT)) else text.removesuffix(".") + "."


def when(seconds: float, now: float) -> str:
    """Return a moment, and how far off it is.

    Example:
        >>> when(1_700_000_000.0, 1_699_999_700.0)
        '2023-11-14 22:13:20 UTC (in 5 min)'
    """
    at = moment(seconds)
    left = at.timestamp() - now
    if abs(left) < 1:
        relative = "now"
    else:
        relative = f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({relative})"


def error_line(text: str) -> str:
    """Return the beginning of an error, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST] + CUT


def _waiting(status: Status) -> str:
    if status.error:
        return f"is about to fail: {error_line(status.error)}"
    expires_at = status.expires_at
    if expires_at is not None and expires_at < status.at:
        passed = when(expires_at, status.at)
        return (
            f"expired at {passed} and will not be run: the next worker that takes it makes it fail"
        )
    if status.due_at is not None:
        place = f"has been due since {when(status.due_at, status.at)} and waits"
    elif status.position is None:
        place = "waits"
    elif status.position == 0:
        place = "is next in line"
    else:
        place = f"waits behind {counted(status.position, 'other')}"
    return place + _consumers(status) + _before(status)


def _consumers(status: Status) -> str:
    queue = f"queue {status.queue_name!r}"
    if status.consumers is None:
        return f" in {queue}"
    if status.consumers == 0:
        return f", but no worker that is alive takes from {queue}"
    if status.consumers == 1:
        return f" for the one worker that takes from {queue}"
    return f" for one of the {status.consumers:,} workers that take from {queue}"


def _before(status: Status) -> str:
    """Return what went before."""
    if status.stop_asked:
        return f"; {_asked(status)}"
    told = ""
    if status.attempt > 1:
        told = f"; attempt {status.attempt - 1} failed{_with_last_error(status)}"
    if status.deliveries:
        times = "once" if status.deliveries == 1 else f"{status.deliveries} times"
        why = "its worker died, or could not import it"
        if status.death is not None:
            why = f"the process that had it last {status.death.how()}"
        told += f"; it was taken {times} and nothing came of that: {why}"
    return told


def _asked(status: Status) -> str:
    if status.stop_asked == "timeout":
        return "it is asked to end, for it ran into its timeout"
    return "it is asked to end, for it was canceled"


def _with_last_error(status: Status) -> str:
    error = error_line(str(status.history[-1].get("error", ""))) if status.history else ""
    return f" ({error})" if error else ""


def _delayed(status: Status) -> str:
    if status.due_at is None:
        return "is delayed, and it is not known until when"
    return f"is delayed until {when(status.due_at, status.at)}{_nobody(status)}{_before(status)}"


def _retrying(status: Status) -> str:
    due = "" if status.due_at is None else f" at {when(status.due_at, status.at)}"
    failed = f"failed{_with_last_error(status)}"
    asked = f"; {_asked(status)}" if status.stop_asked else ""
    return f"{failed}, and attempt {status.attempt} is to start{due}{_nobody(status)}{asked}"


def _nobody(status: Status) -> str:
    if status.consumers != 0:
        return ""
    return f"; but no worker that is alive takes from queue {status.queue_name!r}"


def _blocked(status: Status) -> str:
    besides = ""
    if status.due_at is not None:
        besides = f", and is delayed until {when(status.due_at, status.at)} besides"
    names = _named(status.blocked_by, status.queue_name, MANY)
    has = "has" if len(status.blocked_by) == 1 else "have"
    return f"waits until {names} {has} succeeded{besides}"


def _limited(status: Status) -> str:
    limit = status.limit
    if limit is None:
        return "is kept back by a limit"
    kept_back = f"is kept back by the limit {limit.key!r}: no more than {limit.n:,} may"
    if isinstance(limit, Rate):
        rule = f"{kept_back} start in {limit.per:g} s"
        if status.due_at is None:
            return f"{rule}, and others come before it"
        return f"{rule}, and its turn is at {when(status.due_at, status.at)}"
    rule = f"{kept_back} run at a time"
    if not status.held_by:
        return f"{rule}, and its turn is about to come"
    run = "runs" if len(status.held_by) == 1 else "run"
    return f"{rule}, and {_named(status.held_by, status.queue_name, LOOK_AT)} {run}"


def _running(status: Status) -> str:
    since = when(status.since or 0.0, status.at)
    until = when(status.lease_until or 0.0, status.at)
    worker, asked = status.worker, f"; {_asked(status)}" if status.stop_asked else ""
    who = "a worker that is not known any more"
    if worker is not None:
        who = f"process {worker.pid} of host {worker.host!r}"
    if (status.lease_until or 0.0) <= status.at:
        taken = f"was taken at {since} by {who}, whose lease lapsed at {until}"
        return f"{taken}: the next worker that looks takes it over{_nobody(status)}{asked}"
    if worker is None:
        taken = f"was taken at {since} by a worker that has vanished, or never was registered"
        lapses = (
            f"unless it extends its lease, that lapses at {until}, and another worker takes over"
        )
        return f"{taken}; {lapses}{_nobody(status)}{asked}"
    lease = f"on a lease until {until} that is extended while the worker is alive"
    return f"has been running since {since} in {who}, {lease}{asked}"


def _succeeded(status: Status) -> str:
    return f"succeeded{_at_its_end(status)}"


def _failed(status: Status) -> str:
    how = _REASONS.get(status.reason, "failed for good")
    error = error_line(status.error)
    return f"{how}{_at_its_end(status)}" + (f": {error}" if error else "")


_REASONS = {
    "poison": "was given up",
    "unreadable": "could not be read or imported, and was given up",
}


def _canceled(status: Status) -> str:
    return f"was canceled{_at_its_end(status)}"


def _at_its_end(status: Status) -> str:
    return "" if status.ended_at is None else f" at {when(status.ended_at, status.at)}"


def _unknown(status: Status) -> str:
    return (
        f"is not in queue {status.queue_name!r}: it was never put there, or it is done and forgotten "
        "(keep_result keeps what became of a task)"
    )


def _named(tasks: Sequence[Name], queue_name: str, most: int) -> str:
    """Return the names of tasks, the queue only where it is another; there may be more if they are the most."""
    names = [
        repr(task_id) if queue == queue_name else f"{task_id!r} of queue {queue!r}"
        for queue, task_id in tasks
    ]
    if (others := len(names) - FEW) > 0:
        at_least = "at least " if len(names) >= most else ""
        names = [*names[:FEW], f"{at_least}{counted(others, 'other')}"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


_SENTENCES: dict[str, Callable[[Status], str]] = {
    "waiting": _waiting,
    "delayed": _delayed,
    "retrying": _retrying,
    "blocked": _blocked,
    "limited": _limited,
    "running": _running,
    "succeeded": _succeeded,
    "failed": _failed,
    "canceled": _canceled,
    "unknown": _unknown,
}
