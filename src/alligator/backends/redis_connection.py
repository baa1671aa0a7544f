"""A Redis server: carrying out scripts in one round trip, blocking, and redis-py's errors as ours."""

import hashlib
import os
import select
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from alligator.backends import redis_scripts as scripts
from alligator.bell import Bell
from alligator.dsn import DSN, masked
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    QueueFull,
)

SOCKET_TIMEOUT = 10.0
"""Seconds for the server to answer. A server that runs a slow command of others' makes us wait as long."""

Command = tuple[Any, ...]

_NO_SCRIPT = exceptions.NoScriptError

_SHAS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in scripts.ALL
}


def script_call(script: str, keys: Sequence[str], *arguments: Any) -> Command:
    """Return the command that runs one of our scripts."""
    return ("EVALSHA", _SHAS[script], len(keys), *keys, *arguments)


class Server:
    """A Redis server, or one that speaks its protocol.

    Args:
        dsn: ``redis://[[user]:password@]host[:port][/database]``.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """

    def __init__(self, dsn: DSN) -> None:
        self._dsn = dsn
        self._local = threading.local()
        # Any: half of redis-py's methods have types, and those depend on its version.
        client: Any = redis.Redis
        try:
            self._redis = client.from_url(
                dsn.url,
                # Never resend by itself: a reserve sent twice would hand out two batches.
                retry=Retry(NoBackoff(), 0),
                socket_timeout=SOCKET_TIMEOUT,
                socket_connect_timeout=SOCKET_TIMEOUT,
                socket_keepalive=True,
            )
            # These say what is wrong with the options, and with the host's name.
            self._redis.connection_pool.make_connection()
            str(self._redis.connection_pool.connection_kwargs.get("host", "")).encode("idna")
        except (ValueError, TypeError) as err:
            # The text may quote a part of the DSN that is a part of the password.
            why = type(err).__name__ if "@" in dsn.url else err
            raise InvalidOption(
                f"{dsn} is no Redis DSN ({why}). Write redis://user:password@host:port/database, "
                "special characters in the password percent-encoded."
            ) from None

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one round trip, each by itself, and return their answers.

        Raises:
            BackendUnavailable, BackendRefused, QueueFull: As for any ``Backend``.
        """
        with self._translated():
            answers = self._send(commands)
            unknown = [at for at, answer in enumerate(answers) if isinstance(answer, _NO_SCRIPT)]
            if unknown:
                # Started anew, or another server took over. The others have run: only these go out again.
                self._send([("SCRIPT", "LOAD", script) for script in scripts.ALL])
                again = self._send([commands[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
            for answer in answers:
                if isinstance(answer, exceptions.ResponseError):
                    raise answer
            return answers

    def block(self, keys: Sequence[str], timeout: float, bell: Bell) -> bool:
        """Wait for an element in one of some lists, and take it. Returns whether the bell interrupted it."""
        with self._translated(), self._connection() as connection:
            connection.send_command("BLPOP", *keys, timeout)
            # The server ends the wait: if we did, an element might be on its way to nobody.
            if bell.wait(timeout + 1.0, _file_of(connection)):
                connection.disconnect()
                return True
            connection.read_response()
            return False

    def close(self) -> None:
        """Close the connection, in this thread at once and in others when they are done."""
        if getattr(self._local, "pid", 0) == os.getpid():
            self._local.connection.disconnect()
        self._local = threading.local()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        # Not by redis-py's execute_command and pipeline: they cost as much again as the round trip.
        with self._connection() as connection:
            try:
                packed = connection.pack_commands(commands)
            except UnicodeEncodeError:  # of an id that is no text; hiredis knows no encoding_errors
                packed = connection.pack_commands([list(map(_encoded, one)) for one in commands])
            connection.send_packed_command(packed)
            return [self._answer(connection) for _ in commands]

    def _answer(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except exceptions.ResponseError as err:  # to be raised when all answers have been read
            return err

    @contextmanager
    def _connection(self) -> Generator[Any]:
        """This thread's connection; closed if it may have an answer left to read."""
        connection = self._own_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()
            raise

    def _own_connection(self) -> Any:
        # One a thread, and not from the pool, for to take it and give it back costs half as much as to use it.
        if getattr(self._local, "pid", 0) != os.getpid():
            self._local.connection = self._redis.connection_pool.make_connection()
            self._local.pid = os.getpid()
        connection = self._local.connection
        if _is_stale(connection):
            connection.disconnect()
        return connection

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Raise redis-py's errors as ours."""
        try:
            yield
        except exceptions.RedisError as err:
            raise _ours(err, self._dsn) from err


def _encoded(word: Any) -> Any:
    return word.encode(errors="surrogateescape") if isinstance(word, str) else word


def _file_of(connection: Any) -> int:
    # redis-py has no public way to wait for an answer and for something else at once.
    file: int = connection._sock.fileno()
    return file


def _is_stale(connection: Any) -> bool:
    """Whether there is something to read before anything was asked: as a rule, that the server hung up."""
    if connection._sock is None:
        return False
    poll = select.poll()
    poll.register(_file_of(connection), select.POLLIN)
    return bool(poll.poll(0))


_PASSING = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED")


def _ours(err: exceptions.RedisError, dsn: DSN) -> AlligatorException:
    text = masked(str(err))
    if isinstance(err, exceptions.AuthenticationError):
        return BackendRefused(f"{dsn} does not let us in: {text}.")
    if isinstance(err, exceptions.OutOfMemoryError):
        return QueueFull(f"{dsn} has no memory left: {text}")
    if isinstance(err, exceptions.ConnectionError | exceptions.TimeoutError):
        return BackendUnavailable(f"{dsn} does not answer: {text}")
    if isinstance(err, exceptions.ReadOnlyError) or text.startswith(_PASSING):
        return BackendUnavailable(f"{dsn} cannot answer now: {text}")
    if "unexpected symbol near '#'" in text:
        return BackendRefused(f"{dsn} is too old: Alligator needs Redis 7.0 or newer, or Valkey.")
    return BackendRefused(f"{dsn}: {text}")
