"""A server that answers as it is told, in the protocol of SQS, and remembers what it was asked."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answers:
    """What to answer, and what was asked."""

    given: dict[str, list[tuple[int, dict[str, Any]]]]
    """By operation: status and body, one after the other; the last again and again. Status 0: hang up."""
    clock: float | None = None
    """What the server takes for the time; None: it says nothing of that."""
    asked: list[tuple[str, dict[str, Any]]] = field(
        default_factory=list[tuple[str, dict[str, Any]]]
    )
    port: int = 0

    @property
    def dsn(self) -> str:
        return (
            f"sqs://us-west-2/?endpoint=http://127.0.0.1:{self.port}&access_key=id&secret_key=hush"
        )

    def times(self, operation: str) -> int:
        """Return how often it was asked for that."""
        return sum(name == operation for name, _ in self.asked)


QUEUE_URL: dict[str, Any] = {"QueueUrl": "http://sqs/1/all"}


def refusal(code: str, status: int = 400) -> tuple[int, dict[str, Any]]:
    """Return the answer that is an error."""
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": f"this is {code}"}


@contextmanager
def answering(
    clock: float | None = None, **given: list[tuple[int, dict[str, Any]]]
) -> Generator[Answers]:
    """Serve while the block runs."""
    known: dict[str, list[tuple[int, dict[str, Any]]]]
    known = {"GetQueueUrl": [(200, QUEUE_URL)], "GetQueueAttributes": [(200, {})]}
    answers = Answers({**known, **given}, clock)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            answers.asked.append((operation, body))
            left = answers.given[operation]
            status, answer = left.pop(0) if len(left) > 1 else left[0]
            if not status:
                self.close_connection = True
                return
            told = json.dumps(answer).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(told)))
            if answers.clock is not None:
                self.send_header("Date", formatdate(answers.clock, usegmt=True))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
