"""Stores for the contract: also those that keep nothing but a queue, and a cluster."""

from collections.abc import Iterator

import pytest

from alligator.backends.base import Backend
from tests.conftest import DURABLE, NEWEST, STORES, empty_store
from tests.support.stores import opened

CLUSTER = "redis-cluster"
"""What is built on it needs no test there again."""
QUEUES = ["beanstalk", "sqs"]
"""They keep no records, and know no single tasks."""
BEYOND = (
    "records",
    "many_records",
    "records_wait",
    "find",
    "follow",
    "follow_races",
    "push_if",
    "replaces",
    "replaces_held",
    "reschedule",
    "walk",
    "walks",
    "put_dead",
)
"""What takes either."""


@pytest.fixture(params=[*STORES, NEWEST, CLUSTER, *QUEUES])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A client of an empty store, of each kind."""
    skip_unless_it_is_a_queue_matter(request)
    with opened(empty_store(request.param, request)) as backend:
        yield backend


@pytest.fixture(params=[*DURABLE, NEWEST, CLUSTER, *QUEUES])
def dsn(request: pytest.FixtureRequest) -> str:
    """The DSN of an empty store, of each kind that several processes can share."""
    skip_unless_it_is_a_queue_matter(request)
    return empty_store(request.param, request)


def skip_unless_it_is_a_queue_matter(request: pytest.FixtureRequest) -> None:
    """Skip the test where a store is nothing but a queue, and the test takes more."""
    matter = request.path.stem.removeprefix("test_")
    if request.param in QUEUES and matter in BEYOND:
        pytest.skip("this store keeps no records and knows no single tasks")
