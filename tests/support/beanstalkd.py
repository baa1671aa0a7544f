"""A real beanstalkd, on a port and in a folder of its own."""

import resource
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Self

from tests.support.servers import Server, found


class Beanstalkd(Server):
    """A beanstalkd that writes down whatever it is told, for one test or for all of a session.

    What it has written outlives a kill. With ``-f0`` it would outlive a power cut, too, and take its time.
    """

    _is_ready = b"bind "
    forgets = False
    """Whether it keeps nothing on disk."""

    @classmethod
    def installed(cls, folder: Path, *options: str) -> Self:
        """Return one, to be started; skips the test where beanstalkd is not installed."""
        return cls(found("beanstalkd", shutil.which("beanstalkd")), folder, *options)

    @property
    def dsn(self) -> str:
        return f"beanstalk://127.0.0.1:{self.port}/"

    def clear(self) -> None:
        """Begin anew with an empty folder: to take out a thousand tasks takes longer."""
        self.kill()
        for file in self.folder.glob("binlog.*"):
            file.unlink()
        self.start()

    def drain(self) -> None:
        """Let it take no new jobs, for good."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        while b"DRAINING" not in self.say(b"put 0 0 1 0\r\n\r\n"):
            time.sleep(0.01)

    def freeze(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def fill(self) -> None:
        """Leave it no memory for anything big."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, (1, 1))

    def say(self, text: bytes, until: bytes = b"") -> bytes:
        """Send what another program might; return the first line of the answers that begins so."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(text)
            answers = connection.makefile("rb")
            while line := answers.readline():
                if line.startswith(until):
                    return line
            raise RuntimeError(f"The server does not answer {until!r} to {text!r}")

    def _arguments(self, port: int) -> list[str]:
        where = ["-l", "127.0.0.1", "-p", str(port)]
        kept = [] if self.forgets else ["-b", str(self.folder)]
        return [*where, *kept, "-V", *self._options]
