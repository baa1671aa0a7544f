"""The jobs that a client holds. They are bound to their connections; if one is cut, we try to be the others."""

import itertools
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from alligator.backends.base import Reservation, token_of
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.connection import Connection, Job, is_error
from alligator.backends.beanstalk.pool import Pool

SLACK = 0.3
"""Seconds, after it was seen that a lease has lapsed, for who was kept from extending it to do so."""


class Holdings:
    """What a client holds.

    Args:
        pool: The connections that hold it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._numbers = itertools.count(1)
        self.begin()

    def begin(self) -> None:
        """Begin with nothing: in a process just forked, for it is the parent's, and so are the locks."""
        self._lock = threading.RLock()
        self._taking_again = threading.Lock()
        self._held: dict[tuple[str, str], Job] = {}

    def adopt(
        self, connection: Connection, jobs: Sequence[Any], worker: str, lease: float, wall: float
    ) -> list[Reservation]:
        """Take note of jobs that were handed out on a connection; return them as reservations.

        Args:
            connection: The connection; its lock is ours.
            jobs: As greenstalk returned them.
            worker: Who asked for them.
            lease: Seconds that he asked for.
            wall: Now, by the store's clock.
        """
        now = time.monotonic()
        answers = connection.run([("stats_job", job.id) for job in jobs])
        reservations: list[Reservation] = []
        for job, stats in zip(jobs, answers, strict=True):
            if is_error(stats):  # its TTR was over in this moment
                continue
            if (before := connection.held.get(job.id)) is not None:
                self.forget(before)  # its TTR was over, and now it came here again
            task_id, body = form.task_in(job.body, job.id)
            # What came of earlier hand-outs: released is not counted, nor what was buried and kicked.
            counted = stats["reserves"] - stats["releases"] - stats["buries"]
            held = Reservation(
                form.queue_of(str(stats["tube"])),
                task_id,
                body,
                token_of(worker, next(self._numbers), wall),
                max(1, counted + form.surplus_in(stats["pri"])),
            )
            ends = now + lease, now + stats["time-left"]
            ours = Job(job.id, connection, held, stats["pri"], stats["ttr"], *ends)
            with self._lock:
                connection.held[job.id] = self._held[held.token, task_id] = ours
            reservations.append(held)
        return reservations

    def all(self) -> list[Job]:
        """Return all jobs that are held."""
        with self._lock:
            return list(self._held.values())

    def job_of(self, reservation: Reservation) -> Job | None:
        """Return the job that a hand-out holds; None if it holds none any more."""
        with self._lock:
            job = self._held.get((reservation.token, reservation.task_id))
            ours = job is not None and job.reservation.queue_name == reservation.queue_name
            return job if ours else None

    def jobs_of(self, reservations: Sequence[Reservation]) -> list[Job]:
        """Return the jobs that hand-outs hold, of those that hold any."""
        found = [self.job_of(reservation) for reservation in reservations]
        return [job for job in found if job is not None]

    def forget(self, job: Job) -> None:
        """Note that a job is held no more."""
        with self._lock:
            self._held.pop((job.reservation.token, job.reservation.task_id), None)
            if job.connection.held.get(job.id) is job:
                del job.connection.held[job.id]

    def clear(self) -> None:
        """Forget all: the connections are closed."""
        with self._lock:
            self._held.clear()

    def lapsed(self) -> tuple[list[Job], float]:
        """Return the jobs that nobody in this process extends, and when there may be more of them."""
        now, soon = time.monotonic(), math.inf
        lapsed: list[Job] = []
        for job in self.all():
            if job.lapses_at <= now and job.connection.is_open:
                # A task that let no thread run has just ended, perhaps: then who extends it comes next.
                job.looked_at = job.looked_at or now
                if now >= job.looked_at + SLACK:
                    lapsed.append(job)
                soon = min(soon, job.looked_at + SLACK)
            else:
                soon = min(soon, job.lapses_at)
        return lapsed, soon

    def is_cut_off(self) -> bool:
        """Whether a connection that holds jobs has ended, so that they are to be taken again."""
        connections = {job.connection for job in self.all()}
        return bool([one for one in connections if one.has_ended()])  # each that has is closed now

    def take_again(self) -> None:
        """Take jobs again whose connection was lost, if nobody else has; forget the others."""
        if not self.is_cut_off():
            return
        with self._taking_again, self._pool.any() as connection:
            lost = [job for job in self.all() if not job.connection.is_open]
            stats = connection.run([("stats_job", job.id) for job in lost])
            ready = [job for job, one in zip(lost, stats, strict=True) if _is_ready(job, one)]
            taken = connection.run([("reserve_job", job.id) for job in ready])
            for job, answer in zip(ready, taken, strict=True):
                if not is_error(answer):
                    self._take(job, connection, answer)
            for job in lost:
                if not job.connection.is_open:
                    self.forget(job)

    def _take(self, job: Job, connection: Connection, answer: Any) -> None:
        # A server that has lost all it had begins to count anew.
        if form.task_in(answer.body, job.id) != (job.reservation.task_id, job.reservation.body):
            connection.run([("release", answer, job.pri, 0)])
            return
        job.connection = connection
        connection.held[job.id] = job
        job.kept_until = time.monotonic()
        # The server has counted a hand-out that had come to nothing.
        job.pri = form.with_surplus(job.pri, form.surplus_in(job.pri) - 1)


def _is_ready(job: Job, stats: Any) -> bool:
    """Whether a job waits, as far as can be told the one that it was."""
    tube = form.tube_of(job.reservation.queue_name)
    return not is_error(stats) and stats["state"] == "ready" and str(stats["tube"]) == tube
