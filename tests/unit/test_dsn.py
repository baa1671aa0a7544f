"""Where a store is, and that nobody learns its password from us."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator import Gator
from alligator.dsn import DSN, masked
from alligator.exceptions import AlligatorException, BackendMissing, InvalidOption
from tests.unit import jobs
from tests.unit.five_methods import FiveMethods

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "scheme", "rest", "query"),
    [
        ("locmem://", "locmem", "", {}),
        ("redis://localhost:6379/0", "redis", "localhost:6379/0", {}),
        ("redis://localhost:", "redis", "localhost:", {}),
        ("REDIS://localhost", "redis", "localhost", {}),
        ("sqlite:///tmp/q.db", "sqlite", "/tmp/q.db", {}),
        ("sqlite://q.db?sync=normal", "sqlite", "q.db", {"sync": "normal"}),
        ("my-store+tls.2://a/b?c=1&d=&e=%40", "my-store+tls.2", "a/b", {"c": "1", "d": "", "e": "@"}),
    ],
)  # fmt: skip
def test_a_dsn_has_a_scheme_a_place_and_settings(
    text: str, scheme: str, rest: str, query: dict[str, str]
) -> None:
    dsn = DSN.parse(text)

    assert (dsn.scheme, dsn.rest, dsn.query, dsn.url) == (scheme, rest, query, text)


@pytest.mark.parametrize(
    "text", ["", "redis", "redis:", "redis:/localhost", "://localhost", "1redis://", "a b://c"]
)
def test_what_is_no_dsn_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"is no DSN. Write one as scheme://"):
        Gator(text)


@pytest.mark.parametrize("thing", [None, 7, b"locmem://", ["locmem://"]], ids=repr)
def test_what_is_no_text_is_no_dsn(thing: Any) -> None:
    with pytest.raises(InvalidOption, match="A DSN is a string such as"):
        Gator(thing)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("locmem://", "locmem://"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://localhost:6379/0?db=1", "redis://localhost:6379/0?db=1"),
        ("redis://:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://me:hunter2@host/0?password=hunter2", "redis://***@host/0?password=***"),
        ("redis://host?db=1&PASSWORD=hunter2&x=2", "redis://host?db=1&PASSWORD=***&x=2"),
        ("sqs://key:hunter2@us-west-2/", "sqs://***@us-west-2/"),
        ("redis://:hunter2@one,:hunter2@two/0", "redis://***@two/0"),
        ("unix://:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis:///:hunter2@host", "redis://***@host"),
        ("sqlite:///tmp/a@b.db", "sqlite:///tmp/a@b.db"),
        ("no connection to redis://u:hunter2@host", "no connection to redis://***@host"),
    ],
)
def test_a_dsn_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert masked(text) == shown
    if " " not in text:
        assert str(DSN.parse(text)) == shown
        assert repr(DSN.parse(text)) == f"DSN({shown!r})"


# Between any two characters stands the secret, so that no part of a password may be shown.
characters = st.lists(
    st.sampled_from("@/:?%#&=[].,;!$*+\\'\" aé\n") | st.characters(exclude_categories=["Cs"])
)
passwords = characters.map(lambda parts: SECRET + "".join(part + SECRET for part in parts))


@given(password=passwords)
@pytest.mark.parametrize(
    "form",
    [
        "five://:{}@host:6379/0",
        "five://user:{}@host:6379/0",
        "five://{}@host",
        "five://user:{}@/run/five.sock",
        "five:///user:{}@host",
        "five://host/0?password={}",
        "five://host/0?db=1&api_token={}",
        "five://user:{0}@host/0?password={0}",
    ],
)
def test_no_password_is_shown_however_odd(form: str, password: str) -> None:
    # An "&" ends a value of a query: what follows is the next setting, by every reading of it.
    if "?" in form:
        password = password.replace("&", "")
    gator = Gator(form.format(password), backend_class=FiveMethods)

    shown = [repr(gator), str(gator.dsn), repr(gator.dsn), f"{gator.dsn}"]
    with gator.options(delay_by=5) as opts, pytest.raises(InvalidOption) as caught:
        opts.task(jobs.add, 1, 2)
    shown.append(str(caught.value))

    assert not [text for text in shown if SECRET in text]


@given(password=passwords)
@pytest.mark.parametrize(
    "form",
    [
        "reddis://user:{}@host:6379/0",
        "redis:user:{}@host:6379/0",
        "redis:/user:{}@host:6379/0",
        "user:{}@host",
        "user:{}@host://6379",
        "re dis://user:{}@host",
    ],
)
def test_no_password_is_shown_by_an_error_in_its_dsn(form: str, password: str) -> None:
    with pytest.raises((InvalidOption, BackendMissing)) as caught:
        Gator(form.format(password))

    assert SECRET not in str(caught.value)


def test_the_store_itself_is_given_the_whole_dsn() -> None:
    given: list[str] = []

    def client(conn_string: str) -> FiveMethods:
        given.append(conn_string)
        return FiveMethods(conn_string)

    Gator("five://user:hunter2@host", backend_class=client)

    assert given == ["five://user:hunter2@host"]


def test_no_password_is_logged_or_kept_with_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gator = Gator("five://user:hunter2@host?token=hunter2", backend_class=FiveMethods)
    gator.task(jobs.fail)
    with pytest.raises(ValueError, match="broken"):
        gator.pop()
    gator.backend.push("all", "t1", "no task")
    with pytest.raises(AlligatorException):
        gator.pop()

    assert len(caplog.records) >= 3
    assert "hunter2" not in caplog.text
