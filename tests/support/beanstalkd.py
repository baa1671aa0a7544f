"""A real beanstalkd, on a port and in a folder of its own."""

import shutil
import socket
from pathlib import Path
from typing import Self

from tests.support.servers import Server, found


class Beanstalkd(Server):
    """A beanstalkd that writes to disk whatever it is told, for one test or for all of a session."""

    _is_ready = b"bind "

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

    def say(self, text: bytes) -> bytes:
        """Send what another program might; return the first line of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(text)
            return connection.makefile("rb").readline()

    def _arguments(self, port: int) -> list[str]:
        where = ["-l", "127.0.0.1", "-p", str(port), "-b", str(self.folder), "-f0"]
        return [*where, "-V", *self._options]
