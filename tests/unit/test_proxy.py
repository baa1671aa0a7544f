"""What the proxy does to those who speak through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from alligator.verify.proxy import Proxy

AT_ONCE = 0.3
"""Seconds after which nothing is taken to come any more."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """One before a server that says again what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        with Proxy(listener.getsockname()[1]) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def _echo(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_say_again, args=(connection,), daemon=True).start()


def _say_again(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        while said := connection.recv(100):
            connection.sendall(said)


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_what_is_said_passes_until_it_is_cut(proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as later:
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        later.sendall(b"two")
        assert later.recv(100) == b"two"

        proxy.cut()

        assert client.recv(100) == b""
        assert later.recv(100) == b""


def test_an_answer_is_lost_whenever_it_is_to_be_and_its_connection_with_it(proxy: Proxy) -> None:
    whether = iter([False, True])
    proxy.lose(lambda: next(whether))
    with connected(proxy) as client:
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        client.sendall(b"two")
        assert client.recv(100) == b""

    proxy.lose(None)
    with connected(proxy) as client:
        client.sendall(b"three")
        assert client.recv(100) == b"three"


def test_silence_closes_nothing_and_lasts_for_who_was_there(proxy: Proxy) -> None:
    with connected(proxy) as old:
        old.sendall(b"one")
        assert old.recv(100) == b"one"

        proxy.fall_silent()
        with connected(proxy) as new:
            for client in (old, new):
                client.sendall(b"two")
                assert is_silent(client)

            proxy.speak()
            assert is_silent(new)
        assert is_silent(old)
        with connected(proxy) as newest:
            newest.sendall(b"three")
            assert newest.recv(100) == b"three"


def is_silent(client: socket.socket) -> bool:
    """Whether nothing comes, not even the end."""
    client.settimeout(AT_ONCE)
    try:
        client.recv(100)
    except TimeoutError:
        return True
    return False
