"""Calling a store until it answers: seldom enough, for as long as it takes, and not in silence."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from alligator import Gator, Worker
from alligator.backends.base import Batch, Counts, Settlement
from alligator.backends.locmem_backend import Client
from alligator.exceptions import AlligatorException, BackendRefused, BackendUnavailable
from alligator.patience import LONGEST_WAIT, SAY_EVERY, Patience
from tests.unit import jobs

HOUR = 3600.0


class Store:
    """Raises an error until some moment of a clock that goes on while it is waited for."""

    def __init__(self, error: AlligatorException, until: float) -> None:
        self.error = error
        self.until = until
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def call(self) -> str:
        if self.now < self.until:
            raise self.error
        return "answer"

    def patience(self, is_over: Callable[[], bool] = lambda: False) -> Patience:
        return Patience(self.wait, is_over, clock=lambda: self.now)


@pytest.mark.parametrize("kind", [BackendUnavailable, BackendRefused])
def test_a_store_is_asked_until_it_answers_and_ever_more_seldom(
    kind: type[AlligatorException],
) -> None:
    store = Store(kind("no"), until=HOUR)

    assert store.patience()(store.call) == "answer"

    assert store.waits == sorted(store.waits)
    assert (store.waits[0], store.waits[-1]) == (0.1, LONGEST_WAIT)
    assert len(store.waits) < HOUR / LONGEST_WAIT + 10


def test_it_is_said_again_and_again_but_seldom(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(BackendRefused("The store will not."), until=HOUR)
    with caplog.at_level(logging.WARNING, "alligator.worker"):
        store.patience()(store.call)

    *told, last = [record.getMessage() for record in caplog.records]
    assert set(told) == {"The store will not. Trying on."}
    assert HOUR / (SAY_EVERY + LONGEST_WAIT) <= len(told) <= HOUR / SAY_EVERY + 1
    assert last == f"The store is back, after {len(store.waits)} tries."


def test_it_is_known_whether_a_call_was_repeated() -> None:
    store = Store(BackendUnavailable("The store is gone."), until=1.0)
    patience = store.patience()

    told: list[bool] = []
    for _ in range(2):
        patience(store.call)
        told.append(patience.has_asked_again)

    assert told == [True, False]


def test_when_it_is_time_to_wait_no_longer_the_error_is_raised() -> None:
    store = Store(BackendRefused("The store will not."), until=HOUR)
    patience = store.patience(is_over=lambda: store.now > 30.0)

    with pytest.raises(BackendRefused, match="will not"):
        patience(store.call)

    assert 30.0 < store.now <= 30.0 + LONGEST_WAIT


def test_an_error_of_another_kind_is_nothing_to_wait_for() -> None:
    store = Store(AlligatorException("mine"), until=HOUR)

    with pytest.raises(AlligatorException, match="mine"):
        store.patience()(store.call)

    assert store.waits == []


class Refusing(Client):
    """A store that refuses to hand out or to settle a few times each, as one whose rights are being mended."""

    def __init__(self, conn_string: str) -> None:
        super().__init__(conn_string)
        self.refusals = {"reserve": 2, "settle": 2}

    def reserve(self, *args: Any, **kwargs: Any) -> Batch:
        self._refuse("reserve")
        return super().reserve(*args, **kwargs)

    def settle(self, *args: Any, **kwargs: Any) -> list[Settlement]:
        self._refuse("settle")
        return super().settle(*args, **kwargs)

    def _refuse(self, what: str) -> None:
        if self.refusals[what]:
            self.refusals[what] -= 1
            raise BackendRefused(f"No {what}.")


def test_a_worker_whose_store_refuses_for_a_while_loses_nothing_and_runs_nothing_twice() -> None:
    gator = Gator("locmem://", backend_class=Refusing)
    for number in range(3):
        gator.task(jobs.echo, number)

    Worker(gator, max_tasks=3).run_forever()

    assert jobs.seen == [0, 1, 2]
    assert gator.backend.count("all") == Counts()
