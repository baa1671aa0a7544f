"""Small values by key, kept beside the queues."""

import time
from collections.abc import Callable

import pytest

from alligator.backends.base import Backend, Counts, Records
from alligator.testing.running import (
    in_processes,
    in_threads,
)
from alligator.testing.stores import (
    QUEUE,
    TICK,
    opened,
    push,
    records_of,
    until,
)

SHORT = 0.1


@pytest.fixture(autouse=True)
def _only_stores_that_keep_records(abilities: Backend) -> None:
    records_of(abilities)


def wait_until_gone(records: Records, key: str) -> None:
    until(lambda: records.get(key) is None, f"the expiry of {key!r}")


def test_a_value_is_read_as_it_was_written(records: Records) -> None:
    records.set("workers/1", b"one")

    assert records.get("workers/1") == b"one"


def test_what_was_never_written_is_none(records: Records) -> None:
    records.set("workers/1", b"one")

    for key in ["workers/2", "workers/", "workers", "workers/1/", "workers/11", "other/1"]:
        assert records.get(key) is None


def test_a_value_is_replaced(records: Records) -> None:
    records.set("workers/1", b"a long value")
    records.set("workers/1", b"short")

    assert records.get("workers/1") == b"short"
    assert records.list("workers") == {"workers/1": b"short"}


def test_a_value_may_be_any_bytes(records: Records) -> None:
    values = [b"", b"\0", bytes(range(256)), b"\r\n", b"12", b"x" * 1_000_000]
    for number, value in enumerate(values):
        records.set(f"values/{number}", value)

    assert [records.get(f"values/{number}") for number in range(len(values))] == values
    assert list(records.list("values").values()) == values


def test_an_empty_value_is_not_an_absent_one(records: Records) -> None:
    records.set("values/empty", b"")

    assert records.get("values/empty") == b""
    assert records.list("values") == {"values/empty": b""}
    assert not records.swap("values/empty", None, b"new")
    assert not records.swap("values/absent", b"", b"new")
    assert records.swap("values/empty", b"", b"new")


def test_a_deleted_value_is_gone(records: Records) -> None:
    records.set("workers/1", b"one")
    records.set("workers/2", b"two")

    records.delete("workers/1")
    records.delete("workers/1")
    records.delete("never/written")

    assert records.get("workers/1") is None
    assert records.list("workers") == {"workers/2": b"two"}


# Several at once.


def test_several_values_are_written_at_once(records: Records) -> None:
    records.set("workers/1", b"old", ttl=SHORT)
    values = {"workers/1": b"one", "workers/2": b"", "other/1": b"\0\r\n", "q:all/1": b"three"}

    records.set_many(values)

    assert {key: records.get(key) for key in values} == values
    assert list(records.list("workers")) == ["workers/1", "workers/2"]
    records.set("workers/marker", b"", ttl=2 * SHORT)
    wait_until_gone(records, "workers/marker")
    assert records.get("workers/1") == b"one"  # it has no old expiry


def test_several_values_expire(records: Records) -> None:
    records.set("workers/2", b"")
    started = time.monotonic()
    records.set_many({f"workers/{number}": b"" for number in range(3)}, ttl=SHORT)
    records.set_many({"workers/3": b"", "other/1": b""}, ttl=3600.0)

    for number in range(3):
        wait_until_gone(records, f"workers/{number}")

    assert time.monotonic() - started >= SHORT - TICK
    assert records.list("workers") == {"workers/3": b""}
    assert records.list("other") == {"other/1": b""}


def test_several_values_are_deleted_at_once(records: Records) -> None:
    records.set_many({f"workers/{number}": b"" for number in range(6)})
    records.set("other/1", b"")
    records.set("q:all/1", b"")

    records.delete("workers/1", "never/written", "workers/4", "other/1", "workers/4", "q:all/1")

    assert list(records.list("workers")) == [f"workers/{number}" for number in (0, 2, 3, 5)]
    assert records.list("other") == records.list("q:all") == {}


def test_to_write_or_delete_nothing_is_fine(records: Records) -> None:
    records.set_many({})
    records.set_many({}, ttl=1.0)
    records.delete()


def test_thousands_of_values_are_written_listed_and_deleted(records: Records) -> None:
    values = {f"many/{number:05}": b"%d" % number for number in range(12_000)}

    records.set_many(values)

    assert records.list("many") == values
    records.delete(*list(values)[1:])
    assert records.list("many") == {"many/00000": b"0"}


# Families.


def test_a_family_is_listed_sorted_by_key(records: Records) -> None:
    for key in ["workers/b", "workers/a", "workers/10", "workers/9", "workers/B", "workers/ž"]:
        records.set(key, key.encode())

    listed = records.list("workers")

    assert list(listed) == sorted(listed)
    assert {key: value.decode() for key, value in listed.items()} == {key: key for key in listed}
    assert len(listed) == 6


def test_families_do_not_mix(records: Records) -> None:
    keys = ["w/1", "workers/1", "workers/1/2", "worker/1", "workers2/1", "Workers/1"]
    keys += ["w*/1", "w?rkers/1", "[w]/1", "w%/1", "{w}/1", "w:/1", "/1", "'; --/1", "ž/1"]
    for key in keys:
        records.set(key, key.encode())

    assert list(records.list("workers")) == ["workers/1", "workers/1/2"]
    for key in set(keys) - {"workers/1", "workers/1/2"}:
        assert records.list(key.partition("/")[0]) == {key: key.encode()}
    assert records.list("unknown") == {}
    assert records.list("*") == {}


def test_families_that_go_with_queues_do_not_mix(backend: Backend, records: Records) -> None:
    families = ["schedules", "schedules:", "schedules:q", "schedules:q2", "schedules:q:q", "q"]
    families += ["results:q", ":q", ":", "::", "q:schedules", "schedules:{q}", "{schedules}:q"]
    families += ["schedules:q}", "schedules:{q", "s:ž", "schedules: q", "schedules:*", "*:q"]
    push(backend, "t1", to="q")
    for family in families:
        records.set(f"{family}/1", family.encode())
        assert records.swap(f"{family}/2", None, b"")

    for family in families:
        assert records.list(family) == {f"{family}/1": family.encode(), f"{family}/2": b""}
    for family in families:
        records.delete(f"{family}/1", f"{family}/2")
        assert records.list(family) == {}
    assert backend.queues() == ["q"]
    assert backend.count("q") == Counts(waiting=1)


def test_the_first_of_a_family_are_listed(records: Records) -> None:
    keys = ["workers/10", "workers/9", "workers/B", "workers/a", "workers/b", "workers/ž"]
    for key in reversed(keys):
        records.set(key, key.encode())

    for limit in (0, 1, 3, 6, 100):
        expected = {key: key.encode() for key in keys[:limit]}
        assert list(records.list("workers", limit).items()) == list(expected.items())
    assert list(records.list("workers", limit=None)) == keys
    assert records.list("unknown", limit=5) == {}


def test_the_first_are_of_those_that_expire_and_of_those_that_do_not(records: Records) -> None:
    keys = [f"workers/{number}" for number in range(8)]
    records.set_many(dict.fromkeys(keys, b""), {key: 3600.0 + len(key) for key in keys[1::3]})

    for limit in range(10):
        assert list(records.list("workers", limit)) == keys[:limit]


def test_what_has_expired_is_not_among_the_first(records: Records) -> None:
    records.set_many({f"workers/{number:03}": b"" for number in range(200)}, ttl=SHORT)
    records.set_many({"workers/200": b"", "workers/201": b""})
    wait_until_gone(records, "workers/199")

    assert list(records.list("workers", limit=1)) == ["workers/200"]


def test_records_and_queues_do_not_mix(backend: Backend, records: Records) -> None:
    records.set(f"{QUEUE}/t1", b"record")
    records.set(f"alligator:{QUEUE}/t1", b"record")
    push(backend, "t1")

    backend.drop_all(QUEUE)

    assert records.list(QUEUE) == {f"{QUEUE}/t1": b"record"}
    assert backend.count(QUEUE) == Counts()


# Compare and set.


def test_a_value_is_swapped_while_it_still_is_as_known(records: Records) -> None:
    records.set("locks/1", b"old")

    assert records.swap("locks/1", b"old", b"new")
    assert not records.swap("locks/1", b"old", b"newer")

    assert records.get("locks/1") == b"new"


def test_a_swap_from_nothing_writes_what_is_absent(records: Records) -> None:
    assert records.swap("locks/1", None, b"mine")
    assert not records.swap("locks/1", None, b"theirs")

    assert records.get("locks/1") == b"mine"
    assert records.list("locks") == {"locks/1": b"mine"}


def test_a_swap_of_what_is_gone_writes_nothing(records: Records) -> None:
    records.set("locks/1", b"old")
    records.delete("locks/1")

    assert not records.swap("locks/1", b"old", b"new")

    assert records.get("locks/1") is None
    assert records.list("locks") == {}


def test_of_many_threads_swapping_none_overwrites_another(records: Records) -> None:
    def count_up(_: int) -> None:
        count_to(records, 50)

    in_threads(8, count_up)

    assert records.get("counters/1") == b"400"


def test_of_many_processes_swapping_none_overwrites_another(
    dsn: str, connect: Callable[[], Backend]
) -> None:
    records = records_of(connect())

    def count_up(_: int) -> None:
        with opened(dsn) as backend:
            count_to(records_of(backend), 50)

    in_processes(4, count_up)

    assert records.get("counters/1") == b"200"


def count_to(records: Records, times: int) -> None:
    """Add one to a shared counter, so many times."""
    done = 0
    while done < times:
        old = records.get("counters/1")
        done += records.swap("counters/1", old, str(int(old or b"0") + 1).encode())


# Expiry.


def test_a_value_expires(records: Records) -> None:
    records.set("workers/1", b"one", ttl=SHORT)
    records.set("workers/2", b"two", ttl=3600.0)
    records.set("workers/3", b"three")

    wait_until_gone(records, "workers/1")

    assert records.list("workers") == {"workers/2": b"two", "workers/3": b"three"}


def test_a_value_does_not_expire_early(records: Records) -> None:
    started = time.monotonic()
    records.set("workers/1", b"one", ttl=SHORT)

    wait_until_gone(records, "workers/1")

    assert time.monotonic() - started >= SHORT - TICK


def test_a_value_that_has_expired_is_absent_to_a_swap(records: Records) -> None:
    records.set("locks/1", b"theirs", ttl=SHORT)
    records.set("locks/2", b"theirs", ttl=SHORT)
    wait_until_gone(records, "locks/2")

    assert not records.swap("locks/1", b"theirs", b"late")
    assert records.swap("locks/1", None, b"mine")

    assert records.list("locks") == {"locks/1": b"mine"}


def test_a_value_written_anew_lives_as_it_says_itself(records: Records) -> None:
    records.set("workers/kept", b"", ttl=SHORT)
    records.set("workers/kept", b"")
    records.set("workers/swapped", b"", ttl=SHORT)
    records.swap("workers/swapped", b"", b"new")
    records.set("workers/longer", b"", ttl=SHORT)
    records.set("workers/longer", b"", ttl=3600.0)
    records.set("workers/shorter", b"", ttl=3600.0)
    records.set("workers/shorter", b"", ttl=SHORT)

    wait_until_gone(records, "workers/shorter")

    assert list(records.list("workers")) == ["workers/kept", "workers/longer", "workers/swapped"]


def test_a_swapped_value_expires(records: Records) -> None:
    assert records.swap("locks/1", None, b"mine", ttl=SHORT)
    assert records.swap("locks/2", None, b"mine", ttl=3600.0)
    assert records.swap("locks/2", b"mine", b"mine", ttl=SHORT)

    wait_until_gone(records, "locks/1")
    wait_until_gone(records, "locks/2")

    assert records.list("locks") == {}


def test_a_value_deleted_and_written_again_has_no_old_expiry(records: Records) -> None:
    records.set("workers/1", b"one", ttl=SHORT)
    records.delete("workers/1")
    records.set("workers/1", b"two")
    records.set("workers/marker", b"", ttl=SHORT)

    wait_until_gone(records, "workers/marker")

    assert records.list("workers") == {"workers/1": b"two"}
