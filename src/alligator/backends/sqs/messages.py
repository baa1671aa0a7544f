"""A task as a message of SQS: its body as text, and a few attributes where they are needed.

A payload that is plain JSON lies in the queue as it is, with no attribute at all. What may be beside it::

    alligator.form    "base64": the body is no text that SQS carries, and is "=" and base64
    alligator.id      the id of the first message of a task that was sent anew, which stays the task's id
    alligator.wait    seconds from when this message was sent until the task is due, where SQS cannot delay it
    alligator.lapses  hand-outs with no outcome of the messages before this one
    alligator.buried  when the task was buried, in seconds since 1970
    alligator.kept    "1": it is a dead letter here and now, for want of another queue for those
    alligator.queue   which queue a dead letter is of
    alligator.note    what happened to it
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from alligator import payloads

ROOM = 512
"""Bytes of a message to leave free at a push, for attributes that may come: else it could not be sent anew."""
SHORTEST_NOTE = 64
"""Bytes of a note that are worth being kept."""
MOST = 1e11
"""The biggest number that is believed of an attribute: in seconds, three thousand years."""

FORM, ID, WAIT, LAPSES = "alligator.form", "alligator.id", "alligator.wait", "alligator.lapses"
BURIED, KEPT = "alligator.buried", "alligator.kept"
QUEUE, NOTE = "alligator.queue", "alligator.note"

SYSTEM_ATTRIBUTES = [
    "ApproximateReceiveCount",
    "DeadLetterQueueSourceArn",
    "MessageGroupId",
    "SentTimestamp",
]
"""What is asked of SQS itself with each message."""

Entry = dict[str, Any]
"""A message to send, as boto3 takes it."""

_UNCARRIED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BASE64 = "base64"
_FAIR_ID = re.compile("[!-~]{1,128}")


class Received(NamedTuple):
    """A message that was received."""

    message_id: str
    handle: str
    """The receipt handle: it names this hand-out."""
    task_id: str
    body: bytes
    sent_at: float
    receives: int = 1
    """How often it was received, this time included."""
    wait: float = 0.0
    lapses: int = 0
    group: str = ""
    buried_at: float = 0.0
    is_kept: bool = False
    """Whether it is a dead letter that lies in the queue of its task."""
    queue: str = ""
    note: str = ""
    source: str = ""
    """The queue that SQS itself has moved it from."""

    @property
    def deliveries(self) -> int:
        """Hand-outs since the task last had an outcome, this one included."""
        return self.lapses + self.receives

    @property
    def due_at(self) -> float:
        """When the task is due."""
        return self.sent_at + self.wait


def entry(body: bytes, notes: Mapping[str, str | bytes] | None = None) -> Entry:
    """Return a message that carries a body, and with it some attributes: text, or bytes."""
    text, form = _as_text(body)
    attributes = {name: _attribute(value) for name, value in {**form, **(notes or {})}.items()}
    return {"MessageBody": text} | ({"MessageAttributes": attributes} if attributes else {})


def size_of(message: Entry) -> int:
    """Return how many bytes of a message SQS counts: the body, and each attribute's name, type and value."""
    return len(message["MessageBody"].encode()) + sum(
        len(name) + len(value["DataType"]) + len(_value_of(value))
        for name, value in message.get("MessageAttributes", {}).items()
    )


def received(message: dict[str, Any]) -> Received:
    """Read a message as boto3 returns it. One of a foreign form is a task like others: its reader will tell."""
    system: dict[str, str] = message.get("Attributes", {})
    notes = {
        name: _value_of(value).decode(errors="replace")
        for name, value in message.get("MessageAttributes", {}).items()
        if name.startswith("alligator.")
    }
    return Received(
        message["MessageId"],
        message["ReceiptHandle"],
        notes.get(ID) or message["MessageId"],
        _as_body(message["Body"], notes.get(FORM)),
        _number(system.get("SentTimestamp"), MOST * 1000) / 1000,
        max(1, int(_number(system.get("ApproximateReceiveCount")))),
        _number(notes.get(WAIT)),
        int(_number(notes.get(LAPSES))),
        system.get("MessageGroupId", ""),
        _number(notes.get(BURIED)),
        KEPT in notes,
        notes.get(QUEUE, ""),
        notes.get(NOTE, ""),
        system.get("DeadLetterQueueSourceArn", "").rpartition(":")[2],
    )


def fair_id(name: str) -> str:
    """Return a name as FIFO queues take one: of some ASCII, and not long."""
    return name if _FAIR_ID.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()


def fitted(note: str, room: int) -> str:
    """Return as much of a dead letter's note as fits; of one of ours, what matters least is left out."""
    if len(note.encode()) <= room:
        return note
    if room < SHORTEST_NOTE:
        return ""
    if parts := payloads.object_in(note):
        for leave_out in _LEFT_OUT:
            leave_out(parts)
            shorter = json.dumps(parts, separators=(",", ":"))
            if len(shorter) <= room:
                return shorter
    return note.encode()[:room].decode(errors="ignore")


def _leave_out_stack(note: dict[str, Any]) -> None:
    """Leave out where the task was, of how its process ended."""
    death = note.get("death")
    if isinstance(death, dict):
        cast(dict[str, Any], death).pop("stack", None)


_LEFT_OUT: tuple[Callable[[dict[str, Any]], object], ...] = (
    _leave_out_stack,
    lambda note: note.pop("progress", None),
    lambda note: note.pop("death", None),
    lambda note: note.update(traceback=""),
    lambda note: note.update(message=""),
    lambda note: note.update(error=""),
)
"""What is left out of a note that does not fit, one after the other."""


def _as_text(body: bytes) -> tuple[str, dict[str, str | bytes]]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not _UNCARRIED.search(text):
        return text, {}
    return "=" + base64.b64encode(body).decode(), {FORM: _BASE64}


def _as_body(text: str, form: str | None) -> bytes:
    if form == _BASE64:
        try:
            return base64.b64decode(text[1:], validate=True)
        except ValueError:  # binascii.Error among them
            pass  # who wrote that attribute was not us
    return text.encode()


def _attribute(value: str | bytes) -> dict[str, str | bytes]:
    if isinstance(value, bytes):
        return {"DataType": "Binary", "BinaryValue": value}
    return {"DataType": "String", "StringValue": value}


def _value_of(attribute: dict[str, Any]) -> bytes:
    binary: bytes | None = attribute.get("BinaryValue")
    return str(attribute.get("StringValue", "")).encode() if binary is None else bytes(binary)


def _number(text: str | None, most: float = MOST) -> float:
    """Return a number that is fit to be reckoned with, whoever wrote it: neither infinite nor below zero."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return min(number, most) if number > 0 else 0.0
