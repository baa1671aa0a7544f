"""Giving back what a dead worker held: no worker, a clock that stands."""

import pytest

from alligator import Gator
from alligator.backends.base import Reservation
from alligator.processes.recovery import recover
from alligator.testing.stores import push, take_ready

QUEUES = ["mail", "files", "never used"]


@pytest.fixture
def held(gator: Gator) -> list[Reservation]:
    """Tasks of the same ids in two queues, held by a worker that is dead."""
    for name in QUEUES[:2]:
        push(gator.backend, "t1", "t2", to=name)
    return gator.backend.reserve(QUEUES, "dead", limit=4).reservations


@pytest.mark.parametrize("count", range(5))
def test_only_what_was_started_counts_a_delivery_whatever_has_its_id_elsewhere(
    count: int, gator: Gator, held: list[Reservation]
) -> None:
    started = held[:count]

    recover(gator.backend, QUEUES, "dead", started)

    again = [one for name in QUEUES for one in take_ready(gator.backend, of=name)]
    counted = {(one.queue_name, one.task_id) for one in again if one.deliveries == 2}
    assert len(again) == 4
    assert counted == {(one.queue_name, one.task_id) for one in started}
