"""Fixtures for tests of the parts: everything happens in memory, by a clock that tests turn."""

import pytest

from alligator import Gator
from alligator.backends.locmem_backend import Client
from tests.unit import jobs


class Clock:
    """Seconds since 1970, at a standstill until a test turns it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    jobs.seen.clear()
    jobs.watched.clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gator(clock: Clock) -> Gator:
    """A queue in memory, by the tests' clock."""
    return Gator("locmem://", backend_class=lambda conn_string: Client(conn_string, clock))
