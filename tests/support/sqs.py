"""A server that speaks the protocol of SQS: moto's, as a process of its own."""

import importlib.util
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from alligator.testing.stores import QUEUES
from tests.support.servers import STARTS_WITHIN, free_port, kill_with_us, missing

REGION = "us-west-2"
DEAD = "dead-letters"


class Sqs:
    """A server for one test, or for all of a session. It ends with the block, or with this process.

    Args:
        folder: Where it may write what it logs.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("moto") is None:
            missing("moto is not installed")
        self.port = 0
        self._log = folder / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def dsn(self, **options: str) -> str:
        """Return a DSN for it, with these options."""
        given = {"endpoint": self.endpoint, "access_key": "id", "secret_key": "secret", **options}
        return f"sqs://{REGION}/?" + "&".join(f"{name}={value}" for name, value in given.items())

    def emptied(self, *, is_hasty: bool = False) -> str:
        """Forget all, make the queues of the tests, and return a DSN.

        Args:
            is_hasty: Who asks for half a second or less is to wait for half a one, and not for the whole one
                that SQS makes of it; and who is told to leave hears it within a second.
        """
        path = f"/emptied/{REGION}/{','.join([*QUEUES, DEAD])}/{500 if is_hasty else 1000}"
        with urllib.request.urlopen(self.endpoint + path, timeout=STARTS_WITHIN):
            pass
        return self.dsn(dead=DEAD, **({"poll": "1"} if is_hasty else {}))

    def start(self) -> None:
        """Start it, on the port it had before if it had one. What was in it is gone."""
        for port in [self.port] if self.port else [free_port() for _ in range(20)]:
            if self._starts_on(port):
                self.port = port
                return
        raise RuntimeError(f"moto does not start: {self._log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        """End it at once."""
        if self._guard is not None:
            self._guard.kill()  # first: once the server is gone, its process id may be another's
            self._guard.communicate()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._guard = self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _starts_on(self, port: int) -> bool:
        with self._log.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.moto_server", str(port)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for pytest, which then stops it
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while b"ready" not in self._log.read_bytes()[start:]:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                return False
            time.sleep(0.01)
        self._process = process
        self._guard = kill_with_us(process.pid)
        return True
