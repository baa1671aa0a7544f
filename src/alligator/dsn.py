"""Where a store is: a DSN, such as redis://user:secret@host:6379/0, that never shows its secret."""

import re
from dataclasses import dataclass, field

from alligator.exceptions import InvalidOption

_SECRET_KEYS = re.compile(r"(?i)(\w*(?:pass|pwd|secret|token|key)\w*=)([^&]*)")
# Up to the last "@", so that a password holding "/", "?" or "@" goes too, if need be with the host. A
# path straight after "//" (sqlite:///tmp/a@b.db) has no user and password before it.
_USER_INFO = re.compile(r"(?<=://)(?!/[^:]*$).*@", re.DOTALL)


def masked(text: str) -> str:
    """Return a text with the passwords of every DSN in it replaced by "***".

    Example:
        >>> masked("redis://me:secret@host:6379/0?password=x")
        'redis://***@host:6379/0?password=***'
    """
    # An "@" within a secret stays: whether it ends a user and password is not known yet.
    text = _SECRET_KEYS.sub(lambda found: f"{found[1]}***{'@' if '@' in found[2] else ''}", text)
    return _USER_INFO.sub("***@", text)


def _is_here(host: str) -> bool:
    name = host if host.count(":") > 1 else host.partition(":")[0]  # else "[::1]:6379" or "::1"
    name = name.partition("]")[0].removeprefix("[")
    is_socket = name.startswith(("/", "%2F", "%2f"))
    return not name or is_socket or name in ("localhost", "::1") or name.startswith("127.")


@dataclass(frozen=True, slots=True)
class DSN:
    """A data source name. Only ``url`` holds its password; ``str`` and ``repr`` mask it."""

    url: str = field(repr=False)
    scheme: str

    @classmethod
    def parse(cls, text: str) -> "DSN":
        """Read a DSN.

        Raises:
            InvalidOption: It is no text of the form ``scheme://...``.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- it comes from users
            raise InvalidOption(
                f"A DSN is a string such as 'redis://localhost:6379/0', not {type(text).__name__}."
            )
        scheme, separator, _ = text.partition("://")
        if not separator or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
            raise InvalidOption(
                # Without "://" nothing tells where a password would begin: show only what follows "@".
                f"{masked(text).rpartition('@')[2]!r} is no DSN. Write one as scheme://..., such as "
                "'redis://localhost:6379/0', 'sqlite:///tmp/queue.db' or 'locmem://'."
            )
        return cls(text, scheme.lower())

    @property
    def rest(self) -> str:
        """What follows ``scheme://``, without the query."""
        return self.url.partition("://")[2].partition("?")[0]

    @property
    def is_elsewhere(self) -> bool:
        """Whether the store may be on another machine: it has the name of a host, which is not this one's.

        Example:
            >>> [DSN.parse(url).is_elsewhere for url in ("redis://cache:6379/0", "redis://[::1]/", "sqlite:///q.db")]
            [True, False, False]
        """
        if self.scheme in ("locmem", "sqlite", "unix"):
            return False
        hosts = self.rest.rpartition("@")[2].partition("/")[0]
        if not hosts and "host=" in self.url:
            hosts = self.query.get("host", "") + "," + self.query.get("hostaddr", "")
        return not all(map(_is_here, hosts.split(",")))

    @property
    def query(self) -> dict[str, str]:
        """The ``?key=value&...`` part."""
        from urllib.parse import parse_qsl  # here, for it takes long to import

        return dict(parse_qsl(self.url.partition("?")[2], keep_blank_values=True))

    def __str__(self) -> str:
        return masked(self.url)

    def __repr__(self) -> str:
        return f"DSN({masked(self.url)!r})"
