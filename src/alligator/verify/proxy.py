"""What stands between a client and its server, and may cut their connections."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Passes on all that is said, from a port of its own on this machine.

    Args:
        port: The server's.
        host: Where the server is.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._left: int | None = None
        self.port: int = self._listener.getsockname()[1]
        """Where clients are to go instead."""

    def cut(self) -> None:
        """Cut all connections; new ones may be made."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int | None) -> None:
        """Cut all connections when so many more bytes of answers have passed; None: do not."""
        self._left = count

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
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                try:
                    theirs = socket.create_connection(self._server, timeout=10.0)
                except OSError:  # the server is away
                    ours.close()
                    continue
                theirs.settimeout(None)
                self._ends += [ours, theirs]
                for way in ((ours, theirs, _whole), (theirs, ours, self._cut_short)):
                    threading.Thread(target=_pass_on, args=way, daemon=True).start()

    def _cut_short(self, answer: bytes) -> tuple[bytes, bool]:
        if self._left is None or self._left > len(answer):
            self._left = None if self._left is None else self._left - len(answer)
            return answer, False
        passing, self._left = answer[: self._left], None
        return passing, True


def _whole(request: bytes) -> tuple[bytes, bool]:
    return request, False


def _pass_on(
    source: socket.socket, sink: socket.socket, cut_short: Callable[[bytes], tuple[bytes, bool]]
) -> None:
    is_last = False
    with suppress(OSError):
        while not is_last and (data := source.recv(65536)):
            passing, is_last = cut_short(data)
            sink.sendall(passing)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()
