"""Functions for tests to queue, and what came of them."""

import asyncio
import functools
from collections.abc import Callable, Hashable
from typing import Any

from alligator import Retry, Snooze, Task

seen: list[Any] = []
"""What the functions below have to tell; emptied before each test."""

watched: list[Callable[[], Any]] = []
"""What ``look`` looks at; emptied before each test."""


def add(a: int, b: int) -> int:
    return a + b


def echo(value: Any) -> Any:
    seen.append(value)
    return value


def take(*args: Any, **kwargs: Any) -> list[Any]:
    seen.append((args, kwargs))
    return [list(args), kwargs]


def fail(message: str = "broken") -> None:
    seen.append(message)
    raise ValueError(message)


def fail_at(value: Any) -> None:
    """Fail, and say nothing of the argument."""
    raise ValueError("gone wrong")


class Node:
    """Shows what it refers to, and that is itself in the end."""

    def __init__(self) -> None:
        self.other = self

    def __repr__(self) -> str:
        return f"Node({self.other!r})"


class Leaves:
    """Leaves the program when it is to show itself."""

    def __repr__(self) -> str:
        raise SystemExit("no use")


class Untellable(Exception):
    """Not even its traceback can be told."""

    def __getattribute__(self, name: str) -> Any:
        return repr(Node()) if name == "__notes__" else super().__getattribute__(name)

    def __str__(self) -> str:
        return repr(Node())


class UntellableDelay(Snooze):
    def __str__(self) -> str:
        return repr(Leaves())


def fail_untold(kind: str) -> None:
    """Fail with what harms who asks for its text."""
    kinds: dict[str, Callable[[], BaseException]] = {
        "node": lambda: ValueError(Node()),
        "leaves": lambda: ValueError(Leaves()),
        "untellable": Untellable,
        "snooze": lambda: UntellableDelay(1),
    }
    raise kinds[kind]()


def untold_hook(task: Task, *news: object) -> None:
    """A hook that fails so."""
    raise Untellable


def fail_until(times: int) -> str:
    """Fail as often as ``times`` says, then succeed."""
    seen.append("try")
    if seen.count("try") <= times:
        raise ConnectionError("not yet")
    return "at last"


def snooze_until(times: int, seconds: float) -> str:
    """Put itself off as often as ``times`` says, then succeed."""
    seen.append("try")
    if seen.count("try") <= times:
        raise Snooze(seconds)
    return "at last"


def retry_until(times: int, seconds: float) -> str:
    """Want to be tried again as often as ``times`` says, then succeed."""
    seen.append("try")
    if seen.count("try") <= times:
        raise Retry(delay=seconds)
    return "at last"


def use_up(items: list[str], options: dict[str, Any]) -> None:
    """Do to arguments what must not reach the next attempt, and fail."""
    seen.append((items[:], dict(options)))
    items.clear()
    options["used"] = True
    raise ConnectionError("used up")


def interrupt() -> None:
    raise KeyboardInterrupt


def leave() -> None:
    raise SystemExit(3)


def look() -> None:
    seen.extend(watch() for watch in watched)


def look_and_fail() -> None:
    look()
    raise ValueError("gone wrong")


async def add_soon(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def fail_soon() -> None:
    await asyncio.sleep(0)
    raise LookupError("soon")


def notify(task: str, func: str, self: str) -> list[str]:
    return [task, func, self]


def only_by_name(*, name: str) -> str:
    return name


def only_by_place(name: str, /) -> str:
    return name


def with_retries(retries: int, task_id: str, is_async: bool) -> list[Any]:
    return [retries, task_id, is_async]


# Failures that are hard to tell of


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail_beyond_words() -> None:
    raise Unprintable


def fail_with_secrets(password: str) -> None:
    kept_in_a_variable = password * 2
    raise LookupError(len(kept_in_a_variable))


def fail_in_a_chain() -> None:
    try:
        fail("the cause")
    except ValueError as err:
        raise KeyError("the effect") from err


def fail_in_a_group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def recurse() -> None:
    recurse()


# Delays that cannot be


class NotYet(Snooze):
    """Does not call the ``__init__`` that takes the delay."""

    def __init__(self, order: int) -> None:
        self.order = order


class NotYetKnown(NotYet):
    @property
    def delay(self) -> float:  # type: ignore[override] # pyright: ignore -- users do it
        return 1 / 0


class Again(Retry):
    """Does not call the ``__init__`` that takes the delay."""

    def __init__(self, order: int) -> None:
        self.order = order


class AgainInAnHour(Again):
    delay = 3600


def ask_to_wait(kind: str) -> None:
    """Raise what asks for a delay, or leaves it out."""
    kinds: dict[str, Callable[[], BaseException]] = {
        "snooze, left out": lambda: NotYet(7),
        "snooze, raising": lambda: NotYetKnown(7),
        "snooze, -1": lambda: _set(Snooze(1), -1),
        "snooze, text": lambda: _set(Snooze(1), "soon"),
        "retry, -1": lambda: _set(Retry(), -1),
        "retry, text": lambda: _set(Retry(), "soon"),
        "retry, left out": lambda: Again(7),
        "retry, by its class": lambda: AgainInAnHour(7),
    }
    raise kinds[kind]()


def _set(err: Snooze | Retry, delay: Any) -> BaseException:
    err.delay = delay
    return err


def spoil_delay(task: Task, err: Any) -> None:
    """A hook that changes what it is told of."""
    err.delay = "soon"


# Hooks


def note_start(task: Task) -> None:
    seen.append(("start", task.status))


def note_success(task: Task, result: Any) -> None:
    seen.append(("success", task.status, result))


def note_error(task: Task, err: BaseException) -> None:
    seen.append(("error", task.status, str(err)))


def refuse_start(task: Task) -> None:
    raise PermissionError("not today")


def break_on_success(task: Task, result: Any) -> None:
    seen.append("success hook")
    raise RuntimeError("the hook broke")


def break_on_error(task: Task, err: BaseException) -> None:
    seen.append("error hook")
    raise RuntimeError("the hook broke")


def grant_one_more(task: Task, err: BaseException) -> None:
    """Raise ``task.retries``, but only once."""
    seen.append(("error", task.status, task.retries))
    if len([entry for entry in seen if entry[0] == "error"]) == 1:
        task.retries += 1


def change_arguments(task: Task, err: BaseException) -> None:
    task.func_args = ({1, 2, 3},)  # JSON knows no sets


def shorten(task: Task, err: BaseException) -> None:
    task.func_args = ("wrong",)


# Callables of other kinds


def counted(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        seen.append(func.__name__)
        return func(*args, **kwargs)

    return wrapper


def careless(func: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return func(*args)

    return wrapper


@counted
def double(number: int) -> int:
    return number * 2


@careless
def halve(number: int) -> float:
    return number / 2


@functools.cache
def cached(key: Hashable) -> str:
    return f"cached {key}"


increment = functools.partial(add, 1)


class Mailer:
    """Sends nothing, in several ways."""

    def __call__(self, to: str) -> str:
        return f"called for {to}"

    def send(self, to: str) -> str:
        return f"sent to {to}"

    @staticmethod
    def send_plain(to: str) -> str:
        return f"plain to {to}"

    @classmethod
    def send_as(cls, to: str) -> str:
        return f"{cls.__name__} to {to}"

    class Templates:
        @staticmethod
        def render(name: str) -> str:
            return f"<{name}>"


class Newsletter(Mailer):
    """Inherits its ways of sending."""


class Unhashable:
    __hash__ = None  # type: ignore[assignment]  # as a class with __eq__ alone has it

    def __call__(self) -> str:
        return "called"

    def work(self) -> str:
        return "worked"


mailer = Mailer()


def make_closure() -> Callable[[], str]:
    def inner() -> str:
        return "inner"

    return inner
