"""Telling tasks that run that they were canceled: no worker, no threads, a clock that stands."""

import pytest

from alligator import Gator, stack_records, stops
from alligator.backends.base import Ack, Backend, Release, Reservation
from alligator.exceptions import BackendUnavailable
from alligator.processes.board import Board, State
from alligator.processes.canceler import AFTERMATH, LONG, LOOK_EVERY, Canceler
from alligator.stops import CANCELED, TIMEOUT, Stop
from alligator.testing.stores import QUEUE, push, records_of, take, take_ready
from tests.unit.conftest import Clock


class Scene:
    """One task that runs, and the canceler of its process."""

    def __init__(self, gator: Gator, clock: Clock) -> None:
        self.backend: Backend = gator.backend
        self.clock = clock
        self.told: list[str] = []
        self.board = Board()
        self.asked_where: list[str] = []
        self.canceler = Canceler(self.backend, self._tell, clock, self.asked_where.append)
        push(self.backend, "t1")
        self.held = take(self.backend)
        self.post(State.STARTED)

    def post(self, *states: State) -> None:
        """Write the task on the board, in that state; or nothing."""
        self.board.post([(1, self.held, self.clock(), state) for state in states])

    def cancel(self) -> None:
        assert stops.cancel(self.backend, None, QUEUE, "t1") is not None

    def go_on(self, seconds: float) -> None:
        """Let some time pass, with looks in between."""
        for _ in range(round(seconds / 0.25)):
            self.clock.turn(0.25)
            self.canceler.tick([self.board])

    @property
    def asked(self) -> Stop | None:
        return stops.asked(self.backend, QUEUE, "t1")

    def _tell(self, board: Board, held: Reservation) -> None:
        assert board is self.board
        self.told.append(held.task_id)


@pytest.fixture
def scene(gator: Gator, clock: Clock) -> Scene:
    return Scene(gator, clock)


def test_a_task_that_is_canceled_is_told_once(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    told_at = scene.canceler.told_at(scene.held)

    scene.go_on(10)

    assert scene.told == ["t1"]
    assert told_at is not None
    assert scene.canceler.told_at(scene.held) == told_at
    assert scene.canceler.has_told(scene.board)


def test_a_task_that_is_not_canceled_is_told_nothing(scene: Scene) -> None:
    scene.go_on(10)

    assert scene.told == []
    assert not scene.canceler.has_told(scene.board)


def test_one_that_was_canceled_under_another_hand_out_is_told_nothing(scene: Scene) -> None:
    stops.ask(scene.backend, QUEUE, "t1", "another.1.1000", CANCELED)
    scene.go_on(10)

    assert scene.told == []


def test_one_whose_time_is_over_is_not_canceled(scene: Scene) -> None:
    stops.ask(scene.backend, QUEUE, "t1", scene.held.token, TIMEOUT)
    scene.go_on(10)

    assert scene.told == []


def test_the_store_is_not_asked_while_tasks_are_short(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def look(backend: Backend) -> dict[str, bytes]:
        looks.append(scene.clock())
        return {}

    monkeypatch.setattr(stops, "values_in", look)
    for _ in range(20):
        scene.go_on(0.75)
        scene.post(State.STARTED)
    scene.post()
    scene.go_on(10)
    scene.post(State.HELD)
    scene.go_on(10)
    assert looks == []

    scene.post(State.STARTED)
    scene.go_on(10)
    assert 8 <= len(looks) <= 10


def test_it_is_kept_for_who_may_come_after_until_it_is_over(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    scene.go_on(3600)
    while_it_runs = scene.asked
    scene.post()

    scene.go_on(AFTERMATH + 2 * LOOK_EVERY)

    assert while_it_runs == Stop(scene.held.token, CANCELED)
    assert scene.asked is None
    assert not scene.canceler.has_told(scene.board)
    scene.clock.turn(2)
    assert records_of(scene.backend).list("stops") == {}


def test_one_that_is_told_and_then_waits_for_a_thread_is_still_to_end(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    scene.post(State.HELD)

    scene.go_on(AFTERMATH + 10 * LOOK_EVERY)
    scene.post(State.STARTED)
    scene.go_on(2 * LOOK_EVERY)

    assert scene.told == ["t1"]
    assert scene.asked == Stop(scene.held.token, CANCELED)
    assert scene.canceler.has_told(scene.board)


def test_while_it_waits_for_a_thread_its_grace_does_not_begin(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    scene.post(State.HELD)
    scene.go_on(10)
    resumed_at = scene.clock()
    scene.post(State.STARTED)
    scene.go_on(10)

    told_at = scene.canceler.told_at(scene.held)

    assert told_at is not None
    assert resumed_at - LOOK_EVERY <= told_at <= resumed_at


def test_what_its_worker_has_forgotten_is_no_surprise(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    stops.forget(scene.backend, QUEUE, "t1", scene.held.token)
    scene.backend.settle([Ack(scene.held, succeeded=False)])
    scene.post()

    scene.go_on(AFTERMATH + 2 * LOOK_EVERY)

    assert not scene.canceler.has_told(scene.board)


def test_it_stays_for_the_next_one_if_the_process_has_died(scene: Scene) -> None:
    scene.cancel()
    scene.go_on(LONG + LOOK_EVERY)
    for _ in range(40):
        scene.clock.turn(0.25)
        scene.canceler.tick([])

    scene.backend.settle([Release(scene.held, lapsed=True)])
    [again] = take_ready(scene.backend)
    assert stops.found(scene.backend, again) == Stop(scene.held.token, CANCELED)
    assert not scene.canceler.has_told(scene.board)


def test_one_that_ends_before_it_can_be_told_is_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = stops.keep

    def end_and_keep(backend: Backend, queue_name: str, task_id: str, stop: Stop) -> bool:
        stops.forget(backend, queue_name, task_id, stop.token)
        return keep(backend, queue_name, task_id, stop)

    monkeypatch.setattr(stops, "keep", end_and_keep)
    scene.cancel()
    scene.go_on(10)

    assert scene.told == []
    assert scene.asked is None


def test_a_store_that_is_away_is_asked_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(backend: Backend) -> dict[str, bytes]:
        raise BackendUnavailable("The store does not answer.")

    scene.cancel()
    with monkeypatch.context() as patch:
        patch.setattr(stops, "values_in", away)
        scene.go_on(10)
    assert scene.told == []

    scene.go_on(LOOK_EVERY)

    assert scene.told == ["t1"]
    assert caplog.text.count("The store does not answer.") == 1


# Who asks where tasks are.


def test_each_question_is_heard_once(scene: Scene) -> None:
    records = records_of(scene.backend)
    scene.go_on(LONG + LOOK_EVERY)
    first = stack_records.ask(records)
    scene.go_on(3 * LOOK_EVERY)
    second = stack_records.ask(records)
    scene.go_on(3 * LOOK_EVERY)

    assert scene.asked_where == [first, second]
    assert stops.listed(scene.backend) == {}


def test_a_question_is_no_stop_of_any_task(scene: Scene) -> None:
    stack_records.ask(records_of(scene.backend))
    scene.cancel()

    scene.go_on(LONG + LOOK_EVERY)

    assert scene.told == ["t1"]
    assert len(scene.asked_where) == 1


def test_a_stop_in_a_queue_whose_name_begins_like_a_question_is_none() -> None:
    gator = Gator("locmem://")
    records = records_of(gator.backend)
    question = stack_records.ask(records)
    stops.ask(gator.backend, "stacks-nightly", "t1", "w.1.1", stops.CANCELED)

    assert stack_records.questions_in(records.list("stops")) == [question]
    assert list(stops.listed(gator.backend)) == [("stacks-nightly", "t1")]


def test_what_is_short_hears_no_question(scene: Scene) -> None:
    stack_records.ask(records_of(scene.backend))
    scene.go_on(LONG / 2)

    assert scene.asked_where == []
