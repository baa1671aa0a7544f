"""One Redis server: carrying out scripts in one round trip, blocking, and redis-py's errors as ours."""

import hashlib
import math
import os
import select
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from alligator.backends.redis import scripts
from alligator.backends.redis.address import Address, Where
from alligator.bell import Bell, Woken
from alligator.dsn import masked
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    QueueFull,
    TaskTooBig,
)

MAX_SILENCE = 5.0
"""Seconds after which one who listens looks by itself, lest a message or the connection was lost."""
LOOK_EVERY = 0.5
"""Seconds after which those who name the primary are asked again: the old one, if it lives, takes writes for
some seconds after another has taken over, and they are lost."""
LOOK_LATER = 5.0
"""Seconds until then when they do not answer."""
LEAST_LIMIT = 2**20
"""Bytes: no Redis can be told to refuse what is no longer than this."""
ASK_TIME_EVERY = 60.0
"""Seconds after which the server is asked for its time again; between, its clock is as fast as ours."""

Command = tuple[Any, ...]

_NUMBERS = {int, float}
_NO_SCRIPT = exceptions.NoScriptError

_SHAS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in scripts.ALL
}


def script_call(script: str, keys: Sequence[str], *arguments: Any) -> Command:
    """Return the command that runs one of our scripts."""
    return ("EVALSHA", _SHAS[script], len(keys), *keys, *arguments)


def hash_tag(name: str) -> str:
    """Return what, in a key, keeps it in one slot of a cluster with all other keys that have it."""
    # Braces in the name would end the tag early, and an empty tag is none: the keys would be spread.
    return "{" + (name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%") + "}"


class Server:
    """A Redis server, or one that speaks its protocol.

    Args:
        address: How to connect to it.
        where: Its host and port; by default the first one of the address.
        find: Tells its host and port, if another server may take its place.
    """

    def __init__(
        self, address: Address, where: Where | None = None, find: Callable[[], Where] | None = None
    ) -> None:
        self.dsn = address.dsn
        self.prefix = address.prefix
        self._address = address
        self.where = where or (address.hosts[0] if address.hosts else ("", 0))
        self._find = find
        self._look_at = 0.0
        self._local = threading.local()
        self._clock = -math.inf, 0.0

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one round trip, each by itself, and return their answers.

        Raises:
            BackendUnavailable, BackendRefused, QueueFull: As for any ``Backend``.
        """
        return self._all_good(self.answers(commands))

    def run_and_try(self, commands: Sequence[Command], more: Command) -> tuple[list[Any], bool]:
        """As ``run``, and then try one more, in the same round trip; return whether that was done, too.

        If the others are carried out, and that one is refused, it is no error.
        """
        *answers, last = self.answers([*commands, more])
        return self._all_good(answers), not isinstance(last, exceptions.ResponseError)

    def run_apart(self, commands: Sequence[Command]) -> list[Any]:
        """As ``run``; where there are several servers, one that is away keeps nothing from the others."""
        return self.run(commands)

    def answers(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one round trip; the errors that some are answered with are returned, too."""
        with self.translated():
            answers = self._send(commands)
            if _NO_SCRIPT in map(type, answers):
                # Started anew, or another server took over. The others have run: only these go out again.
                unknown = [at for at, answer in enumerate(answers) if type(answer) is _NO_SCRIPT]
                self._send([("SCRIPT", "LOAD", script) for script in scripts.ALL])
                again = self._send([commands[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
            return answers

    def block(self, keys: Sequence[str], timeout: float, bell: Bell) -> bool:
        """Wait for an element in one of some lists, and take it. Returns whether the bell interrupted it."""
        with self.translated(), self.connection() as connection:
            connection.send_command(*worded(("BLPOP", *keys, timeout)))
            # The server ends the wait: if we did, an element might be on its way to nobody.
            if bell.wait(timeout + 1.0, file_of(connection)) is Woken.BY_INTERRUPT:
                connection.disconnect()
                return True
            connection.read_response()
            return False

    def listen(
        self, channels: Sequence[str], timeout: float, bell: Bell, has_come: Callable[[], bool]
    ) -> None:
        """Wait until what is announced on some channels has come, the time is over, or the bell rings.

        May return early. Whether it has come is looked at first, and now and then.
        """
        until = time.monotonic() + timeout
        with self.translated(), self.connection(listens=True) as listener:
            self._subscribe(listener, channels)
            while not has_come():
                left = until - time.monotonic()
                look = min(left, MAX_SILENCE)
                if left <= 0 or bell.wait(look, file_of(listener)) is not Woken.IN_TIME:
                    break
            # Else what is said there would pile up. The answer is read when it subscribes again.
            with suppress(exceptions.RedisError):
                listener.send_command("UNSUBSCRIBE")

    def now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        # No lock: if two threads ask at once, either answer will do. A fork goes on by the same clock.
        if time.monotonic() - self._clock[0] > ASK_TIME_EVERY:
            self._clock = self._ask_time()
        return time.monotonic() + self._clock[1]

    def primaries(self) -> list["Server"]:
        """Return the servers that hold what is stored here: this one."""
        return [self]

    def hang_up(self) -> None:
        """Close this thread's connection; the next call makes a new one."""
        if getattr(self._local, "pid", 0) == os.getpid():
            self._local.connection.disconnect()

    def close(self) -> None:
        """Close the connections, of this thread at once and of others when they are done."""
        if getattr(self._local, "pid", 0) == os.getpid():
            self._local.connection.disconnect()
            if self._local.listener is not None:
                self._local.listener.disconnect()
        self._local = threading.local()

    def _all_good(self, answers: list[Any]) -> list[Any]:
        """Return answers; raise the first error among them."""
        for answer in answers:
            if isinstance(answer, exceptions.ResponseError):
                err = ours(answer, self._address)
                if isinstance(err, BackendUnavailable):
                    # It may be no primary any more: the next connection finds the one that is.
                    self.hang_up()
                raise err from answer
        return answers

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        # Not by redis-py's execute_command and pipeline: they cost as much again as the round trip.
        with self.connection() as connection:
            words = [worded(command) for command in commands]
            try:
                packed = connection.pack_commands(words)
            except UnicodeEncodeError:  # of an id that is no text; hiredis knows no encoding_errors
                packed = connection.pack_commands([list(map(_encoded, one)) for one in words])
            try:
                connection.send_packed_command(packed)
                return [self._answer(connection) for _ in commands]
            except exceptions.ConnectionError:
                connection.disconnect()
                if self._is_too_big(connection, words):
                    raise _too_big(self._address) from None
                raise

    def _is_too_big(self, connection: Any, words: Sequence[Sequence[Any]]) -> bool:
        """Whether a server that has hung up takes nothing of that size.

        It says so, and hangs up amid what is still sent to it: often one hears of the latter only.
        """
        longest = max(len(word) for command in words for word in command)
        if longest <= LEAST_LIMIT:
            return False
        try:
            connection.send_command("CONFIG", "GET", "proto-max-bulk-len")
            return longest > int(connection.read_response()[1])
        except (exceptions.RedisError, LookupError):  # it is away; or we may not ask
            return False

    def _answer(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except exceptions.ResponseError as err:  # to be raised when all answers have been read
            if str(err).startswith("Protocol error"):
                raise  # there are no more: the server hangs up
            return err

    def _subscribe(self, listener: Any, channels: Sequence[str]) -> None:
        was_connected = is_open(listener)
        try:
            _listen_to(listener, channels)
        except (exceptions.ConnectionError, exceptions.TimeoutError):
            if not was_connected:
                raise
            # The server, or one in between, had hung up on a connection that was not used for long.
            listener.disconnect()
            _listen_to(listener, channels)

    def _ask_time(self) -> tuple[float, float]:
        """Return when the server was asked by our clock, and how far it is ahead of that."""
        with self.translated(), self.connection() as connection:
            connection.connect()  # now, for it may take several round trips
            asked_at = time.monotonic()
            connection.send_command("TIME")
            seconds, micros = connection.read_response()
            there_at = (asked_at + time.monotonic()) / 2
        return asked_at, int(seconds) + int(micros) / 1_000_000 - there_at

    @contextmanager
    def connection(self, *, listens: bool = False) -> Generator[Any]:
        """This thread's connection, or its other one; closed if it may have an answer left to read."""
        connection = self._own_connection()
        if listens:
            connection = self._local.listener or self._new_connection()
            self._local.listener = connection
        try:
            if self._find is not None:
                self._follow(connection, self._find)
            yield connection
        except BaseException:
            connection.disconnect()
            raise

    def _own_connection(self) -> Any:
        # One a thread, and not from a pool, for to take it and give it back costs half as much as to use it.
        if getattr(self._local, "pid", 0) != os.getpid():
            self._local.connection = self._new_connection()
            self._local.listener = None
            self._local.pid = os.getpid()
        connection = self._local.connection
        if _is_stale(connection):
            connection.disconnect()
        return connection

    def _new_connection(self) -> Any:
        options: dict[str, Any] = {
            **self._address.options,
            # Never resend by itself: a reserve sent twice would hand out two batches.
            "retry": Retry(NoBackoff(), 0),
            # By RESP3, redis-py's connections know who knows them: those of threads that have ended
            # would stay open until the garbage is collected.
            "protocol": 2,
        }
        # Any: half of redis-py has types, and those depend on its version.
        made: Any = redis.SSLConnection if self._address.is_tls else redis.Connection
        if self._address.path:
            made = redis.UnixDomainSocketConnection
            return made(path=self._address.path, **options)
        host, port = self.where
        return made(host=host, port=port, socket_keepalive=True, **options)

    def _follow(self, connection: Any, find: Callable[[], Where]) -> None:
        """Let a connection lead to the primary."""
        if is_open(connection):
            if time.monotonic() > self._look_at:
                self._look_again(find)
            if (connection.host, connection.port) == self.where:
                return
            connection.disconnect()
        self.where, self._look_at = find(), time.monotonic() + LOOK_EVERY
        connection.host, connection.port = self.where
        connection.connect()
        self._check_role(connection)

    def _look_again(self, find: Callable[[], Where]) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY  # now: the other threads need not look, too
        try:
            self.where = find()
        except (
            BackendUnavailable,
            BackendRefused,
        ):  # there is a connection still, and it may be right
            self._look_at = time.monotonic() + LOOK_LATER

    def _check_role(self, connection: Any) -> None:
        connection.send_command("ROLE")
        try:
            role = connection.read_response()[0]
        except exceptions.ResponseError:  # a user of the server may have no right to ask
            return
        if role != b"master":
            # Who names it does not know better yet. It would answer what is only read, with what was.
            host, port = connection.host, connection.port
            raise BackendUnavailable(f"{self._address.dsn}: {host}:{port} is no primary any more.")

    @contextmanager
    def translated(self) -> Generator[None]:
        """Raise redis-py's errors as ours."""
        try:
            yield
        except exceptions.RedisError as err:
            raise ours(err, self._address) from err


def _listen_to(listener: Any, channels: Sequence[str]) -> None:
    listener.send_command("SUBSCRIBE", *channels)
    confirmed = 0
    while confirmed < len(channels):
        # What else was said, or answered, is from before: whoever listens looks after this.
        said = listener.read_response(push_request=True)
        confirmed += bool(said) and said[0] == b"subscribe"


def worded(command: Command) -> list[Any]:
    """Return a command as redis-py's connections are to be given it."""
    # hiredis would write numbers itself; but if a signal's handler raises meanwhile, a timeout or ^C, it reads
    # from nowhere, and the process ends.
    return [str(word) if type(word) in _NUMBERS else word for word in command]


def _encoded(word: Any) -> Any:
    return word.encode(errors="surrogateescape") if isinstance(word, str) else word


def is_open(connection: Any) -> bool:
    """Whether a connection is made."""
    return connection._sock is not None


def file_of(connection: Any) -> int:
    """Return a connection's descriptor."""
    # redis-py has no public way to wait for an answer and for something else at once.
    file: int = connection._sock.fileno()
    return file


def _is_stale(connection: Any) -> bool:
    """Whether there is something to read before anything was asked: as a rule, that the server hung up."""
    if connection._sock is None:
        return False
    poll = select.poll()
    poll.register(file_of(connection), select.POLLIN)
    return bool(poll.poll(0))


_PASSING = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY",
    "UNBLOCKED",
    "Script attempted to access a non local key",  # while its slot moves
)
# Since its version 6, redis-py takes the code off the text of these.
_CODES: dict[Any, str] = {
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
}
_OF_A_CLUSTER = ("MOVED", "ASK", "CROSSSLOT")


def text_of(err: exceptions.RedisError) -> str:
    """Return a server's error as it sent it, the code first."""
    code, text = _CODES.get(type(err), ""), str(err)
    return text if text.startswith(code) else f"{code} {text}"


def ours(err: exceptions.RedisError, address: Address) -> AlligatorException:
    """Return one of redis-py's errors as one of ours."""
    dsn, text = address.dsn, masked(text_of(err))
    if isinstance(err, exceptions.AuthenticationError):
        return BackendRefused(f"{dsn} does not let us in: {text}.")
    if isinstance(err, exceptions.OutOfMemoryError):
        return QueueFull(f"{dsn} has no memory left: {text}")
    if isinstance(err, exceptions.ConnectionError | exceptions.TimeoutError):
        return BackendUnavailable(f"{dsn} does not answer: {text}")
    if text.startswith(_PASSING):
        return BackendUnavailable(f"{dsn} cannot answer now: {text}")
    if text.startswith(_OF_A_CLUSTER):
        if address.is_cluster:
            return BackendUnavailable(f"{dsn} cannot answer now: {text}")
        return BackendRefused(f"{dsn} is a node of a cluster: write redis+cluster://... ({text})")
    if "invalid bulk length" in text:
        return _too_big(address)
    if "unexpected symbol near '#'" in text:
        return BackendRefused(f"{dsn} is too old: Alligator needs Redis 7.0 or newer, or Valkey.")
    return BackendRefused(f"{dsn}: {text}")


def _too_big(address: Address) -> TaskTooBig:
    return TaskTooBig(
        f"{address.dsn} takes nothing as big as that (its proto-max-bulk-len): let the task carry less, "
        "such as the name of a file, or a key."
    )
