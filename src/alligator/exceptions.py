"""Every error that Alligator raises of its own; all derive from AlligatorException."""


class AlligatorException(Exception):
    """A base exception for all Alligator errors."""


class TaskFailed(AlligatorException):
    """Raised when a task fails."""


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


class BackendMissing(AlligatorException):
    """No backend for a DSN's scheme, or its client library is not installed."""


class BackendUnavailable(AlligatorException):
    """The store did not answer; whether it carried out the request is not known.

    Repeating the same push is safe: a task id that is queued already is not queued again.
    """


class BackendRefused(AlligatorException):
    """The store answered, and said no: wrong password, read-only, corrupt file, missing rights."""


class QueueFull(BackendRefused):
    """The store has no room for another task; nothing was queued."""
