"""Waiting for tasks' results in event loops: one thread waits for all of them, over one connection."""

import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alligator import retries
from alligator.backends.base import Backend, Records
from alligator.bell import Bell
from alligator.exceptions import AlligatorException, BackendUnavailable
from alligator.results.waiting import PENDING, Waiting

if TYPE_CHECKING:
    import asyncio

LINGER = 1.0
"""Seconds that the thread stays when nobody waits: another one may come soon."""
CROWD = 1000
"""Those who wait with more than so many others ask less often whether their tasks are still queued."""


async def result_of_async(
    backend: Backend,
    records: Records | None,
    queue_name: str,
    task_id: str,
    timeout: float | None,  # noqa: ASYNC109 -- it is told in the error, and may be 0
    push: str = "",
) -> Any:
    """Wait for a task to end without blocking the event loop, and return what it returned."""
    import asyncio  # here, for it takes longer to import than all of Alligator

    waiting = Waiting(backend, records, queue_name, task_id, timeout, push)
    loop = asyncio.get_running_loop()
    guest = _Guest(waiting, loop, loop.create_future())
    room = _ROOMS.of(waiting.records)
    room.enter(guest)
    try:
        # Where there is no time to wait, the look itself is waited for.
        await asyncio.wait([guest.told], timeout=waiting.timeout or None)
    finally:
        room.leave(guest)
    if not guest.told.done():
        raise waiting.in_vain(guest.trouble) from guest.trouble
    result, error = guest.told.result()
    if error is not None:
        raise error
    return result


@dataclass(eq=False, slots=True)
class _Guest:
    """A coroutine that waits."""

    waiting: Waiting
    loop: "asyncio.AbstractEventLoop"
    told: "asyncio.Future[tuple[Any, BaseException | None]]"
    trouble: BackendUnavailable | None = None
    """What kept us from looking, the last time."""

    def tell(self, result: Any, error: BaseException | None = None) -> None:
        """Let it go on, with a result or an error; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._tell, result, error)
        except RuntimeError:  # its loop was closed: it is gone
            pass

    def _tell(self, result: Any, error: BaseException | None) -> None:
        if not self.told.done():
            self.told.set_result((result, error))


class _Room:
    """Where coroutines wait, of any number of event loops: for results in the records of one client.

    A thread of it runs while there is someone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guests: set[_Guest] = set()
        self._bell = Bell()
        self._is_open = False

    def enter(self, guest: _Guest) -> None:
        with self._lock:
            self._guests.add(guest)
            if not self._is_open:
                threading.Thread(target=self._run, name="alligator-results", daemon=True).start()
                self._is_open = True
            self._bell.ring()

    def leave(self, guest: _Guest) -> None:
        with self._lock:
            if guest in self._guests:
                self._guests.remove(guest)
                self._bell.ring()

    def _run(self) -> None:
        failures = 0
        while guests := self._present():
            try:
                self._serve(guests)
            except BackendUnavailable as err:
                failures += 1
                for guest in guests:
                    guest.trouble = err
                    if guest.waiting.timeout == 0:
                        self._tell(guest, error=guest.waiting.in_vain(err))
                self._bell.wait(retries.backoff(failures, base=0.1, cap=2.0))
            except Exception as err:  # whatever it is: nobody is to wait for a thread that is dead
                for guest in guests:
                    self._tell(guest, error=err)
            else:
                failures = 0

    def _present(self) -> Sequence[_Guest]:
        """Return who is here; nobody: the room is closed, until the next one enters."""
        until = time.monotonic() + LINGER
        while not self._guests and time.monotonic() < until:
            self._bell.wait(until - time.monotonic())
        with self._lock:
            if not self._guests:
                self._is_open = False
                self._bell.close()
            return list(self._guests)

    def _serve(self, guests: Sequence[_Guest]) -> None:
        """Look for all of them, then wait until there may be news for one."""
        records = guests[0].waiting.records
        values = records.get_many(_keys(guests))
        waiting = [guest for guest in guests if not self._look(guest, values, len(guests))]
        if waiting:
            pause = min(guest.waiting.pause for guest in waiting)
            records.wait(_keys(waiting), pause, self._bell)

    def _look(self, guest: _Guest, values: Mapping[str, bytes], company: int) -> bool:
        """Look for one. Returns whether it was told something."""
        waiting = guest.waiting
        waiting.leisure = max(1.0, company / CROWD)
        try:
            result = waiting.look(values.get(waiting.key))
            if result is PENDING and waiting.timeout == 0:
                raise waiting.in_vain()
        except BackendUnavailable:
            raise
        except AlligatorException as err:
            self._tell(guest, error=err)
            return True
        guest.trouble = None
        if result is PENDING:
            return False
        self._tell(guest, result)
        return True

    def _tell(self, guest: _Guest, result: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            self._guests.discard(guest)
        guest.tell(result, error)


def _keys(guests: Sequence[_Guest]) -> list[str]:
    return list(dict.fromkeys(guest.waiting.key for guest in guests))


class _Rooms:
    """The rooms of this process, each for as long as the records that are waited on."""

    def __init__(self) -> None:
        self.forget()

    def of(self, records: Records) -> _Room:
        with self._lock:
            return self._rooms.setdefault(records, _Room())

    def forget(self) -> None:
        """Begin anew, in a forked copy: its parent's threads, and those who wait there, are not in it."""
        self._lock = threading.Lock()
        self._rooms: weakref.WeakKeyDictionary[Records, _Room] = weakref.WeakKeyDictionary()


_ROOMS = _Rooms()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ROOMS.forget)
