"""Limits that tasks share across all workers: how many run at a time, or start in a span of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alligator import keys, payloads
from alligator.backends.base import Backend, Release, Reservation, check_name
from alligator.exceptions import InvalidOption, UnreadableTask

if TYPE_CHECKING:
    from alligator.limits.gates import Entry, Gate, Moments, Standing

MAX_KEY_BYTES = 200
"""The longest key of a limit, in UTF-8."""
MOST = 10_000
"""The highest ``n``: all holders of a limit, or all starts that count, are one record."""
LONGEST = 100 * 365.25 * 86400.0
"""Seconds: a century, beyond which a ``per`` is a mistake."""
TOGETHER = 0.05
"""Seconds in which a rate admits as many tasks as may enter together: of most rates, that is one."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``n`` tasks with this key run at a time, whichever workers run them.

    Args:
        key: What is limited, such as "payments-api"; the queues of a store share it.
        n: How many; up to 10,000.

    Raises:
        InvalidOption: A value makes no sense.

    Example:
        >>> Concurrency("payments-api", 2)
        Concurrency(key='payments-api', n=2)
    """

    key: str
    n: int

    def __post_init__(self) -> None:
        check_name("The key of a Concurrency", self.key, MAX_KEY_BYTES)
        _check_number("Concurrency", self.n)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``n`` tasks with this key start within any ``per`` seconds, whichever workers run them.

    Args:
        key: What is limited, such as "payments-api"; the queues of a store share it.
        n: How many; up to 10,000.
        per: Seconds.

    Raises:
        InvalidOption: A value makes no sense.

    Example:
        >>> Rate("payments-api", 5, 60)
        Rate(key='payments-api', n=5, per=60)
    """

    key: str
    n: int
    per: float

    def __post_init__(self) -> None:
        check_name("The key of a Rate", self.key, MAX_KEY_BYTES)
        _check_number("Rate", self.n)
        per: Any = self.per
        if isinstance(per, bool) or not isinstance(per, (int, float)) or not 0 < per < LONGEST:
            raise InvalidOption(
                f"The per of a Rate is a number of seconds, above 0 and up to a century; not {per!r}."
            )


Limit = Concurrency | Rate


def limit_to_json(limit: Limit) -> dict[str, Any]:
    """Return a limit's form in the payload.

    Example:
        >>> limit_to_json(Rate("payments-api", 5, 60))
        {'rate': ['payments-api', 5, 60]}
    """
    if isinstance(limit, Rate):
        return {"rate": [limit.key, limit.n, limit.per]}
    return {"concurrency": [limit.key, limit.n]}


def limit_from_json(told: Any) -> Limit:
    """Return the limit that a payload tells of.

    Raises:
        UnreadableTask: It tells of none.
    """
    try:
        if "rate" in told:
            key, n, per = told["rate"]
            return Rate(key, n, per)
        key, n = told["concurrency"]
        return Concurrency(key, n)
    except (TypeError, ValueError, KeyError):  # an InvalidOption is a ValueError
        raise UnreadableTask(f"The payload's limit is {told!r:.100}.") from None


@dataclass(frozen=True, slots=True)
class Parked:
    """Tasks that may not start yet: they are to be released in this way, and ``then`` is called afterwards."""

    releases: Sequence[Release]
    then: Callable[[], None]


def enter(
    backend: Backend, helds: Sequence[Reservation], limit: Limit
) -> "dict[Reservation, Entry]":
    """Take places under a limit for tasks that are held; the same hand-outs may ask for them again.

    Returns:
        The entry of each that may start, to begin by when its code is about to run. Others are to be parked.
    """
    return _gate(backend, limit).enter(helds)


def together(limit: Limit) -> int:
    """Return how many tasks may enter together, though they start one after the other.

    Should one not start after all, it has cost the others an opening, and loses its turn. So they are no more
    than may start within a moment.
    """
    if not isinstance(limit, Rate):
        return 1  # of two places, one would be kept while the other one's task runs
    from alligator.limits.rules import REMEMBERED

    # Before it is a whole number: of a span that is next to nothing it is infinite.
    return int(min(1 + limit.n / limit.per * TOGETHER, REMEMBERED))


def park(backend: Backend, waiting: Sequence[tuple[Reservation, Limit]]) -> Parked:
    """Give tasks that may not start places in the lines for their limits."""
    decided_at = backend.now()
    by_limit: dict[Limit, list[Reservation]] = {}
    for held, limit in waiting:
        by_limit.setdefault(limit, []).append(held)
    lines: list[tuple[Gate, Moments]] = []
    for limit, helds in by_limit.items():
        gate = _gate(backend, limit)
        lines.append((gate, gate.park(helds)))
    due_at = {ref: moment for _, moments in lines for ref, moment in moments.items()}
    releases = [
        Release(held, delay=max(0.0, due_at[_ref(held)] - decided_at)) for held, _ in waiting
    ]

    def then() -> None:
        for gate, moments in lines:
            gate.parked(moments, decided_at)

    return Parked(releases, then)


def leave(backend: Backend, held: Reservation, limit: Limit) -> None:
    """Give up the place of a task that ends, or is released; the next one may start."""
    if isinstance(limit, Concurrency):  # under a Rate it is the start that counts
        _gate(backend, limit).leave(_ref(held), held.token)


def forget(backend: Backend, queue_name: str, task_id: str, limit: Limit) -> None:
    """Give up whatever place is kept for a task that will not start: it is canceled, expired, poison."""
    _gate(backend, limit).leave(keys.ref(queue_name, task_id))


def standing(
    backend: Backend, queue_name: str, task_id: str, due_at: float, limit: Limit
) -> "Standing | None":
    """Return how matters stand for a task delayed until ``due_at``, if it waits for room under its limit."""
    return _gate(backend, limit).standing(keys.ref(queue_name, task_id), due_at)


def limit_in(body: bytes) -> Limit | None:
    """Return the limit of a task as it is queued; None if it has none that can be read."""
    try:
        return limit_from_json(payloads.decode(body).get("options", {})["limit"])
    except (UnreadableTask, KeyError):
        return None


def _ref(held: Reservation) -> str:
    return keys.ref(held.queue_name, held.task_id)


def _gate(backend: Backend, limit: Limit) -> "Gate":
    # Here, for few programs have limits, and each module takes time at every start.
    from alligator.limits.gates import Gate
    from alligator.limits.rules import AtATime, PerSpan

    key = keys.escaped(limit.key)
    if isinstance(limit, Rate):
        return Gate(backend, f"rate:{key}", PerSpan(limit.n, limit.per))
    return Gate(backend, f"concurrency:{key}", AtATime(limit.n))


def _check_number(what: str, n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST:
        raise InvalidOption(
            f"The n of a {what} is a whole number from 1 to {MOST}; not {n!r}. "
            "For more, divide the tasks among several keys."
        )
