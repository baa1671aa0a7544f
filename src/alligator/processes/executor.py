"""Running what a worker holds: each task from its bytes to a settlement, in whatever thread."""

import logging
import threading
import time
from collections.abc import Callable

from alligator import limits, stops
from alligator.attempts import Runner
from alligator.backends.base import Reservation
from alligator.dependencies import OurTask
from alligator.exceptions import BackendRefused, BackendUnavailable
from alligator.processes.holdings import Held, Holdings
from alligator.raised import log_raised
from alligator.runs import Run
from alligator.settling import Attempt, settle

log = logging.getLogger("alligator.worker")

AT_LEAST = 2.0
"""Seconds that every lease is good for, where it is not the worker who says how long."""


class Executor:
    """Runs tasks that are held, and takes note of what comes of them; for any number of threads.

    Args:
        runner: Makes the attempts.
        holdings: What is held.
        lease: Seconds that a hand-out is good for, unless extended.
        is_leaving: Whether the worker was told to leave: then a task ends where it can be resumed.
        tell: Called with what a task returned.
    """

    def __init__(
        self,
        runner: Runner,
        holdings: Holdings,
        lease: float,
        is_leaving: Callable[[], bool],
        tell: Callable[[object], None],
    ) -> None:
        self.completed = 0
        """How many attempts have come to an end, whatever that was; but for those of tasks of our own."""
        self._runner = runner
        self._backend = runner.backend
        self._patiently = runner.patiently
        self._holdings = holdings
        self._lease = lease
        self._is_leaving = is_leaving
        self._tell = tell
        self._parking = threading.Lock()
        self._to_park: list[tuple[Held, limits.Limit]] = []

    def run(self, held: Held) -> None:
        """Run one task in this thread; its settlement goes out with the next exchange."""
        run = self.read(held)
        if run is not None and self.may_start(held, run):
            self.end(held, run.complete)

    def read(self, held: Held) -> Run | None:
        """Read a task, and return its run; None when there is nothing to run: what becomes of it is seen to."""
        try:
            run = self._runner.read(held.reservation)
        except (BackendUnavailable, BackendRefused) as err:
            self._left_to_its_lease(held, err)
            return None
        if isinstance(run, Attempt):
            outcome = run
            self.end(held, lambda: outcome)
            return None
        return run

    def may_start(self, held: Held, run: Run) -> bool:
        """Return whether a task that was read may start now; if not, what becomes of it is seen to."""
        try:
            if not self._is_still_ours(held):
                return False
            outcome = run.obstacle()
            if outcome is None and self._to_park:  # before this one, which may take long
                self.park()
                outcome = run.starts()
        except (BackendUnavailable, BackendRefused) as err:
            self._left_to_its_lease(held, err)
            return False
        if outcome is not None:
            if outcome.waits_for is not None:
                with self._parking:
                    self._to_park.append((held, outcome.waits_for))
            else:
                self.end(held, lambda: outcome)
            return False
        run.running.leave_when(self._is_leaving)
        self._holdings.run(held, run.running)
        return True

    def end(self, held: Held, attempt: Callable[[], Attempt]) -> None:
        """Make an attempt, or the rest of it, and take note of what comes of it."""
        try:
            self._ended(held, attempt())
        # None of the task's own, which would be its failure.
        except (BackendUnavailable, BackendRefused) as err:
            self._left_to_its_lease(held, err)

    def _ended(self, held: Held, outcome: Attempt) -> None:
        """Take note of what came of an attempt; its settlement goes out with the next exchange."""
        if outcome.has_more:
            # What is to follow the settlement cannot wait for the exchange.
            settle(self._backend, outcome, self._patiently)
        is_ours = isinstance(outcome.task, OurTask)
        if not is_ours:  # before it is finished, or one too many would be taken in its place
            self.completed += 1
        is_settled = outcome.has_more or outcome.is_completed
        self._holdings.finish(held, outcome.settlement, is_settled=is_settled)
        if is_ours:
            return
        if outcome.task is not None and outcome.is_success:
            try:
                self._tell(outcome.task.result)
            except (Exception, SystemExit) as err:  # of its text, perhaps
                what = "Task %r is done, but result() raised"
                log_raised(log, what, held.reservation.task_id, err=err)

    def park(self) -> None:
        """Put tasks that may not start yet in line for their limits."""
        with self._parking:
            parking = list(self._to_park)
            self._to_park.clear()
        if not parking:
            return
        waiting = [(held.reservation, limit) for held, limit in parking]
        try:
            parked = self._patiently(lambda: limits.park(self._backend, waiting))
            self._patiently(lambda: self._backend.settle(parked.releases))
            self._patiently(parked.then)
            self._patiently(lambda: self.heed_stops([held for held, _ in waiting]))
        except (BackendUnavailable, BackendRefused) as err:
            for held, _ in parking:
                self._left_to_its_lease(held, err)
            return
        for (held, _), release in zip(parking, parked.releases, strict=True):
            self._holdings.finish(held, release, is_settled=True)

    def heed_stops(self, released: list[Reservation]) -> None:
        """Cancel those of some tasks, just given back, that were asked to end before."""
        stops.heed(self._backend, self._runner.results, released)

    def _left_to_its_lease(self, held: Held, err: Exception) -> None:
        log.error("Task %r is left to its lease: %s", held.reservation.task_id, err)
        self._holdings.drop(held)

    def _is_still_ours(self, held: Held) -> bool:
        """Ask the store, where the lease may have lapsed before the task could start: after a long sleep."""
        extended_at = self._holdings.board.extended_at
        passed = time.monotonic() - (
            extended_at if extended_at > held.posted_at else held.leased_at
        )
        is_short = passed < AT_LEAST / 2 or passed < self._backend.shortest_lease() / 2
        if passed < self._lease / 2 and is_short:
            # Looked at afterwards: the keeper marks before it says that it has extended.
            if not self._holdings.is_gone(held):
                return True
        elif not self._patiently(lambda: self._backend.extend([held.reservation], self._lease)):
            return True
        log.warning(
            "Task %r went to another worker before it could start", held.reservation.task_id
        )
        self._holdings.drop(held)
        return False
