"""Several records at once: read together, and written in order, each to be forgotten in its own time."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from alligator.backends.base import Backend, Records
from alligator.testing.running import in_a_thread
from alligator.testing.stores import TICK, records_of, until

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_keep_records(abilities: Backend) -> None:
    records_of(abilities)


def test_several_values_are_read_as_they_are(records: Records) -> None:
    values = {
        "a/1": b"one",
        "a/ž 🐊": b"",
        "b/1": b"\0\r\n",
        "q:all/1": b"four",
        "q:all/2": b"five",
    }
    records.set_many(values)

    found = records.get_many(
        ["a/1", "never/was", "q:all/2", "a/ž 🐊", "a/2", "b/1", "q:all/1", "a/1"]
    )

    assert found == values


def test_to_read_nothing_is_fine(records: Records) -> None:
    assert records.get_many([]) == {}
    assert records.get_many(["never/was"]) == {}


def test_what_has_expired_is_not_read(records: Records) -> None:
    records.set("a/1", b"", ttl=SHORT)
    records.set("a/2", b"")

    until(lambda: records.get_many(["a/1", "a/2"]) == {"a/2": b""}, "the first expires")


def test_thousands_of_values_are_read(records: Records) -> None:
    values = {f"many/{number}": b"%d" % number for number in range(5_000)}
    records.set_many(values)

    assert records.get_many(list(values)) == values


def test_values_that_are_written_together_may_expire_apart(records: Records) -> None:
    started = time.monotonic()
    records.set_many(
        dict.fromkeys(["a/1", "a/2", "a/3", "b/1"], b""), {"a/1": SHORT, "b/1": 3600.0}
    )

    until(lambda: sorted(records.list("a")) == ["a/2", "a/3"], "the first expires")

    assert time.monotonic() - started >= SHORT - TICK
    assert records.list("b") == {"b/1": b""}


def test_who_sees_the_last_of_several_values_sees_the_others(
    connect: Callable[[], Backend],
) -> None:
    # Families and lifetimes of their own make no difference to the order.
    names = [f"{family}/{number}" for number in range(3) for family in ("b", "a", "q:all")]
    names.append("b/last")
    writer, reader = records_of(connect()), records_of(connect())
    for turn in range(50):
        values = {f"{name}.{turn}": b"%d" % turn for name in names}
        ttls = {key: 60.0 for key in values if "/1" in key}
        with in_a_thread(partial(writer.set_many, values, ttls)):
            while reader.get(list(values)[-1]) is None:
                pass

            assert reader.get_many(list(values)) == values
