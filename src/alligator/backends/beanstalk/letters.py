"""Dead letters in beanstalkd: buried jobs, as everybody knows them there, and a tube with a note of each.

A job that is buried stays in its queue's tube, whole, where ``kick`` finds it. But beanstalkd shows only the
first of those, and a job has no place for what happened. So a note is put first, as a job of its own, into the
tube "<queue>$.dead", and tells which job it is of, when and why. The newest note is the most urgent job there.

To read notes is to reserve them; the end of the connection gives them back. A note whose job is not buried is
of one that was kicked or deleted by others, or of a burial that did not happen: it is passed over, and deleted.
"""

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from alligator import payloads
from alligator.backends.base import DeadLetter
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.connection import Command, Connection, Job, is_error

PLAIN = 8_000
"""Bytes of a note beyond which it is compressed."""
MOST = 30_000
"""Bytes of a note: as little as that fits whatever the server takes, as a rule."""
LONGEST = 10_000_000
"""Bytes of a note that are shown: what others pack into some thousands could be more than there is room for."""
AT_ONCE = 64
"""Notes to read in a round trip."""
STALE = 60.0
"""Seconds after which a note without a buried job is of no burial that is still under way."""
TTR = 60


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a burial."""

    letter: int
    """The note's own job."""
    job: int
    """The one that was buried."""
    task_id: str
    at: float
    text: str


class _Found(NamedTuple):
    """A letter, by the job of its note, and the job that is buried; the same if others buried it."""

    letter: int
    job: int
    pri: int


@dataclass(frozen=True, slots=True)
class Listed:
    """Some dead letters."""

    some: list[DeadLetter]
    is_whole: bool
    """False: somebody else was reading their notes, and so some may be missing."""


def note_put(job: Job, text: str) -> Command:
    """Return the command that puts the note of a job which is to be buried."""
    now = time.time()
    body = _written(job.id, job.reservation.task_id, now, text)
    return "put", body, max(0, 2**32 - 1 - int(now)), 0, TTR


class Letters:
    """The dead letters of a queue.

    Args:
        connection: A connection; its lock is ours.
        queue_name: The queue.
    """

    def __init__(self, connection: Connection, queue_name: str) -> None:
        self._connection = connection
        self._queue_name = queue_name
        self._tube = form.tube_of(queue_name)
        self._notes_tube = form.dead_tube_of(queue_name)

    def listed(self, task_id: str | None, limit: int, skip: int) -> Listed:
        """Return dead letters, the newest first. The connection is to be closed then."""
        notes, is_all, read = self._read(task_id, limit + skip)
        is_whole = self._is_whole(read, is_all)
        chosen = notes[skip : skip + limit]
        jobs = self._connection.run([("peek", note.job) for note in chosen])
        letters = [
            self._letter(note.letter, note.task_id, job.body, note.text, note.at)
            for note, job in zip(chosen, jobs, strict=True)
            if not is_error(job)
        ]
        if is_all and len(letters) < limit:
            letters += self._without_note(task_id, {note.job for note in notes})
        return Listed(letters, is_whole)

    def retried(self, letter_ids: Sequence[str], delay: int) -> list[str]:
        """Let letters be tasks again, after some seconds; return the ids of those that are."""
        return self._settled(letter_ids, lambda found: self._kicked(found, delay))

    def purged(self, letter_ids: Sequence[str]) -> list[str]:
        """Delete letters; return the ids of those that were there."""
        return self._settled(
            letter_ids, lambda found: self._connection.run([("delete", one.job) for one in found])
        )

    def _settled(
        self, letter_ids: Sequence[str], settle: Callable[[list[_Found]], list[Any]]
    ) -> list[str]:
        """Do something with the jobs of letters, and forget the notes; return the ids of those that it was."""
        settled: list[_Found] = []
        for at in range(0, len(letter_ids), AT_ONCE):
            found = self._found(letter_ids[at : at + AT_ONCE])
            answers = settle(found)
            done = [one for one, to in zip(found, answers, strict=True) if not is_error(to)]
            # If somebody reads a note just now, it is found to be stale later.
            notes = [one.letter for one in done if one.letter != one.job]
            self._connection.run([("delete", letter) for letter in notes])
            settled += done
        return [str(one.letter) for one in settled]

    def _kicked(self, found: list[_Found], delay: int) -> list[Any]:
        if not delay:
            return self._connection.run([("kick_job", one.job) for one in found])
        jobs = self._connection.run([("reserve_job", one.job) for one in found])
        releases = [
            ("release", job, one.pri, delay)
            for one, job in zip(found, jobs, strict=True)
            if not is_error(job)
        ]
        self._connection.run(releases)
        return jobs

    def _found(self, letter_ids: Sequence[str]) -> list[_Found]:
        """Return those letters whose jobs are buried."""
        numbers = [number for one in letter_ids if (number := form.job_id(one)) is not None]
        stats = self._connection.run([("stats_job", number) for number in numbers])
        bodies = self._connection.run([("peek", number) for number in numbers])
        jobs: dict[int, int] = {}
        for number, its, body in zip(numbers, stats, bodies, strict=True):
            if is_error(its) or is_error(body):
                continue
            if str(its["tube"]) != self._notes_tube:
                jobs[number] = number  # it was buried by others, without a note
            elif note := _read(number, body.body):
                jobs[number] = note.job
        buried = self._buried(list(jobs.values()))
        return [
            _Found(letter, job, buried[job]["pri"]) for letter, job in jobs.items() if job in buried
        ]

    def _buried(self, jobs: Sequence[int]) -> dict[int, Any]:
        """Return the statistics of those jobs that are buried in this queue."""
        answers = self._connection.run([("stats_job", job) for job in jobs])
        return {
            job: stats
            for job, stats in zip(jobs, answers, strict=True)
            if not is_error(stats)
            and stats["state"] == "buried"
            and str(stats["tube"]) == self._tube
        }

    def _is_whole(self, read: Sequence[Any], is_all: bool) -> bool:
        """Whether nobody else holds notes now, or has given back some that should have been read."""
        stats, more = self._connection.run([("stats_tube", self._notes_tube), ("reserve", 0)])
        if is_error(stats) or stats["current-jobs-reserved"] > len(read):
            return is_error(stats)
        if is_error(more):
            return True
        last, missed = _read(0, read[-1].body) if read else None, _read(0, more.body)
        return not is_all and bool(last and missed and int(missed.at) <= int(last.at))

    def _read(self, task_id: str | None, wanted: int) -> tuple[list[Note], bool, list[Any]]:
        """Reserve the newest notes.

        Returns:
            Those of buried jobs, at least as many as wanted; whether that is all; and all that were read.
        """
        self._connection.run(self._connection.watch([self._notes_tube]))
        found: dict[int, Note] = {}
        stale: list[int] = []
        read: list[Any] = []
        while True:
            answers = self._connection.run([("reserve", 0)] * AT_ONCE)
            jobs = [answer for answer in answers if not is_error(answer)]
            read += jobs
            notes = [note for job in jobs if (note := _read(job.id, job.body))]
            buried = self._buried([note.job for note in notes])
            for note in notes:
                # Of two notes of a job the newer one counts: the other is of a burial before.
                if note.job in buried and note.job not in found:
                    found[note.job] = note
                elif time.time() - note.at > STALE:
                    stale.append(note.letter)
            chosen = [note for note in found.values() if task_id in (None, note.task_id)]
            chosen.sort(key=_newest_first)
            is_all = len(jobs) < AT_ONCE
            # Those of one second come in the order of burial, and so have to be read to the last.
            last = notes[-1] if notes else None
            if is_all or (last and len(chosen) > wanted and int(chosen[wanted].at) > int(last.at)):
                self._connection.run([("delete", letter) for letter in stale])
                return chosen, is_all, read

    def _without_note(self, task_id: str | None, known: set[int]) -> list[DeadLetter]:
        """Return the first job that is buried without a note, by others: beanstalkd shows no more of them."""
        *_, job = self._connection.run([*self._connection.use(self._tube), ("peek_buried",)])
        if is_error(job) or job.id in known:
            return []
        its_id, _ = form.task_in(job.body, job.id)
        if task_id not in (None, its_id):
            return []
        return [self._letter(job.id, its_id, job.body, "", 0.0)]

    def _letter(
        self, letter: int, task_id: str, job_body: bytes, text: str, at: float
    ) -> DeadLetter:
        _, body = form.task_in(job_body, letter)
        return DeadLetter(self._queue_name, str(letter), task_id, body, text, at)


def _newest_first(note: Note) -> tuple[int, int]:
    return -int(note.at), -note.letter


def _written(job: int, task_id: str, at: float, text: str) -> bytes:
    head = {"job": job, "task": task_id, "at": at}
    plain = text.encode(errors="surrogatepass")
    if len(plain) <= PLAIN:
        return json.dumps(head).encode() + b"\n" + plain
    packed = zlib.compress(plain)
    while len(packed) > MOST:
        plain = plain[: len(plain) // 2]
        packed = zlib.compress(plain)
    return json.dumps({**head, "zlib": True}).encode() + b"\n" + packed


def _read(letter: int, body: bytes) -> Note | None:
    """Read a note; None: it is none."""
    first, _, text = body.partition(b"\n")
    head = payloads.object_in(first)
    job, at = form.job_id(str(head.get("job"))), payloads.number(head.get("at"))
    if job is None or at is None:
        return None
    try:
        if head.get("zlib"):
            text = zlib.decompressobj().decompress(text, LONGEST)
        return Note(letter, job, str(head["task"]), at, text.decode(errors="replace"))
    except (LookupError, zlib.error):
        return None  # others may write there, too
