"""Keys: which are taken, what they sign, and that they are shown nowhere."""

import json
import logging
import traceback
from typing import Any

import pytest

from alligator import Gator, Worker
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption
from alligator.payloads import MARK, SIGNATURE_SIZE, decode, is_signed, plain
from alligator.processes.complaints import warn_of_strangers
from alligator.signing import FOREIGN, UNSIGNED, Keyring, place_of

KEY, OTHER = "a key of the tests: 32 characters", b"\x00\xff" * 16
PLACE = place_of("task", "all", "t1")


def test_what_is_signed_fits_its_place_alone() -> None:
    keyring = Keyring([KEY])
    signed = keyring.sign(PLACE, b"value")

    assert signed.startswith(MARK)
    assert len(signed) == SIGNATURE_SIZE + len(b"value")
    assert plain(signed) == b"value"
    assert keyring.why_not(PLACE, signed) == ""
    for place in (
        place_of("task", "all", "t2"),
        place_of("task", "mail", "t1"),
        place_of("record", "all", "t1"),
        place_of("task", "al", "lt1"),
        place_of("task", "all", "t1", ""),
        place_of("task", "allt1"),
    ):
        assert keyring.why_not(place, signed) == FOREIGN


def test_no_two_places_have_one_name() -> None:
    names = ["", "1", ":", "1:", "1:1", "a", "a1:b", "a3:b", "ä", "\ud800"]

    assert len({place_of("task", one, two) for one in names for two in names}) == len(names) ** 2


def test_no_changed_bit_fits() -> None:
    keyring = Keyring([KEY])
    signed = keyring.sign(PLACE, b'{"a":1}')

    for bit in range(len(signed) * 8):
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        assert keyring.why_not(PLACE, bytes(changed)) in (UNSIGNED, FOREIGN)
    for size in range(len(signed)):
        assert keyring.why_not(PLACE, signed[:size]) in (UNSIGNED, FOREIGN)


def test_the_first_key_signs_and_each_verifies() -> None:
    old, both, new = Keyring([KEY]), Keyring([OTHER, KEY]), Keyring([OTHER])

    assert both.sign(PLACE, b"x") == new.sign(PLACE, b"x") != old.sign(PLACE, b"x")
    assert both.why_not(PLACE, old.sign(PLACE, b"x")) == ""
    assert new.why_not(PLACE, old.sign(PLACE, b"x")) == FOREIGN


def test_a_signature_within_a_signature_is_read_once() -> None:
    inner = Keyring([KEY]).sign(PLACE, b'{"a":1}')

    with pytest.raises(Exception, match="no JSON"):
        decode(Keyring([OTHER]).sign(PLACE, inner))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "There is no key in keys"),
        (["short"], "Key 1 of keys has 5 bytes; 32 are the least"),
        ([KEY, b"sh"], "Key 2 of keys has 2 bytes"),
        ([KEY, 7], "Key 2 of keys is neither text nor bytes"),
        ([None], "Key 1 of keys is neither text nor bytes"),
        (KEY, "keys is a list"),
        (b"x" * 32, "keys is a list"),
        (7, "keys is a list"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(keys: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message) as refused:
        Gator("locmem://", keys=keys)

    told = "".join(traceback.format_exception(refused.value))
    assert "short" not in told.replace("'short'", "")
    assert KEY not in told


def test_keys_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLIGATOR_KEYS", f"  {KEY.replace(' ', '-')},\n\t{'z' * 40} ")

    keyring = Gator("locmem://").keyring
    assert keyring is not None
    assert keyring.sign(PLACE, b"x") == Keyring([KEY.replace(" ", "-")]).sign(PLACE, b"x")
    assert keyring.why_not(PLACE, Keyring(["z" * 40]).sign(PLACE, b"x")) == ""
    given = Gator("locmem://", keys=[OTHER]).keyring
    assert given is not None
    assert given.sign(PLACE, b"x") == Keyring([OTHER]).sign(PLACE, b"x")


@pytest.mark.parametrize("told", ["", "  ", ",", "short"])
def test_a_variable_that_holds_no_key_is_a_mistake(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than that nothing is signed, because a secret was not found."""
    monkeypatch.setenv("ALLIGATOR_KEYS", told)

    with pytest.raises(InvalidOption, match="ALLIGATOR_KEYS"):
        Gator("locmem://")


def test_no_key_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gator = Gator("locmem://", keys=[KEY])
    gator.store.push("all", "t1", b"?")
    Worker(gator, burst=True).run_forever()

    shown = [repr(gator), repr(gator.keyring), repr(gator.backend), caplog.text]
    shown += [repr(vars(gator)), repr(vars(gator.backend)), json.dumps(str(gator.keyring))]
    assert not any(KEY in text for text in shown)


def test_without_keys_nothing_is_signed_or_wrapped() -> None:
    gator = Gator("locmem://")
    gator.task(print)

    assert gator.backend is gator.store
    [listed], _ = gator.backend.walk("all", "waiting")
    assert not is_signed(listed.body)


@pytest.mark.parametrize(
    ("url", "is_elsewhere"),
    [
        ("locmem://", False),
        ("sqlite:///tmp/q.db", False),
        ("sqlite://q.db", False),
        ("unix:///run/redis.sock?db=1", False),
        ("redis://localhost:6379/0", False),
        ("redis://:secret@127.0.0.1:6379/0", False),
        ("redis://[::1]:6379/0", False),
        ("redis://", False),
        ("redis://cache:6379/0", True),
        ("rediss://me:p@ss@10.0.0.7/0", True),
        ("redis+sentinel://localhost:1,there:2/main/0", True),
        ("redis+cluster://localhost:1,127.0.0.1:2", False),
        ("postgres:///shop", False),
        ("postgres:///shop?host=/run/postgresql", False),
        ("postgres://%2Frun%2Fpostgresql/shop", False),
        ("postgres:///shop?host=db", True),
        ("postgres://me@db/shop", True),
        ("beanstalk://localhost:11300/", False),
        ("beanstalk://queue:11300/", True),
        ("sqs://us-west-2/", True),
    ],
)
def test_who_is_told_that_strangers_may_run_anything(
    url: str, is_elsewhere: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told = DSN.parse(url)
    assert told.is_elsewhere is is_elsewhere
    for gator in (
        Gator("locmem://"),
        Gator("locmem://", keys=[KEY]),
        Gator("locmem://", allow=["**"]),
    ):
        gator.dsn = told
        warn_of_strangers(gator, gator.allowed, logging.getLogger())

    assert caplog.text.count("can run any function here") == is_elsewhere
    assert "secret" not in caplog.text
    assert "p@ss" not in caplog.text


def test_a_worker_says_at_its_start_that_strangers_may_run_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for allow in (None, ["**"]):
        gator = Gator("locmem://")
        gator.dsn = DSN.parse("redis://:hunter2@cache/0")
        Worker(gator, burst=True, allow=allow).run_forever()

    assert caplog.text.count("Whoever can write to redis://***@cache/0 can run any function") == 1
