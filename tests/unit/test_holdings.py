"""What a worker process holds, and what the keeper makes of it: no worker, no threads, a clock that stands."""

import time
from operator import add

import pytest

from alligator import Gator, Worker, stops, workers
from alligator.backends.base import Ack, Release, Reservation, worker_of
from alligator.exceptions import BackendUnavailable
from alligator.processes.board import Board, Mark, State
from alligator.processes.holdings import Held, Holdings
from alligator.processes.keeper import STUCK, Keeper
from alligator.running import RunningTask
from alligator.tasks import Task
from alligator.testing.stores import QUEUE, push, take_ready
from tests.unit.conftest import Clock

LEASE = 30.0


def reserved(*names: str, deliveries: int = 1) -> list[Reservation]:
    """Reservations out of no store."""
    return [Reservation(QUEUE, name, b"", f"token-{name}", deliveries) for name in names]


def holding(*reservations: Reservation) -> Holdings:
    """Holdings with these in them, none started."""
    holdings = Holdings(Board(capacity=8), capacity=8)
    holdings.add(reservations, since=0.0)
    return holdings


def test_what_was_sent_takes_no_room() -> None:
    holdings = holding(*reserved("a", "b", "c"))
    assert holdings.room == 5

    while held := holdings.start():
        holdings.finish(held, Ack(held.reservation))
    assert holdings.room == 5
    assert len(holdings.send()) == 3

    assert holdings.room == 8
    assert not holdings.is_busy


def test_full_holdings_that_were_settled_can_be_filled_again() -> None:
    names = [f"t{number}" for number in range(8)]
    holdings = holding(*reserved(*names))
    for _ in range(3):
        assert holdings.room == 0
        while held := holdings.start():
            holdings.finish(held, Ack(held.reservation))
        assert [ack.reservation.task_id for ack in holdings.send()] == names
        assert holdings.sent([]) == []

        assert holdings.room == 8
        holdings.add(reserved(*names), since=0.0)


def test_a_worker_with_threads_goes_on_after_it_held_as_many_as_it_can(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "CAPACITY", 4)
    for number in range(40):
        gator.task(add, number, number)

    worker = Worker(gator, burst=True, threads=2)
    worker.run_forever()

    assert worker.tasks_complete == 40
    assert gator.len() == 0


@pytest.mark.parametrize("mark", [Mark.GIVE_BACK, Mark.GONE])
def test_what_the_keeper_gave_back_is_not_started(mark: Mark) -> None:
    first, second = reserved("first", "second")
    holdings = holding(first, second)

    holdings.board.mark(1, mark)
    held = holdings.start()

    assert held is not None
    assert held.reservation is second
    assert holdings.start() is None
    assert holdings.send() == [Release(first)]


def test_what_comes_next_is_neither_started_nor_given_back() -> None:
    reservations = reserved("first", "given back", "second", "third")
    holdings = holding(*reservations)

    holdings.board.mark(2, Mark.GIVE_BACK)
    holdings.start()

    assert holdings.coming() == reservations[2:]


# Those that were given back while they ran, by a worker that then runs again.


def left_over(holdings: Holdings, timeout: float) -> tuple[Held, RunningTask]:
    """Start a task, and give it back while it runs on; then take others."""
    held = holdings.start(1)
    assert held is not None
    running = run_of(holdings, held, timeout)
    assert holdings.give_back(started=True) == [Release(held.reservation)]
    assert holdings.send() == []
    holdings.add(reserved("new", "next"), since=0.0)
    return held, running


def test_what_is_left_over_says_nothing_in_the_place_of_others() -> None:
    holdings = holding(*reserved("old"))
    held, running = left_over(holdings, timeout=60)
    new = holdings.start(2)
    assert new is not None
    run_of(holdings, new, timeout=60)
    before = holdings.board.read()

    running.end()
    holdings.finish(held, Ack(held.reservation))
    finished = holdings.board.read()
    sent = holdings.send()

    assert before[0].deadline > 0
    assert finished == before
    assert holdings.board.read() == before
    assert sent == [
        Ack(held.reservation)
    ]  # in case the store was away when it was to be given back


# Those that are canceled.


def begun(holdings: Holdings) -> RunningTask:
    """Start the next task, and its code."""
    held = holdings.start()
    assert held is not None
    return run_of(holdings, held)


def run_of(holdings: Holdings, held: Held, timeout: float | None = None) -> RunningTask:
    """Start the code of a task."""
    running = RunningTask(Task(timeout=timeout), held.reservation)
    holdings.run(held, running)
    return running


def test_of_tasks_of_one_id_in_one_hand_out_the_one_of_that_queue_is_canceled() -> None:
    names = ["mail", "by name", "files"]
    holdings = holding(*(Reservation(name, "t1", b"", "w1.1.1") for name in names))
    running = [begun(holdings) for _ in names]

    holdings.cancel("by name", "t1", "w1.1.1")

    assert [one.canceled for one in running] == [False, True, False]


def test_under_another_hand_out_a_task_is_not_canceled() -> None:
    holdings = holding(Reservation(QUEUE, "t1", b"", "w1.1.1"))
    running = begun(holdings)

    holdings.cancel(QUEUE, "t1", "w1.1.2")

    assert not running.canceled


def test_what_is_canceled_before_its_code_runs_hears_of_it_then() -> None:
    """It may take long until then: its module is imported, or a store is asked."""
    holdings = holding(*reserved("t1", "t2"))
    [first, second] = [holdings.start(), holdings.start()]
    assert first is not None
    assert second is not None

    holdings.cancel(QUEUE, "t1", "token-t1")

    assert [run_of(holdings, held).canceled for held in (first, second)] == [True, False]


def test_what_is_canceled_and_then_waits_for_a_thread_hears_of_it_in_the_end() -> None:
    holdings = holding(*reserved("t1"))
    postponed(holdings, 1)

    holdings.cancel(QUEUE, "t1", "token-t1")
    held = holdings.resume(1)

    assert held is not None
    assert run_of(holdings, held).canceled


# Those that wait for a thread.


def postponed(holdings: Holdings, count: int) -> None:
    """Postpone the next tasks."""
    for _ in range(count):
        held = holdings.start()
        assert held is not None
        holdings.postpone(held, lambda: None)


def resumed(holdings: Holdings) -> str | None:
    """Return which task is resumed."""
    held = holdings.resume(1)
    return held.reservation.task_id if held else None


def test_what_was_postponed_is_resumed_in_order() -> None:
    holdings = holding(*reserved("a", "b", "c"))

    postponed(holdings, 3)

    assert (holdings.todo, holdings.postponed, holdings.unfinished) == (0, 3, 3)
    assert {task.state for task in holdings.board.read()} == {State.HELD}
    assert [resumed(holdings) for _ in range(4)] == ["a", "b", "c", None]
    assert {task.state for task in holdings.board.read()} == {State.STARTED}


@pytest.mark.parametrize("mark", [Mark.GIVE_BACK, Mark.GONE])
def test_what_was_postponed_and_given_back_by_the_keeper_is_not_resumed(mark: Mark) -> None:
    a, b, c = reserved("a", "b", "c")
    holdings = holding(a, b, c)
    postponed(holdings, 3)

    holdings.board.mark(1, mark)
    holdings.board.mark(2, mark)

    assert [resumed(holdings), resumed(holdings)] == ["c", None]
    assert holdings.send() == [Release(a), Release(b)]


def test_the_keeper_is_left_to_give_back_what_was_postponed() -> None:
    a, b = reserved("a", "b")
    holdings = holding(a, b)
    postponed(holdings, 2)
    assert not holdings.yields()

    holdings.board.mark(1, Mark.GIVE_BACK)
    assert holdings.yields()
    assert holdings.send() == []  # what is sent while taking more would come back with it
    holdings.board.mark(1, Mark.GONE)
    assert holdings.yields()

    assert not holdings.yields()
    assert holdings.postponed == 1
    late = holdings.send()
    assert late == [Release(a)]
    assert holdings.sent(late) == []  # no surprise


def test_what_was_postponed_and_given_back_by_the_worker_is_not_resumed() -> None:
    holdings = holding(*reserved("a", "b"))
    postponed(holdings, 2)

    back = holdings.give_back(started=False)

    assert sorted(release.reservation.task_id for release in back) == ["a", "b"]
    assert holdings.postponed == 0
    assert resumed(holdings) is None
    assert holdings.send() == []


@pytest.mark.parametrize("mark", list(Mark)[1:])
@pytest.mark.parametrize("state", [State.STARTED, State.DONE])
def test_the_keeper_extends_what_runs_and_what_is_done_whatever_their_mark(
    state: State, mark: Mark, gator: Gator, clock: Clock
) -> None:
    board, keeper = Board(), Keeper(gator.backend, LEASE, clock)
    push(gator.backend, "t1")
    [held] = take_ready(gator.backend, lease=LEASE)
    board.post([(1, held, clock(), state)])
    board.mark(1, mark)

    for _ in range(3):
        clock.turn(0.4 * LEASE)
        keeper.tick([board])

    assert take_ready(gator.backend) == []
    assert gator.backend.settle([Ack(held)]) == []


def test_the_keeper_does_not_extend_what_it_gave_back(gator: Gator, clock: Clock) -> None:
    board, keeper = Board(), Keeper(gator.backend, LEASE, clock)
    push(gator.backend, "t1")
    [held] = take_ready(gator.backend, lease=LEASE)
    board.post([(1, held, clock(), State.HELD)])
    board.mark(1, Mark.GONE)

    for _ in range(3):
        clock.turn(0.4 * LEASE)
        keeper.tick([board])

    assert [again.task_id for again in take_ready(gator.backend)] == ["t1"]


# Deadlines.


def running(timeout: float | None) -> RunningTask:
    """A task that runs, with a timeout or without."""
    return RunningTask(Task(timeout=timeout))


def deadlines(holdings: Holdings) -> list[bool]:
    """Whether each task on the board has a deadline."""
    return [task.deadline > 0 for task in holdings.board.read()]


def test_a_task_with_a_timeout_has_a_deadline_while_it_runs() -> None:
    holdings = holding(*reserved("a", "b"))
    first, second = holdings.start(), holdings.start()
    assert first is not None
    assert second is not None
    before = holdings.board.has_deadlines
    task = running(60)
    began_at = time.monotonic()

    holdings.run(first, running(None))
    holdings.run(second, task)

    assert not before
    assert holdings.board.has_deadlines
    assert deadlines(holdings) == [False, True]
    assert holdings.board.read()[1].deadline == pytest.approx(began_at + 60, abs=1)
    task.end()
    assert not holdings.board.has_deadlines


def test_a_deadline_goes_with_its_task_to_a_new_list_and_stays_on_none() -> None:
    holdings = holding(*reserved("a", "b", "c"))
    for timeout in (None, 60):
        held = holdings.start()
        assert held is not None
        holdings.run(held, running(timeout))
        if timeout is None:
            holdings.finish(held, Ack(held.reservation))
    holdings.send()

    holdings.add(reserved("d"), since=0.0)
    assert deadlines(holdings) == [True, False, False]
    holdings.add(reserved("e"), since=0.0)
    assert deadlines(holdings) == [True, False, False, False]

    assert [one.reservation.task_id for one in holdings.board.read() if one.deadline] == ["b"]


def test_the_places_of_old_tasks_bring_no_deadline_to_new_ones() -> None:
    holdings = holding()
    for _ in range(4):
        holdings.add(reserved("a"), since=0.0)
        held = holdings.start()
        assert held is not None
        holdings.run(held, running(60))
        assert deadlines(holdings) == [True]
        holdings.finish(held, Ack(held.reservation))
        holdings.send()
        holdings.add(reserved("b"), since=0.0)
        assert deadlines(holdings) == [False]
        held = holdings.start()
        assert held is not None
        holdings.finish(held, Ack(held.reservation))
        holdings.send()


def test_a_deadline_is_put_off_if_it_is_over_and_the_task_still_runs() -> None:
    holdings = holding(*reserved("over", "to come", "ended", "none"))
    timeouts = [1e-9, 60.0, 1e-9, None]
    tasks = [running(timeout) for timeout in timeouts]
    held = [holdings.start() for _ in tasks]
    for one, task in zip(held, tasks, strict=True):
        assert one is not None
        holdings.run(one, task)
    tasks[2].end()
    before = [task.deadline for task in holdings.board.read()]

    for one in held:
        assert one is not None
        holdings.put_off_deadline(one)

    after = [task.deadline for task in holdings.board.read()]
    assert before[0] < after[0] <= time.monotonic()
    assert after[1:] == before[1:]
    assert after[2:] == [0.0, 0.0]


def test_while_a_task_waits_for_the_loop_its_time_stands_still() -> None:
    holdings = holding(*reserved("a", "b"))
    tasks = [running(60), running(None)]
    held = [holdings.start() for _ in tasks]
    for one, task in zip(held, tasks, strict=True):
        assert one is not None
        holdings.run(one, task)
    before = [task.deadline for task in holdings.board.read()]

    for one, task in zip(held, tasks, strict=True):
        assert one is not None
        task.pause()
        holdings.submit(one)
    meanwhile = [task.deadline for task in holdings.board.read()]
    for one, task in zip(held, tasks, strict=True):
        assert one is not None
        holdings.go_on(one, task.go_on())

    after = [task.deadline for task in holdings.board.read()]
    assert meanwhile == [0.0, 0.0]
    assert after[0] > before[0]
    assert after[1] == before[1] == 0.0
    assert after[0] - time.monotonic() == pytest.approx(tasks[0].time_left, abs=1)


# What the keeper gives back.


@pytest.fixture
def given_back() -> list[str]:
    """The ids that the keeper told of."""
    return []


@pytest.fixture
def telling(gator: Gator, clock: Clock, given_back: list[str]) -> Keeper:
    """A keeper that tells what was given back."""
    return Keeper(
        gator.backend,
        LEASE,
        clock,
        lambda released: given_back.extend(one.task_id for one in released),
    )


def stuck(gator: Gator, clock: Clock) -> Holdings:
    """Holdings of two tasks that wait behind a long one."""
    push(gator.backend, "long", "t1", "t2")
    holdings = Holdings(Board(capacity=8), capacity=8)
    holdings.add(take_ready(gator.backend, lease=LEASE), since=clock())
    assert holdings.start() is not None
    clock.turn(STUCK)
    return holdings


def test_the_keeper_tells_what_it_gave_back(
    gator: Gator, clock: Clock, telling: Keeper, given_back: list[str]
) -> None:
    holdings = stuck(gator, clock)

    telling.tick([holdings.board])
    marked = list(given_back)
    telling.tick([holdings.board])
    telling.tick([holdings.board])

    assert marked == []
    assert sorted(given_back) == ["t1", "t2"]


def test_what_was_canceled_counts_when_the_keeper_gives_it_back(
    gator: Gator, clock: Clock, telling: Keeper
) -> None:
    """So that whoever takes it looks first, however soon that is."""
    holdings = stuck(gator, clock)
    assert stops.cancel(gator.backend, None, QUEUE, "t1") is not None

    telling.tick([holdings.board])
    telling.tick([holdings.board])

    deliveries = {held.task_id: held.deliveries for held in take_ready(gator.backend)}
    assert deliveries == {"t1": 2, "t2": 1}


def test_the_keeper_tells_what_the_worker_gave_back_for_it(
    gator: Gator, clock: Clock, telling: Keeper, given_back: list[str]
) -> None:
    holdings = stuck(gator, clock)
    telling.tick([holdings.board])
    assert holdings.start() is None  # it has seen the marks

    telling.tick([holdings.board])
    assert given_back == []  # not yet
    gator.backend.settle(holdings.send())
    telling.tick([holdings.board])
    telling.tick([holdings.board])

    assert sorted(given_back) == ["t1", "t2"]


def test_the_keeper_tells_it_again_if_the_store_was_away(
    gator: Gator, clock: Clock, given_back: list[str]
) -> None:
    def refuse_once(released: list[Reservation]) -> None:
        given_back.extend(one.task_id for one in released)
        if len(given_back) == 2:
            raise BackendUnavailable("away")

    keeper = Keeper(gator.backend, LEASE, clock, refuse_once)
    holdings = stuck(gator, clock)
    for _ in range(4):
        keeper.tick([holdings.board])

    assert sorted(given_back) == ["t1", "t1", "t2", "t2"]


def test_leases_are_extended_though_what_is_stuck_cannot_be_given_back(
    gator: Gator, clock: Clock, telling: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(settlements: object) -> None:
        raise BackendUnavailable("away")

    holdings = stuck(gator, clock)
    with monkeypatch.context() as patch:
        patch.setattr(gator.backend, "settle", be_away)
        for _ in range(4):
            telling.tick([holdings.board])
            clock.turn(0.4 * LEASE)

    assert take_ready(gator.backend) == []


# What the keeper acknowledges.


def done_but_stuck(gator: Gator, clock: Clock) -> Holdings:
    """Holdings of a task that is done, and one that runs and runs."""
    push(gator.backend, "done", "long")
    holdings = Holdings(Board(capacity=8), capacity=8)
    holdings.add(take_ready(gator.backend, lease=LEASE), since=clock())
    done = holdings.start()
    assert done is not None
    holdings.finish(done, Ack(done.reservation))
    assert holdings.start() is not None
    clock.turn(STUCK)
    return holdings


def test_what_is_done_is_acknowledged_while_another_runs(
    gator: Gator, clock: Clock, telling: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    holdings = done_but_stuck(gator, clock)

    telling.tick([holdings.board])
    telling.tick([holdings.board])

    assert gator.backend.count(QUEUE).running == 1
    clock.turn(LEASE / 2)
    telling.tick([holdings.board])  # and extends the leases
    late = gator.backend.settle(holdings.send())
    assert len(late) == 1
    assert holdings.sent(late) == []  # no surprise
    assert caplog.text == ""


def test_what_the_worker_acknowledges_itself_the_keeper_does_not(
    gator: Gator, clock: Clock, telling: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    holdings = done_but_stuck(gator, clock)

    telling.tick([holdings.board])
    assert gator.backend.settle(holdings.send()) == []
    telling.tick([holdings.board])
    assert holdings.sent([]) == []

    assert caplog.text == ""


def test_that_it_went_to_another_worker_is_said_by_the_keeper_and_once(
    gator: Gator, clock: Clock, telling: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    holdings = done_but_stuck(gator, clock)
    telling.tick([holdings.board])
    gator.backend.recover([QUEUE], worker_of(holdings.board.read()[0].reservation.token))
    assert "done" in [held.task_id for held in take_ready(gator.backend)]

    telling.tick([holdings.board])
    late = gator.backend.settle(holdings.send())

    assert len(late) == 1
    assert holdings.sent(late) == []
    assert [record.args for record in caplog.records if "void" in record.msg] == [("done",)]


def test_a_mark_is_of_its_task_whatever_is_posted_meanwhile() -> None:
    a, b, c, d = reserved("a", "b", "c", "d")
    holdings = holding(a, b)
    first = holdings.start()
    assert first is not None
    holdings.finish(first, Ack(a))
    read = holdings.board.read()
    holdings.send()
    holdings.sent([])
    holdings.add([c, d], since=0.0)

    holdings.board.mark(read[0].number, Mark.GONE)  # too late: its place is another's
    holdings.board.mark(read[1].number, Mark.GIVE_BACK)

    assert [task.mark for task in holdings.board.read()] == [Mark.GIVE_BACK, Mark.NONE, Mark.NONE]
    holdings.add([], since=0.0)
    assert [task.mark for task in holdings.board.read()] == [Mark.GIVE_BACK, Mark.NONE, Mark.NONE]


def test_a_number_is_given_once_however_long_others_are_held() -> None:
    holdings = holding(*reserved("long"))
    assert holdings.start() is not None
    numbers: list[int] = []
    for _ in range(5):
        holdings.add(reserved(*"abcdefg"), since=0.0)
        while held := holdings.start():
            numbers.append(held.number)
            holdings.board.mark(held.number, Mark.GONE)
            holdings.finish(held, Ack(held.reservation))
        holdings.send()
        holdings.sent([])

    assert len(set(numbers)) == len(numbers) == 35
    assert all(number % 8 != 1 for number in numbers)
    assert holdings.board.read()[0].mark == Mark.NONE


# What went to another worker.


def test_what_was_started_when_the_keeper_found_it_gone_is_known_to_be(
    gator: Gator, clock: Clock, telling: Keeper
) -> None:
    """Started, but not yet running: the worker asks nobody else after leases were extended."""
    push(gator.backend, "t1", "t2")
    holdings = Holdings(Board(capacity=8), capacity=8)
    holdings.add(take_ready(gator.backend, limit=2, lease=LEASE), since=clock())
    held = holdings.start()
    assert held is not None
    clock.turn(10 * LEASE)
    assert len(take_ready(gator.backend)) == 2

    telling.tick([holdings.board])

    assert holdings.board.extended_at == clock()
    assert holdings.is_gone(held)
    assert holdings.start() is None
