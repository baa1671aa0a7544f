"""Every error that Alligator raises of its own; all derive from AlligatorException."""

AGES = 100 * 365.25 * 86400.0
"""Seconds: a century, beyond which a number of seconds is a mistake."""


class AlligatorException(Exception):
    """A base exception for all Alligator errors."""


class TaskFailed(AlligatorException):
    """Raised when a task fails; to one who waits for its result, with what is known of the error.

    Args:
        message: What it says.
        error_type: The type of the task's own error, such as "ValueError" or "myapp.errors.NoSuchFeed".
        error_message: The text of the task's own error.
        traceback: Where the task raised it, as text.
        reason: Why the task ended: "failed", "poison", "unreadable", "refused", "expired", "timeout" or
            "dependency".
    """

    def __init__(
        self,
        message: str = "",
        *,
        error_type: str = "",
        error_message: str = "",
        traceback: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback
        self.reason = reason


class TaskCanceled(TaskFailed):
    """The task that was waited for has been canceled."""


class NotFinished(AlligatorException, TimeoutError):
    """The task that was waited for has not finished within the time given."""


class ResultExpired(AlligatorException, LookupError):
    """The task has finished, and its result was kept for as long as it was to be: it is gone."""


class ResultNotKept(AlligatorException, LookupError):
    """The task keeps no result (``keep_result``), or has returned something that JSON cannot carry."""


class UnknownTask(AlligatorException, LookupError):
    """No task of that id is queued or runs, and nothing is known of one that did."""


class TaskExists(AlligatorException):
    """A task of that id is queued or runs already, and was pushed with ``if_exists="raise"``."""


class TaskTimeout(AlligatorException):
    """Raised inside a task that runs longer than its ``timeout``; a moment later its process is ended.

    No TimeoutError, for that is an OSError: clients of databases and servers would take it for their own.
    """

    def __init__(self, message: str = "It ran for longer than its timeout") -> None:
        super().__init__(message)


class LeaseLost(AlligatorException):
    """Raised by ``gator.completing``: the task went to another worker, so what it has written here is void.

    The transaction cannot be committed any more.
    """


class Retry(AlligatorException):
    """Raised by a task that wants to be tried again later. It counts as a retry; if none is left, it fails.

    Args:
        message: Why, for the log.
        delay: Seconds to wait; by default what the task's ``backoff`` says.

    Example:
        >>> raise Retry(delay=60)
        Traceback (most recent call last):
        alligator.exceptions.Retry: try again in 60 s
    """

    delay: float | None = None

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        if not isinstance(message, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption(
                f"Retry takes a reason, as text, and when: Retry(delay={message!r:.50}), perhaps?"
            )
        if delay is not None:
            delay = check_delay("Retry", delay)
        when = "" if delay is None else f" in {delay:g} s"
        super().__init__(message or f"try again{when}")
        self.delay = delay


class Snooze(AlligatorException):
    """Raised by a task that cannot run yet. It is run again after ``delay`` seconds, and no retry is counted.

    A class derived from it that gives no delay, by ``super().__init__`` or itself, is a failure.

    Example:
        >>> raise Snooze(60)
        Traceback (most recent call last):
        alligator.exceptions.Snooze: not before 60 s have passed
    """

    def __init__(self, delay: float) -> None:
        self.delay = check_delay("Snooze", delay)
        super().__init__(f"not before {self.delay:g} s have passed")


class Canceled(BaseException):
    """Raised inside a running task that has been canceled, where it asks: in ``track``.

    No Exception, so that ``except Exception`` lets it pass, as it does asyncio's CancelledError.
    """


class UnknownModuleError(AlligatorException):
    """The module of a task, or of one of its hooks, cannot be imported."""


class UnknownCallableError(AlligatorException):
    """A task's callable, or one of its hooks, is not to be found where it says it lives."""


class InvalidOption(AlligatorException, ValueError):
    """An option, a name or a DSN that nothing can be done with; nothing was queued or changed."""


class InvalidArguments(AlligatorException, TypeError, ValueError):
    """A task's arguments do not fit its function, or cannot be carried by JSON; nothing was queued.

    Both a TypeError (``f()`` got too many) and a ValueError (NaN), as Python itself would have it.
    """


class UnreadableTask(AlligatorException):
    """A payload that is no task of ours: no JSON, or keys missing or of the wrong type."""


class TaskRefused(AlligatorException):
    """A task that may not run here: no signature of it fits, or it calls what is not allowed.

    It is buried as it is, nothing of it was imported, and it is not tried again.
    """


class BackendMissing(AlligatorException):
    """No backend for a DSN's scheme, or its client library is not installed."""


class BackendUnavailable(AlligatorException):
    """The store did not answer; whether it carried out the request is not known.

    Repeating the same push is safe: a task id that is queued already is not queued again.
    """


class BackendRefused(AlligatorException):
    """The store answered, and said no: wrong password, read-only, corrupt file, missing rights."""


class QueueFull(BackendRefused):
    """The store has no room for another task, or the queue has its ``max_length``; nothing was queued.

    Of more than a thousand tasks pushed at once, the first thousands may have been.
    """


class TaskTooBig(BackendRefused):
    """A task that is bigger than its store takes; nothing was queued."""


def check_delay(what: str, value: object) -> float:
    """Return a number of seconds to wait, up to a century.

    Raises:
        InvalidOption: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < AGES:
        raise InvalidOption(
            f"{what} takes a delay in seconds, from 0 to a century; not {value!r:.100}."
        )
    return float(value)
