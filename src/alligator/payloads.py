"""The form of a task in its queue: a JSON object, perhaps behind a signature, and what may go into it."""

import json
import math
from collections.abc import Iterable
from typing import Any, cast
from zlib import crc32

from alligator.exceptions import InvalidArguments, UnreadableTask

MAX_DEPTH = 100
"""How deep lists and dicts may nest: far within what the json module can read back (about 1,000)."""
MOST_DEPTH = 500
"""How deep what others have written may nest. More might be read, and then neither be shown nor written again:
that happens deeper in the stack of calls."""

Payload = dict[str, Any]
_Container = list[Any] | tuple[Any, ...] | dict[Any, Any]

# ASCII, so that no store or log has to cope with anything else.
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


MARK = b"alligator-signed:1:"
"""What a signed value begins with; then come an HMAC in base64, a colon, and the value itself (signing.py)."""
SIGNATURE_SIZE = len(MARK) + 45
"""How many bytes come before the value."""


def is_signed(value: bytes) -> bool:
    """Return whether a value says that it is signed; whether that is true, only a key can tell."""
    return value.startswith(MARK)


def plain(value: bytes) -> bytes:
    """Return a value without its signature, if it has one, and without a look at that.

    For who has no keys, and for who knows already that it fits.
    """
    return value[SIGNATURE_SIZE:] if value.startswith(MARK) else value


def mark_of(body: bytes) -> int:
    """Return a mark by which to know a task from another one of its id; a new attempt has another one, too.

    For when nobody can tell the hand-out.
    """
    return crc32(plain(body))


class Refused(bytes):
    """What lies in a store and has no signature that fits, made unreadable: nobody takes it for a task."""

    raw: bytes
    """What it is."""
    why: str
    """Why it is not to be trusted."""

    @classmethod
    def of(cls, raw: bytes, why: str) -> "Refused":
        """Return such a value."""
        refused = cls(b"refused: " + raw)
        refused.raw, refused.why = raw, why
        return refused


class Fitting(bytes):
    """What lies in a store with a signature that was found to fit, for who looks at it."""


def signature_of(value: bytes) -> str:
    """Return what is known of a value's signature: "fits", "refused", or "unchecked", for here are no keys.

    Empty: it has none, and needs none.
    """
    if isinstance(value, Refused):
        return "refused"
    if not is_signed(value):
        return ""
    return "fits" if isinstance(value, Fitting) else "unchecked"


def raw(value: bytes) -> bytes:
    """Return a value as the store has it."""
    return value.raw if isinstance(value, Refused) else value


def decode(data: str | bytes) -> Payload:
    """Read a payload; of one that is signed, what is behind the signature.

    Raises:
        UnreadableTask: It is no JSON object, or lacks a key that makes it a task.

    Example:
        >>> decode('{"task_id": "t1", "retries": 0, "async": true, "module": "m", "callable": "f"}')["task_id"]
        't1'
    """
    found: Any
    try:
        found = _load(data)
    except (ValueError, RecursionError) as err:
        # Here, for it costs those nothing who sign nothing; and those who do come here without the signature.
        value = data.encode(errors="surrogatepass") if isinstance(data, str) else data
        if is_signed(value) and not is_signed(behind := plain(value)):
            return decode(behind)
        raise UnreadableTask(f"The payload is no JSON: {err}") from None
    if not isinstance(found, dict):
        raise UnreadableTask(f"The payload is a JSON {type(found).__name__}, not an object.")
    payload = cast(Payload, found)
    get = payload.get
    for key, kind, default in _KEYS:
        if not isinstance(get(key, default), kind):
            raise UnreadableTask(f"The payload's {key!r} is {_shown(payload.get(key), kind)}.")
    return payload


def _shown(value: Any, kind: type[Any]) -> str:
    # What stands in the place of arguments may be a secret among them.
    return f"{value!r:.100}" if kind in (str, int) else f"of type {type(value).__name__}"


def options_in(data: str | bytes) -> dict[str, Any] | None:
    """Return the options of a task, by its payload; None if only its own class can read it.

    Example:
        >>> options_in(b"not one of ours") is None
        True
    """
    try:
        options: dict[str, Any] = decode(data).get("options", {})
    except UnreadableTask:
        return None
    return options


def number(told: Any) -> float | None:
    """Return a number that JSON has told; None if it is none that can be reckoned with."""
    is_one = isinstance(told, int | float) and not isinstance(told, bool)
    return told if is_one and abs(told) < 1e15 else None  # as NaN is not, either


def json_in(value: str | bytes) -> Any:
    """Return what JSON says in a text that may have been written by anyone; None if it is none."""
    try:
        return _load(value)
    except (ValueError, RecursionError):
        return None


def object_in(value: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text that may have been written by anyone; an empty one if there is none.

    What is in it may be anything, too: of any type, NaN, a number of a thousand digits.
    """
    found: Any = json_in(value)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def list_in(value: str | bytes) -> list[object]:
    """Return the JSON list in such a text; an empty one if there is none."""
    found: Any = json_in(value)
    return cast(list[object], found) if isinstance(found, list) else []


def _load(data: str | bytes) -> Any:
    # In about half of the time of json.loads: that first finds out whether bytes are UTF-16 or UTF-32.
    text = data if isinstance(data, str) else data.decode("utf-8-sig", "surrogatepass")
    text = text.strip(" \t\r\n")
    found, end = _read(text)
    if end != len(text):
        raise ValueError(f"there is more after character {end}")
    if end > MOST_DEPTH and text.count("[") + text.count("{") > MOST_DEPTH:
        _check_depth(found)
    return found


def _check_depth(found: Any) -> None:
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH):
        level = [one for held in level for one in _items(held) if isinstance(one, (list, dict))]
        if not level:
            return
    raise ValueError(f"it nests deeper than {MOST_DEPTH} levels")


def _items(held: Any) -> Iterable[Any]:
    return cast(dict[str, Any], held).values() if isinstance(held, dict) else held


_read = json.JSONDecoder().raw_decode
_KEYS: tuple[tuple[str, type[Any], Any], ...] = (
    ("task_id", str, None),
    ("retries", int, None),
    ("module", str, None),
    ("callable", str, None),
    ("args", list, []),
    ("kwargs", dict, {}),
    ("options", dict, {}),
)
"""What a payload has, of which type, and what stands for it where it may be missing."""


def check_carriable(value: Any, what: str, depth: int = 0) -> None:
    """Check that JSON carries a value and brings back an equal one (a tuple comes back as a list).

    Raises:
        InvalidArguments: It does not. The message begins with ``what``.
    """
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -_WIDE < value < _WIDE:
            _check_digits(value, what)
    elif isinstance(value, str):
        if not value.isascii():
            _check_text(value, what)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArguments(f"{what} is {value!r}, which JSON has no number for.")
    elif isinstance(value, (list, tuple, dict)):
        if depth >= MAX_DEPTH:
            raise InvalidArguments(f"{what} nests deeper than {MAX_DEPTH} levels, or holds itself.")
        _check_container(value, what, depth)  # pyright: ignore[reportUnknownArgumentType] -- any are fine
    else:
        raise InvalidArguments(
            f"{what} is of type {type(value).__name__}, which JSON cannot carry. "
            + _way_out(type(value).__name__)
        )


def _check_container(value: _Container, what: str, depth: int) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArguments(
                    f"{what} has the key {key!r:.100}. JSON makes every key a string: use strings."
                )
            _check_text(key, what)
            check_carriable(item, f"{what}[{key!r:.50}]", depth + 1)
    else:
        for item in value:
            # Numbering the items would cost more than checking them: the message does without.
            check_carriable(item, f"an item of {what}" if depth == 0 else what, depth + 1)


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArguments(f"{what} has a lone surrogate, which is no text.") from None


_WIDE = 10**600
"""Whatever Python's limit for turning an integer into text is set to, one below this passes."""


def _check_digits(value: int, what: str) -> None:
    try:
        str(value)
    except ValueError as err:
        raise InvalidArguments(f"{what} is an integer too large for text: {err}.") from None


def _way_out(type_name: str) -> str:
    ways = {
        "bytes": "Pass base64 text, or where the bytes are stored.",
        "bytearray": "Pass base64 text, or where the bytes are stored.",
        "set": "Pass a sorted list.",
        "frozenset": "Pass a sorted list.",
        "datetime": "Pass its isoformat().",
        "date": "Pass its isoformat().",
        "Decimal": "Pass its str().",
        "UUID": "Pass its str().",
        "Path": "Pass its str().",
        "PosixPath": "Pass its str().",
    }
    return ways.get(type_name, "Pass an identifier, and look the object up in the task.")
