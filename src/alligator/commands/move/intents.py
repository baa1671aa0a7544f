"""What a move writes in the new store of a task that is about to come."""

import base64
from dataclasses import dataclass

from alligator import payloads
from alligator.backends.base import NEVER, Follow


@dataclass(frozen=True, slots=True)
class Intent:
    """What is written in the new store of a task that is about to come."""

    move: bytes
    parked_until: float
    """The moment by which those of this move are known there, until they are due."""
    number: int
    """Its place among those that are moved together."""
    due_at: float
    follow: Follow | None

    def written(self) -> bytes:
        """Return the record."""
        follow = self.follow and [self.follow.task_id, *map(_as_text, self.follow[1:])]
        due_at = None if self.due_at == NEVER else self.due_at
        told = {
            "move": self.move.decode(),
            "parked_until": self.parked_until,
            "n": self.number,
            "due_at": due_at,
            "follow": follow,
        }
        return payloads.encode(told).encode()

    @classmethod
    def read(cls, value: bytes) -> "Intent | None":
        """Read a record; None: there is no sense in it."""
        told = payloads.object_in(value)
        parked_until, n = map(payloads.number, (told.get("parked_until"), told.get("n")))
        due_at = NEVER if told.get("due_at", 0) is None else payloads.number(told.get("due_at"))
        if parked_until is None or n is None or due_at is None:
            return None
        try:
            follow = told["follow"] and Follow(
                str(told["follow"][0]), *map(base64.b64decode, told["follow"][1:])
            )
            return cls(str(told["move"]).encode(), parked_until, int(n), due_at, follow or None)
        except (ValueError, TypeError, LookupError):
            return None


def _as_text(body: bytes) -> str:
    return base64.b64encode(body).decode()
