"""What the tasks of these tests call, and a worker that says nothing."""

from typing import Any

from alligator import Gator, Task, Worker

done: list[Any] = []
"""What tasks of this process have done, in this order."""


def do(what: Any) -> Any:
    """Note that it was done, and return it."""
    done.append(what)
    return what


def note_start(task: Task) -> None:
    """As a hook."""
    done.append("start")


class Rare(Exception):
    """What a retry may mend."""


def fail(what: Any = "failed") -> None:
    """Note that it was tried, and fail."""
    done.append(what)
    raise ValueError(what)


class QuietWorker(Worker):
    """Prints nothing."""

    def starting(self) -> None:
        pass

    def stopping(self) -> None:
        pass

    def result(self, result: object) -> None:
        pass


def work_off(gator: Gator, **kwargs: Any) -> None:
    """Run what is ready now, and what becomes ready by that, in this thread."""
    QuietWorker(gator, burst=True, **kwargs).run_forever()
