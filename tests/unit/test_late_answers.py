"""A worker that gets its store's answer when the lease is over: it has slept, or the answer took that long."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from alligator import Gator, Worker
from alligator.backends.base import Batch, Message, Reservation
from alligator.backends.locmem_backend import Client
from alligator.processes.board import Board

LEASE = 0.2
RAN: list[str] = []


class Late(Client):
    """Answers when what it hands out has gone to another worker."""

    gone: Reservation | None = None
    board: Board | None = None
    """Where a keeper says meanwhile that all is extended which it knows of."""

    def reserve(self, queue_names: Sequence[str], worker: str, **options: Any) -> Batch:
        batch = super().reserve(queue_names, worker, **options)
        while batch.reservations and self.gone is None:
            for held in super().reserve(queue_names, "another", lease=60.0).reservations:
                self.gone = held
                self.push_many(queue_names[0], [Message("t2", held.body.replace(b"t1", b"t2"))])
                if self.board is not None:
                    self.board.extended_at = time.monotonic()
        return batch


def note(name: str) -> None:
    RAN.append(name)


@pytest.mark.parametrize("is_supervised", [False, True])
def test_what_went_to_another_meanwhile_is_not_started(
    is_supervised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    RAN.clear()
    gator = Gator("locmem://", backend_class=Late)
    assert isinstance(gator.backend, Late)
    gator.backend.board = board = Board() if is_supervised else None
    with gator.options(task_id="t1") as opts:
        opts.task(note, "t1")

    Worker(gator, lease=LEASE, max_tasks=1, board=board).run_forever()

    assert RAN == ["t2"]
    assert "'t1' went to another worker before it could start" in caplog.text
