"""What a worker process holds, and what the keeper makes of it: no worker, no threads, a clock that stands."""

from operator import add

import pytest

from alligator import Gator, Worker, workers
from alligator.backends.base import Ack, Release, Reservation
from alligator.board import Board, Mark, State
from alligator.holdings import Holdings
from alligator.keeper import Keeper
from tests.support.stores import QUEUE, push, take_ready
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
def test_a_suspect_that_the_keeper_gave_back_is_not_the_next(mark: Mark) -> None:
    [suspect], [innocent] = reserved("suspect", deliveries=2), reserved("innocent")
    holdings = holding(suspect, innocent)
    suspect_before = holdings.next_is_suspect

    holdings.board.mark(0, mark)

    assert (suspect_before, holdings.next_is_suspect) == (True, False)
    assert holdings.todo == 1
    assert holdings.send() == [Release(suspect)]
    held = holdings.start()
    assert held is not None
    assert held.reservation is innocent


def test_a_suspect_given_back_that_was_the_last_leaves_none() -> None:
    holdings = holding(*reserved("suspect", deliveries=2))
    holdings.board.mark(0, Mark.GIVE_BACK)

    assert not holdings.next_is_suspect
    assert holdings.todo == 0
    assert holdings.start() is None


@pytest.mark.parametrize("mark", list(Mark)[1:])
@pytest.mark.parametrize("state", [State.STARTED, State.DONE])
def test_the_keeper_extends_what_runs_and_what_is_done_whatever_their_mark(
    state: State, mark: Mark, gator: Gator, clock: Clock
) -> None:
    board, keeper = Board(), Keeper(gator.backend, LEASE, clock)
    push(gator.backend, "t1")
    [held] = take_ready(gator.backend, lease=LEASE)
    board.post([(held, clock(), state)], [mark])

    for _ in range(3):
        clock.turn(0.4 * LEASE)
        keeper.tick([board])

    assert take_ready(gator.backend) == []
    assert gator.backend.settle([Ack(held)]) == []


def test_the_keeper_does_not_extend_what_it_gave_back(gator: Gator, clock: Clock) -> None:
    board, keeper = Board(), Keeper(gator.backend, LEASE, clock)
    push(gator.backend, "t1")
    [held] = take_ready(gator.backend, lease=LEASE)
    board.post([(held, clock(), State.HELD)], [Mark.GONE])

    for _ in range(3):
        clock.turn(0.4 * LEASE)
        keeper.tick([board])

    assert [again.task_id for again in take_ready(gator.backend)] == ["t1"]
