"""Saying once what is wrong with a store, at the start or while it is asked for something again and again."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from alligator.backends.base import Backend
from alligator.exceptions import AlligatorException

if TYPE_CHECKING:
    from alligator.allowing import Allowed
    from alligator.gator import Gator


def warn_of(backend: Backend, log: logging.Logger) -> None:
    """Say what is wrong with how a store is set up. One that does not answer is met again in a moment."""
    try:
        found = backend.warnings()
    except AlligatorException:
        return
    for sentence in found:
        log.warning("%s", sentence)


def warn_of_strangers(gator: "Gator", allowed: "Allowed | None", log: logging.Logger) -> None:
    """Say that whoever can write to the store can run anything here, where others may reach it."""
    if gator.keyring is None and allowed is None and gator.dsn.is_elsewhere:
        log.warning(
            "Whoever can write to %s can run any function here: sign tasks with keys, or name with allow what "
            "may run (docs/security.md).",
            gator.dsn,
        )


class Complaints:
    """What was said, of some things that are tried every fraction of a second.

    Args:
        log: Where it is said.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()

    def try_to(self, what: str, call: Callable[[], None]) -> bool:
        """Do something; say that it cannot be done, unless that was just said. Returns whether it is done.

        Example:
            >>> Complaints(logging.getLogger()).try_to("do nothing", lambda: None)
            True
        """
        try:
            call()
        except AlligatorException as err:
            if what not in self._said:
                self._log.warning("Cannot %s, trying on: %s", what, err)
            self._said.add(what)
            return False
        self._said.discard(what)
        return True
