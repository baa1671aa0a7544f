"""Asking Redis Sentinels which server is the primary now."""

from dataclasses import replace

from alligator.backends.redis.address import Address, Where
from alligator.backends.redis.connection import Server
from alligator.exceptions import AlligatorException, BackendRefused, BackendUnavailable

ANSWERS_WITHIN = 2.0
"""Seconds for a Sentinel: another one is asked after that."""


class Sentinels:
    """Those who watch one service."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._each = [_server(address.of_sentinel(where)) for where in address.hosts]

    def primary(self) -> Where:
        """Return the host and port of the primary, as the first one that answers knows it.

        Raises:
            BackendUnavailable: None answers.
            BackendRefused: One does, and knows no such service.
        """
        failures: list[AlligatorException] = []
        for sentinel in self._each:
            try:
                [found] = sentinel.run([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)])
            except (BackendUnavailable, BackendRefused) as err:
                failures.append(err)
                continue
            if found:
                # The next one to ask asks it first, and not one that is away. A new list: a list that is being
                # sorted is empty to the other threads.
                self._each = sorted(self._each, key=lambda one: one is not sentinel)
                host, port = found
                return host.decode(), int(port)
            failures.append(
                BackendRefused(
                    f"{self._address.dsn}: the Sentinel knows no service {self._service!r}. Name "
                    "one that it monitors: redis+sentinel://host:26379/SERVICE."
                )
            )
        refusals = [err for err in failures if isinstance(err, BackendRefused)]
        raise (refusals or failures)[0]

    @property
    def _service(self) -> str:
        return self._address.service


def _server(address: Address) -> Server:
    times = {"socket_timeout": ANSWERS_WITHIN, "socket_connect_timeout": ANSWERS_WITHIN}
    return Server(replace(address, options={**address.options, **times}))
