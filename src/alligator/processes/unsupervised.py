"""What ``latergator`` does for its processes, done for a ``Worker`` alone: from a thread, and at signals."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from alligator import registry, stack_records
from alligator.backends.base import Backend, Reservation
from alligator.exceptions import BackendRefused, BackendUnavailable
from alligator.processes.board import Board
from alligator.processes.canceler import Canceler
from alligator.processes.keeper import BEATS_PER_LEASE, Keeper, keeper_thread
from alligator.processes.stacks import told_of
from alligator.utils import take_default

_LEAVE = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def looked_after(
    backend: Backend,
    keeper: Keeper,
    board: Board,
    presence: registry.Presence,
    lease: float,
    cancel: Callable[[Reservation], None],
    also: Callable[[], None],
    stacks: Callable[[], dict[int, str]],
) -> Generator[None]:
    """Keep up leases and the entry in the register, cancel what is to be, tell what runs, from a thread.

    Args:
        backend: The store.
        keeper: What extends leases.
        board: Where the worker tells what it holds.
        presence: Its entry in the register.
        lease: Seconds for which that is good.
        cancel: Told what is to end.
        also: What else to do, several times a second.
        stacks: Returns where tasks are, by their numbers on the board.
    """
    announced_at = 0.0

    def tell(question: str) -> None:
        if backend.records is not None:
            told = told_of(board, stacks())
            stack_records.answer(backend.records, question, [(presence, told)])

    canceler = Canceler(backend, lambda _, held: cancel(held), asked=tell)

    def look() -> None:
        nonlocal announced_at
        canceler.tick([board])
        also()
        if time.monotonic() - announced_at > lease / BEATS_PER_LEASE:
            announced_at = time.monotonic()
            registry.announce(backend, presence, lease)

    with keeper_thread(keeper, board, look):
        yield
    try:
        registry.withdraw(backend, presence.worker)
    except (BackendUnavailable, BackendRefused):
        pass  # the entry expires


@contextmanager
def leaving_at_signals(
    grace: float, is_told: Callable[[], bool], leave: Callable[[], None], hurry: Callable[[], None]
) -> Generator[None]:
    """Leave at SIGINT and SIGTERM; only a main thread gets signals.

    Args:
        grace: Seconds after which it is to hurry.
        is_told: Whether it is leaving already.
        leave: Called at the first signal.
        hurry: Called at a second one, and at the end of the grace.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid, timers = os.getpid(), list[threading.Timer]()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:
            take_default(number)
        elif is_told():
            hurry()
        else:
            leave()
            # The end of the grace comes as a second signal, to be met in the same way.
            arguments = threading.get_ident(), number
            timer = threading.Timer(grace, signal.pthread_kill, arguments)
            timers.append(timer)
            timer.daemon = True
            timer.start()

    before = {number: signal.signal(number, on_signal) for number in _LEAVE}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
