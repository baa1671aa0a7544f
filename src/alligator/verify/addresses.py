"""Stores that can be reached by way of a proxy: those whose DSN names one host, not by TLS."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from alligator.dsn import DSN

_PORTS = {
    "redis": 6379,
    "valkey": 6379,
    "postgres": 5432,
    "postgresql": 5432,
    "beanstalk": 11300,
}
_ELSEWHERE = {"host", "hostaddr", "port", "service"}
"""Options of libpq that say where the server is, too."""


def server_of(dsn: DSN) -> tuple[str, int] | None:
    """Return the host and port of a store's server; None: there is not one, or it may be by TLS alone.

    Example:
        >>> server_of(DSN.parse("redis://me:secret@store.example/0"))
        ('store.example', 6379)
        >>> server_of(DSN.parse("sqlite:///tmp/queue.db")) is None
        True
    """
    default = _PORTS.get(dsn.scheme)
    if default is None or _ELSEWHERE & dsn.query.keys():
        return None
    try:
        parts = urlsplit(dsn.url)
        host, port = parts.hostname, parts.port or default
    except ValueError:  # several hosts with ports, for one
        return None
    return (host, port) if host and "," not in host else None


def through(dsn: DSN, port: int) -> str:
    """Return the DSN of the same store behind a port of this machine.

    Example:
        >>> through(DSN.parse("redis://me:secret@store.example/0"), 7000)
        'redis://me:secret@127.0.0.1:7000/0'
    """
    parts = urlsplit(dsn.url)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))


def with_lease(dsn: DSN, seconds: float) -> str:
    """Return the DSN with a lease for what is pushed, where it is the DSN that says it: in beanstalkd.

    Example:
        >>> with_lease(DSN.parse("beanstalk://localhost/?ttr=60"), 3)
        'beanstalk://localhost/?ttr=3'
    """
    if dsn.scheme != "beanstalk":
        return dsn.url
    parts = urlsplit(dsn.url)
    options = dict(parse_qsl(parts.query)) | {"ttr": f"{seconds:g}"}
    return urlunsplit(parts._replace(query=urlencode(options)))
