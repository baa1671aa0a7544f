"""One run of a task that was read: whether it may start now, and what becomes of it."""

import inspect
import logging
import os
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from alligator import deaths, dependencies, limits, notes, peeks, results, stops
from alligator.backends.base import Ack, Backend, Release, Reservation, as_bytes
from alligator.deaths import Death
from alligator.exceptions import Canceled, Retry, Snooze, TaskFailed, TaskTimeout, check_delay
from alligator.raised import line_of, log_raised
from alligator.running import CURRENT, RunningTask
from alligator.settling import Attempt
from alligator.stops import Stop
from alligator.tasks import Abandoned, GivenBack, Task
from alligator.timeouts import limited, time_limit
from alligator.utils import run_coroutine

if TYPE_CHECKING:
    from alligator.attempts import Runner
    from alligator.limits.gates import Entry

log = logging.getLogger("alligator.task")

EARLY = 1.0
"""Seconds that a task may start before its time, which another process has reckoned by its idea of now."""
MAX_HISTORY = 10
"""Attempts that the next ones are told of: the last."""

_Completion = Literal["none", "open", "committed", "void"]
"""What became of the block that was to complete a task: there was none; its transaction is not committed, or it
is; or the task is another worker's now."""

T = TypeVar("T")


class Run:
    """A task that was read, and may be run: by ``complete``, or by others, who say how it ended.

    Args:
        runner: What made it.
        held: The reservation.
        task: The task read from it.
    """

    def __init__(self, runner: "Runner", held: Reservation, task: Task) -> None:
        self.held = held
        self.task = task
        self.running = RunningTask(task, held, runner.backend)
        self._runner = runner
        self._pid = os.getpid()

    def obstacle(self) -> Attempt | None:
        """Return what becomes of the task if it may not start now; None: it may."""
        task, held = self.task, self.held
        if held.deliveries > 1 or task.attempt > 1:
            stop, self._death = self._ask(self._before)
            if stop is not None:
                return self._stopped(stop)
        if task.not_before is not None and self._runner.heeds_time:
            early = task.not_before - self._backend.now()
            if early > EARLY:
                log.warning("Task %r came %.0f s before its time: put off", held.task_id, early)
                task.to_delayed()
                return Attempt(Release(held, delay=early), task, then=self._heed_stop)
        if task.expires is not None and self._backend.now() > task.expires[1]:
            log.warning("Task %r has expired: buried", held.task_id)
            what = "it" if task.attempt == 1 else f"attempt {task.attempt}"
            error = TaskFailed(f"It expired before {what} could start")
            self._forget_limit()
            return self._runner.buried(held, task, error, "expired", self._death)
        if task.depends_on is not None:
            on = task.depends_on
            found = self._ask(lambda: dependencies.verdict(self._backend, self._name, on))
            if found.failed:
                error = TaskFailed(f"It depends on {found.failed}")
                return self._runner.buried(held, task, error, "dependency", self._death)
            if not found.is_free:
                task.to_delayed()
                put_off = Release(held, delay=found.look_in)
                return Attempt(put_off, task, then=partial(self._look_again, on))
        if (limit := task.limit) is not None:
            self._entry = self._ask(lambda: self._runner.enter(held, limit))
            return self.starts()
        return None

    def _before(self) -> tuple[Stop | None, Death | None]:
        """Return what was asked of the task before, and how its process ended: in one round trip."""
        held, history = self.held, self.task.history
        if (records := self._backend.records) is None:
            return None, deaths.found(self._backend, self._runner.results, held, history)
        stop_key, death_key = stops.key_of(*self._name), deaths.key_of(*self._name)
        values = records.get_many([stop_key, death_key])
        stop = stops.left_of(stops.read(values.get(stop_key)), history)
        return stop, deaths.found_in(values.get(death_key), held, history)

    def starts(self) -> Attempt | None:
        """Return what becomes of the task if its limit does not let it start now; None: it may."""
        entry, held, limit = self._entry, self.held, self.task.limit
        if limit is None or (entry and self._ask(lambda: entry.begin(held))):
            return None
        self.task.to_delayed()
        return Attempt(Release(held), self.task, waits_for=limit)

    def complete(self) -> Attempt:
        """Run it in this thread; return what becomes of it.

        Raises:
            Abandoned: The worker may wait for it no longer.
        """
        token = CURRENT.set(self.running)
        try:
            if type(self.task).run is not Task.run:
                return self._as_overridden()
            try:
                result = self._begin()
                if inspect.iscoroutine(result):
                    # What on_start took is gone.
                    coroutine = limited(result, self.task.timeout, self.running.time_left)
                    result = run_coroutine(self.running.awaited(coroutine))
            except Abandoned:
                raise
            except self._runner.gives_back as err:
                return replace(self.given_back(), error=err)
            except BaseException as err:
                return self.failed(err)
            return self.succeeded(result)
        except GivenBack:
            return self.given_back()
        finally:
            CURRENT.reset(token)

    def _begin(self) -> Any:
        if self.task.timeout is None:
            return self.task.begin()
        with time_limit(self.task.timeout):
            return self.task.begin()

    def context(self) -> Context:
        """Return a context in which this is the current task, for a coroutine to run in."""
        context = copy_context()
        context.run(CURRENT.set, self.running)
        return context

    def succeeded(self, result: Any) -> Attempt:
        """Return what becomes of the task after it has returned this."""
        self._ended(0)
        completion = self._completion()
        if completion == "void":
            return self._void()
        if completion == "open":
            return self._failed(_not_committed())
        self._succeed(result)
        return self._done(result)

    def failed(self, err: BaseException) -> Attempt:
        """Return what becomes of the task after it has raised this."""
        self._ended(1)
        err = _sound(err)
        completion = self._completion()
        if completion == "void":
            return self._void(err)
        if completion == "committed":
            self._succeed(None)
            return self._done_before(err)
        return self._failed(err)

    def _succeed(self, result: Any) -> None:
        self.task.succeed(result)
        self._end_copy(0)  # its hook, too, may have forked

    def _failed(self, err: BaseException) -> Attempt:
        self.task.fail(err)
        self._end_copy(1)
        return self._not_done(err)

    def _completion(self) -> _Completion:
        """Return what became of the transaction in which the task was acknowledged, if there is one."""
        if not self.running.is_completed:
            return "none"
        found = self._ask(lambda: self._backend.find(*self._name))
        if found is None:
            return "committed"
        if found.token == self.held.token:
            return "open"
        # Pushed anew since; or it was rolled back, and the lease has gone to another.
        is_new = peeks.Peek.into(found.body).push != (self.task.push or "")
        return "committed" if is_new else "void"

    def _void(self, err: BaseException | None = None) -> Attempt:
        """Return what becomes of a task that is another's: nothing, for whoever settles it is too late."""
        self._leave_limit()
        return Attempt(Release(self.held), self.task, err)

    def _done_before(self, err: BaseException) -> Attempt:
        """Return what becomes of a task that raised when it was done: it can neither be retried nor fail."""
        log_raised(log, "Task %r is done, but raised after its commit", self.held.task_id, err=err)
        return replace(self._done(err), error=err)

    def given_back(self) -> Attempt:
        """Return what becomes of the task if it has ended where it can be resumed: it goes back, uncounted."""
        self._ended(1)
        completion = self._completion()
        if completion == "void":
            return self._void()
        if completion == "committed":
            self._succeed(None)
            return self._done_before(GivenBack())
        if self.running.canceled:
            return self._canceled()
        stop = Stop(self.held.token, stops.CANCELED)
        if self._ask(lambda: stops.asked(self._backend, *self._name)) == stop:  # not told yet
            return self._stopped(stop)
        self._leave_limit()
        back = Release(self.held, body=self._body_to_resume())
        # With a new body its hand-outs are counted anew: who takes it next looks for no death that its history
        # does not name.
        death = self._death
        is_left = back.body is not None and death and not death.is_in(self.task.history)
        forget = self._forget(is_over=False) if is_left else None
        return Attempt(back, self.task, then=self._heed_stop, forget=forget)

    def _body_to_resume(self) -> bytes | None:
        """Return a body that says from where to resume, for a task that goes back uncounted; None: as is."""
        if not self.running.has_checkpoint:
            return None
        self.running.save()
        self.task.resumes = self.held.token
        try:
            return as_bytes(self.task.serialize())
        except Exception as err:  # in a class of the user's own: then it begins anew
            log.warning("Task %r cannot be resumed: %s", self.held.task_id, line_of(err))
            return None

    def _as_overridden(self) -> Attempt:
        """Run it by the ``run`` of its own class, which calls the hooks itself."""
        try:
            with time_limit(self.task.timeout):
                self.task.run()
        except Abandoned:
            raise
        except BaseException as raised:
            self._ended(1)
            err = _sound(raised)
            completion = self._completion()
            if completion == "void":
                return self._void(err)
            if completion == "committed":
                self.task.to_success()
                return self._done_before(err)
            return self._not_done(err)
        self._ended(0)
        completion = self._completion()
        if completion == "void":
            return self._void()
        if completion == "open":
            return self._not_done(_not_committed())
        return self._done(self.task.result)

    def _done(self, result: Any) -> Attempt:
        """Return that it is over, and keep what it returned; an exception cannot be kept, and that is noted."""
        task, kept_in = self.task, self._runner.results
        if (keep_for := task.keep_result) is not None and kept_in is not None:
            keep, push = results.keep_success, task.push or ""
            self._runner.keep(
                self.held, lambda at: keep(kept_in, *self._name, result, keep_for, *at, push)
            )
        self.running.forget()
        self._leave_limit()
        return Attempt(
            Ack(self.held),
            task,
            forget=self._forget(),
            is_completed=self.running.is_completed,
        )

    def _not_done(self, err: BaseException) -> Attempt:
        task = self.task
        comes_again = isinstance(err, Snooze) or (task.retries > 0 and task.may_retry(err))
        if isinstance(err, Canceled) or (self.running.canceled and comes_again):
            return self._canceled()
        self._leave_limit()
        if isinstance(err, Snooze):
            log.info("Task %r is put off: %s", self.held.task_id, line_of(err))
            put_off = Release(self.held, err.delay, self._body_to_resume() or self.held.body)
            forget = self._forget(is_over=False)
            return Attempt(put_off, task, then=self._heed_stop, forget=forget)
        again = self._next_attempt(err)
        if again is not None:
            told = line_of(err)
            log.warning("Task %r failed, to be tried again: %s", self.held.task_id, told)
            self.running.save()
            return Attempt(again, task, err, forget=self._forget(is_over=False))
        log_raised(log, "Task %r failed", self.held.task_id, err=err)
        self.running.forget()
        reason = "timeout" if isinstance(err, TaskTimeout) else "failed"
        outcome = self._runner.buried(self.held, task, err, reason, self._death)
        return replace(outcome, forget=self._forget())

    def _canceled(self) -> Attempt:
        log.warning("Task %r is canceled", self.held.task_id)
        self.task.to_canceled()
        if (kept_in := self._runner.results) is not None:
            keep_for = self.task.keep_result or 0.0
            keep = results.keep_canceled
            self._runner.keep(self.held, lambda at: keep(kept_in, *self._name, keep_for, *at))
        self.running.forget()
        self._leave_limit()
        return Attempt(Ack(self.held, succeeded=False), self.task, forget=self._forget())

    def _stopped(self, stop: Stop) -> Attempt:
        """Return what becomes of a task whose process was ended to stop it."""
        self._stop = stop
        if stop.reason == stops.CANCELED:
            return self._canceled()
        timeout = self.task.timeout or 0.0
        return self.failed(
            TaskTimeout(f"It ran for more than {timeout:g} s, and its process was ended")
        )

    def _next_attempt(self, err: BaseException) -> Release | None:
        """Take a retry; None if none is left, or none would help."""
        task = self.task
        entry = {
            "attempt": task.attempt,
            "error": notes.describe(err),
            "at": self._backend.now(),
            "token": (self._stop or self.held).token,
        }
        try:
            wait = take_retry(task, err, entry)
            if wait is None:
                return None
            body = as_bytes(task.serialize())
        except Exception as unfit:
            # A hook has put something into the task that cannot be queued, or no time can be reckoned from.
            told = line_of(unfit)
            log.error("Task %r cannot be tried again: %s", self.held.task_id, told)
            task.to_failed()
            return None
        return Release(self.held, wait, body)

    def _forget(self, *, is_over: bool = True) -> Callable[[], None] | None:
        """Return what forgets that it was to end, and how its process did; None: there is nothing of that.

        If it is not over, a process that was ended for it is remembered: that is why there is a next attempt.
        """
        has_stop = self._stop is not None or self.running.canceled
        has_death = self._death is not None and (is_over or self._stop is None)
        if not has_stop and not has_death:
            return None
        token = (self._stop or self.held).token

        def forget() -> None:
            if has_stop:
                stops.forget(self._backend, *self._name, token)
            if has_death:
                self._runner.forget_death(self.held, is_over=is_over)

        return forget

    def _look_again(self, depends_on: Collection[tuple[str, str]]) -> None:
        """See whether what a task waits for has ended while it was held, and could not be told."""
        dependencies.look_again(self._backend, self._name, depends_on)
        self._heed_stop()

    def _heed_stop(self) -> None:
        """See whether it was asked to end while nobody told it: for one that goes back and has not failed."""
        stops.heed(self._backend, self._runner.results, [self.held])

    def _leave_limit(self) -> None:
        if (limit := self.task.limit) is not None:
            # One whose process was ended has its place under that hand-out.
            held = self.held._replace(token=self._stop.token) if self._stop else self.held
            self._ask(lambda: limits.leave(self._backend, held, limit))

    def _forget_limit(self) -> None:
        """Let another one have the place that may have been kept for this one."""
        if (limit := self.task.limit) is not None:
            self._ask(lambda: limits.forget(self._backend, *self._name, limit))

    def _ended(self, status: int) -> None:
        """Take note that its code has ended."""
        self._end_copy(status)
        self.running.end()

    def _end_copy(self, status: int) -> None:
        """End a copy of the process that the task has forked: it must not go on as a second worker."""
        if os.getpid() != self._pid:
            os._exit(status)

    @property
    def _name(self) -> tuple[str, str]:
        return self.held.queue_name, self.held.task_id

    @property
    def _backend(self) -> Backend:
        return self._runner.backend

    def _ask(self, call: Callable[[], T]) -> T:
        """Call the store, with the patience of the worker."""
        answer: T = self._runner.patiently(call)
        return answer

    _stop: Stop | None = None
    _death: Death | None = None
    _entry: "Entry | None" = None


def _sound(err: BaseException) -> BaseException:
    """Return what a task has raised; or what is wrong with that, if it asks for a delay that cannot be."""
    if not isinstance(err, (Retry, Snooze)):
        return err
    try:
        delay = getattr(err, "delay", None)  # a class of the user's own may not have set it
        if delay is not None or isinstance(err, Snooze):
            check_delay(type(err).__name__, delay)
    except (Exception, SystemExit) as unsound:
        unsound.__cause__ = err
        return unsound
    return err


def _not_committed() -> TaskFailed:
    return TaskFailed("It was to complete in its own transaction, and has not committed that")


def take_retry(task: Task, err: BaseException, entry: dict[str, Any]) -> float | None:
    """Take one of a failed task's retries; return the seconds to wait, or None if none is left or would help.

    Args:
        task: The task; it is told what went before (``entry``).
        err: What it failed with.
        entry: What to tell of this attempt.

    Raises:
        InvalidOption: The task, or its error, says a wait that cannot be.
    """
    if task.retries <= 0 or not task.may_retry(err):
        task.to_failed()
        return None
    wait = check_delay("A retry", task.wait_before_retry(err))
    task.retries -= 1
    task.attempt += 1
    task.history = (*task.history, entry)[-MAX_HISTORY:]
    task.to_retrying()
    return wait
