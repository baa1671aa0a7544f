"""Signatures: what proves that a task was written by somebody who has a key, for this place of this queue.

A signed value is the value itself behind a mark and an HMAC-SHA256 in base64. That covers the value and the
name of its place, for a task its queue and its id: what was signed for one place is refused in any other. To
find that out, nothing has to be parsed.
"""

import hmac
import re
from binascii import b2a_base64
from collections.abc import Sequence
from functools import reduce
from typing import Any

from alligator.exceptions import InvalidOption
from alligator.payloads import MARK, SIGNATURE_SIZE

SHORTEST_KEY = 32
"""Bytes of a key: as many as SHA-256 returns; as hexadecimal digits, they still have 128 bits."""

UNSIGNED = "It is not signed, as what runs here must be"
FOREIGN = "No key here made its signature for this task of this queue, or it was changed since"


class Keyring:
    """Keys that sign and verify: the first one signs, each of them verifies.

    Args:
        keys: Text or bytes, each of 32 bytes or more, such as ``secrets.token_urlsafe(32)`` makes.
        source: Where they were found, for errors.

    Raises:
        InvalidOption: There are none, or one is too short. No key is ever quoted.

    Example:
        >>> from alligator.payloads import plain
        >>> keyring = Keyring(["not for production: 32 characters"])
        >>> place = place_of("task", "all", "t1")
        >>> signed = keyring.sign(place, b"{}")
        >>> keyring.why_not(place, signed), plain(signed)
        ('', b'{}')
        >>> keyring.why_not(place_of("task", "mail", "t1"), signed) == FOREIGN
        True
    """

    def __init__(self, keys: Sequence[str | bytes], source: str = "keys") -> None:
        # Made once and copied for each value: to make one anew takes three times as long.
        self._blanks = [hmac.new(key, digestmod="sha256") for key in _checked(keys, source)]

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._blanks)}>"

    def sign(self, place: bytes, value: bytes) -> bytes:
        """Return a value with its signature for a place."""
        return b"%b%b:%b" % (MARK, _mac(self._blanks[0], place, value), value)

    def why_not(self, place: bytes, signed: bytes) -> str:
        """Return why a value is not to be trusted in a place; empty: its signature fits."""
        if not signed.startswith(MARK):
            return UNSIGNED
        # With the colon: what is given is compared whole, and not taken apart.
        given, value = signed[len(MARK) : SIGNATURE_SIZE], memoryview(signed)[SIGNATURE_SIZE:]
        for blank in self._blanks:
            if hmac.compare_digest(_mac(blank, place, value) + b":", given):
                return ""
        return FOREIGN


def _mac(blank: hmac.HMAC, place: bytes, value: bytes | memoryview) -> bytes:
    mac = blank.copy()
    mac.update(place)
    mac.update(value)
    return b2a_base64(mac.digest(), newline=False)


def place_of(kind: str, *names: str) -> bytes:
    """Return the name of a place, by which no two are the same.

    Example:
        >>> place_of("task", "all", "t1")
        b'alligator-signed:1:task:3:all2:t1'
    """
    return reduce(named, names, b"%b%b:" % (MARK, kind.encode()))


def named(within: bytes, name: str) -> bytes:
    """Return the name of a place within another one."""
    told = name.encode(errors="surrogatepass")
    return b"%b%d:%b" % (within, len(told), told)


def keyring_of(keys: Sequence[str | bytes] | None, told: str) -> Keyring:
    """Return the keys that are given, or else those that are told with blanks or commas between them.

    Raises:
        InvalidOption: As ``Keyring``; to tell of none is a mistake, and not taken for having none.
    """
    if keys is not None:
        return Keyring(keys)
    return Keyring([key for key in re.split(r"[\s,]+", told) if key], "ALLIGATOR_KEYS")


def _checked(keys: Any, source: str) -> list[bytes]:
    if isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__"):
        raise InvalidOption("keys is a list of keys: keys=[...], the first of which signs.")
    found = [key.encode() if isinstance(key, str) else key for key in keys]
    if not found:
        raise InvalidOption(f"There is no key in {source}: name one, or leave it out altogether.")
    for number, key in enumerate(found, 1):
        if not isinstance(key, bytes):
            raise InvalidOption(f"Key {number} of {source} is neither text nor bytes.")
        if len(key) < SHORTEST_KEY:
            raise InvalidOption(
                f"Key {number} of {source} has {len(key)} bytes; {SHORTEST_KEY} are the least. "
                'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one.'
            )
    return found
