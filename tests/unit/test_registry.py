"""Who works on a store, as far as its records tell."""

import json
from typing import Any

import pytest

from alligator import Gator, registry
from alligator.registry import Presence
from alligator.testing.stores import records_of

ME = Presence("w1", "host", 17, ["mail"], 1_700_000_000.0)


def test_a_worker_is_present_from_its_announcement_to_its_withdrawal(gator: Gator) -> None:
    registry.announce(gator.backend, ME, 30.0)
    assert registry.present(gator.backend) == [ME]

    registry.withdraw(gator.backend, "w1")
    assert registry.present(gator.backend) == []


@pytest.mark.parametrize(
    "value",
    [
        b"no JSON",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        {"host": None},
        {"pid": "17"},
        {"queues": "mail"},
        {"started_at": "today"},
        {"started_at": float("inf")},
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_entry_that_cannot_be_read_is_left_out(gator: Gator, value: Any) -> None:
    registry.announce(gator.backend, ME, 30.0)
    records = records_of(gator.backend)
    mine = json.loads(records.get("workers/w1") or b"")
    body = json.dumps({**mine, **value}).encode() if isinstance(value, dict) else value
    records.set("workers/w2", body)

    assert registry.present(gator.backend) == [ME]


def test_an_entry_of_another_version_may_tell_more(gator: Gator) -> None:
    told = {"worker": "w1", "host": "host", "pid": 17, "queues": ["mail"], "more": [1]}
    body = json.dumps({**told, "started_at": ME.started_at}).encode()
    records_of(gator.backend).set("workers/w1", body)

    assert registry.present(gator.backend) == [ME]
