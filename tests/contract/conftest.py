"""The stores that keep the contract: all of them, also those that know no single tasks."""

from collections.abc import Iterator

import pytest

from alligator.backends.base import Backend
from tests.conftest import DURABLE, STORES, empty_store
from tests.support.stores import opened


@pytest.fixture(params=[*STORES, "sqs"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A client of an empty store, of each kind."""
    with opened(empty_store(request.param, request)) as backend:
        yield backend


@pytest.fixture(params=[*DURABLE, "sqs"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that several processes can share."""
    return empty_store(request.param, request)
