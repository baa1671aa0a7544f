"""``alligator verify``: whether a store keeps what is promised, while workers die and connections break."""

import os
import secrets
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from alligator.commands.targets import checked
from alligator.dsn import masked
from alligator.exceptions import AlligatorException, BackendRefused, InvalidOption
from alligator.gator import Gator
from alligator.printable import printable
from alligator.processes.child import LEAVE
from alligator.verify.target import moved
from alligator.verify.trial import LEASE, Tell, Trial, Verdict

FEW = 10
"""Tasks to name of each kind."""
PREFIX = "alligator-verify-"
"""Of the names of queues that are used."""


def verify(
    gator: Gator, target: str | None, queue_name: str | None, seconds: float, tell: Tell
) -> Verdict | None:
    """Try a store; return what came of it, or None if that was broken off by a signal.

    Raises:
        AlligatorException: It could not be carried out.
    """
    pointed_at = target or os.environ["ALLIGATOR_CONN"]
    with _heeding_signals() as ended, _place(gator, pointed_at) as (gator, pointed_at):
        name = _queue_in(gator, queue_name)
        tell(f"Trying {gator.dsn} for {seconds:g} s, in queue {printable(name)} alone.")
        trial = Trial(gator, pointed_at, name, seconds, ended, lambda text: tell(masked(text)))
        verdict = trial.run()
        return None if ended.is_set() else verdict


def dangers(gator: Gator, queue_name: str | None) -> list[str]:
    """Return what the store's settings endanger, in sentences."""
    found: list[str] = []
    for ask in (
        gator.backend.warnings,
        lambda: gator.backend.risks(queue_name or gator.queue_name),
    ):
        try:
            found += ask()
        except AlligatorException as err:
            found.append(f"Some of its settings could not be looked at: {err}")
    if not gator.backend.can_lease:
        found.append(
            f"{gator.dsn} takes a task out before it runs, as clients of the five documented methods do: a "
            "worker that dies has lost it."
        )
    return found


@contextmanager
def _place(gator: Gator, target: str) -> Generator[tuple[Gator, str]]:
    """Return the store to try: for a file that is not there, another one in its folder, removed in the end."""
    path = Path(gator.dsn.rest)
    if gator.dsn.scheme != "sqlite" or gator.backend_class is not None or path.exists():
        yield gator, target
        return
    if "://" not in target:
        raise BackendRefused(f"There is no file {path}. The first task to be queued makes it.")
    other = path.with_name(f"{PREFIX}{secrets.token_hex(8)}.db")
    _, mark, query = gator.dsn.url.partition("?")
    address = f"{gator.dsn.scheme}://{other}{mark}{query}"
    there = moved(gator, address, gator.queue_name)
    try:
        yield there, address
    finally:
        there.backend.close()
        for file in other.parent.glob(f"{other.name}*"):
            file.unlink()


def _queue_in(gator: Gator, queue_name: str | None) -> str:
    """Return the queue to use: a new one, or one that was made for this, and is empty."""
    if gator.backend.makes_queues:
        if queue_name is not None:
            raise InvalidOption(
                "--queue is for stores that make no queues. Here, a new one is used, and removed in the end."
            )
        name = f"{PREFIX}{secrets.token_hex(8)}"
        checked(gator, [name])
        return name
    if queue_name is None:
        raise InvalidOption(
            f"{gator.dsn} makes no queues by itself. Make one for this alone (alligator migrate TARGET "
            f"--create-queues --queue NAME), and name it: --queue NAME. The name is to begin with {PREFIX}"
        )
    # That it is empty at one moment does not say that nobody uses it.
    if not queue_name.startswith(PREFIX):
        raise InvalidOption(
            f"Queue {printable(queue_name)} may be in use, and its tasks would be run or removed. Name one "
            f"that was made for this alone, and whose name begins with {PREFIX}"
        )
    checked(gator, [queue_name])
    if sum(gator.backend.count(queue_name)):
        raise BackendRefused(
            f"Queue {printable(queue_name)} is not empty, and its tasks would be run. Name one that was made "
            "for this alone."
        )
    return queue_name


@contextmanager
def _heeding_signals() -> Generator[threading.Event]:
    """Let the first signal end what runs in the block in order, and further ones do nothing."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    heeded = [number for number in LEAVE if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def verdict_text(verdict: Verdict, found: Sequence[str]) -> str:
    """Return what came of it, as a table and a sentence."""
    findings = verdict.findings
    slowest = (
        f"{findings.slowest:.1f} s, with a lease of {LEASE:g} s" if findings.recoveries else "–"
    )
    rows = {
        "pushed": f"{findings.pushed:,}",
        "finished": f"{findings.finished:,}",
        "lost": _counted(findings.lost),
        "unexpected": _counted(findings.unexpected),
        "run twice, explained": f"{findings.explained:,}",
        "run twice, unexplained": _counted(findings.unexplained),
        "set aside wrongly": _counted(verdict.wrongly_dead),
        "left lying": f"{verdict.stuck:,}",
        "slowest recovery": slowest,
        "done to it": f"{findings.kills:,} processes killed, {verdict.stops:,} times all stopped, "
        f"{verdict.cuts:,} cuts",
    }
    lines = [f"{title:22}  {value}" for title, value in rows.items()]
    if verdict.faults:
        lines += ["", "What workers did:", *(f"- {printable(one)}" for one in verdict.faults)]
    if found:
        lines += ["", "What its settings endanger:", *(f"- {printable(one)}" for one in found)]
    kept = "Every promise was kept." if verdict.is_good else "A promise was broken."
    return "\n".join([*lines, "", kept])


def verdict_json(
    gator: Gator, verdict: Verdict, seconds: float, found: Sequence[str]
) -> dict[str, Any]:
    """Return the same for programs."""
    findings = verdict.findings
    return {
        "store": str(gator.dsn),
        "seconds": seconds,
        "verdict": "kept" if verdict.is_good else "broken",
        "pushed": findings.pushed,
        "finished": findings.finished,
        "lost": findings.lost,
        "unexpected": findings.unexpected,
        "double": {"explained": findings.explained, "unexplained": findings.unexplained},
        "wrongly_dead": verdict.wrongly_dead,
        "left": verdict.stuck,
        "workers": verdict.faults,
        "slowest_recovery": findings.slowest if findings.recoveries else None,
        "lease": LEASE,
        "kills": findings.kills,
        "stops": verdict.stops,
        "cuts": verdict.cuts,
        "warnings": list(found),
    }


def _counted(names: Sequence[str]) -> str:
    if not names:
        return "0"
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return f"{len(names):,}: {', '.join(map(printable, names[:FEW]))}{more}"
