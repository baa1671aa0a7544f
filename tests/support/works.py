"""Whether a store can be talked to at all."""

from alligator.backends.base import Ack
from alligator.testing.running import later
from alligator.testing.stores import LONG, QUEUE, drain, opened, push, records_of, take


def assert_works(dsn: str) -> None:
    """Make each kind of call: scripts, a wait that is woken, records, a wait for one."""
    with opened(dsn) as here, opened(dsn) as there:
        push(here, "t1", "t2")
        assert drain(there) == ["t1", "t2"]
        with later(lambda: push(there, "t3")):
            here.settle([Ack(take(here))])
        records = records_of(here)
        with later(lambda: records_of(there).set("results/1", b"value")):
            records.wait(["results/1"], LONG)
        assert records.get("results/1") == b"value"
        assert here.queues() == [QUEUE]
        assert here.now() > 0
