"""Tasks in beanstalkd: a queue is a tube, a task a job, and a job's TTR the lease.

How tasks look there stands in beanstalk/format.py, what becomes of dead letters in beanstalk/letters.py. A job
is held by the connection that reserved it: only that one extends and settles it, and when it is closed, the
server hands the job to others at once. So every hand-out is bound to its connection here; and if that is cut,
we try to be the others.
"""

import itertools
import math
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from random import random
from typing import Any

import greenstalk

from alligator.backends.base import (
    Backend,
    Batch,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
    no_room,
    token_of,
    too_big,
    worker_of,
)
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.connection import (
    Address,
    Command,
    Connection,
    Job,
    is_error,
    refused,
)
from alligator.backends.beanstalk.letters import Letters
from alligator.backends.beanstalk.pool import Pool
from alligator.backends.beanstalk.settling import Settling
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import BackendUnavailable

MAX_BLOCK = 5.0
"""Seconds to block at the most: what was handed out meanwhile to others of this process may have lapsed."""
FIRST = 16
"""Tasks to ask for in the first round trip of a large batch: where fewer are ready, many would be in vain."""
READ_WITHIN = 2.0
"""Seconds for others who read the same dead letters to be done with them."""
AGAIN_WITHIN = 0.1
"""Seconds after which to try to read them again, at the most: by chance, for the others do the same."""
SLACK = 0.3
"""Seconds, after it was seen that a lease has lapsed, for who was kept from extending it to do so."""
ALMOST = 0.05
"""What a wait may fall short of whole seconds, and still be taken for them."""


class Client(Backend):
    """A store in beanstalkd.

    Args:
        conn_string: ``beanstalk://host[:port]/``; with ``?ttr=60``, what is pushed here is handed out for 60 s
            at a time, in place of 30.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    can_find = False
    can_walk = False
    keeps_ids = False
    orders_by_due = False
    knows_fractions = False
    limits_exactly = False
    shares_leases = False
    carries_any_name = False
    max_bytes = 65_535

    def __init__(self, conn_string: str) -> None:
        self._dsn = DSN.parse(conn_string)
        self._address = Address.of(self._dsn)
        self._bell = Bell()
        self._numbers = itertools.count(1)
        self._max_size = 0
        self._pool = Pool(self._address)
        self._begin()
        _CLIENTS.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._taking_again = threading.Lock()
        self._held: dict[tuple[str, str], Job] = {}
        self._pool.begin()

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        self._check_plain(messages)
        tube = form.tube_of(queue_name)
        if not messages:
            return []
        puts = [self._put(message) for message in messages]
        with self._pool.free() as connection:
            self._check_sizes(connection, messages, puts)
            if max_length is not None:
                counts = _counts(connection.run([("stats_tube", tube)])[0])
                if counts.waiting + counts.delayed + len(puts) > max_length:
                    raise no_room(queue_name, len(puts), max_length)
            answers = connection.run([*(used := connection.use(tube)), *puts])[len(used) :]
            self._undo_if_refused(connection, answers)
        return [str(answer) for answer in answers]

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        return [True] * len(self.push_named(queue_name, messages, max_length=max_length))

    def shortest_lease(self) -> float:
        jobs = self._jobs()
        if any(connection.has_ended() for connection in {job.connection for job in jobs}):
            return 0.0  # what it held is to be taken again before others do
        return min((job.ttr for job in jobs), default=math.inf)

    def reserve(
        self,
        queue_names: Sequence[str],
        worker: str,
        *,
        limit: int = 1,
        lease: float = 30.0,
        wait: float = 0.0,
        nap: float = 0.1,
        settlements: Sequence[Settlement] = (),
    ) -> Batch:
        late = self.settle(settlements)
        if limit <= 0 or not queue_names:
            return Batch([], late)
        tubes = [form.tube_of(name) for name in queue_names]
        until = time.monotonic() + wait
        try:
            while True:
                self._take_again()
                soon = self._give_back_lapsed()
                # To wait takes a connection that holds nothing: one that waits can extend and settle nothing.
                with self._pool.free() if wait >= 1.0 - ALMOST else self._pool.any() as connection:
                    jobs = self._look(connection, tubes, limit)
                    left = min(MAX_BLOCK, min(until, soon) - time.monotonic())
                    is_interrupted = False
                    if not jobs and left >= 1.0 - ALMOST and not connection.held:
                        jobs, is_interrupted = self._block(connection, tubes, limit, left)
                    held = self._adopt(connection, jobs, worker, lease)
                if held or is_interrupted or until <= time.monotonic():
                    return Batch(held, late)
                pause = min(nap, max(min(until, soon) - time.monotonic(), 0.001))
                if self._bell.wait(pause) is Woken.BY_INTERRUPT:
                    return Batch([], late)
        except BackendUnavailable:
            if not settlements:
                raise
            return Batch([], late)  # what was settled is; the next call will tell

    def reserve_task(
        self, queue_name: str, task_id: str, worker: str, lease: float = 30.0
    ) -> Reservation | None:
        number = form.job_id(task_id)
        if number is None:
            return None
        with self._pool.free() as connection:
            if self._queued(connection, queue_name, number) is None:
                return None
            [job] = connection.run([("reserve_job", number)])
            if isinstance(job, greenstalk.NotFoundError):
                return None
            self._raise_if_refused([job])
            return next(iter(self._adopt(connection, [job], worker, lease)), None)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        late: list[Settlement] = []
        by_connection: dict[Connection, list[Settlement]] = {}
        self._take_again()
        for settlement in settlements:
            job = self._job_of(settlement.reservation)
            if job is None:
                late.append(settlement)
            else:
                by_connection.setdefault(job.connection, []).append(settlement)
        for connection, some in by_connection.items():
            with connection.lock:
                late += self._settle_on(connection, some)
        return [settlement for settlement in settlements if _is_among(settlement, late)]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        self._take_again()
        jobs = self._jobs_of(reservations)
        asked = set(jobs)
        for connection in {job.connection for job in jobs}:
            with connection.lock:
                some = [job for job in connection.held.values() if job in asked]
                now = time.monotonic()
                answers = self._run_on(connection, [("touch", job.named) for job in some])
                for job, answer in zip(some, answers, strict=True):
                    if is_error(answer):
                        self._forget(job)
                    else:
                        job.lapses_at, job.kept_until = now + lease, now + job.ttr
                        job.looked_at = 0.0
        return [held for held in reservations if self._job_of(held) is None]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        # Of a worker in another process the server has taken back everything when its connections ended.
        held = [job.reservation for job in self._jobs()]
        theirs = [
            one for one in held if worker_of(one.token) == worker and one.queue_name in queue_names
        ]
        late = self.settle([Release(one, lapsed=one.task_id in started) for one in theirs])
        return len(theirs) - len(late)

    def cancel(self, queue_name: str, task_id: str) -> bytes | None:
        number = form.job_id(task_id)
        if number is None:
            return None
        with self._pool.free() as connection:
            body = self._queued(connection, queue_name, number)
            if body is None:
                return None
            [deleted] = connection.run([("delete", number)])
            # What a worker has taken in between is not ours to delete, and the server knows that.
            return None if is_error(deleted) else body

    def get(self, queue_name: str, task_id: str) -> bytes | None:
        return self.cancel(queue_name, task_id)

    def drop_all(self, queue_name: str) -> None:
        tube = form.tube_of(queue_name)
        connection = Connection(self._address)
        try:
            # No more than there are: producers may be as fast as we are.
            counts = _counts(connection.run([("stats_tube", tube)])[0])
            connection.run(connection.watch([tube]))
            for count in _parts(counts.waiting):
                answers = connection.run([("reserve", 0)] * count)
                jobs = [answer for answer in answers if not is_error(answer)]
                connection.run([("delete", job.id) for job in jobs])
            connection.run(connection.use(tube))
            for _ in range(counts.delayed):
                [job] = connection.run([("peek_delayed",)])
                if is_error(job):
                    break
                connection.run([("delete", job.id)])
        finally:
            connection.close()

    def count(self, queue_name: str) -> Counts:
        with self._pool.free() as connection:
            return _counts(connection.run([("stats_tube", form.tube_of(queue_name))])[0])

    def queues(self) -> list[str]:
        with self._pool.free() as connection:
            [tubes] = connection.run([("tubes",)])
            ours = [tube for tube in tubes if not form.is_dead_tube(tube)]
            answers = connection.run([("stats_tube", tube) for tube in ours])
        return sorted(
            form.queue_of(tube)
            for tube, answer in zip(ours, answers, strict=True)
            if any(_counts(answer))
        )

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        until = time.monotonic() + READ_WITHIN
        while True:
            # On a connection of its own: to read the notes is to reserve them, and its end gives them back.
            connection = Connection(self._address)
            try:
                is_last_try = time.monotonic() > until
                letters = Letters(connection, queue_name).listed(task_id, limit, skip)
                if letters.is_whole or is_last_try:
                    return letters.some
            finally:
                connection.close()
            time.sleep(random() * AGAIN_WITHIN)

    def retry_dead(
        self, queue_name: str, letter_ids: Sequence[str], due_at: float = 0.0
    ) -> list[str]:
        with self._pool.free() as connection:
            delay = form.whole_seconds(due_at - self.now()) if due_at else 0
            return Letters(connection, queue_name).retried(letter_ids, delay)

    def purge_dead(self, queue_name: str, letter_ids: Sequence[str]) -> list[str]:
        with self._pool.free() as connection:
            return Letters(connection, queue_name).purged(letter_ids)

    def interrupt(self) -> None:
        self._bell.interrupt()

    def close(self) -> None:
        with self._lock:
            self._held.clear()
        self._pool.close()
        self._bell.close()

    # Pushing.

    def _put(self, message: Message) -> Command:
        due_in = message.due_at - self.now() if message.due_at else 0.0
        delay = form.whole_seconds(max(message.delay, due_in))
        return (
            "put",
            form.job_body(message.body),
            form.urgency(message.priority),
            delay,
            self._address.ttr,
        )

    def _check_sizes(
        self, connection: Connection, messages: Sequence[Message], puts: Sequence[Command]
    ) -> None:
        """Check that the server takes all of some tasks, before any is sent.

        Raises:
            TaskTooBig: It does not.
        """
        if not self._max_size:
            [stats] = connection.run([("stats",)])
            self._raise_if_refused([stats])
            self._max_size = stats["max-job-size"]
        for message, put in zip(messages, puts, strict=True):
            if len(put[1]) > self._max_size:
                limit = f"{self._max_size} (beanstalkd -z)"
                raise too_big(self._dsn, message.task_id, len(put[1]), limit)

    def _undo_if_refused(self, connection: Connection, answers: Sequence[Any]) -> None:
        """Take out again what was queued, if not all could be.

        Raises:
            QueueFull, BackendRefused: Not all could be.
        """
        errors = [answer for answer in answers if is_error(answer)]
        if not errors:
            return
        put = [getattr(answer, "id", None) if is_error(answer) else answer for answer in answers]
        connection.run([("delete", number) for number in put if number is not None])
        self._max_size = 0  # it may be another server by now
        raise refused(self._dsn, errors[0])

    # Reserving.

    def _look(self, connection: Connection, tubes: Sequence[str], limit: int) -> list[Any]:
        """Reserve what is ready now, in strict order of the tubes."""
        jobs: list[Any] = []
        for tube in tubes:
            several = FIRST
            while len(jobs) < limit:
                watch = connection.watch([tube])
                count = min(several, limit - len(jobs))
                answers = self._run_on(connection, [*watch, *[("reserve", 0)] * count])
                got = [one for one in answers[len(watch) :] if not is_error(one)]
                jobs += got
                if len(got) < count:
                    break
                several *= 4
        return jobs

    def _block(
        self, connection: Connection, tubes: Sequence[str], limit: int, left: float
    ) -> tuple[list[Any], bool]:
        """Wait for whole seconds; return what came, and whether the bell interrupted it."""
        seconds = int(left + ALMOST)
        self._run_on(connection, connection.watch(tubes))
        try:
            answer = connection.wait(("reserve", seconds), seconds + 1.0, self._bell)
        except BackendUnavailable:
            self._pool.discard(connection)
            raise
        if answer is None:
            self._pool.discard(connection)
            return [], True
        if is_error(answer):
            return [], False
        return [answer, *self._look(connection, tubes, limit - 1)], False

    def _adopt(
        self, connection: Connection, jobs: Sequence[Any], worker: str, lease: float
    ) -> list[Reservation]:
        """Take note of jobs that were handed out; return them as reservations."""
        now = time.monotonic()
        answers = self._run_on(connection, [("stats_job", job.id) for job in jobs])
        reservations: list[Reservation] = []
        for job, stats in zip(jobs, answers, strict=True):
            if is_error(stats):  # its TTR was over in this moment
                continue
            if (before := connection.held.get(job.id)) is not None:
                self._forget(before)  # its TTR was over, and now it came here again
            task_id, body = form.task_in(job.body, job.id)
            # What came of earlier hand-outs: released is not counted, nor what was buried and kicked.
            counted = stats["reserves"] - stats["releases"] - stats["buries"]
            held = Reservation(
                form.queue_of(str(stats["tube"])),
                task_id,
                body,
                token_of(worker, next(self._numbers), self.now()),
                max(1, counted + form.surplus_in(stats["pri"])),
            )
            ends = now + lease, now + stats["time-left"]
            ours = Job(job.id, connection, held, stats["pri"], stats["ttr"], *ends)
            connection.held[job.id] = self._held[held.token, task_id] = ours
            reservations.append(held)
        return reservations

    def _give_back_lapsed(self) -> float:
        """Give back what nobody in this process extends; return when there may be more of that.

        What other processes hold, the server takes back.
        """
        now, soon = time.monotonic(), math.inf
        given_back: list[Settlement] = []
        for job in self._jobs():
            if job.lapses_at <= now and job.connection.is_open:
                # A task that let no thread run has just ended, perhaps: then who extends it comes next.
                job.looked_at = job.looked_at or now
                if now >= job.looked_at + SLACK:
                    given_back.append(Release(job.reservation, lapsed=True))
                soon = min(soon, job.looked_at + SLACK)
            else:
                soon = min(soon, job.lapses_at)
        self.settle(given_back)
        return soon

    def _queued(self, connection: Connection, queue_name: str, number: int) -> bytes | None:
        """Return the body of a task that waits or is delayed under the id of its job; None: there is none."""
        stats, job = connection.run([("stats_job", number), ("peek", number)])
        if is_error(stats) or is_error(job) or stats["state"] not in ("ready", "delayed"):
            return None
        task_id, body = form.task_in(job.body, number)
        is_it = task_id == str(number) and str(stats["tube"]) == form.tube_of(queue_name)
        return body if is_it else None

    def _take_again(self) -> None:
        """Take jobs again whose connection was lost, if nobody else has; forget the others."""
        jobs = self._jobs()
        for connection in {job.connection for job in jobs}:
            connection.has_ended()  # and is closed now, if it has
        if all(job.connection.is_open for job in jobs):
            return
        with self._taking_again, self._pool.any() as connection:
            lost = [job for job in jobs if not job.connection.is_open]
            stats = connection.run([("stats_job", job.id) for job in lost])
            ready = [job for job, one in zip(lost, stats, strict=True) if _is_ready(job, one)]
            taken = connection.run([("reserve_job", job.id) for job in ready])
            for job, answer in zip(ready, taken, strict=True):
                if is_error(answer):
                    continue
                held = job.reservation
                # A server that has lost all it had begins to count anew.
                if form.task_in(answer.body, job.id) != (held.task_id, held.body):
                    connection.run([("release", answer, job.pri, 0)])
                    continue
                job.connection = connection
                connection.held[job.id] = job
                job.kept_until = time.monotonic()
                # The server has counted a hand-out that had come to nothing.
                job.pri = form.with_surplus(job.pri, form.surplus_in(job.pri) - 1)
            for job in lost:
                if not job.connection.is_open:
                    self._forget(job)

    # Settling.

    def _settle_on(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> list[Settlement]:
        """Carry out settlements of jobs of one connection; return the late ones."""
        late: list[Settlement] = []
        jobs: dict[int, tuple[Job, Settlement]] = {}
        for settlement in settlements:
            job = self._job_of(settlement.reservation)
            if job is None or job.id in jobs or job.connection is not connection:
                late.append(settlement)
            else:
                jobs[job.id] = job, settlement
        settling = Settling(self._dsn, connection)
        try:
            late += settling.carry_out(list(jobs.values()))
        except BackendUnavailable:
            self._pool.discard(connection)
            raise
        finally:
            for job in settling.over:
                self._forget(job)
        return late

    # What connections hold.

    def _run_on(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands on a connection that may hold jobs."""
        try:
            return connection.run(commands)
        except BackendUnavailable:
            self._pool.discard(connection)
            raise

    def _job_of(self, reservation: Reservation) -> Job | None:
        """Return the job that a hand-out holds; None if it holds none any more."""
        with self._lock:
            job = self._held.get((reservation.token, reservation.task_id))
            ours = job is not None and job.reservation.queue_name == reservation.queue_name
            return job if ours else None

    def _jobs(self) -> list[Job]:
        with self._lock:
            return list(self._held.values())

    def _jobs_of(self, reservations: Sequence[Reservation]) -> list[Job]:
        found = [self._job_of(reservation) for reservation in reservations]
        return [job for job in found if job is not None]

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._held.pop((job.reservation.token, job.reservation.task_id), None)
            if job.connection.held.get(job.id) is job:
                del job.connection.held[job.id]

    def _raise_if_refused(self, answers: Sequence[Any]) -> None:
        for answer in answers:
            if isinstance(answer, greenstalk.Error):
                raise refused(self._dsn, answer)


_CLIENTS: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _begin_anew() -> None:
    """In a process just forked: nothing of its parent's is held here, nor are its locks."""
    for client in list(_CLIENTS):
        client._begin()  # pyright: ignore[reportPrivateUsage] -- of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _counts(stats: Any) -> Counts:
    if is_error(stats):  # there is no such tube
        return Counts()
    states = ("ready", "delayed", "reserved", "buried")
    return Counts(*(stats[f"current-jobs-{state}"] for state in states))


def _parts(count: int) -> list[int]:
    return [min(256, count - at) for at in range(0, count, 256)]


def _is_ready(job: Job, stats: Any) -> bool:
    """Whether a job waits, as far as can be told the one that it was."""
    tube = form.tube_of(job.reservation.queue_name)
    return not is_error(stats) and stats["state"] == "ready" and str(stats["tube"]) == tube


def _is_among(settlement: Settlement, others: Sequence[Settlement]) -> bool:
    return any(settlement is other for other in others)
