"""What stands between a client and its server, and lets the network fail."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_Passing = Callable[[bytes], tuple[bytes, bool]]
"""From what is said to what of it passes, and whether the connection is then cut."""


class _Link:
    """A client's connection and its counterpart to the server."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        self.is_silent = False
        """Whether nothing passes any more, and neither end learns of what becomes of the other."""

    def cut(self) -> None:
        """Let both ends see that it is over."""
        for end in (self.ours, self.theirs):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Passes on all that is said, from a port of its own on this machine.

    Args:
        port: The server's.
        host: Where the server is.

    Example:
        >>> with Proxy(6379) as proxy:
        ...     proxy.port != 6379
        True
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[_Link] = []
        self._left: int | None = None
        self._loses: Callable[[], bool] = _never
        self._is_silent = False
        self.port: int = self._listener.getsockname()[1]
        """Where clients are to go instead."""

    def cut(self) -> None:
        """Cut all connections; new ones may be made."""
        links, self._links = self._links, []
        for link in links:
            link.cut()

    def cut_after(self, count: int | None) -> None:
        """Cut all connections when so many more bytes of answers have passed; None: do not."""
        self._left = count

    def lose(self, whether: Callable[[], bool] | None) -> None:
        """Cut a connection instead of passing on an answer, whenever this says so; None: do not.

        What was asked has then been carried out.
        """
        self._loses = whether or _never

    def fall_silent(self) -> None:
        """Pass on nothing more, and let nobody see it: no connection is closed, and new ones can be made."""
        self._is_silent = True
        for link in self._links:
            link.is_silent = True

    def speak(self) -> None:
        """Pass on what is said over new connections. Those of the silence stay silent."""
        self._is_silent = False

    def __enter__(self) -> Self:
        """Begin to pass on."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut all connections, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(ours,), daemon=True).start()

    def _connect(self, ours: socket.socket) -> None:
        try:
            theirs = socket.create_connection(self._server, timeout=10.0)
        except OSError:  # the server is away
            ours.close()
            return
        theirs.settimeout(None)
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(ours, theirs)
        self._links.append(link)
        link.is_silent = self._is_silent
        threading.Thread(
            target=_pass_on, args=(link, theirs, ours, self._answer), daemon=True
        ).start()
        _pass_on(link, ours, theirs, _whole)
        if not link.is_silent:
            with suppress(ValueError):  # cut() may have taken it out
                self._links.remove(link)

    def _answer(self, answer: bytes) -> tuple[bytes, bool]:
        if self._loses():
            return b"", True
        if self._left is None or self._left > len(answer):
            self._left = None if self._left is None else self._left - len(answer)
            return answer, False
        passing, self._left = answer[: self._left], None
        return passing, True


def _never() -> bool:
    return False


def _whole(request: bytes) -> tuple[bytes, bool]:
    return request, False


def _pass_on(link: _Link, source: socket.socket, sink: socket.socket, passing: _Passing) -> None:
    is_last = False
    with suppress(OSError):
        while not is_last and (data := source.recv(65536)):
            if not link.is_silent:
                part, is_last = passing(data)
                sink.sendall(part)
    if not link.is_silent:
        link.cut()
    source.close()
