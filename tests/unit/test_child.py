"""What a worker process is told by its parent."""

import pytest

from alligator.processes.child import canceled, canceling


@pytest.mark.parametrize("name", ["t1", "two words", " c  ", "a/b:c%20", "Übergröße"])
def test_what_was_canceled_arrives_as_it_was_told(name: str) -> None:
    told = canceling(name, f"{name} {name}", "w1.1.1")

    assert told.count(b"\n") == 1
    assert canceled(told) == (name, f"{name} {name}", "w1.1.1")
