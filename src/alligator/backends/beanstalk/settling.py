"""Settling jobs of one connection: a few round trips, however many there are.

What is put comes before what is deleted, so that a crash in between runs a task again, and never loses it.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import greenstalk

from alligator.backends.base import Ack, Bury, Release, Settlement
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.connection import Command, Connection, Job, is_error, refused
from alligator.backends.beanstalk.letters import note_put
from alligator.dsn import DSN

log = logging.getLogger("alligator.backend")

UNSURE = 1.0
"""Seconds before a TTR is over in which it is asked first whether the job is still ours: else we might delete
what is not, for beanstalkd lets anybody delete a job that is ready."""

Settled = tuple[Job, Settlement]


class Settling:
    """Settlements of jobs that one connection holds.

    Args:
        dsn: The server's, for errors.
        connection: The connection; its lock is ours.
    """

    def __init__(self, dsn: DSN, connection: Connection) -> None:
        self.over: list[Job] = []
        """The jobs that the connection does not hold any more."""
        self._dsn = dsn
        self._connection = connection

    def carry_out(self, settled: Sequence[Settled]) -> list[Settlement]:
        """Carry them out, and return the late ones.

        Raises:
            QueueFull, BackendRefused: There is no room for a new attempt, or on the server's disk: that task is
                still held, the others are settled.
        """
        ours = self._still_ours(settled)
        late = [settlement for job, settlement in settled if job in self.over]
        put = self._put(ours)
        finals, errors = self._finals(ours, put)
        answers = self._connection.run([command for _, _, command in finals])
        missed: list[Job] = []
        for (job, _, command), answer in zip(finals, answers, strict=True):
            if is_error(answer) and _is_still_held(command, answer):
                errors.append(answer)
                continue
            self.over.append(job)
            if isinstance(answer, greenstalk.NotFoundError):
                missed.append(job)
            elif isinstance(answer, greenstalk.BuriedError):
                log.error("The server is out of memory, and has buried task %r", _id(job))
            elif is_error(answer):
                errors.append(answer)
        late += [settlement for job, settlement in settled if job in missed]
        self._take_back([put[job.id] for job in missed if job.id in put] + errors)
        if errors:
            raise refused(self._dsn, errors[0])
        return late

    def _finals(
        self, settled: Sequence[Settled], put: Mapping[int, Any]
    ) -> tuple[list[tuple[Job, Settlement, Command]], list[greenstalk.Error]]:
        """Return how to let go of each job, after what was put for it; and what keeps us from it."""
        finals: list[tuple[Job, Settlement, Command]] = []
        errors: list[greenstalk.Error] = []
        for job, settlement in settled:
            answer: Any = put.get(job.id)
            if isinstance(settlement, Release) and is_error(answer):
                if not isinstance(answer, greenstalk.JobTooBigError):
                    errors.append(answer)
                    continue
                settlement = self._too_big(job, settlement)
            elif is_error(answer):
                log.warning("Why task %r is dead could not be noted: %s", _id(job), answer)
            finals.append((job, settlement, _final(job, settlement)))
        return finals, errors

    def _still_ours(self, settled: Sequence[Settled]) -> list[Settled]:
        """Return those that are held; ask where that is not sure."""
        now = time.monotonic()
        asked = [job for job, _ in settled if now > job.kept_until - UNSURE]
        answers = self._connection.run([("touch", job.named) for job in asked])
        self.over += [job for job, answer in zip(asked, answers, strict=True) if is_error(answer)]
        return [one for one in settled if one[0] not in self.over]

    def _put(self, settled: Sequence[Settled]) -> dict[int, Any]:
        """Put new attempts, and the notes of dead letters; return the answers by the jobs' ids."""
        commands: list[Command] = []
        whose: list[int | None] = []
        for job, settlement in settled:
            if isinstance(settlement, Release) and settlement.body is not None:
                tube, put = form.tube_of(job.reservation.queue_name), self._attempt(job, settlement)
            elif isinstance(settlement, Bury):
                tube = form.dead_tube_of(job.reservation.queue_name)
                put = note_put(job, settlement.note)
            else:
                continue
            commands += [*(use := self._connection.use(tube)), put]
            whose += [*(None for _ in use), job.id]
        answers = self._connection.run(commands)
        return {job: answer for job, answer in zip(whose, answers, strict=True) if job is not None}

    def _attempt(self, job: Job, release: Release) -> Command:
        body = form.job_body(release.body or b"", _id(job))
        return (
            "put",
            body,
            form.with_surplus(job.pri, 0),
            form.whole_seconds(release.delay),
            job.ttr,
        )

    def _too_big(self, job: Job, release: Release) -> Bury:
        """A new attempt that the server does not take, for it says more than the one before."""
        log.error("Task %r is buried: its next attempt is bigger than the server takes", _id(job))
        bury = Bury(release.reservation, "Its next attempt is bigger than beanstalkd takes.")
        self._put([(job, bury)])
        return bury

    def _take_back(self, put: Sequence[Any]) -> None:
        """Delete what was put for jobs that were not ours any more, or was buried for want of memory."""
        numbers = [getattr(answer, "id", None) if is_error(answer) else answer for answer in put]
        self._connection.run([("delete", number) for number in numbers if number is not None])


def _final(job: Job, settlement: Settlement) -> Command:
    """Return the command that lets go of a job."""
    surplus = form.surplus_in(job.pri)
    if isinstance(settlement, Bury):
        # Whoever kicks it begins to count anew.
        pri = form.with_surplus(job.pri, surplus + 1 - job.reservation.deliveries)
        return "bury", job.named, pri
    if isinstance(settlement, Ack) or settlement.body is not None:
        return "delete", job.id
    pri = form.with_surplus(job.pri, surplus + 1) if settlement.lapsed else job.pri
    return "release", job.named, pri, form.whole_seconds(settlement.delay)


def _is_still_held(command: Command, err: greenstalk.Error) -> bool:
    """Whether a job was not let go of, for the server could not write that down."""
    full = (greenstalk.OutOfMemoryError, greenstalk.InternalError)
    return command[0] in ("release", "bury") and isinstance(err, full)


def _id(job: Job) -> str:
    return job.reservation.task_id
