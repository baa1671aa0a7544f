"""Stores whose clock can be handed in."""

import pytest

from alligator.backends.base import Backend
from alligator.backends.locmem_backend import Client as Memory
from alligator.backends.sqlite_backend import Client as SQLite
from alligator.testing.stores import drain, push


@pytest.mark.parametrize("scheme", ["locmem", "sqlite"])
def test_a_clock_that_was_handed_in_tells_the_time(
    scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moments = [1000.5]

    def clock() -> float:
        return moments[-1]

    backend: Backend = Memory("locmem://", clock)
    if scheme == "sqlite":
        backend = SQLite(f"sqlite://{tmp_path_factory.mktemp('clock')}/queue.db", clock)

    assert backend.now() == 1000.5
    push(backend, "t1", delay=10.0)
    moments.append(1010.5)
    assert backend.now() == 1010.5
    assert drain(backend) == ["t1"]
    backend.close()
