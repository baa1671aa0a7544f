"""Stores for tests: ``backend`` is each in turn of those that keep all that a task can be told."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from alligator.backends.base import Backend
from alligator.testing.stores import opened
from tests.integration.scenes import let_programs_hear
from tests.support.kinds import DURABLE, STORES, empty_store

# No example fails because the machine is busy with something else.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


let_programs_hear()


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A client of an empty store, of each kind."""
    with opened(empty_store(request.param, request)) as backend:
        yield backend


@pytest.fixture(params=DURABLE)
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that several processes can share."""
    return empty_store(request.param, request)
