"""Queues of SQS: finding them, what they can take, and moving messages in and out of one."""

import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alligator.backends.base import too_big
from alligator.backends.sqs import messages
from alligator.backends.sqs.messages import Entry, Received, size_of
from alligator.backends.sqs.service import AT_ONCE, NoSuchQueue, Service
from alligator.exceptions import BackendRefused, InvalidOption

LONGEST_LEASE = 12 * 3600 - 60
"""Seconds for which SQS lets a message be held, or hidden, from when it was received: twelve hours. A minute
less, since the answer that it was received comes later than that."""
LOOK_EVERY = 300.0
"""Seconds after which it is looked anew what a queue can take, and where its dead letters go."""
RETENTION = 14 * 86400
"""Seconds that SQS keeps a message, at the most."""

_MOST_BYTES = 1024 * 1024
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, as SQS knows it."""

    name: str
    url: str
    max_bytes: int = _MOST_BYTES
    """Of a message."""
    retention: int = 4 * 86400
    """Seconds that a message is kept."""
    redrives_to: str = ""
    """The ARN of the queue that SQS itself moves messages to which were received too often."""
    max_receives: float = math.inf
    """How often a message is handed out before SQS moves it there."""

    @property
    def is_fifo(self) -> bool:
        """Whether it is a FIFO queue, which cannot delay a single message, and tells duplicates."""
        return self.name.endswith(".fifo")

    @property
    def can_delay(self) -> bool:
        """Whether a task can wait in it: in a FIFO queue that takes a receipt of its own."""
        return not self.is_fifo or self.max_receives >= 2


class Queues:
    """The queues of a service.

    Args:
        service: Where they are.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._address = service.address
        self._known: dict[tuple[str, str], tuple[float, Queue]] = {}

    def named(self, queue_name: str) -> Queue:
        """Return the queue of a name that Alligator knows it by.

        Raises:
            InvalidOption: SQS can have no such name, or it is for dead letters.
            NoSuchQueue: There is none.
        """
        name = self._address.prefix + queue_name
        if name == self._address.dead:  # what is buried there would be run again, and for ever
            raise InvalidOption(
                f"Queue {name!r} is for dead letters, as the DSN says (?dead=...), and not for tasks."
            )
        return self._known_as(name)

    def dead_of(self, queue: Queue) -> Queue | None:
        """Return where the dead letters of a queue go; None: nobody has said so.

        Raises:
            NoSuchQueue: The DSN names one that is not there.
        """
        if self._address.dead:
            return self._known_as(self._address.dead)
        if not queue.redrives_to:
            return None
        account, name = queue.redrives_to.split(":")[-2:]
        try:
            return self._known_as(name, account)
        except BackendRefused:  # SQS may move messages there, and we may not
            return None

    def names(self) -> list[str]:
        """Return the names of all queues with our prefix."""
        names: list[str] = []
        token: dict[str, str] = {}
        prefix = self._address.prefix
        while True:
            answer = self._service.call(
                "list_queues",
                **({"QueueNamePrefix": prefix} if prefix else {}),
                MaxResults=1000,
                **token,
            )
            names += [url.rpartition("/")[2] for url in answer.get("QueueUrls", ())]
            if not answer.get("NextToken"):
                return sorted(
                    name.removeprefix(prefix) for name in names if name != self._address.dead
                )
            token = {"NextToken": answer["NextToken"]}

    def create(self, queue_name: str) -> bool:
        """Make a queue, and the one for dead letters if the DSN names one; return whether it is new."""
        is_new = self._create(self._address.prefix + queue_name)
        if self._address.dead:
            self._create(self._address.dead)
        return is_new

    def count(self, queue: Queue) -> tuple[int, int, int]:
        """Return about how many messages of a queue can be received, are delayed, and are hidden."""
        told = self.attributes(queue, *_COUNTS)
        waiting, delayed, hidden = (int(told.get(name, 0)) for name in _COUNTS)
        return waiting, delayed, hidden

    def purge(self, queue: Queue) -> None:
        """Delete all messages of a queue, those that are held included."""
        try:
            self._service.call("purge_queue", QueueUrl=queue.url)
        except NoSuchQueue:
            raise
        except BackendRefused as err:
            if "PurgeQueueInProgress" not in str(err):
                raise
            raise BackendRefused(
                f"SQS empties a queue once a minute, and has just begun to with {queue.name!r}: try again then."
            ) from None

    def attributes(self, queue: Queue, *names: str) -> dict[str, str]:
        """Return attributes of a queue."""
        answer = self._service.call(
            "get_queue_attributes", QueueUrl=queue.url, AttributeNames=list(names)
        )
        attributes: dict[str, str] = answer.get("Attributes", {})
        return attributes

    def check_sizes(self, queue: Queue, task_ids: Sequence[str], entries: Sequence[Entry]) -> None:
        """Check that tasks fit into messages, with room for what may have to be noted beside them later.

        Raises:
            TaskTooBig: One does not.
        """
        limit = queue.max_bytes - messages.ROOM
        for task_id, entry in zip(task_ids, entries, strict=True):
            if (size := size_of(entry)) > limit:
                most = f"{limit} ({queue.max_bytes}, less {messages.ROOM} for what may have to be noted)"
                raise too_big(f"queue {queue.name!r}", task_id, size, most)

    def send(self, queue: Queue, entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
        """Send messages in order, while it is asked what became of each."""
        batch: list[Entry] = []
        size = 0
        for entry in (*entries, None):
            more = size_of(entry) if entry else math.inf
            # A batch takes no more than one message may: so it is on AWS, and on servers like it.
            if batch and (size + more > queue.max_bytes or len(batch) == AT_ONCE):
                yield from self._service.batch("send_message_batch", queue.url, batch)
                batch, size = [], 0
            if entry is not None:
                batch.append(entry)
                size += int(more)

    def delete(self, queue: Queue, handles: Sequence[str]) -> list[bool]:
        """Delete messages; return for each whether SQS agreed that it was ours to delete."""
        entries = [{"ReceiptHandle": handle} for handle in handles]
        outcomes = self._service.batch("delete_message_batch", queue.url, entries)
        return ["Code" not in outcome for outcome in outcomes]

    def hide(self, queue: Queue, handles: Sequence[tuple[str, int]]) -> list[bool]:
        """Let messages come back after so many seconds; return for each whether SQS agreed."""
        entries = [
            {"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in handles
        ]
        outcomes = self._service.batch("change_message_visibility_batch", queue.url, entries)
        return ["Code" not in outcome for outcome in outcomes]

    def receive(self, queue: Queue, count: int, seconds: int, wait: int) -> list[Received]:
        """Receive up to ten messages, hide them for so many seconds, and wait as long for a first one."""
        answer = self._service.call(
            "receive_message",
            QueueUrl=queue.url,
            MaxNumberOfMessages=min(count, AT_ONCE),
            VisibilityTimeout=seconds,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=messages.SYSTEM_ATTRIBUTES,
            MessageAttributeNames=["All"],
        )
        return [messages.received(message) for message in answer.get("Messages", ())]

    def _known_as(self, name: str, account: str = "") -> Queue:
        looked_at, queue = self._known.get((name, account), (-math.inf, None))
        if queue is None or time.monotonic() - looked_at > LOOK_EVERY:
            queue = self._look(name, account)
            self._known[name, account] = time.monotonic(), queue
        return queue

    def _look(self, name: str, account: str) -> Queue:
        url = self._url_of(name, account)
        try:
            told = self.attributes(Queue(name, url), "All")
        except NoSuchQueue:
            raise
        except BackendRefused:  # to ask is a right of its own, which is not needed to work
            return Queue(name, url)
        redrive = json.loads(told.get("RedrivePolicy") or "{}")
        return Queue(
            name,
            url,
            int(told.get("MaximumMessageSize") or _MOST_BYTES),
            int(told.get("MessageRetentionPeriod") or RETENTION),
            redrive.get("deadLetterTargetArn", ""),
            float(redrive.get("maxReceiveCount", math.inf)),
        )

    def _url_of(self, name: str, account: str = "") -> str:
        if not _NAME.fullmatch(name):
            raise InvalidOption(
                f"SQS can have no queue {name!r}: a name is 1 to 80 of the letters A-Z and a-z, digits, '-' "
                "and '_', and may end in '.fifo'."
            )
        owner = {"QueueOwnerAWSAccountId": account} if account else {}
        url: str = self._service.call("get_queue_url", QueueName=name, **owner)["QueueUrl"]
        return url

    def _create(self, name: str) -> bool:
        try:
            self._url_of(name)
        except NoSuchQueue:
            pass
        else:
            return False
        attributes = {"MessageRetentionPeriod": str(RETENTION)}
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        self._service.call("create_queue", QueueName=name, Attributes=attributes)
        return True
