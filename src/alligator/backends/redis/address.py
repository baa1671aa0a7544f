"""What a DSN says of Redis: which servers, how they are arranged, and how to connect to them.

::

    redis://[user:password@]host[:port][/db]             one server; rediss:// by TLS
    unix://[user:password@]/path/of/redis.sock           one server, by a Unix socket
    redis+sentinel://[user:password@]host[:port],.../service[/db]     the primary that Sentinels name
    redis+cluster://[user:password@]host[:port],...      a cluster, of which these are some nodes

For ``redis`` may stand ``valkey``, and for ``rediss`` ``valkeys``. The options after "?" have the names that
redis-py gives them; ``prefix`` is ours.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from alligator.backends.base import check_name
from alligator.dsn import DSN
from alligator.exceptions import InvalidOption

Where = tuple[str, int]
"""A host and a port."""

PORT = 6379
SENTINEL_PORT = 26379
SOCKET_TIMEOUT = 10.0
"""Seconds for the server to answer. A server that runs a slow command of others' makes us wait as long."""
MAX_PREFIX_BYTES = 100


@dataclass(frozen=True, slots=True)
class Address:
    """Where servers are, and how to connect to them."""

    dsn: DSN
    hosts: tuple[Where, ...] = ()
    """The server; or some nodes of a cluster; or the Sentinels."""
    path: str = ""
    """The Unix socket, if it is one."""
    service: str = ""
    """The name that Sentinels know the primary by, if they are to be asked."""
    is_cluster: bool = False
    is_tls: bool = False
    prefix: str = ""
    """What every key and channel begins with."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """For redis-py's connections."""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """The same, for those to the Sentinels."""

    @classmethod
    def parse(cls, dsn: DSN) -> "Address":
        """Read a DSN.

        Raises:
            InvalidOption: It cannot be understood. The text shows no part of a password.
        """
        try:
            return _address(dsn)
        except ValueError as err:
            # The text may quote a part of the DSN that is a part of the password.
            why = err if isinstance(err, _Shown) or "@" not in dsn.url else type(err).__name__
            raise InvalidOption(
                f"{dsn} is no Redis DSN ({why}). Write {_FORMS[_kind(dsn)]}, special characters in "
                "the password percent-encoded."
            ) from None

    def of_sentinel(self, where: Where) -> "Address":
        """Return the address of one of the Sentinels."""
        return replace(self, hosts=(where,), options=self.sentinel_options)


class _Shown(ValueError):
    """What is wrong with a DSN, in words that hold no secret."""


_FORMS = {
    "": "redis://user:password@host:port/database",
    "unix": "unix://user:password@/path/of/redis.sock?db=0",
    "sentinel": "redis+sentinel://user:password@host:port,host:port/service/database",
    "cluster": "redis+cluster://user:password@host:port,host:port",
}


def _kind(dsn: DSN) -> str:
    return "unix" if dsn.scheme == "unix" else dsn.scheme.partition("+")[2]


def _address(dsn: DSN) -> Address:
    kind = _kind(dsn)
    is_tls = dsn.scheme.partition("+")[0] in ("rediss", "valkeys")
    if "#" in dsn.url:
        raise _Shown("a '#' is to be percent-encoded, as %23")
    given = _converted(dsn, _known(kind, is_tls=is_tls))
    authority, _, path = dsn.rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    options: dict[str, Any] = {
        "db": given.get("db", 0),
        "username": given.get("username") or unquote(user) or None,
        "password": given.get("password") or unquote(password) or None,
        "client_name": given.get("client_name"),
        "socket_timeout": given.get("socket_timeout", SOCKET_TIMEOUT),
        "socket_connect_timeout": given.get("socket_connect_timeout", SOCKET_TIMEOUT),
    }
    options |= {name: value for name, value in given.items() if name.startswith("ssl_")}
    if is_tls:
        # redis-py did not look at the name before its version 6.
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
    address = Address(dsn, is_tls=is_tls, prefix=given.get("prefix", ""), options=options)
    return _LED_TO[kind](address, hosts, path, given)


def _to_server(address: Address, hosts: str, path: str, given: dict[str, Any]) -> Address:
    if "," in hosts:
        raise _Shown("several hosts are those of redis+sentinel:// or redis+cluster://")
    return replace(
        address, hosts=_hosts(hosts, PORT), options=_with_db(address.options, path, given)
    )


def _to_socket(address: Address, hosts: str, path: str, given: dict[str, Any]) -> Address:
    if hosts or not path:
        raise _Shown("the path of a socket begins with '/'")
    return replace(address, path="/" + unquote(path))


def _to_cluster(address: Address, hosts: str, path: str, given: dict[str, Any]) -> Address:
    if path not in ("", "0"):
        raise _Shown("a cluster has database 0 alone")
    return replace(address, hosts=_hosts(hosts, PORT), is_cluster=True)


def _to_sentinel(address: Address, hosts: str, path: str, given: dict[str, Any]) -> Address:
    service, _, database = path.partition("/")
    if not service:
        raise _Shown("the name of the service that the Sentinels watch is missing")
    login = {name: given.get(f"sentinel_{name}") for name in ("username", "password")}
    return replace(
        address,
        hosts=_hosts(hosts, SENTINEL_PORT),
        service=unquote(service),
        options=_with_db(address.options, database, given),
        sentinel_options={**address.options, **login, "db": 0},
    )


_LED_TO = {"": _to_server, "unix": _to_socket, "cluster": _to_cluster, "sentinel": _to_sentinel}


def _with_db(options: Mapping[str, Any], path: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**options} if "db" in given or not path else {**options, "db": _whole(path)}


def _hosts(text: str, port: int) -> tuple[Where, ...]:
    return tuple(_host(one, port) for one in text.split(","))


def _host(text: str, port: int) -> Where:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::([0-9]*))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no host:port")
    host, number = found[1] or unquote(found[2] or "") or "localhost", int(found[3] or port)
    if number > 65535:
        raise ValueError(f"there is no port {number}")
    host.encode("idna")  # else the error comes with the first connection, and is none of redis-py's
    return host, number


def _known(kind: str, *, is_tls: bool) -> dict[str, Callable[[str], Any]]:
    """Return the options that such a DSN may have, and what reads their values."""
    known = dict(_OPTIONS)
    if kind == "cluster":
        del known["db"]
    if kind == "sentinel":
        known |= {"sentinel_username": str, "sentinel_password": str}
    return known | (_TLS_OPTIONS if is_tls else {})


def _converted(dsn: DSN, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the values of the options."""
    # An "@" there may end a password with a "?" in it.
    is_safe = "@" not in dsn.url.partition("?")[2]
    values: dict[str, Any] = {}
    for name, text in dsn.query.items():
        if name not in known:
            what = f"there is no option {name!r} here" if is_safe else "an option is unknown"
            others = ", ".join(sorted(known))
            hint = "; those of TLS need rediss://" * (name in _TLS_OPTIONS)
            raise _Shown(f"{what}; known: {others}{hint}")
        try:
            values[name] = known[name](text)
        except (ValueError, InvalidOption) as err:
            why = f": {err}" if is_safe and not re.search("pass|username", name) else ""
            raise _Shown(f"the value of {name} cannot be{why}") from None
    return values


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is no number of a database")
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < float(text) < 1e6:
        raise ValueError(f"{text!r} is no number of seconds above 0")
    return float(text)


def _prefix(text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError("braces would spread the keys of a queue over a cluster")
    return check_name("prefix", text, MAX_PREFIX_BYTES) if text else ""


def _is_true(text: str) -> bool:
    return bool(_one_of(text.lower(), {"1": True, "true": True, "yes": True} | _FALSE))


def _one_of(text: str, values: Mapping[str, Any]) -> Any:
    if text not in values:
        raise ValueError(f"{text!r} is none of {', '.join(values)}")
    return values[text]


_FALSE = {"0": False, "false": False, "no": False}
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "db": _whole,
    "username": str,
    "password": str,
    "client_name": str,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "prefix": _prefix,
}
_TLS_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_ciphers": str,
    "ssl_cert_reqs": lambda text: _one_of(
        text, {"required": "required", "optional": "optional", "none": "none"}
    ),
    "ssl_check_hostname": _is_true,
    "ssl_min_version": lambda text: _one_of(
        text, {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
    ),
}
