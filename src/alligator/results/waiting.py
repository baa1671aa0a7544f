"""Waiting for a task's result: whether it makes sense to wait, and what comes of it."""

import math
import time
from typing import Any

from alligator import notes, options, payloads, retries
from alligator.backends.abilities import RESULTS_ELSEWHERE, refusal
from alligator.backends.base import Backend, DeadLetter, Found, Records
from alligator.exceptions import (
    BackendUnavailable,
    NotFinished,
    ResultExpired,
    ResultNotKept,
    TaskCanceled,
    UnknownTask,
)
from alligator.results import (
    CANCELED,
    FAILED,
    Outcome,
    failure_of,
    outcome_key,
    read_outcome,
    read_result,
    result_key,
)

ASK_EVERY = 5.0
"""Seconds after which one who waits asks whether the task is still queued at all: it may have been dropped."""
GAP = 1.0
"""Seconds that may lie between a task's leaving its queue and the note of how it ended: when it is canceled."""
AT_ONCE = 0.001
"""A ttl: the shortest that every store knows."""

PENDING: Any = object()
"""What stands for a result that is not there yet."""


class Waiting:
    """One who waits for the result of a task, and looks for it now and then.

    Args:
        backend: The store of the queue.
        records: Where results are kept; None: nowhere.
        queue_name: The task's queue.
        task_id: The task.
        timeout: Seconds to wait; None: as long as it takes.
        push: Which push of that id is waited for, or a later one; empty: any.

    Raises:
        InvalidOption: That is no number of seconds.
        ResultNotKept: There is nowhere to look.
    """

    def __init__(
        self,
        backend: Backend,
        records: Records | None,
        queue_name: str,
        task_id: str,
        timeout: float | None,
        push: str = "",
    ) -> None:
        self.timeout = None if timeout is None else options.seconds("timeout", timeout)
        if records is None:
            store = f"of queue {queue_name!r}"
            raise ResultNotKept(refusal(store, "keep_result", way_out=RESULTS_ELSEWHERE))
        self.records = records
        self.key = outcome_key(queue_name, task_id)
        """What to wait for."""
        self.leisure = 1.0
        """How much less often than others to ask whether the task is still queued at all."""
        self._backend = backend
        self._queue_name = queue_name
        self._task_id = task_id
        self._push = push
        self._until = math.inf if self.timeout is None else time.monotonic() + self.timeout
        self._ask_at = 0.0
        self._has_looked = False
        self._former: bytes | None = None
        self._queued_at: float | None = None
        self._is_gone = False

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._until - time.monotonic())

    @property
    def pause(self) -> float:
        """Seconds until there is to be a look though there is no news."""
        return max(0.0, self._ask_at - time.monotonic())

    def look(self, value: bytes | None) -> Any:
        """Return what the task returned; PENDING if that is worth waiting for.

        Args:
            value: The record of how it ended, as it is now.

        Raises:
            AlligatorException: As ``Gator.result``.
        """
        if value is not None and self._is_new(value):
            return self._told(value)
        if time.monotonic() >= self._ask_at:
            return self._ask()
        return PENDING

    def in_vain(self, err: BackendUnavailable | None = None) -> NotFinished:
        """Return the error for a time that is over; ``err``: what kept us from looking."""
        time = f" within {self.timeout:g} s" if self.timeout else ""
        if err is None:
            return NotFinished(f"Task {self._task_id!r} has not finished{time}.")
        error = NotFinished(
            f"Whether task {self._task_id!r} has finished{time} is not known: {err}"
        )
        error.__cause__ = err
        return error

    def _is_new(self, value: bytes) -> bool:
        """Whether an outcome is of the task that is waited for, and not of a former one of its id."""
        if value == self._former:
            return False
        if not self._was_replaced(value):
            if self._has_looked or not self._backend.can_find:
                return True  # it came while we waited; or nobody can tell
            found, outcome = self._find(), read_outcome(value)
            if found is None or (found.token and outcome and outcome.token == found.token):
                return True
        # So that it can be waited for; but not if it has changed by now.
        self._former = value
        self.records.swap(self.key, value, value, AT_ONCE)
        return False

    def _was_replaced(self, value: bytes) -> bool:
        """Whether an outcome is of a task that the push which is waited for was to replace."""
        outcome = read_outcome(value)
        # What was canceled is the id: what ran, and what was to replace it.
        return bool(outcome and outcome.state != CANCELED and outcome.push < self._push)

    def _ask(self) -> Any:
        """Ask whether the task is queued still, with a result to be kept."""
        if self._backend.can_find:
            found = self._find()
            if found is None:
                return self._not_found()
            # It may be what is to be replaced when it is over.
            if not self._push and not _may_keep(found.body):
                raise ResultNotKept(
                    f"Task {self._task_id!r} was queued without keep_result: nothing will be kept of it."
                )
            self._queued_at = self._backend.now()
        self._has_looked = True
        self._is_gone = False
        # At full seconds: so a thousand who wait ask in one go, and not each at a moment of its own.
        self._ask_at = math.ceil(time.monotonic() + ASK_EVERY * self.leisure)
        return PENDING

    def _not_found(self) -> Any:
        """Return or raise what came of a task that is not queued; it may have ended just now."""
        value = self.records.get(self.key)
        if value is not None and value != self._former and not self._was_replaced(value):
            return self._told(value)
        if self._queued_at is not None and not self._is_gone:
            self._is_gone = True
            self._ask_at = time.monotonic() + GAP
            return PENDING
        for letter in self._backend.dead(self._queue_name, task_id=self._task_id, limit=1):
            if self._is_of_ours(letter):
                raise failure_of(self._task_id, notes.read(letter.note))
        raise UnknownTask(
            f"Task {self._task_id!r} is not in queue {self._queue_name!r}, and nothing is known of one that "
            "was: it was never queued there, was dropped, or is over, and had no keep_result or a short one."
        )

    def _is_of_ours(self, letter: DeadLetter) -> bool:
        """Whether a dead letter may be of the task that is waited for, and not of a former one of its id."""
        told = payloads.options_in(letter.body)
        if told is not None and str(told.get("push", "")) < self._push:
            return False
        return self._queued_at is None or letter.buried_at >= self._queued_at - GAP

    def _told(self, value: bytes) -> Any:
        """Return or raise what an outcome tells."""
        outcome = read_outcome(value)
        if outcome is None:
            raise self._unreadable()
        if outcome.state == CANCELED:
            raise TaskCanceled(f"Task {self._task_id!r} was canceled.", reason=CANCELED)
        if outcome.kept_until > outcome.at and (outcome.state == FAILED or not outcome.error):
            return self._kept(outcome)
        if outcome.state == FAILED:
            raise failure_of(self._task_id, {"error": outcome.error, "reason": outcome.reason})
        raise ResultNotKept(
            f"Task {self._task_id!r} has succeeded, but its result is not kept. "
            + (outcome.error or "It has no keep_result.")
        )

    def _kept(self, outcome: Outcome) -> Any:
        value = self.records.get(result_key(self._queue_name, self._task_id))
        if value is not None:
            try:
                return read_result(value, self._task_id)
            except LookupError:
                raise self._unreadable() from None
        how = f"has failed ({outcome.error})" if outcome.state == FAILED else "has succeeded"
        raise ResultExpired(
            f"Task {self._task_id!r} {how}; its result was kept for "
            f"{outcome.kept_until - outcome.at:g} s, and is gone."
        )

    def _unreadable(self) -> ResultNotKept:
        return ResultNotKept(
            f"Task {self._task_id!r} is over, but what was noted of that cannot be read here: perhaps another "
            "version of Alligator has written it."
        )

    def _find(self) -> Found | None:
        return self._backend.find(self._queue_name, self._task_id)


def result_of(
    backend: Backend,
    records: Records | None,
    queue_name: str,
    task_id: str,
    timeout: float | None,
    push: str = "",
) -> Any:
    """Wait for a task to end, and return what it returned; a store that is away is waited for, too."""
    waiting = Waiting(backend, records, queue_name, task_id, timeout, push)
    failures = 0
    while True:
        try:
            result = waiting.look(waiting.records.get(waiting.key))
            if result is not PENDING:
                return result
            if waiting.left <= 0:
                raise waiting.in_vain()
            waiting.records.wait([waiting.key], min(waiting.left, waiting.pause))
            failures = 0
        except BackendUnavailable as err:
            if waiting.left <= 0:
                raise waiting.in_vain(err) from err
            failures += 1
            # A store that is away rings no bell.
            time.sleep(min(waiting.left, retries.backoff(failures, base=0.1, cap=2.0)))


def _may_keep(body: bytes) -> bool:
    """Whether a queued task is to keep a result, for all that its payload says."""
    told = payloads.options_in(body)
    return told is None or told.get("keep_result") is not None
