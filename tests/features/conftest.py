"""A Gator on each kind of store, for tests of what a task can be told."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from alligator import Gator
from tests.features import work
from tests.integration.scenes import Scene, played
from tests.support.kinds import DURABLE, STORES, empty_store


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    work.done.clear()


@pytest.fixture(params=STORES)
def gator(request: pytest.FixtureRequest) -> Iterator[Gator]:
    """A Gator on an empty store, of each kind."""
    gator = Gator(empty_store(request.param, request))
    yield gator
    gator.backend.close()


@pytest.fixture
def gators(dsn: str) -> Iterator[Callable[..., Gator]]:
    """Makes Gators on one empty store, of each kind that processes can share: each sees of the others what
    it would see of another process. Takes the arguments of a Gator, but for the DSN."""
    with ExitStack() as stack:

        def make(queue_name: str = "all", **kwargs: Any) -> Gator:
            gator = Gator(dsn, queue_name, **kwargs)
            stack.callback(gator.backend.close)
            return gator

        yield make


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Programs on an empty store, and a journal that their tasks write to.

    Which store is the test's to say. Else it is one of three, always the same for a test: what programs do here
    is done above the stores, and takes its time. (In tests/integration, they work on each.)
    """
    by_name = DURABLE[crc32(request.node.nodeid.encode()) % len(DURABLE)]
    with played(empty_store(getattr(request, "param", by_name), request), tmp_path) as scene:
        yield scene


@pytest.fixture
def shared_gator(gators: Callable[..., Gator]) -> Gator:
    """A Gator on an empty store, of each kind that processes can share."""
    return gators()
