"""What the payload of a task tells to those who only look: nothing is imported, and nothing is trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

from alligator import payloads
from alligator.dependencies.edges import Name
from alligator.exceptions import UnreadableTask
from alligator.limits import Limit, limit_in


@dataclass(frozen=True, slots=True)
class Peek:
    """What is told of a task in its queue, or among the dead."""

    is_readable: bool = False
    """False: it has a form of its own, of which nothing is known."""
    callable: str = ""
    attempt: int = 1
    retries: int | None = None
    expires_at: float | None = None
    depends_on: tuple[Name, ...] = ()
    limit: Limit | None = None
    history: tuple[dict[str, Any], ...] = ()
    resumes: tuple[object, ...] = ()
    """The hand-outs from whose checkpoint it may resume."""
    push: str = ""
    signature: str = ""
    """As ``payloads.signature_of`` tells."""

    @classmethod
    def into(cls, body: bytes) -> Self:
        """Read a payload."""
        try:
            payload = payloads.decode(body)
        except UnreadableTask:
            return cls(signature=payloads.signature_of(body))
        options: dict[str, Any] = payload.get("options", {})
        history = tuple(_objects_in(options.get("history")))
        return cls(
            is_readable=True,
            callable=f"{payload['module']}.{payload['callable']}",
            attempt=int(payloads.number(options.get("attempt")) or 1),
            retries=payload["retries"],
            expires_at=payloads.number(options.get("expires")),
            depends_on=tuple(_names_in(options.get("depends_on"))),
            limit=limit_in(body) if "limit" in options else None,
            history=history,
            resumes=(options.get("resumes"), *(entry.get("token") for entry in history[-1:])),
            push=str(options.get("push", "")),
            signature=payloads.signature_of(body),
        )


def _names_in(told: Any) -> Iterator[Name]:
    for one in _list(told):
        match _list(one):
            case [str(queue_name), str(task_id)]:
                yield queue_name, task_id
            case _:
                pass


def _objects_in(told: Any) -> Iterator[dict[str, Any]]:
    for one in _list(told):
        if isinstance(one, dict):
            yield cast(dict[str, Any], one)


def _list(told: Any) -> list[object]:
    return cast(list[object], told) if isinstance(told, list) else []
