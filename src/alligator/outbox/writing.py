"""Queueing by way of an outbox: what can be told there, and what cannot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alligator.backends import loading
from alligator.backends.base import Message
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption
from alligator.outbox.tables import Writer
from alligator.tasks import Task

if TYPE_CHECKING:
    from alligator.gator import Gator


def kind_of(dsn: DSN) -> str:
    """Return the kind of a store: rows of an outbox tell for which kind they are.

    Not its address: applications and workers may reach the same store by different names.

    Example:
        >>> kind_of(DSN.parse("rediss://cache:6380/1"))
        'redis'
    """
    return loading.BUILT_IN.get(dsn.scheme, dsn.scheme)


def name_of(gator: "Gator") -> str:
    """Return what the rows for a Gator's store are marked with."""
    return gator.store_name or kind_of(gator.dsn)


def write(gator: "Gator", outbox: Writer, tasks: Sequence[Task], messages: list[Message]) -> None:
    """Put tasks into an outbox.

    Raises:
        InvalidOption: One has an option that takes an answer of the store.
    """
    for names, is_asked in (
        ('if_exists="raise"', any(task.if_exists == "raise" for task in tasks)),
        ("depends_on", any(task.depends_on for task in tasks)),
        ("max_length", gator.max_length is not None),
        # It is asked for by an id, which is the store's own there.
        ("keep_result", not gator.backend.keeps_ids and any(task.keep_result for task in tasks)),
    ):
        if is_asked:
            raise InvalidOption(
                f"{names} takes an answer of the store {gator.dsn}, which hears of what is queued in your "
                "transaction only after the commit: leave it out there."
            )
    if gator.keyring is not None:
        from alligator.signed_store import SignedStore

        # Here, and not by who forwards: a row may be anybody's.
        messages = SignedStore(gator.store, gator.keyring).signed(gator.queue_name, messages)
    outbox.write(name_of(gator), gator.queue_name, messages)
