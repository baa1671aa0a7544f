"""What a task can be told beyond its retries and hooks: checking it, and its form in the payload.

Each of these options is None unless it is set, and only then in the payload.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, cast

from alligator.backends.base import MAX_ID_BYTES, MAX_NAME_BYTES, MAX_PRIORITY, check_name
from alligator.exceptions import AGES, InvalidOption, UnreadableTask
from alligator.limits import Limit, limit_from_json, limit_to_json
from alligator.signatures import path_of
from alligator.utils import READING, import_attr


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how to check what a user gives, and to carry it in the payload and back."""

    check: Callable[[Any], Any] | None = None
    """None: not for users, but set while the task is in the queue."""
    encode: Callable[[Any], Any] | None = lambda value: value
    """None: it is for the push alone, and not in the payload."""
    decode: Callable[[Any], Any] = lambda value: value


def flag(value: bool | int | str) -> bool:
    """Return what a boolean, or a word from the environment, means."""
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise InvalidOption(f"is_async is True or False, or one of {', '.join(_WORDS)}; not {value!r}.")


_WORDS = {
    "true": True, "1": True, "yes": True, "on": True,
    "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def retries(value: object) -> int:
    """Return a number of retries."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidOption(f"retries is how many more times to try, 0 or more; not {value!r}.")
    return value


def seconds(name: str, value: object, *, above: float = -1.0) -> float:
    """Return a number of seconds, up to a century."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < AGES:
        raise InvalidOption(f"{name} is a number of seconds, from 0 to a century; not {value!r}.")
    if value <= above:
        raise InvalidOption(f"{name} is a number of seconds above {above:g}; not {value!r}.")
    return float(value)


def moment(name: str, value: object) -> float:
    """Return the timestamp of a moment: a timestamp, a datetime (naive: UTC), or the beginning of a date."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 3 * AGES:
        raise InvalidOption(f"{name} is a datetime, a date or a timestamp; not {value!r}.")
    return float(value)


def _above_zero(name: str) -> Callable[[Any], float]:
    return lambda value: seconds(name, value, above=0.0)


def _types(name: str) -> Callable[[Any], tuple[type[BaseException], ...]]:
    def check(value: object) -> tuple[type[BaseException], ...]:
        given: Any = (value,) if isinstance(value, type) else value
        try:
            types = tuple(given)
        except TypeError:
            types = (given,)
        for kind in types:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidOption(f"{name} lists types of exceptions; {kind!r} is none.")
            path_of(kind)  # else a worker could not import it
        return types

    return check


def _types_to_json(types: Iterable[type[BaseException]]) -> list[dict[str, str]]:
    paths = [path_of(kind) for kind in types]
    return [{"module": module, "callable": name} for module, name in paths]


def _types_from_json(references: Any) -> tuple[type[BaseException], ...]:
    reading = READING.get()
    found = reading.find_type if reading else import_attr
    types = tuple(referred(reference, found) for reference in references)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise UnreadableTask(f"The payload names {kind!r:.100} where an exception belongs.")
    return types


def referred(reference: Any, found: Callable[[str, str], Any] = import_attr) -> Any:
    """Return what a payload refers to by module and name: a hook, or a type of exception; ``found`` finds it.

    Raises:
        UnreadableTask: It is no such reference.
        UnknownModuleError, UnknownCallableError: It cannot be imported.
    """
    try:
        module, name = str(reference["module"]), str(reference["callable"])
    except (TypeError, KeyError):
        raise UnreadableTask(f"The payload refers to {reference!r:.100}.") from None
    return found(module, name)


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_PRIORITY:
        raise InvalidOption(
            f"priority is a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}, the higher the sooner; "
            f"not {value!r}."
        )
    return value


def _if_exists(value: object) -> str:
    if value not in ("raise", "skip", "replace"):
        raise InvalidOption(f'if_exists is "raise", "skip" or "replace"; not {value!r}.')
    return str(value)


def _depends_on(value: object) -> tuple[Any, ...]:
    given: Any = (value,) if isinstance(value, str) or hasattr(value, "task_id") else value
    try:
        found = tuple(given)
    except TypeError:
        found = (given,)
    for one in found:
        if not isinstance(one, str) and not hasattr(one, "task_id"):
            raise InvalidOption(f"depends_on lists tasks, or their ids; {one!r:.100} is neither.")
    return found


def _limit(value: object) -> Limit:
    if not isinstance(value, Limit):
        raise InvalidOption(
            f'limit is a Concurrency or a Rate, such as Concurrency("api", 2); not {value!r:.100}.'
        )
    return value


def _expires(value: object) -> tuple[float, float]:
    """Return the seconds from the push, or the moment; the other of the two is 0."""
    if isinstance(value, date):  # a datetime is one, too
        return 0.0, max(1.0, moment("expires", value))
    return seconds("expires", value, above=0.0), 0.0


def _expires_to_json(expires: tuple[float, float]) -> Any:
    after, at = expires
    return at or [after]  # the first from the push on, the second in what is queued again and again


def _expires_from_json(told: Any) -> tuple[float, float]:
    return (_positive(told[0]), 0.0) if isinstance(told, list) else (0.0, _positive(told))


def _refs_from_json(refs: Any) -> tuple[tuple[str, str], ...]:
    """Read what a task depends on: the store is going to be asked for it."""
    return tuple(
        (
            check_name("queue name", queue_name, MAX_NAME_BYTES),
            check_name("task_id", task_id, MAX_ID_BYTES),
        )
        for queue_name, task_id in refs
    )


def _history_from_json(told: Any) -> tuple[dict[str, Any], ...]:
    if not all(isinstance(entry, dict) for entry in told):
        raise UnreadableTask(f"The payload's history is {told!r:.100}.")
    return tuple(told)


def _positive(value: Any) -> Any:
    """Check what is read: a number of seconds, or of attempts, that a payload names."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 3 * AGES:
        raise UnreadableTask(f"The payload has {value!r:.100} where a number belongs.")
    return cast(float, value)


OPTIONS: dict[str, Option] = {
    "depends_on": Option(_depends_on, list, _refs_from_json),
    "expires": Option(_expires, _expires_to_json, _expires_from_json),
    "backoff": Option(_above_zero("backoff"), decode=_positive),
    "max_backoff": Option(_above_zero("max_backoff"), decode=_positive),
    "retry_on": Option(_types("retry_on"), _types_to_json, _types_from_json),
    "give_up_on": Option(_types("give_up_on"), _types_to_json, _types_from_json),
    "timeout": Option(_above_zero("timeout"), decode=_positive),
    "priority": Option(_priority, decode=_priority),
    "keep_result": Option(_above_zero("keep_result"), decode=_positive),
    "limit": Option(_limit, limit_to_json, limit_from_json),
    "if_exists": Option(_if_exists, encode=None),
    "attempt": Option(decode=_positive),
    "history": Option(encode=list, decode=_history_from_json),
    "resumes": Option(decode=str),
    "push": Option(decode=str),
    "not_before": Option(decode=_positive),
}
"""By name, in the order of the payload."""
