"""Tasks in beanstalkd: a queue is a tube, a task a job, and a job's TTR the lease.

How tasks look there stands in beanstalk/format.py, what becomes of dead letters in beanstalk/letters.py. A job
is held by the connection that reserved it: only that one extends and settles it, and when it is closed, the
server hands the job to others at once. So every hand-out is bound to its connection (beanstalk/holdings.py).
"""

import math
import os
import time
import weakref
from collections.abc import Collection, Sequence
from contextlib import closing
from random import random
from typing import Any

from alligator.backends.base import (
    Backend,
    Batch,
    Counts,
    DeadLetter,
    Message,
    Release,
    Reservation,
    Settlement,
    worker_of,
)
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.address import Address
from alligator.backends.beanstalk.connection import Connection, Job, counts_of, is_error
from alligator.backends.beanstalk.holdings import Holdings
from alligator.backends.beanstalk.letters import Letters
from alligator.backends.beanstalk.pool import Pool
from alligator.backends.beanstalk.pushing import Pushing
from alligator.backends.beanstalk.reserving import look, wait_for
from alligator.backends.beanstalk.settling import Settling
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import BackendRefused, BackendUnavailable

MAX_BLOCK = 5.0
"""Seconds to block at the most: what was handed out meanwhile to others of this process may have lapsed."""
READ_WITHIN = 2.0
"""Seconds for others who read the same dead letters to be done with them."""
AGAIN_WITHIN = 0.1
"""Seconds after which to try to read them again, at the most: by chance, for the others do the same."""
ALMOST = 0.05
"""What a wait may fall short of whole seconds, and still be taken for them."""
DROPPED_AT_ONCE = 256
"""Tasks to take out in two round trips."""


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
        self._pool = Pool(self._address)
        self._holdings = Holdings(self._pool)
        self._pushing = Pushing(self._address)
        _CLIENTS.add(self)

    def _begin_anew(self) -> None:
        """In a process just forked: nothing of its parent's is held here, nor are its locks."""
        self._holdings.begin()
        self._pool.begin()

    def push_named(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[str]:
        self._check_plain(messages)
        if not messages:
            return []
        with self._pool.free() as connection:
            return self._pushing.put(connection, queue_name, messages, max_length, self.now())

    def push_many(
        self, queue_name: str, messages: Sequence[Message], *, max_length: int | None = None
    ) -> list[bool]:
        return [True] * len(self.push_named(queue_name, messages, max_length=max_length))

    def warnings(self) -> list[str]:
        with closing(Connection(self._address)) as connection:
            [stats] = connection.run([("stats",)])
        if stats["binlog-current-index"]:
            return []
        return [
            f"{self._dsn} keeps nothing on disk, so all tasks are lost when it ends. Start beanstalkd with "
            "-b FOLDER."
        ]

    def shortest_lease(self) -> float:
        if self._holdings.is_cut_off():
            return 0.0  # what it held is to be taken again before others do
        return min((job.ttr for job in self._holdings.all()), default=math.inf)

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
                self._holdings.take_again()
                soon = self._give_back_lapsed()
                # To wait takes a connection that holds nothing: one that waits can extend and settle nothing.
                with self._pool.free() if wait >= 1.0 - ALMOST else self._pool.any() as connection:
                    jobs: list[Any] | None = look(connection, tubes, limit)
                    left = min(MAX_BLOCK, min(until, soon) - time.monotonic())
                    if not jobs and left >= 1.0 - ALMOST and not connection.held:
                        seconds = int(left + ALMOST)
                        jobs = wait_for(connection, tubes, limit, seconds, self._bell)
                    if jobs is None:  # interrupted
                        return Batch([], late)
                    held = self._holdings.adopt(connection, jobs, worker, lease, self.now())
                if held or until <= time.monotonic():
                    return Batch(held, late)
                pause = min(nap, max(min(until, soon) - time.monotonic(), 0.001))
                if self._bell.wait(pause) is Woken.BY_INTERRUPT:
                    return Batch([], late)
        except (BackendUnavailable, BackendRefused):
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
            if is_error(job):
                return None
            held = self._holdings.adopt(connection, [job], worker, lease, self.now())
        return held[0] if held else None

    def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        self._holdings.take_again()
        late: list[Settlement] = []
        left = list(settlements)
        while left:
            job = self._holdings.job_of(left[0].reservation)
            if job is None:
                late.append(left.pop(0))
            else:
                late += self._settle_on(job.connection, left)
        are_late = {id(settlement) for settlement in late}
        return [settlement for settlement in settlements if id(settlement) in are_late]

    def extend(self, reservations: Sequence[Reservation], lease: float) -> list[Reservation]:
        self._holdings.take_again()
        jobs = self._holdings.jobs_of(reservations)
        asked = set(jobs)
        for connection in {job.connection for job in jobs}:
            with connection.lock:
                some = [job for job in connection.held.values() if job in asked]
                now = time.monotonic()
                answers = connection.run([("touch", job.named) for job in some])
                for job, answer in zip(some, answers, strict=True):
                    if is_error(answer):
                        self._holdings.forget(job)
                    else:
                        job.lapses_at, job.kept_until = now + lease, now + job.ttr
                        job.looked_at = 0.0
        return [held for held in reservations if self._holdings.job_of(held) is None]

    def recover(
        self, queue_names: Sequence[str], worker: str, started: Collection[str] = ()
    ) -> int:
        # Of a worker in another process the server has taken back everything when its connections ended.
        held = [job.reservation for job in self._holdings.all()]
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
        with closing(Connection(self._address)) as connection:
            # No more than there are: producers may be as fast as we are.
            counts = counts_of(connection.run([("stats_tube", tube)])[0])
            connection.run(connection.watch([tube]))
            for at in range(0, counts.waiting, DROPPED_AT_ONCE):
                count = min(DROPPED_AT_ONCE, counts.waiting - at)
                answers = connection.run([("reserve", 0)] * count)
                jobs = [answer for answer in answers if not is_error(answer)]
                connection.run([("delete", job.id) for job in jobs])
            connection.run(connection.use(tube))
            for _ in range(counts.delayed):
                [job] = connection.run([("peek_delayed",)])
                if is_error(job):
                    break
                connection.run([("delete", job.id)])

    def count(self, queue_name: str) -> Counts:
        with self._pool.free() as connection:
            return counts_of(connection.run([("stats_tube", form.tube_of(queue_name))])[0])

    def queues(self) -> list[str]:
        with self._pool.free() as connection:
            [tubes] = connection.run([("tubes",)])
            ours = [tube for tube in tubes if not form.is_dead_tube(tube)]
            answers = connection.run([("stats_tube", tube) for tube in ours])
        return sorted(
            form.queue_of(tube)
            for tube, answer in zip(ours, answers, strict=True)
            if any(counts_of(answer))
        )

    def dead(
        self, queue_name: str, *, task_id: str | None = None, limit: int = 100, skip: int = 0
    ) -> list[DeadLetter]:
        if limit <= 0:
            return []
        until = time.monotonic() + READ_WITHIN
        while True:
            # On a connection of its own: to read the notes is to reserve them, and its end gives them back.
            is_last_try = time.monotonic() > until
            with closing(Connection(self._address)) as connection:
                letters = Letters(connection, queue_name).listed(task_id, limit, skip)
            if letters.is_whole or is_last_try:
                return letters.some
            # Another reads them just now: by chance, so that the two do not meet again.
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
        self._holdings.clear()
        self._pool.close()
        self._bell.close()

    def _give_back_lapsed(self) -> float:
        """Give back what nobody in this process extends; return when there may be more of that.

        What other processes hold, the server takes back.
        """
        lapsed, soon = self._holdings.lapsed()
        self.settle([Release(job.reservation, lapsed=True) for job in lapsed])
        return soon

    def _queued(self, connection: Connection, queue_name: str, number: int) -> bytes | None:
        """Return the body of a task that waits or is delayed under the id of its job; None: there is none."""
        stats, job = connection.run([("stats_job", number), ("peek", number)])
        if is_error(stats) or is_error(job) or stats["state"] not in ("ready", "delayed"):
            return None
        task_id, body = form.task_in(job.body, number)
        is_it = task_id == str(number) and str(stats["tube"]) == form.tube_of(queue_name)
        return body if is_it else None

    def _settle_on(self, connection: Connection, left: list[Settlement]) -> list[Settlement]:
        """Carry out what is of jobs of one connection, and take it out of the list; return what is late."""
        ours: dict[int, tuple[Job, Settlement]] = {}
        with connection.lock:
            for settlement in left:
                job = self._holdings.job_of(settlement.reservation)
                # The lock is not that of its connection if it was cut, and another thread took the job again.
                if job is not None and job.connection is connection:
                    ours.setdefault(job.id, (job, settlement))
            settling = Settling(self._dsn, connection)
            try:
                late = settling.carry_out(list(ours.values()))
            finally:
                for job in settling.over:
                    self._holdings.forget(job)
        seen = {id(settlement) for _, settlement in ours.values()}
        left[:] = [settlement for settlement in left if id(settlement) not in seen]
        return late


_CLIENTS: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _begin_anew() -> None:
    for client in list(_CLIENTS):
        client._begin_anew()  # pyright: ignore[reportPrivateUsage] -- of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
