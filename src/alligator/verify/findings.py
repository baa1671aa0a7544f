"""What a journal tells: whether any task was lost, ran though it should not, or ran twice without a cause."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from alligator.processes.pacing import BATCH_SECONDS, LARGEST_BATCH
from alligator.verify.journal import Entry, Journal

HELD_ON = 0.3
"""Seconds that a finished task may wait for its settlement: what happens by then explains a second run.

A worker settles what is done after each batch; the rest is for the exchange, on a busy machine.
"""
DIES_WITHIN = 1.0
"""Seconds after which a process that was killed is gone: later, its number may be another's."""
LEAVES_WITHIN = 10.0
"""As much for one that was told to leave, with its tasks."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task."""

    start: Entry
    end: Entry | None
    """None: it was broken off, or has not ended."""

    @property
    def is_failed(self) -> bool:
        """Whether it ended with an error, and so may be tried again."""
        return self.end is not None and self.end.kind == "fail"

    def is_retried_by(self, later: "Run") -> bool:
        """Whether another run is what was to follow this one: a further attempt, begun after its failure."""
        end = self.end
        if end is None or end.kind != "fail":
            return False
        return later.start.at >= end.at and later.start.attempt > self.start.attempt


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that may break off runs, or keep them from being settled.

    Args:
        began_at: When it began.
        ended_at: When it was over.
        pid: The process that it happened to; None: all of them.
        is_death: Whether that process went on no more.
    """

    began_at: float
    ended_at: float
    pid: int | None = None
    is_death: bool = False

    def explains(self, run: Run, again_at: float, held_on: float = HELD_ON) -> bool:
        """Whether it may be why a task ran again at some moment, though it had run."""
        if self.pid not in (None, run.start.pid):
            return False
        settled_at = again_at if run.end is None else min(again_at, run.end.at + held_on)
        return self.began_at <= settled_at and self.ended_at >= run.start.at


@dataclass(frozen=True, slots=True)
class Findings:
    """What became of the tasks of one trial."""

    pushed: int
    """Whose push returned."""
    finished: int
    lost: list[str]
    """Pushed, and neither run to the end nor to be found anywhere."""
    unexpected: list[str]
    """Run though nobody had pushed them, or their push was refused, or they were over: settled, canceled."""
    explained: int
    """Runs that were followed by another, and by what we did to them."""
    unexplained: list[str]
    """Tasks that ran again, one entry each time, though nothing had been done to their run."""
    recoveries: list[float]
    """Seconds from each death that broke off a run to the next start of its task."""
    revivals: list[float]
    """Seconds from each return of the server until each worker began a task that it had not held before.

    Infinite where none began any, though some were pushed.
    """
    kills: int
    """How many processes were killed."""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.unexpected or self.unexplained)

    @property
    def slowest(self) -> float:
        """The longest of the recoveries, in seconds."""
        return max(self.recoveries, default=0.0)


def batch_of(seconds: float) -> int:
    """Return how many tasks that take so long a process may have finished, and not settled: those of a batch.

    Example:
        >>> batch_of(0.004)
        13
    """
    return min(int(BATCH_SECONDS / seconds) + 1, LARGEST_BATCH)


def found_in(
    journal: Journal,
    kept: Collection[str] = (),
    *,
    retries_anew: bool = False,
    batch: int = LARGEST_BATCH,
    held_on: float = HELD_ON,
    goes_on: float = HELD_ON,
) -> Findings:
    """Judge what happened by the journal, and by what the store has kept.

    Args:
        journal: What producers, tasks and whoever disturbed them have noted.
        kept: The names of those tasks that need not have finished: dead letters that are right to be there,
            and what is still queued.
        retries_anew: Whether a retry is a new message in the store, beside the old one for a moment: then who
            dies just there leaves both, each of which may run to its end.
        batch: How many finished tasks a process may hold that are not settled yet, at the most: so many second
            runs one thing that befell it may explain.
        held_on: Seconds that one may wait so: longer where a long task may come behind it in its batch.
        goes_on: Seconds after a trouble in which a process may begin what it held, at the most.

    Example:
        >>> from tempfile import mkdtemp
        >>> journal = Journal(f"{mkdtemp()}/journal")
        >>> for kind in ("push", "pushed", "start"):
        ...     journal.note(kind, "t1")
        >>> found_in(journal).lost
        ['t1']
    """
    entries = journal.entries()
    troubles = troubles_in(entries, goes_on)
    pushed, finished = (_names(entries, kind) for kind in ("pushed", "finish"))
    given_up = _names(entries, "cancel") | _names(entries, "canceled")
    runs = runs_in(entries)
    again = [
        (name, run, later.start.at)
        for name, each in runs.items()
        for run, later in pairwise(each)
        if not run.is_retried_by(later)
    ]
    causes = _causes(again, troubles, batch, held_on)
    if retries_anew:
        causes = [
            cause or _of_retries(runs[name], at, troubles)
            for (name, _, at), cause in zip(again, causes, strict=True)
        ]
    return Findings(
        pushed=len(pushed),
        finished=len(finished),
        lost=sorted(pushed - finished - given_up - set(kept)),
        unexpected=sorted(_unexpected(entries, runs)),
        explained=sum(map(bool, causes)),
        unexplained=[name for (name, _, _), cause in zip(again, causes, strict=True) if not cause],
        recoveries=[
            at - death.began_at
            for (_, run, at), cause in zip(again, causes, strict=True)
            for death in cause
            if death.is_death and run.end is None
        ],
        revivals=_revivals(entries, batch),
        kills=sum(entry.kind == "kill" for entry in entries),
    )


def _causes(
    again: Iterable[tuple[str, Run, float]], troubles: Iterable[Trouble], batch: int, held_on: float
) -> list[list[Trouble]]:
    """Return what explains each second run. What finished waits only as a batch for its settlement."""
    by_pid: dict[int | None, list[Trouble]] = defaultdict(list)
    for one in troubles:
        by_pid[one.pid].append(one)
    excused: Counter[tuple[Trouble, int]] = Counter()
    causes: list[list[Trouble]] = []
    for _, run, at in again:
        pid = run.start.pid
        cause = [one for one in (*by_pid[pid], *by_pid[None]) if one.explains(run, at, held_on)]
        if run.end is not None:
            cause = [one for one in cause if excused[one, pid] < batch][:1]
            excused.update((one, pid) for one in cause)
        causes.append(cause)
    return causes


def _of_retries(runs: Iterable[Run], at: float, troubles: Iterable[Trouble]) -> list[Trouble]:
    """Return what may have broken off the step from one of these runs to its retry."""
    failed = [run for run in runs if run.is_failed and run.start.at < at]
    return [one for one in troubles if any(one.explains(run, at) for run in failed)]


def _revivals(entries: Sequence[Entry], batch: int) -> list[float]:
    """Return how long each worker took after each ``up``. Not by tasks that it may have held all the while.

    Those are a batch at the most. To wait for what was pushed since would count how much waited before that.
    """
    ups = [entry.at for entry in entries if entry.kind == "up"]
    downs = [entry.at for entry in entries if entry.kind == "down"]
    found: list[float] = []
    for up in ups:
        until = min((at for at in downs if at > up), default=math.inf)
        new = {one.name for one in entries if one.kind == "push" and up < one.at < until}
        firsts: dict[int, float] = {}
        begun = Counter[int]()
        for one in entries:
            if one.kind == "start" and up < one.at < until:
                begun[one.pid] += 1
                if one.name in new or begun[one.pid] > batch:
                    firsts.setdefault(one.pid, one.at - up)
        workers = {one.pid for one in entries if one.kind == "start" and one.at < up}
        back = [at for pid, at in firsts.items() if pid in workers]
        found += back or ([min(firsts.values(), default=math.inf)] if new else [])
    return found


def broken_off(journal: Journal, name: str, held_on: float = HELD_ON) -> int:
    """Return how many runs of a task something has ended, or may have."""
    entries = journal.entries()
    troubles = troubles_in(entries)
    runs = runs_in(entries).get(name, [])
    ends = [*(later.start.at for later in runs[1:]), float("inf")]
    return sum(
        any(one.explains(run, again_at, held_on) for one in troubles)
        for run, again_at in zip(
            runs, ends, strict=False
        )  # one end is left over where none has run
    )


def runs_in(entries: Iterable[Entry]) -> dict[str, list[Run]]:
    """Return each task's runs, in order."""
    ends: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    starts: list[Entry] = []
    for entry in entries:
        if entry.kind == "start":
            starts.append(entry)
        elif entry.kind in ("finish", "fail"):
            ends[entry.name, entry.pid].append(entry)
    next_starts: dict[tuple[str, int], float] = {}
    runs: dict[str, list[Run]] = defaultdict(list)
    for start in reversed(
        starts
    ):  # a process may run a task again: each end is of the last start before it
        key = start.name, start.pid
        until = next_starts.get(key, float("inf"))
        end = next((one for one in ends[key] if start.at <= one.at < until), None)
        runs[start.name].insert(0, Run(start, end))
        next_starts[key] = start.at
    return dict(runs)


def troubles_in(entries: Iterable[Entry], goes_on: float = HELD_ON) -> list[Trouble]:
    """Return what was done to processes, to the server, and to the network.

    Who held a task may begin it a moment after that (``goes_on``), though it went to another.
    """
    found: list[Trouble] = []
    open_: dict[tuple[str, int | None], float] = {}
    for entry in entries:
        pid = entry.pid if entry.kind in ("stop", "go") else None
        match entry.kind:
            case "kill":
                found.append(Trouble(entry.at, entry.at + DIES_WITHIN, entry.pid, is_death=True))
                stopped_at = open_.pop(("stop", entry.pid), None)
                if stopped_at is not None:
                    found.append(Trouble(stopped_at, entry.at, entry.pid))
            case "leave":
                found.append(Trouble(entry.at, entry.at + LEAVES_WITHIN, entry.pid))
            case "cut":
                found.append(Trouble(entry.at, entry.at + goes_on))
            case "stop" | "down":
                open_[entry.kind, pid] = entry.at
            case "go":
                found.append(Trouble(open_.pop(("stop", pid), entry.at), entry.at + goes_on, pid))
            case "up":
                found.append(Trouble(open_.pop(("down", None), entry.at), entry.at + goes_on))
            case _:
                pass
    lasting = [Trouble(began_at, float("inf"), pid) for (_, pid), began_at in open_.items()]
    return found + lasting


def _unexpected(entries: Iterable[Entry], runs: dict[str, list[Run]]) -> set[str]:
    tried, over_at = set[str](), dict[str, float]()
    refused = set[str]()
    for entry in entries:
        if entry.kind in ("push", "pushed"):
            tried.add(entry.name)
            refused.discard(entry.name)
            over_at.pop(entry.name, None)
        elif entry.kind == "refused":
            refused.add(entry.name)
        elif entry.kind in ("canceled", "settled"):
            over_at[entry.name] = entry.at
    return {
        name
        for name, each in runs.items()
        if name not in tried
        or name in refused
        or any(run.start.at > over_at.get(name, float("inf")) for run in each)
    }


def _names(entries: Iterable[Entry], kind: str) -> set[str]:
    return {entry.name for entry in entries if entry.kind == kind}
