"""A store of one's own: the five documented methods, and no base class."""

from typing import Any


class FiveMethods:
    """Keeps what it is given, by id, in the order in which it came."""

    def __init__(self, conn_string: str) -> None:
        self.conn_string = conn_string
        self.queues: dict[str, dict[str, Any]] = {}

    def len(self, queue_name: str) -> int:
        return len(self._queue(queue_name))

    def drop_all(self, queue_name: str) -> None:
        self._queue(queue_name).clear()

    def push(self, queue_name: str, task_id: str, data: Any) -> str:
        assert task_id not in self._queue(queue_name), "two tasks of one id"
        self._queue(queue_name)[task_id] = data
        return task_id

    def pop(self, queue_name: str) -> Any:
        waiting = self._queue(queue_name)
        return waiting.pop(next(iter(waiting))) if waiting else None

    def get(self, queue_name: str, task_id: str) -> Any:
        return self._queue(queue_name).pop(task_id, None)

    def _queue(self, queue_name: str) -> dict[str, Any]:
        return self.queues.setdefault(queue_name, {})
