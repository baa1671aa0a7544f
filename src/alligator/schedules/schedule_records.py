"""The form of a schedule in a store's records. What another version has written into one beyond this, stays."""

import base64
from collections.abc import Mapping
from typing import Any, cast

from alligator import keys, payloads
from alligator.payloads import number

SHORTEST = 1.0
"""Seconds: the shortest time between two runs of a schedule. Of moments that are nearer to each other than a
float can tell, there would be no next one."""
MOST_ROWS = 100
"""Rows that another version may remember: to look through them takes their square."""
_NOTHING = type(None)
_PARTS: dict[str, tuple[type, ...]] = {
    "every": (float, int, _NOTHING),
    "cron": (str, _NOTHING),
    "timezone": (str, _NOTHING),
    "task_id": (str, _NOTHING),
    "replaces": (bool,),
    "body": (str,),
    "encoding": (str,),
    "start_at": (float, int),
    "due_at": (float, int),
    "last_due_at": (float, int, _NOTHING),
    "last_at": (float, int, _NOTHING),
    "rows": (list, _NOTHING),
}


def family(queue_name: str) -> str:
    """Return the family of a queue's schedules."""
    return f"{keys.SCHEDULES}:{keys.with_queue(queue_name)}"


def key_of(queue_name: str, name: str) -> str:
    """Return the key of a schedule."""
    return f"{family(queue_name)}/{keys.escaped(name)}"


def name_in(key: str) -> str:
    """Return the name that a key ends with."""
    return keys.unescaped(key.partition("/")[2])


def read(value: bytes) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: It is none, or one that only another version understands.
    """
    if isinstance(value, payloads.Refused):
        raise ValueError(value.why)
    told = payloads.object_in(payloads.plain(value))
    if not told:
        raise ValueError("the record is no JSON object")
    for part, kinds in _PARTS.items():
        given = told.get(part)
        is_out_of_reach = float in kinds and given is not None and number(given) is None
        if not isinstance(given, kinds) or is_out_of_reach:
            raise ValueError(f"the record's {part!r} is {given!r:.100}")
    rows = told.get("rows") or ()
    if len(rows) > MOST_ROWS or not all(map(_is_row, rows)):
        raise ValueError(f"the record's 'rows' are {rows!r:.100}")
    if (told["every"] is None) == (told["cron"] is None):
        raise ValueError("the record has neither or both of 'every' and 'cron'")
    if told["every"] is not None and told["every"] < SHORTEST:
        raise ValueError(f"the record's 'every' is {told['every']!r}, less than {SHORTEST:g} s")
    body_of(told)
    return told


def _is_row(row: object) -> bool:
    if not isinstance(row, list):
        return False
    moments = cast(list[object], row)
    return len(moments) == 2 and None not in map(number, moments)


def readable(value: bytes) -> dict[str, Any] | None:
    """Read a record; None: it is none that this version understands."""
    try:
        return read(value)
    except ValueError:
        return None


def to_bytes(told: Mapping[str, Any]) -> bytes:
    """Return a record as it is kept."""
    return payloads.encode(told).encode()


def body_to_json(body: bytes) -> dict[str, str]:
    """Return the parts of a record that hold a task."""
    try:
        return {"body": body.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "encoding": "base64"}


def body_of(told: Mapping[str, Any]) -> bytes:
    """Return the task that a record holds.

    Raises:
        ValueError: It is kept in a way that this version does not know, or is no base64.
    """
    if told["encoding"] == "utf-8":
        return str(told["body"]).encode()
    if told["encoding"] == "base64":
        return base64.b64decode(told["body"], validate=True)
    raise ValueError(f"the record's 'encoding' is {told['encoding']!r:.100}")
