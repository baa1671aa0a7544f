"""Connections to beanstalkd: many commands in one round trip, and greenstalk's errors as ours."""

import select
import socket
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import greenstalk

from alligator.backends.base import Counts, Reservation
from alligator.backends.beanstalk.address import Address
from alligator.bell import Bell, Woken
from alligator.dsn import DSN
from alligator.exceptions import (
    BackendRefused,
    BackendUnavailable,
    QueueFull,
    TaskTooBig,
)

SOCKET_TIMEOUT = 10.0
"""Seconds for the server to answer."""
AT_ONCE = 500
"""Commands to send before answers are read. More could fill both sides' buffers, and neither would read."""
BYTES_AT_ONCE = 1_000_000
"""Bytes of bodies to send then: they have to be through before the timeout."""
Command = tuple[Any, ...]
"""The name of one of greenstalk's methods, and its arguments."""


@dataclass(slots=True, eq=False)
class Job:
    """A job that a connection holds."""

    id: int
    connection: "Connection"
    reservation: Reservation
    pri: int
    ttr: int
    lapses_at: float
    """When the lease is over that was asked for, by our monotonic clock."""
    kept_until: float
    """Until when the server keeps it for us, at least."""
    looked_at: float = 0.0
    """When it was seen first that the lease is over."""

    @property
    def named(self) -> greenstalk.Job[bytes]:
        """The job as greenstalk takes it."""
        return greenstalk.Job(self.id, b"")


class Connection:
    """One connection. Whoever uses it has its ``lock``.

    Args:
        address: Where to.

    Raises:
        BackendUnavailable: Nobody answers there.
    """

    def __init__(self, address: Address) -> None:
        self.lock = threading.Lock()
        self.held: dict[int, Job] = {}
        self.is_open = False
        self._address = address
        self._used = greenstalk.DEFAULT_TUBE
        self._watched = {greenstalk.DEFAULT_TUBE}
        self._is_owed_answers = False
        try:
            self._socket, self._client = _connected((address.host, address.port))
        except OSError as err:
            raise self._unavailable(err) from err
        self.is_open = True

    def __del__(self) -> None:
        if self.is_open:
            self.close()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands, some hundreds in a round trip.

        Returns:
            Their answers; an error where that is one, such as that there is no such job.

        Raises:
            BackendUnavailable: The connection is lost, and closed now, with all that it held.
            BackendRefused: So it is, for that is no server which understands us, or it cannot answer.
        """
        answers: list[Any] = []
        self._is_owed_answers = True
        for some in _parts(commands):
            self._send(some)
            answers += self._receive(some)
        self._is_owed_answers = False
        return answers

    def _send(self, commands: Sequence[Command]) -> None:
        with self._guarded(), self._socket.noting() as noted:
            for command in commands:
                try:
                    self._call(command)
                except _Noted:
                    pass
        with self._guarded():
            self._socket.sendall(b"".join(noted))

    def _receive(self, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = []
        with self._guarded(), self._socket.silent():
            for command in commands:
                try:
                    answers.append(self._call(command))
                except greenstalk.Error as err:
                    if not _is_answer(err, command):
                        raise
                    answers.append(err)
        return answers

    def wait(self, command: Command, timeout: float, bell: Bell) -> Any:
        """Carry out a command whose answer may take so long; None if the bell interrupts that."""
        self._is_owed_answers = True
        self._send([command])
        with self._guarded():
            woken = bell.wait(timeout, self._socket.fileno())
            if woken is Woken.BY_RING:
                woken = bell.wait(timeout, self._socket.fileno())
        if woken is Woken.BY_INTERRUPT:
            self.close()  # what is handed out to us in this moment, the server takes back
            return None
        [answer] = self._receive([command])
        self._is_owed_answers = False
        return answer

    def use(self, tube: str) -> list[Command]:
        """Return the command after which jobs are put into a tube, if it is needed; to be run at once."""
        self._is_owed_answers = (
            True  # if we are broken off before it is run, nobody knows what is used
        )
        used, self._used = self._used, tube
        return [] if used == tube else [("use", tube)]

    def watch(self, tubes: Collection[str]) -> list[Command]:
        """Return the commands after which jobs come from these tubes alone; to be run at once."""
        self._is_owed_answers = True
        watched, self._watched = self._watched, set(tubes)
        more = [("watch", tube) for tube in tubes if tube not in watched]
        return [*more, *(("ignore", tube) for tube in watched - self._watched)]

    @property
    def is_stale(self) -> bool:
        """Whether there is something to read before anything is asked: as a rule, that the server hung up.

        Or an answer to one whom an exception broke off, anywhere: a timeout, or Ctrl-C.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return self._is_owed_answers or bool(poll.poll(0))

    def has_ended(self) -> bool:
        """Return whether it is closed; and close it if the server hung up, and nobody uses it now."""
        if self.is_open and self.lock.acquire(blocking=False):
            try:
                if self.is_open and self.is_stale:
                    self.close()
            finally:
                self.lock.release()
        return not self.is_open

    def close(self) -> None:
        """Close it; the server gives what it held to others at once."""
        self.is_open = False
        self.held.clear()
        self._client.close()

    def _call(self, command: Command) -> Any:
        name, *arguments = command
        return getattr(self._client, name)(*arguments)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        """Close the connection if it may have an answer left to read."""
        try:
            yield
        # greenstalk asserts that an answer is whole; one that is cut may also be no number.
        except (OSError, AssertionError, ValueError) as err:
            self.close()
            raise self._unavailable(err) from err
        except greenstalk.Error as err:
            self.close()
            raise refused(self._address.dsn, err) from err
        except BaseException:
            self.close()
            raise

    def _unavailable(self, err: Exception) -> BackendUnavailable:
        return BackendUnavailable(f"{self._address.dsn} does not answer: {err}")


def _parts(commands: Sequence[Command]) -> Iterator[list[Command]]:
    part: list[Command] = []
    size = 0
    for command in commands:
        part.append(command)
        size += len(command[1]) if command[0] == "put" else 0
        if len(part) == AT_ONCE or size > BYTES_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


class _Noted(Exception):
    """Raised in place of sending, so that greenstalk does not wait for an answer yet."""


class _Socket(socket.socket):
    """Lets greenstalk's calls be made twice: to note what they send, and then to read their answers.

    So they all go out at once. greenstalk itself waits for each answer.
    """

    _notes: list[bytes] | None = None
    _is_silent = False

    @contextmanager
    def noting(self) -> Generator[list[bytes]]:
        """Let what is sent be noted, and the call end."""
        self._notes = []
        try:
            yield self._notes
        finally:
            self._notes = None

    @contextmanager
    def silent(self) -> Generator[None]:
        """Send nothing: it was sent before."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        return _Reader(self)

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self._notes is not None:
            self._notes.append(data)
            raise _Noted
        if not self._is_silent:
            super().sendall(data, flags)


def _connected(where: tuple[str, int]) -> tuple[_Socket, greenstalk.Client[bytes]]:
    plain = socket.create_connection(where, SOCKET_TIMEOUT)
    ours = _Socket(fileno=plain.detach())
    try:
        ours.settimeout(SOCKET_TIMEOUT)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ours, greenstalk.Client(ours, encoding=None)
    except OSError:  # it is lost already
        ours.close()
        raise


class _Reader:
    """Reads lines and chunks from a socket. Python's own has a lock, which a fork may find taken, for ever."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._data = bytearray()

    def readline(self) -> bytes:
        """Return what there is up to the end of a line; nothing at the end of the connection."""
        while not (end := self._data.find(b"\n") + 1):
            if not self._receive():
                return b""
        return self._taken(end)

    def read(self, size: int) -> bytes:
        """Return so many bytes; less at the end of the connection."""
        while len(self._data) < size and self._receive():
            pass
        return self._taken(size)

    def close(self) -> None:
        """Do nothing: the socket is closed by itself."""

    def _receive(self) -> bool:
        data = self._source.recv(65536)
        self._data += data
        return bool(data)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


_NO_RESULT = (greenstalk.NotFoundError, greenstalk.TimedOutError, greenstalk.DeadlineSoonError)
_NO_ROOM = (
    *(greenstalk.OutOfMemoryError, greenstalk.BuriedError, greenstalk.InternalError),
    *(greenstalk.DrainingError, greenstalk.JobTooBigError),
)


def _is_answer(err: greenstalk.Error, command: Command) -> bool:
    """Whether an error is one that a command may bring. The rest say that we do not understand each other."""
    return isinstance(err, _NO_RESULT) or (
        isinstance(err, _NO_ROOM) and command[0] in ("put", "release", "bury", "delete")
    )


def is_error(answer: Any) -> bool:
    """Return whether a command brought an error."""
    return isinstance(answer, greenstalk.Error)


def counts_of(stats: Any) -> Counts:
    """Return what the counts of a tube say; none if there is no such tube."""
    if is_error(stats):
        return Counts()
    states = ("ready", "delayed", "reserved", "buried")
    return Counts(*(stats[f"current-jobs-{state}"] for state in states))


def refused(dsn: DSN, err: greenstalk.Error) -> BackendRefused:
    """Return an error of the server's as ours."""
    if isinstance(err, greenstalk.OutOfMemoryError | greenstalk.BuriedError):
        return QueueFull(
            f"{dsn} has no memory left. Push again when workers have caught up, or give it more."
        )
    if isinstance(err, greenstalk.JobTooBigError):
        return TaskTooBig(
            f"{dsn} takes no task as big as this (beanstalkd -z). Let it carry less: a file's name, or a key."
        )
    if isinstance(err, greenstalk.DrainingError):
        return BackendRefused(
            f"{dsn} is to be shut down, and takes no new tasks (drain mode). Push again when it is back."
        )
    if isinstance(err, greenstalk.UnknownCommandError):
        return BackendRefused(f"{dsn} is too old: Alligator needs beanstalkd 1.12 or newer.")
    what = (
        err.status.decode(errors="replace")
        if isinstance(err, greenstalk.UnknownResponseError)
        else ""
    )
    return BackendRefused(f"{dsn} refuses: {what or type(err).__name__}")
