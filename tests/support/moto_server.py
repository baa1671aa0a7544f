"""Moto's server as a process of its own, which says when it is ready: ``python -m tests.support.moto_server``.

Where moto differs from what AWS documents, or was seen to do, in ways that matter to a store, it is put right:

- Two requests at once do not receive the same message, nor lose one that is sent meanwhile.
- An old receipt handle deletes nothing and hides nothing. A standard queue does not say so, a FIFO queue does.
- Twelve hours count from when a message was received, not from when it was sent.
- The bytes of attributes count as those of the body do, also for a batch; and what is no text is refused.
- A FIFO queue knows a duplicate for five minutes, also of what is deleted by then.
- A hundred messages cost a hundred times what one costs, and not ten thousand times.

What still differs: moto keeps the order of messages, sees all of them at each look, hands out none twice for no
reason, counts exactly, sets no limit to what is in flight, keeps messages for ever, and does not
tell from where it moved a dead letter.
"""

import base64
import functools
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from io import BytesIO
from typing import Any
from uuid import uuid4

from werkzeug.test import run_wsgi_app

# Any: it is the inside of moto that is changed here.
_APP: Any = import_module("moto.moto_server.werkzeug_app")
_BACKENDS: Any = import_module("moto.backends")
_ERRORS: Any = import_module("moto.sqs.exceptions")
_MODELS: Any = import_module("moto.sqs.models")

ACCOUNT = "123456789012"
"""Whose queues they are, whatever key comes with a request."""
LONGEST_LEASE = 12 * 3600 * 1000
"""In milliseconds, as all of moto's moments."""
MOST_BYTES = 1024 * 1024
"""Of a message, and of a batch."""
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

DUPLICATE_WITHIN = 300 * 1000
"""In milliseconds: how long a FIFO queue knows what was sent."""

_SENT: dict[tuple[Any, str], float] = {}
"""By FIFO queue and deduplication id: when a message was sent."""
_SECOND = [1000.0]
"""In milliseconds: how long a message is hidden or delayed whose client has said one second."""

_LOCK = threading.RLock()
_CHANGED = threading.Condition(_LOCK)
"""Something was sent, or hidden for another time."""
_RECEIVED: dict[str, tuple[Any, float]] = {}
"""By receipt handle: what was received, and when."""


def _one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with _LOCK:
            result = method(*args, **kwargs)
            _CHANGED.notify_all()
            return result

    return locked


_receive_at_once = _MODELS.SQSBackend.receive_message
_mark_received = _MODELS.Message.mark_received


def _receive(
    self: Any,
    queue_name: str,
    count: int,
    wait: int,
    hidden_for: int,
    names: list[str] | None = None,
) -> list[Any]:
    until, queue = time.monotonic() + wait, self.get_queue(queue_name)
    # Who asked may be gone, and what was asked for another test: it is not to take anything of the next one.
    with _LOCK:
        while self.queues.get(queue_name) is queue:
            found: list[Any] = _receive_at_once(self, queue_name, count, 0, hidden_for, names)
            if found or time.monotonic() >= until:
                return found
            _CHANGED.wait(0.02)  # what lapses, or is due, changes by itself
    return []


def _send(
    self: Any,
    queue_name: str,
    message_body: str,
    message_attributes: dict[str, Any] | None = None,
    delay_seconds: int | None = None,
    deduplication_id: str | None = None,
    group_id: str | None = None,
    **_: Any,
) -> Any:
    queue = self.get_queue(queue_name)
    self._validate_message(queue, message_body, delay_seconds or 0, deduplication_id, group_id)
    message = _MODELS.Message(str(uuid4()), message_body)
    message.message_attributes = message_attributes or {}
    message.group_id, message.deduplication_id = group_id, deduplication_id
    message.sequence_number = str(time.monotonic_ns()).zfill(20)
    message.mark_sent()
    message.delayed_until = _in(queue.delay_seconds if delay_seconds is None else delay_seconds)
    queue.add_message(message)
    return message


def _add(self: Any, message: Any) -> None:
    if self.fifo_queue:
        sent_at = _SENT.get((self, message.deduplication_id), -DUPLICATE_WITHIN)
        if message.sent_timestamp < sent_at + DUPLICATE_WITHIN:
            return
        _SENT[self, message.deduplication_id] = message.sent_timestamp
    self._messages.append(message)


_send_several = _one_at_a_time(_MODELS.SQSBackend.send_message_batch)


def _send_batch(self: Any, queue_name: str, entries: dict[str, dict[str, Any]]) -> Any:
    limit: int = self.get_queue(queue_name).maximum_message_size
    for entry in entries.values():
        if _size_of(entry) > limit:
            raise _ERRORS.InvalidParameterValue(f"Message must be shorter than {limit} bytes.")
        if not entry["MessageBody"] or _NO_TEXT.search(entry["MessageBody"]):
            raise _ERRORS.SQSException("InvalidMessageContents", "Invalid characters found.")
    size = sum(_size_of(entry) for entry in entries.values())
    if size > MOST_BYTES:
        raise _ERRORS.BatchRequestTooLong(size)
    return _send_several(self, queue_name, entries)


def _size_of(entry: dict[str, Any]) -> int:
    return len(entry["MessageBody"].encode()) + sum(
        len(name) + len(one["DataType"]) + len(_value_of(one))
        for name, one in entry["MessageAttributes"].items()
    )


def _value_of(attribute: dict[str, Any]) -> bytes:
    value = attribute.get("BinaryValue")
    if value is None:
        return str(attribute["StringValue"]).encode()
    return bytes(value) if isinstance(value, bytes) else base64.b64decode(value)


def _mark(self: Any, visibility_timeout: int | None = None) -> None:
    _mark_received(self, visibility_timeout)
    self.visible_at = _in(visibility_timeout or 0)
    self.receipt_handle = secrets.token_urlsafe(138)
    del self._old_receipt_handles[:]
    _RECEIVED[str(self.receipt_handle)] = self, _now()


def _visible(self: Any) -> list[Any]:
    now = _now()
    return [one for one in self._messages if one.visible_at < now and one.delayed_until <= now]


def _delete(self: Any, queue_name: str, receipt_handle: str) -> None:
    queue = self.get_queue(queue_name)
    message = _held(queue, receipt_handle, is_in_flight=queue.fifo_queue)
    if message is not None:
        queue.pending_messages.discard(message)
        queue._messages.remove(message)


def _hide(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    queue = self.get_queue(queue_name)
    message = _held(queue, receipt_handle, is_in_flight=True)
    if message is None:
        return
    if _now() + visibility_timeout * 1000 > _RECEIVED[receipt_handle][1] + LONGEST_LEASE:
        raise _ERRORS.InvalidParameterValue(
            "Total VisibilityTimeout is beyond the limit [43200 seconds]"
        )
    message.visible_at = _in(visibility_timeout)
    if not visibility_timeout:
        queue.pending_messages.discard(message)


def _held(queue: Any, handle: str, *, is_in_flight: bool) -> Any:
    """Return the message that a receipt handle holds; None: no more."""
    if handle not in _RECEIVED:
        raise _ERRORS.ReceiptHandleIsInvalid
    message, _ = _RECEIVED[handle]
    is_there = message.receipt_handle == handle and message in queue._messages
    if is_there and (not is_in_flight or not message.visible):
        return message
    if queue.fifo_queue and message in queue._messages:
        raise _ERRORS.ReceiptHandleIsInvalid
    return None


def _is_kept(self: Any, queue_name: str, message: Any) -> bool:
    return True  # to tell, moto goes through the whole queue, for each message


def _in(seconds: int) -> float:
    return _now() + (_SECOND[0] if seconds == 1 else seconds * 1000)


def _now() -> float:
    return time.time() * 1000


def _emptied(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Forget everything, and make queues: /emptied/REGION/NAME,NAME/MILLISECONDS that one second lasts."""
    region, names, second = environ["PATH_INFO"].split("/")[2:]
    with _LOCK:
        _SECOND[0] = float(second)
        _RECEIVED.clear()
        _SENT.clear()
        service = _MODELS.sqs_backends[ACCOUNT][region]
        service.queues.clear()
        for name in names.split(","):
            service.create_queue(name)
    start_response("204 No Content", [])
    return []


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on. Connections are used again, as on AWS: werkzeug's own server closes each."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    application: Callable[..., Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": self.path,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": self.headers["Host"].rpartition(":")[2],
            "SERVER_PROTOCOL": self.protocol_version,
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
        }
        for name, value in self.headers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        parts, status, headers = run_wsgi_app(type(self).application, environ, buffered=True)
        answer = b"".join(parts)
        self.send_response(int(status.split()[0]))
        for name, value in headers.items():
            if name.lower() not in {"content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(port: int) -> None:
    """Serve until killed."""
    # Twice as fast: moto tells the time by arithmetic with dates, for each message that is in a queue, and
    # lists its own folder at each request.
    _MODELS.unix_time_millis = _now
    modules = list(_BACKENDS.list_of_moto_modules())
    _BACKENDS.list_of_moto_modules = lambda: modules
    service = _MODELS.SQSBackend
    service.receive_message = _receive
    service.is_message_valid_based_on_retention_period = _is_kept
    service.delete_message = _one_at_a_time(_delete)
    service.change_message_visibility = _one_at_a_time(_hide)
    service.send_message = _one_at_a_time(_send)
    service.send_message_batch = _send_batch
    service.purge_queue = _one_at_a_time(service.purge_queue)
    _MODELS.generate_receipt_handle = str  # _mark makes one, and in less time
    _MODELS.Queue.add_message = _add
    _MODELS.Queue.messages = property(_visible)
    _MODELS.Message.mark_received = _mark
    moto = _APP.DomainDispatcherApplication(_APP.create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        ours = environ["PATH_INFO"].startswith("/emptied/")
        return (_emptied if ours else moto)(environ, start_response)

    _Handler.application = staticmethod(application)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
