"""What an option or a call needs of a store, and which stores can do it: for who is told that his own cannot.

What a store can do stands in its class, as the flags of ``Backend``. A store whose client library is missing
cannot be imported and asked, so what the built-in ones lack is told here once more (a test compares the two).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alligator.backends.base import Backend

STORES = ("locmem", "sqlite", "postgres", "redis", "beanstalk", "sqs")
"""The stores that come with Alligator, by their schemes."""

LACKS: dict[str, tuple[str, ...]] = {
    "records": ("beanstalk", "sqs"),
    "can_prioritize": ("sqs",),
    "can_find": ("beanstalk", "sqs"),
    "can_pick": ("sqs",),
    "can_walk": ("beanstalk", "sqs"),
    "can_join": ("locmem", "redis", "beanstalk", "sqs"),
    "spans_processes": ("locmem",),
}
"""By the attribute of ``Backend``: the built-in stores that say no to it."""

NEEDS: dict[str, tuple[str, ...]] = {
    "delay_by": ("can_delay",),
    "delay_until": ("can_delay",),
    "backoff": ("can_delay",),
    "priority": ("can_prioritize",),
    "if_exists": ("can_find",),
    "depends_on": ("can_find", "records"),
    "limit": ("can_find", "records"),
    "keep_result": ("records",),
    "every() and cron()": ("can_find", "records"),
    "get()": ("can_pick",),
    "cancel()": ("can_pick",),
    "status()": ("can_find",),
    "using()": ("spans_processes",),
    "alligator list": ("can_walk",),
    "alligator check": ("can_walk",),
    "alligator stacks": ("records", "can_walk"),
    "completing()": ("can_lease", "can_join"),
}
"""By option of a task, or call of a Gator: the attributes of ``Backend`` that it needs. What is not here, every
store can do."""

RESULTS_ELSEWHERE = "name another store for results (Gator(..., results=DSN))"
"""The way out where a store keeps none."""


def is_possible(backend: "Backend", what: str) -> bool:
    """Return whether a store can do what an option or a call of ``NEEDS`` needs."""
    return all(getattr(backend, need) not in (None, False) for need in NEEDS[what])


def refusal(store: object, what: str, *needs: str, way_out: str = "") -> str:
    """Return the sentence for who asks of a store what it cannot do.

    Args:
        store: The store, as the user knows it.
        what: The option or call.
        needs: The attributes of ``Backend`` that it needs; by default those of ``NEEDS``.
        way_out: What to do, if it is not to use another store.

    Example:
        >>> print(refusal("my://", "completing()"))
        The store my:// cannot do what completing() needs: use a store that can (sqlite, postgres).
    """
    instead = f"{way_out}, or " if way_out else ""
    able = ", ".join(stores_with(*(needs or NEEDS[what])))
    return f"The store {store} cannot do what {what} needs: {instead}use a store that can ({able})."


def stores_with(*needs: str) -> list[str]:
    """Return the built-in stores that can do all of some things.

    Example:
        >>> stores_with("can_prioritize", "can_pick")
        ['locmem', 'sqlite', 'postgres', 'redis', 'beanstalk']
    """
    return [store for store in STORES if not any(store in LACKS.get(need, ()) for need in needs)]
