"""Where a beanstalkd is, as a DSN says it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from alligator.dsn import DSN
from alligator.exceptions import InvalidOption

PORT = 11300
TTR = 30
"""Seconds that a hand-out is good for, unless extended; said when a task is pushed."""
SHORTEST_TTR = 3
"""Seconds; in its last one, beanstalkd does not let who holds a job wait for another."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and for how long its jobs are handed out."""

    dsn: DSN
    host: str
    port: int
    ttr: int

    @classmethod
    def of(cls, dsn: DSN) -> "Address":
        """Read a DSN.

        Raises:
            InvalidOption: It cannot be understood.
        """
        try:
            parts = urlsplit(dsn.url)
            host, port = parts.hostname or "localhost", parts.port or PORT
            ttr = int(dsn.query.get("ttr", TTR))
            host.encode("idna")
        except ValueError:
            raise _not_understood(dsn) from None
        if parts.username or parts.password or parts.path.strip("/") or dsn.query.keys() - {"ttr"}:
            raise _not_understood(dsn)
        if not SHORTEST_TTR <= ttr <= 2**31:
            raise InvalidOption(
                f"{dsn}: ttr is the seconds that a task is handed out for, from {SHORTEST_TTR}; not {ttr}."
            )
        return cls(dsn, host, port, ttr)


def _not_understood(dsn: DSN) -> InvalidOption:
    return InvalidOption(
        f"{dsn} is no DSN for beanstalkd. Write beanstalk://host:port/, or beanstalk://host:port/?ttr=60 "
        "for tasks that are handed out for 60 s at a time. (It knows no users and passwords.)"
    )
