"""What a DSN says of Redis: where, how, and what it cannot say."""

import ssl
from typing import Any

import pytest

from alligator import Gator
from alligator.backends.loading import BUILT_IN
from alligator.backends.redis.address import Address, Where
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption

SECRET = "hunter2"


def address(text: str) -> Address:
    return Address.parse(DSN.parse(text))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("redis://", [("localhost", 6379)]),
        ("redis://example:7000", [("example", 7000)]),
        ("redis://example:", [("example", 6379)]),
        ("redis://u:p@[::1]:7000/1", [("::1", 7000)]),
        ("valkey://example", [("example", 6379)]),
        ("rediss://example", [("example", 6379)]),
        ("redis+cluster://one,two:7000", [("one", 6379), ("two", 7000)]),
        ("valkeys+cluster://[::1],[::2]:1/", [("::1", 6379), ("::2", 1)]),
        ("redis+sentinel://one,two:7000/queues", [("one", 26379), ("two", 7000)]),
    ],
)
def test_hosts_and_ports(text: str, hosts: list[Where]) -> None:
    assert list(address(text).hosts) == hosts


@pytest.mark.parametrize(
    ("text", "database"),
    [
        ("redis://host", 0),
        ("redis://host/", 0),
        ("redis://host/3", 3),
        ("redis://host/3?db=4", 4),
        ("unix:///run/redis.sock?db=5", 5),
        ("redis+sentinel://host/queues", 0),
        ("redis+sentinel://host/queues/6", 6),
        ("redis+cluster://host/0", 0),
    ],
)
def test_databases(text: str, database: int) -> None:
    assert address(text).options["db"] == database


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("redis://host", (None, None)),
        ("redis://:p%40ss%2F@host", (None, "p@ss/")),
        ("redis://me:pass@host", ("me", "pass")),
        ("redis://host?username=me&password=pass", ("me", "pass")),
        ("unix://me:pass@/run/redis.sock", ("me", "pass")),
        ("redis+cluster://me:pass@one,two", ("me", "pass")),
        ("redis+sentinel://me:pass@one,two/queues?sentinel_password=other", ("me", "pass")),
    ],
)
def test_users_and_passwords(text: str, login: tuple[str | None, str | None]) -> None:
    options = address(text).options
    assert (options["username"], options["password"]) == login


def test_the_sentinels_have_a_login_of_their_own() -> None:
    found = address(
        "rediss+sentinel://me:pass@one,two/queues/3"
        "?sentinel_username=us&sentinel_password=theirs&ssl_ca_certs=ca.crt"
    )
    asked = found.of_sentinel(found.hosts[1])

    assert (found.service, found.options["db"], found.is_tls) == ("queues", 3, True)
    assert asked.hosts == (("two", 26379),)
    assert asked.options["username"] == "us"
    assert asked.options["password"] == "theirs"
    assert asked.options["db"] == 0
    assert asked.options["ssl_ca_certs"] == "ca.crt"
    assert address("redis+sentinel://me:pass@one/queues").sentinel_options["password"] is None


def test_options_of_tls_have_redis_pys_names() -> None:
    options = address(
        "rediss://host?ssl_ca_certs=ca&ssl_certfile=c&ssl_keyfile=k&ssl_cert_reqs=required"
        "&ssl_check_hostname=no&ssl_min_version=TLSv1.3"
    ).options

    assert options["ssl_ca_certs"] == "ca"
    assert (options["ssl_certfile"], options["ssl_keyfile"]) == ("c", "k")
    assert options["ssl_check_hostname"] is False
    assert options["ssl_min_version"] == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("query", "checked"),
    [("", True), ("?ssl_cert_reqs=none", False), ("?ssl_cert_reqs=optional", True)],
)
def test_names_in_certificates_are_looked_at_unless_told_otherwise(
    query: str, checked: bool
) -> None:
    assert address(f"rediss://host{query}").options["ssl_check_hostname"] is checked


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("redis://host:port/0", "'host:port' is no host:port"),
        ("redis://host:99999", "there is no port 99999"),
        ("redis://host/zero", "'zero' is no number of a database"),
        ("redis://host/-1", "'-1' is no number of a database"),
        ("redis://host/0#x", "a '#' is to be percent-encoded"),
        ("redis://one,two/0", "several hosts are those of redis+sentinel"),
        (
            "redis://host?no_such_option=1",
            "there is no option 'no_such_option' here; known: client",
        ),
        ("redis://host?ssl_ca_certs=ca", "those of TLS need rediss://"),
        ("redis://host?sentinel_password=x", "there is no option 'sentinel_password'"),
        ("rediss://host?ssl_cert_reqs=maybe", "'maybe' is none of required, optional, none"),
        ("redis://host?db=one", "the value of db cannot be: 'one' is no number"),
        ("redis://host?socket_timeout=0", "'0' is no number of seconds above 0"),
        ("redis://host?socket_timeout=nan", "'nan' is no number of seconds above 0"),
        ("redis://host?prefix={x}", "braces would spread the keys"),
        ("redis://host?prefix=%0A", "control characters"),
        ("redis://host?prefix=" + "x" * 101, "from 1 to 100 are possible"),
        ("unix://", "the path of a socket begins with '/'"),
        ("unix://run/redis.sock", "the path of a socket begins with '/'"),
        ("redis+cluster://host/1", "a cluster has database 0 alone"),
        ("redis+cluster://host?db=1", "there is no option 'db' here"),
        ("redis+sentinel://host", "the name of the service"),
        ("redis+sentinel://host//0", "the name of the service"),
        ("redis+sentinel://host/queues/x", "'x' is no number of a database"),
        ("redis://.example/0", "label empty or too long"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Gator(text)

    assert "is no Redis DSN" in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "query", ["", "?no_such_option=1", "?password={}&x=1", "?db=x&password={}"]
)
@pytest.mark.parametrize(
    "form",
    [
        "redis://me:{}@host:port/0",
        "redis://me:a/{}@host",
        "redis://me:a?{}@host",
        "redis://me:a?db={}@host",
        "redis://me:#{}@host",
        "rediss://{}@host/zero",
        "unix://{}@relative",
        "redis+sentinel://me:{}@one,two",
        "redis+cluster://me:{}@one,two/1",
        "redis+cluster://me:{}@one,:{}@two:x",
    ],
)
def test_no_error_shows_a_secret(form: str, query: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Gator((form + query).replace("{}", SECRET))

    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_unknown_option_beside_a_password_is_named() -> None:
    with pytest.raises(InvalidOption, match=r"no option 'retry' here; known: .*prefix") as caught:
        Gator(f"redis://me:{SECRET}@host/0?retry=1")
    assert SECRET not in str(caught.value)


def test_nothing_shows_a_secret() -> None:
    found = address(f"redis+sentinel://me:{SECRET}@host/queues?sentinel_password={SECRET}")

    assert SECRET not in repr(found)
    assert SECRET not in repr(found.of_sentinel(("host", 1)))


@pytest.mark.parametrize("scheme", [name for name, module in BUILT_IN.items() if module == "redis"])
def test_every_scheme_leads_to_a_store(scheme: str) -> None:
    rest = {"unix": "/run/redis.sock", "sentinel": "host/queues"}.get(
        scheme.rpartition("+")[2], "host"
    )
    store: Any = Gator(f"{scheme}://{rest}", results=f"{scheme}://{rest}").backend

    assert type(store).__module__ == "alligator.backends.redis_backend"
    assert address(f"{scheme}://{rest}").is_tls is scheme.startswith(("rediss", "valkeys"))
