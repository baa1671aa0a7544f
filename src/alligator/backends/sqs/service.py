"""The service of SQS: its address, calling it, batches of ten, its clock, and boto3's errors as ours."""

import importlib
import importlib.util
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from alligator import retries
from alligator.dsn import DSN, masked
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
)

AT_ONCE = 10
"""Messages in one request, at the most: so SQS has it."""
LONGEST_POLL = 20
"""Seconds that SQS lets one request wait for a message."""
ANSWERS_WITHIN = 10.0
"""Seconds for the service to answer, beyond those that it is asked to wait."""
TRIES = 4
"""How often to ask, in all, what the service puts off because it is asked too much: then nothing was done."""

_THROTTLED = {
    "KMS.ThrottlingException",
    "KmsThrottled",
    "OverLimit",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
"""What says that nothing was done, for it was too much at a time."""
_MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_OPTIONS = (
    "access_key",
    "dead",
    "endpoint",
    "poll",
    "prefix",
    "profile",
    "secret_key",
    "session_token",
)


class NoSuchQueue(BackendRefused):
    """There is no such queue: Alligator makes none unless told to."""


@dataclass(frozen=True, slots=True)
class Address:
    """What a DSN tells."""

    region: str | None
    endpoint: str | None
    dead: str | None
    """The queue for dead letters; None: where the redrive policy of a queue says."""
    prefix: str
    poll: int
    """Seconds that one request waits for a message, at the most."""
    session: dict[str, str] = field(repr=False)
    """What boto3's session takes; what is not there it finds by itself."""

    @classmethod
    def of(cls, dsn: DSN) -> "Address":
        """Read a DSN: ``sqs://region/``, and after a "?" options.

        Raises:
            InvalidOption: It cannot be understood.
        """
        query = dsn.query
        unknown = query.keys() - set(_OPTIONS)
        if unknown:
            raise InvalidOption(
                f"{dsn}: unknown option {min(unknown)!r}; known: {', '.join(_OPTIONS)}."
            )
        region = dsn.rest.removesuffix("/")
        if not re.fullmatch(r"[A-Za-z0-9-]*", region):
            raise InvalidOption(
                f"{dsn} is no SQS DSN: write sqs://region/, such as sqs://us-west-2/, and credentials, unless "
                "boto3 finds them by itself, as ?access_key=...&secret_key=..., percent-encoded."
            )
        given = {
            "profile_name": query.get("profile"),
            "aws_access_key_id": query.get("access_key"),
            # A "+" that was not percent-encoded is a blank by now, and keys have none.
            "aws_secret_access_key": query.get("secret_key", "").replace(" ", "+"),
            "aws_session_token": query.get("session_token", "").replace(" ", "+"),
        }
        return cls(
            region or None,
            query.get("endpoint"),
            query.get("dead") or None,
            query.get("prefix", ""),
            _poll(query.get("poll", "2")),
            {name: value for name, value in given.items() if value},
        )


class Service:
    """SQS in one region, or what speaks its protocol. A client of boto3's for each process.

    Args:
        dsn: Where it is.

    Raises:
        InvalidOption: The DSN cannot be understood.
        ModuleNotFoundError: boto3 is not installed.
    """

    def __init__(self, dsn: DSN) -> None:
        self.address = Address.of(dsn)
        self._dsn = dsn
        self._made: tuple[int, Any] = 0, None
        self._ahead: float | None = None
        if (
            importlib.util.find_spec("boto3") is None
        ):  # to import it takes as long as all else at a start
            raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Ask the service for something, and return its answer.

        Raises:
            BackendUnavailable: It did not answer, or cannot now. It is asked again only if it has said that it
                did nothing: a message that was sent twice is there twice.
            NoSuchQueue: There is no such queue.
            BackendRefused: It will not.
        """
        exceptions = _module("botocore.exceptions")
        for attempt in range(1, TRIES + 1):
            asked_at = time.time()
            try:
                answer: dict[str, Any] = getattr(self._client(), operation)(**parameters)
            except exceptions.ClientError as err:
                self._set_clock(err.response, asked_at)
                if _code_of(err.response) not in _THROTTLED or attempt == TRIES:
                    raise self._answered(err.response, parameters) from err
            except exceptions.BotoCoreError as err:
                raise self._failed(err) from err
            else:
                self._set_clock(answer, asked_at)
                return answer
            _pause(attempt)
        raise AssertionError  # the last attempt returns or raises

    def batch(
        self, operation: str, url: str, entries: Sequence[dict[str, Any]], at_once: int = AT_ONCE
    ) -> Iterator[dict[str, Any]]:
        """Do something to several messages, ten in a request, while it is asked what became of each.

        That is what the service says of it: with a "Code" if it was refused, for this message's own sake.

        Raises:
            BackendUnavailable, BackendRefused: As ``call``. What is known of its request comes before it: some
                of it may have been done.
        """
        for at in range(0, len(entries), at_once):
            ten = entries[at : at + at_once]
            outcomes: dict[int, dict[str, Any]] = {}
            failed: AlligatorException | None = None
            try:
                self._do(operation, url, ten, outcomes)
            except AlligatorException as err:
                failed = err
            yield from (outcomes[place] for place in sorted(outcomes))
            if failed is not None:
                raise failed

    def now(self) -> float:
        """Return the service's time, in seconds since 1970: ours, as far as it does not contradict that."""
        if self._ahead is None:
            # To look is enough: also a refusal tells the time.
            with suppress(BackendRefused):
                self.call("list_queues", MaxResults=1)
        return time.time() + (self._ahead or 0.0)

    def close(self) -> None:
        """Close connections; the next call opens others."""
        pid, client = self._made
        self._made = 0, None
        if pid == os.getpid():
            client.close()

    def _do(
        self,
        operation: str,
        url: str,
        entries: Sequence[dict[str, Any]],
        outcomes: dict[int, dict[str, Any]],
    ) -> None:
        """Do something to up to ten messages, and note what became of each, also if it breaks off."""
        todo = list(range(len(entries)))
        for attempt in range(1, TRIES + 1):
            numbered = [{"Id": str(place), **entries[place]} for place in todo]
            answer = self.call(operation, QueueUrl=url, Entries=numbered)
            for one in (*answer.get("Successful", ()), *answer.get("Failed", ())):
                outcomes[int(one["Id"])] = one
            # What failed, failed by itself. If the fault is with the service, it may go better now.
            todo = [place for place in todo if _may_pass(outcomes[place])]
            if not todo:
                break
            if attempt == TRIES:
                failed = outcomes[todo[0]]
                raise BackendUnavailable(
                    f"{self._dsn} cannot do it now: {failed['Code']}, for {len(todo)} messages of a batch."
                )
            _pause(attempt)

    def _client(self) -> Any:
        # If two threads make one at once, either will do. Not after a fork: two would share its connections.
        pid, client = self._made
        if pid != os.getpid():
            client = self._new_client()
            self._made = os.getpid(), client
        return client

    def _new_client(self) -> Any:
        exceptions = _module("botocore.exceptions")
        config = _module("botocore.config").Config(
            connect_timeout=ANSWERS_WITHIN,
            read_timeout=ANSWERS_WITHIN + self.address.poll,
            # Never ask again by itself: what was sent without an answer may be there.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=50,
            tcp_keepalive=True,
        )
        try:
            session = _module("boto3.session").Session(**self.address.session)
            return session.client(
                "sqs",
                region_name=self.address.region,
                endpoint_url=self.address.endpoint,
                config=config,
            )
        except (exceptions.BotoCoreError, ValueError) as err:
            raise InvalidOption(
                f"{self._dsn}: boto3 makes no client of that: {masked(str(err))}"
            ) from None

    def _set_clock(self, answer: dict[str, Any], asked_at: float) -> None:
        """Take from an answer how far the service's clock is ahead of ours, as far as that can be seen."""
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        try:
            answered_at = parsedate_to_datetime(headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError):  # a server that does not say
            self._ahead = self._ahead or 0.0
            return
        # It says whole seconds, and was written between our asking and now.
        least, most = answered_at - time.time(), answered_at + 1.0 - asked_at
        self._ahead = min(max(self._ahead or 0.0, least), most)

    def _answered(self, answer: dict[str, Any], parameters: dict[str, Any]) -> AlligatorException:
        """Return what an answer that is an error means."""
        code = _code_of(answer)
        told = f"{code}: {masked(answer.get('Error', {}).get('Message', ''))}"
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _MISSING:
            url: str = parameters.get("QueueUrl", "")
            return self._missing(parameters.get("QueueName") or url.rpartition("/")[2])
        if code in _THROTTLED or status >= 500:
            return BackendUnavailable(f"{self._dsn} cannot answer now: {told}")
        return BackendRefused(f"{self._dsn} refuses: {told}")

    def _missing(self, name: str) -> NoSuchQueue:
        how = f"`aws sqs create-queue --queue-name {name}"
        if self.address.region:
            how += f" --region {self.address.region}"
        if name.endswith(".fifo"):
            how += " --attributes FifoQueue=true"
        how += "`"
        if name.startswith(self.address.prefix):
            called = name.removeprefix(self.address.prefix)
            how += f", or by `alligator migrate TARGET --create-queues --queue {called}`"
        return NoSuchQueue(
            f"There is no queue {name!r} in SQS, and Alligator makes none by itself. Make it by {how}."
        )

    def _failed(self, err: Exception) -> AlligatorException:
        """Return what it means that there is no answer, or that boto3 did not even ask."""
        exceptions = _module("botocore.exceptions")
        if isinstance(err, (exceptions.HTTPClientError, exceptions.ConnectionError)):
            return BackendUnavailable(f"{self._dsn} does not answer: {masked(str(err))}")
        return BackendRefused(f"{self._dsn}: {masked(str(err))}")


def _module(name: str) -> Any:
    """Return a module of boto3's: they have no types, and take long to import."""
    return importlib.import_module(name)


def _code_of(answer: dict[str, Any]) -> str:
    code: str = answer.get("Error", {}).get("Code", "")
    return code


def _may_pass(outcome: dict[str, Any]) -> bool:
    return "Code" in outcome and (not outcome.get("SenderFault") or outcome["Code"] in _THROTTLED)


def _pause(attempt: int) -> None:
    # SQS asks for this, and tells nobody when it would take more.
    time.sleep(retries.with_jitter(retries.backoff(attempt, base=0.2)))


def _poll(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LONGEST_POLL:
        raise InvalidOption(f"poll is whole seconds, from 1 to {LONGEST_POLL}; not {text!r}.")
    return int(text)
