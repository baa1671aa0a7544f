"""Pushing tasks over one connection: all of a batch, or nothing of it if the server refuses one."""

from collections.abc import Sequence
from typing import Any

from alligator.backends.base import Message, no_room, too_big
from alligator.backends.beanstalk import format as form
from alligator.backends.beanstalk.address import Address
from alligator.backends.beanstalk.connection import (
    Command,
    Connection,
    counts_of,
    is_error,
    refused,
)


class Pushing:
    """Puts tasks as jobs; it remembers how big they may be.

    Args:
        address: Of the server; it says how long jobs are handed out.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._max_size = 0

    def put(
        self,
        connection: Connection,
        queue_name: str,
        messages: Sequence[Message],
        max_length: int | None,
        wall: float,
    ) -> list[str]:
        """Put some tasks, and return the ids of their jobs.

        Raises:
            TaskTooBig, QueueFull, BackendRefused: None of them is queued.
        """
        tube = form.tube_of(queue_name)
        puts = [self._command(message, wall) for message in messages]
        self._check_sizes(connection, messages, puts)
        if max_length is not None:
            counts = counts_of(connection.run([("stats_tube", tube)])[0])
            if counts.waiting + counts.delayed + len(puts) > max_length:
                raise no_room(queue_name, len(puts), max_length)
        use = connection.use(tube)
        answers = connection.run([*use, *puts])[len(use) :]
        self._undo_if_refused(connection, answers)
        return [str(answer) for answer in answers]

    def _command(self, message: Message, wall: float) -> Command:
        due_in = message.due_at - wall if message.due_at else 0.0
        delay = form.whole_seconds(max(message.delay, due_in))
        body = form.job_body(message.body)
        return "put", body, form.urgency(message.priority), delay, self._address.ttr

    def _check_sizes(
        self, connection: Connection, messages: Sequence[Message], puts: Sequence[Command]
    ) -> None:
        """Check that the server takes all of some tasks, before any is sent."""
        biggest = max(len(put[1]) for put in puts)
        if (
            biggest > self._max_size
        ):  # also if it was another server that said so, before a new start
            [stats] = connection.run([("stats",)])
            self._max_size = stats["max-job-size"]
        for message, put in zip(messages, puts, strict=True):
            if len(put[1]) > self._max_size:
                limit = f"{self._max_size} (beanstalkd -z)"
                raise too_big(self._address.dsn, message.task_id, len(put[1]), limit)

    def _undo_if_refused(self, connection: Connection, answers: Sequence[Any]) -> None:
        """Take out again what was queued, if not all could be."""
        errors = [answer for answer in answers if is_error(answer)]
        if not errors:
            return
        put = [getattr(answer, "id", None) if is_error(answer) else answer for answer in answers]
        connection.run([("delete", number) for number in put if number is not None])
        self._max_size = 0  # it may be another server by now
        raise refused(self._address.dsn, errors[0])
