"""Commands in processes of their own that need not import all anew: each is forked from one that has.

A test that runs a dozen commands would else wait for the imports most of the time.
"""

import atexit
import functools
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

ROOT = Path(__file__).resolve().parents[2]
LOADED = ("redis", "psycopg", "psycopg_pool", "greenstalk")
"""Modules that most commands need."""


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m alligator`` with these words, in a folder and with just these variables."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = _nursery().run(words, folder, environment, (out, err))
        texts = [_read(file) for file in (out, err)]
    return subprocess.CompletedProcess(list(words), status, *texts)


def started(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """As ``run``, with a Python of its own."""
    return subprocess.run(
        [sys.executable, "-m", "alligator", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


class _Nursery:
    """A process that forks a child for each command, one at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self._answers = ours.makefile("rb")
        atexit.register(self.end)

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        outputs: Sequence[BinaryIO],
    ) -> int:
        """Return the exit status, negative if a signal has ended it."""
        asked = json.dumps([list(words), str(folder), dict(environment)]).encode()
        with tempfile.TemporaryFile() as request:  # may be longer than a message
            request.write(asked)
            request.seek(0)
            files = [request.fileno(), *(file.fileno() for file in outputs)]
            socket.send_fds(self._socket, [b"."], files)
            return int(self._answers.readline())

    def end(self) -> None:
        """End it."""
        self._socket.close()
        self._answers.close()
        self._process.wait()


@functools.cache
def _nursery() -> _Nursery:
    return _Nursery()


def _read(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(channel: socket.socket) -> None:
    for name in ("alligator.cli", *LOADED):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    while True:
        dot, files, _, _ = socket.recv_fds(channel, 1, 3)
        if not dot:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            _be_the_command(*files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _be_the_command(request: int, out: int, err: int) -> NoReturn:
    with open(request, encoding="utf-8") as file:
        words, folder, environment = json.load(file)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 1 + max(out, err))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    status = 1
    try:
        from alligator.cli import main

        status = main(words)
    except SystemExit as err_:
        status = err_.code if isinstance(err_.code, int) else int(err_.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType] -- there is one
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
