"""Tasks into a store and out of it, in few words."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import pytest

from alligator.backends import loading
from alligator.backends.base import Ack, Backend, Bury, Follow, Message, Records, Reservation
from alligator.bell import Bell
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption, TaskTooBig
from alligator.testing.naming import Named
from alligator.testing.running import A_MOMENT, later
from alligator.utils import new_id

QUEUE = "all"
QUEUES = [
    *("a", "all", "b", "c", "clock", "d", "empty", "high", "low"),
    *("mail", "middle", "never-used", "one", "other", "parent", "two"),
]
"""What the tests call their queues, for a store where a queue has to be made first."""
WORKER = new_id()
"""The worker of a test that has one client."""

PATIENCE = 10.0
"""Seconds until a test gives up on what should have happened."""
SOON = 4.5
"""Seconds that a wake-up may take on the slowest machine: less than until one looks anyway, or ``LONG``."""
IN_A_WHILE = 8.0
"""Seconds until one who waits has noticed a lapse that it could not foresee: it looks every few seconds."""
LONG = 20.0
FAR_OFF = 3600.0
"""A delay whose end no test lives to see."""
TICK = 0.02
"""What two clocks of one machine may differ by."""

ODD_IDS = [
    " a ",
    "it's",
    "{}",
    "%s *?[x]",
    "a:b",
    "a/b",
    "a,b",
    "-1",
    "0",
    "1e3",
    "nil",
    "ž🐊",
    "x" * 255,
]
"""Ids that may be taken for something else by what writes several of them, or them and more, into one value."""
ODD_BODIES = [
    b"",
    b"\0",
    b"0",
    b"-1",
    b"nil",
    b"\r\n",
    b"a:b",
    b"\xff\xfe",
    bytes(range(256)) * 400,
]


@contextmanager
def opened(dsn: str) -> Generator[Backend]:
    """A client of a store, closed in the end."""
    backend = loading.build(DSN.parse(dsn))
    try:
        yield Named(backend, store=dsn) if not backend.keeps_ids else backend
    finally:
        backend.close()


def push(backend: Backend, *task_ids: str, to: str = QUEUE, delay: float = 0.0) -> list[bool]:
    """Push tasks, each with its id for a body."""
    return backend.push_many(to, [Message(name, name.encode(), delay) for name in task_ids])


def replace(
    backend: Backend,
    task_id: str,
    body: bytes = b"new",
    *,
    delay: float = 0.0,
    due_at: float = 0.0,
    priority: int = 0,
    follow: Follow | None = None,
) -> None:
    """Push in the place of a task, which is always queued."""
    message = Message(task_id, body, delay, due_at, priority, replaces=True, follow=follow)
    assert backend.push_many(QUEUE, [message]) == [True]


def take(
    backend: Backend, *, of: str = QUEUE, worker: str = "", lease: float = 60.0
) -> Reservation:
    """Reserve the next task, as a new worker or a certain one, or fail after a few seconds."""
    batch = backend.reserve([of], worker or new_id(), lease=lease, wait=PATIENCE)
    if not batch.reservations:
        pytest.fail(f"No task was ready in {of!r} within {PATIENCE} s: {backend.count(of)}")
    [reservation] = batch.reservations
    return reservation


def take_ready(
    backend: Backend, limit: int = 1000, *, of: str = QUEUE, lease: float = 60.0
) -> list[Reservation]:
    """Reserve what is ready now; perhaps nothing."""
    return backend.reserve([of], new_id(), limit=limit, lease=lease).reservations


def ready(backend: Backend) -> list[tuple[str, bytes]]:
    """Reserve what is ready now; return ids and bodies."""
    return contents(take_ready(backend))


def lapsed(backend: Backend, task_id: str, lease: float = 0.05) -> tuple[Reservation, Reservation]:
    """Push a task and hand it out twice: to a worker that was too slow, and so to another."""
    push(backend, task_id)
    slow = take(backend, worker="slow", lease=lease)
    fresh = take(backend, worker="fresh")
    assert (slow.task_id, fresh.task_id) == (task_id, task_id)
    return slow, fresh


def buried(backend: Backend, *task_ids: str, note: str = "note", of: str = QUEUE) -> list[str]:
    """Push tasks and bury each; return the ids of their letters."""
    for task_id in task_ids:
        push(backend, task_id, to=of)
        assert backend.settle([Bury(take(backend, of=of), note)]) == []
    letters = backend.dead(of, limit=len(task_ids))
    return [letter.letter_id for letter in reversed(letters)]


def woken(backend: Backend, act: Callable[[], object], *, of: str = QUEUE) -> Reservation:
    """Wait for a task, let something be done meanwhile, and return what was handed out soon after."""
    with soon_but_after(A_MOMENT), later(act):
        batch = backend.reserve([of], new_id(), lease=60.0, wait=LONG)
    [reservation] = batch.reservations
    return reservation


@contextmanager
def soon_but_after(seconds: float, late: float = SOON) -> Generator[None]:
    """The block has to take so long, and hardly longer."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert seconds - TICK <= took < seconds + late


@contextmanager
def at_rest() -> Generator[None]:
    """The block has to wait, and not to look again and again: this thread may compute a tenth of the time."""
    started, computed = time.monotonic(), time.thread_time()
    yield
    assert time.thread_time() - computed < (time.monotonic() - started) / 10


def ids(reservations: list[Reservation]) -> list[str]:
    """Return the tasks' ids."""
    return [reservation.task_id for reservation in reservations]


def contents(reservations: list[Reservation]) -> list[tuple[str, bytes]]:
    """Return the tasks' ids and bodies."""
    return [(reservation.task_id, reservation.body) for reservation in reservations]


def drain(backend: Backend, *, limit: int = 10, of: str = QUEUE) -> list[str]:
    """Reserve and acknowledge until nothing is ready; return the ids in the order they came."""
    done: list[str] = []
    worker = new_id()
    batch = backend.reserve([of], worker, limit=limit)
    while batch.reservations:
        done += ids(batch.reservations)
        acks = [Ack(held) for held in batch.reservations]
        batch = backend.reserve([of], worker, limit=limit, settlements=acks)
        assert batch.late == []
    return done


def let_pass(backend: Backend, seconds: float) -> None:
    """Come back when the store's own clock has gone on so far; to a whole second, if it knows no others."""
    if not backend.knows_fractions:
        seconds = math.ceil(seconds)
    backend.push_many("clock", [Message("tick", b"")])
    take(backend, of="clock", worker="clock", lease=seconds)
    backend.settle([Ack(take(backend, of="clock", worker="clock"))])


def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait until a condition holds, or fail after a few seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Not within {within} s: {what}")
        time.sleep(0.005)


def wait_for(records: Records, *keys: str, bell: Bell | None = None) -> None:
    """Look, wait, and look again, as callers do, until one of the keys has a value."""
    deadline = time.monotonic() + LONG
    while all(records.get(key) is None for key in keys):
        left = deadline - time.monotonic()
        assert left > 0, f"none of {keys} was written"
        records.wait(keys, left, bell)


def records_of(backend: Backend) -> Records:
    """Return the records of a store; skip the test where none are kept."""
    if backend.records is None:
        pytest.skip("this store keeps no records")
    return backend.records


def skip_unless_it_delays(backend: Backend) -> None:
    """Skip the test where a store cannot delay, and so refuses to."""
    if not backend.can_delay:
        pytest.skip("this store cannot delay")


def skip_if_it_names_tasks(backend: Backend) -> None:
    """Skip the test where an id is not the caller's choice, and so is never queued already."""
    if not backend.keeps_ids:
        pytest.skip("this store names tasks itself")


def skip_unless_what_is_due_joins_the_end(backend: Backend) -> None:
    """Skip the test where what becomes due returns to where it was pushed."""
    if not backend.orders_by_due:
        pytest.skip("this store orders tasks by their push")


def skip_unless_it_knows_fractions(backend: Backend) -> None:
    """Skip the test where delays are whole seconds, and so often the same."""
    if not backend.knows_fractions:
        pytest.skip("this store delays by whole seconds")


def skip_unless_it_carries(backend: Backend, size: int) -> None:
    """Skip the test where a task may not be of so many bytes."""
    if backend.max_bytes is not None and size > backend.max_bytes:
        pytest.skip(f"this store carries {backend.max_bytes} bytes")


def carried(backend: Backend, names: Sequence[str]) -> list[str]:
    """Return those names of queues that a store does not refuse: as a rule, all."""

    def is_carried(name: str) -> bool:
        try:
            backend.count(name)
        except InvalidOption:
            return backend.carries_any_name
        return True

    return [name for name in names if is_carried(name)]


def skip_unless_it_keeps_order(backend: Backend) -> None:
    """Skip the test where tasks come in about the order in which they were pushed, or came back."""
    if not backend.keeps_order:
        pytest.skip("this store keeps no order")


def skip_unless_it_picks(backend: Backend) -> None:
    """Skip the test where no task can be taken out by its id."""
    if not backend.can_pick:
        pytest.skip("this store takes out no task by its id")


def skip_unless_it_limits_exactly(backend: Backend) -> None:
    """Skip the test where several who push at the same moment may exceed ``max_length``."""
    if not backend.limits_exactly:
        pytest.skip("this store limits about right only")


def skip_unless_others_settle(backend: Backend) -> None:
    """Skip the test where what a client holds cannot be touched by another one."""
    if not backend.shares_leases:
        pytest.skip("this store lets only who reserved a task settle it")


def skip_unless_it_makes_queues(backend: Backend) -> None:
    """Skip the test where a queue has to be made first, by a name that the store can have."""
    if not backend.makes_queues:
        pytest.skip("this store makes no queues by itself")


def skip_unless_dropping_spares_what_runs(backend: Backend) -> None:
    """Skip the test where what is held is dropped with its queue."""
    if not backend.drop_spares_held:
        pytest.skip("this store drops what is held with its queue")


@contextmanager
def skipping_what_is_too_big() -> Generator[None]:
    """Skip the test if a store does not take a task of that size, and says so."""
    try:
        yield
    except TaskTooBig as err:
        pytest.skip(str(err))


def skip_unless_it_recovers(backend: Backend) -> None:
    """Skip the test where a store cannot tell what a worker holds."""
    if not backend.can_recover:
        pytest.skip("this store cannot tell what a worker holds")


def skip_unless_it_tells_what_is_late(backend: Backend) -> None:
    """Skip the test where what is settled too late has no effect, and is not told."""
    if not backend.tells_late:
        pytest.skip("this store does not tell what was settled too late")


def skip_unless_it_finds(backend: Backend) -> None:
    """Skip the test where nothing can be asked or changed of a single task."""
    if not backend.can_find:
        pytest.skip("this store knows no single tasks")


def skip_unless_it_prioritizes(backend: Backend) -> None:
    """Skip the test where a store knows no priorities, and so refuses them."""
    if not backend.can_prioritize:
        pytest.skip("this store knows no priorities")


def skip_unless_it_walks(backend: Backend) -> None:
    """Skip the test where what is queued cannot be gone through."""
    if not backend.can_walk:
        pytest.skip("this store cannot list what is queued")
