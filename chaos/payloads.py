"""Payloads by chance: such as a queue has to carry or refuse, and messages that somebody has spoiled."""

import datetime
import json
import math
import random
import string
from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.integration import jobs

DEEPEST = 12
"""How deep payloads nest, unless they nest too deep on purpose."""
TEXTS = (
    string.ascii_letters,
    " \t\r\n\x00\x01\x1b\x7f\x85",
    "äßñ€漢字🐊\u202e\u2028\ufeff\ufffd\U0010ffff",
    "\"'\\/{}[],:%$",
)
"""What texts are made of: plain, control characters, beyond ASCII, and what means something to others."""


def payload(rng: random.Random, depth: int = 0) -> Any:
    """Return a value that JSON can carry."""
    small: list[Any] = [None, True, False, 0, -1, 1, 0.0, -0.0, "", [], {}, ()]
    makers: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(small),
        lambda: rng.randint(-(2**70), 2**70),
        lambda: rng.choice([-1, 1]) * rng.randrange(10 ** rng.randint(1, 4000)),
        lambda: rng.uniform(-1e9, 1e9),
        lambda: rng.choice([5e-324, 1.7976931348623157e308, 0.1, 1e16, 2.0**53 + 2]),
        lambda: text(rng),
        lambda: [payload(rng, depth + 1) for _ in range(rng.randrange(5))],
        lambda: tuple(payload(rng, depth + 1) for _ in range(rng.randrange(4))),
        lambda: {text(rng): payload(rng, depth + 1) for _ in range(rng.randrange(5))},
    )
    return rng.choice(makers if depth < DEEPEST else makers[:6])()


def unfit(rng: random.Random) -> Any:
    """Return a value that has one somewhere in it that JSON cannot carry."""
    value = _uncarriable(rng)
    for _ in range(rng.randrange(4)):
        value = [payload(rng, DEEPEST), value] if rng.random() < 0.5 else {text(rng): value}
    return value


def _uncarriable(rng: random.Random) -> Any:
    """Return a value that JSON cannot carry, or not so that an equal one comes back."""
    itself: list[Any] = []
    itself.append(itself)
    deep: Any = 0
    for _ in range(rng.randint(101, 2000)):
        deep = [deep]
    return rng.choice(
        [
            *(math.nan, math.inf, -math.inf, b"bytes", {1, 2}, {3: "key"}, {None: 0}, 1j, object()),
            *(
                "\ud800",
                ["\udfff"],
                {"\udc80": 1},
                datetime.datetime.now(datetime.UTC),
                deep,
                itself,
            ),
        ]
    )


def text(rng: random.Random) -> str:
    """Return a text that can be encoded."""
    return "".join(rng.choices(rng.choice(TEXTS), k=rng.choice([0, 1, 3, 10, 100])))


def as_it_comes(value: Any) -> Any:
    """Return what a payload is after its journey: tuples are lists."""
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        return {key: as_it_comes(item) for key, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [as_it_comes(item) for item in cast(Sequence[Any], value)]
    return value


def spoiled(rng: random.Random, message: bytes) -> bytes:
    """Return a task's message with something wrong in it, so that no task is to be read from it."""
    while True:
        found = rng.choice(WAYS)(rng, message)
        if not _is_task(found):
            return found


def _cut(rng: random.Random, message: bytes) -> bytes:
    return message[: rng.randrange(len(message))]


def _flipped(rng: random.Random, message: bytes) -> bytes:
    flipped = bytearray(message)
    for _ in range(rng.randint(1, 8)):
        flipped[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _exchanged(rng: random.Random, message: bytes) -> bytes:
    fields: dict[str, Any] = json.loads(message)
    one, other = rng.sample(["task_id", "retries", "module", "callable", "args", "kwargs"], 2)
    fields[one], fields[other] = fields[other], fields[one]
    return json.dumps(fields).encode()


def _of_other_types(rng: random.Random, message: bytes) -> bytes:
    fields: dict[str, Any] = json.loads(message)
    key = rng.choice(["task_id", "retries", "module", "callable", "args", "kwargs", "options"])
    others: list[Any] = [None, 1.5, "text", [], {}, [[]], {"a": {}}, math.nan, math.inf]
    fields[key] = rng.choice(others)
    return json.dumps(fields).encode()


def _of_unknown_code(rng: random.Random, message: bytes) -> bytes:
    fields: dict[str, Any] = json.loads(message)
    names = [
        "",
        ".",
        "..",
        "no_such_module",
        "a b",
        "__main__",
        "\n",
        "\x00",
        "\ud800",
        "ä",
        "x" * 9999,
    ]
    fields[rng.choice(["module", "callable"])] = rng.choice(names)
    return json.dumps(fields).encode()


def _of_huge_numbers(rng: random.Random, message: bytes) -> bytes:
    number = rng.choice([b"9" * 5000, b"1e999", b"-1e999", b"0." + b"3" * 5000])
    return message.replace(b'"retries":0', b'"retries":' + number)


def _nested(rng: random.Random, message: bytes) -> bytes:
    depth = rng.choice([1100, 10_000])
    opened = rng.choice([b"[", b'{"a":'])
    return rng.choice([opened * depth, message.replace(b'"args":', b'"args":' + b"[" * depth)])


def _wrapped(rng: random.Random, message: bytes) -> bytes:
    described = message.decode()
    as_utf_16 = described.encode("utf-16")
    return rng.choice([b"[%s]" % message, json.dumps(described).encode(), as_utf_16, message * 2])


def _random(rng: random.Random, message: bytes) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 10, len(message)]))


WAYS = (
    *(_cut, _flipped, _exchanged, _of_other_types, _of_unknown_code),
    *(_of_huge_numbers, _nested, _wrapped, _random),
)


def _is_task(message: bytes) -> bool:
    """Return whether a message may well be a task: a flipped bit in an id makes it only another one."""
    try:
        fields: dict[str, Any] = json.loads(message)
        code = fields["module"], fields["callable"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    given = dict[str, Any](args=[], kwargs={}, options={}) | fields
    kinds = {"task_id": str, "retries": int, "args": list, "kwargs": dict, "options": dict}
    is_typed = all(isinstance(given.get(key), kind) for key, kind in kinds.items())
    return is_typed and code == (jobs.work.__module__, jobs.work.__qualname__)
