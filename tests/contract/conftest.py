"""The contract is for one kind of store more: a cluster. What is built on it needs no test there again."""

from collections.abc import Iterator

import pytest

from alligator.backends.base import Backend
from tests.conftest import DURABLE, STORES, empty_store
from tests.support.stores import opened

CLUSTER = "redis-cluster"


@pytest.fixture(params=[*STORES, CLUSTER])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A client of an empty store, of each kind."""
    with opened(empty_store(request.param, request)) as backend:
        yield backend


@pytest.fixture(params=[*DURABLE, CLUSTER])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that several processes can share."""
    return empty_store(request.param, request)
