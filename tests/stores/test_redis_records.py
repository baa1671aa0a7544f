"""What is particular to records in Redis and Valkey."""

from collections.abc import Sequence
from typing import Any

import pytest

from alligator.backends.base import Records
from alligator.backends.redis.records import name_of

pytestmark = pytest.mark.parametrize("backend", ["redis", "valkey"], indirect=True)


def test_the_first_of_a_large_family_are_found_without_the_others(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"many/{number:04}" for number in range(2000)]
    records.set_many(dict.fromkeys(keys, b""))
    server: Any = vars(records)["_server"]
    run, answers = server.run, list[Any]()

    def noting(commands: Sequence[Any]) -> Any:
        answers.extend(run(commands))
        return answers[-len(commands) :]

    monkeypatch.setattr(server, "run", noting)

    assert list(records.list("many", 3)) == keys[:3]
    assert max(map(len, answers)) == 3


def test_what_the_server_has_thrown_out_is_not_among_the_first(records: Records) -> None:
    keys = [f"many/{number:02}" for number in range(50)]
    records.set_many(dict.fromkeys(keys, b""))
    server: Any = vars(records)["_server"]
    server.run([("DEL", *(name_of("", key) for key in keys[:40]))])

    assert list(records.list("many", 3)) == keys[40:43]
    assert list(records.list("many", 30)) == keys[40:]
