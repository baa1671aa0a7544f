"""The line that ``latergator --progress`` keeps up to date on a terminal."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from alligator.processes.board import Tally

COUNT_EVERY = 0.5
"""Seconds between two questions to the store how much waits."""


class Progress:
    """Shows nothing while the work runs, and at its end what came of it."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if err is None:
            try:
                print(summary(self._tally, time.monotonic() - self._began_at), flush=True)
            except OSError:  # whoever read it has gone; the work is done
                pass

    def show(self, tally: Tally, waiting: Callable[[], int]) -> None:
        """Take note of what came of all attempts so far; ``waiting`` tells how many tasks are left."""
        self._tally = tally


class LiveProgress(Progress):
    """Shows a bar, drawn by rich."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__()
        self._bar = RichProgress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            transient=True,
        )
        self._line = self._bar.add_task("starting", total=None)
        self._counted_at = 0.0
        self._waiting = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        super().__exit__(kind, err, trace)

    def show(self, tally: Tally, waiting: Callable[[], int]) -> None:
        """Draw the line anew."""
        super().show(tally, waiting)
        now = time.monotonic()
        if now - self._counted_at > COUNT_EVERY:
            self._waiting, self._counted_at = waiting(), now
        ended = tally.done + tally.failed
        rate = ended / max(now - self._began_at, 0.001)
        self._bar.update(
            self._line,
            completed=ended,
            total=ended + self._waiting,
            description=f"{tally.done:,} done  {rate:,.0f}/s  {self._waiting:,} waiting  "
            f"{tally.failed:,} failed",
        )


def progress_on(stream: TextIO) -> Progress:
    """Return what shows progress on a stream: live if it is a terminal and rich is installed."""
    if not stream.isatty():
        return Progress()
    try:
        return LiveProgress()
    except ModuleNotFoundError:
        print(
            "latergator: --progress needs rich: pip install 'alligator[progress]'. "
            "Going on without.",
            file=sys.stderr,
        )
        return Progress()


def summary(tally: Tally, seconds: float) -> str:
    """Return what came of all attempts, in one line.

    Example:
        >>> summary(Tally(done=1200, failed=2), 4.0)
        '1,200 done, 2 failed, 0 retried in 4.0 s (300/s).'
    """
    rate = (tally.done + tally.failed) / max(seconds, 0.001)
    return (
        f"{tally.done:,} done, {tally.failed:,} failed, {tally.retried:,} retried "
        f"in {seconds:.1f} s ({rate:,.0f}/s)."
    )
