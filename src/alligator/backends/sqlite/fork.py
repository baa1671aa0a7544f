"""No fork while a thread is inside SQLite: the copy would find locks of SQLite's own taken, and wait for ever.

SQLite has locks for a whole process, on its memory for one. A copy that is made while another thread holds one
has no such thread, to let it go.
"""

import os
import threading
import time

LONGEST_WAIT = 5.0
"""Seconds that a fork waits for the others at most. They take milliseconds, unless they wait for a writer."""
LOOK = 0.0002


class _Gate:
    """A context manager: the block runs inside SQLite. It may be entered by a thread that is inside already."""

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # how deep each thread is; only itself changes that
        self._forking = threading.Lock()
        self._forker: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        # First say so, then look, and the other way round below: so one of the two always sees the other.
        depth = self._inside.get(me, 0)
        self._inside[me] = depth + 1
        try:
            while self._forker not in (None, me) and not depth:
                self._inside.pop(me)
                time.sleep(LOOK)  # no lock to wait on: a copy might find that one taken
                self._inside[me] = 1
        except BaseException:  # a task's timeout may be raised at any step
            self._leave(me)
            raise

    def __exit__(self, *_: object) -> None:
        self._leave(threading.get_ident())

    def _leave(self, me: int) -> None:
        depth = self._inside.pop(me, 0)
        if depth > 1:
            self._inside[me] = depth - 1

    def shut(self) -> None:
        """Before a fork: let nobody else in, and wait for those who are."""
        me = threading.get_ident()
        until = time.monotonic() + LONGEST_WAIT
        self._forking.acquire()
        self._forker = me
        while self._inside.keys() - {me} and time.monotonic() < until:
            time.sleep(LOOK)  # so that who is inside need not tell, each time, that he leaves

    def open(self) -> None:
        """After a fork, in the parent."""
        self._forker = None
        self._forking.release()

    def open_in_copy(self) -> None:
        """After a fork, in the child, which has none of the other threads."""
        self._inside = {me: depth for me, depth in self._inside.items() if me == self._forker}
        self.open()


INSIDE = _Gate()
"""To be held by whoever calls SQLite."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=INSIDE.shut, after_in_parent=INSIDE.open, after_in_child=INSIDE.open_in_copy
    )
