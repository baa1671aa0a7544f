"""Configured Gators, for ``latergator module:gator``. The test names the store in the environment."""

import bz2
import json
import os
from importlib import import_module
from typing import Any, Self

from alligator import Gator, Task
from alligator.utils import determine_module, determine_name, import_attr
from tests.integration import jobs as jobs  # here already, so that no task waits for its import

_DSN = os.environ["SCENE_DSN"]


class SkinnyTask(Task):
    """A task with a form of its own in the queue: small, and in bytes that are no text."""

    def serialize(self) -> bytes:
        assert self.func is not None
        data: dict[str, Any] = {
            "task_id": self.task_id,
            "retries": self.retries,
            "module": determine_module(self.func),
            "callable": determine_name(self.func),
            "args": self.func_args,
            "kwargs": self.func_kwargs,
        }
        return bz2.compress(json.dumps(data).encode())

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        assert isinstance(data, bytes)
        fields: dict[str, Any] = json.loads(bz2.decompress(data))
        task = cls(task_id=fields["task_id"], retries=fields["retries"])
        func = import_attr(fields["module"], fields["callable"])
        task.to_call(func, *fields["args"], **fields["kwargs"])
        return task


class Careless:
    """A client of the five documented methods: it takes a task out before it runs."""

    def __init__(self, conn_string: str) -> None:
        redis: Any = import_module("redis")  # here, for other Gators need it not
        self._redis = redis.Redis.from_url(conn_string)

    def len(self, queue_name: str) -> int:
        return int(self._redis.llen(queue_name))

    def drop_all(self, queue_name: str) -> None:
        self._redis.delete(queue_name)

    def push(self, queue_name: str, task_id: str, data: str) -> str:
        self._redis.rpush(queue_name, data)
        return task_id

    def pop(self, queue_name: str) -> Any:
        return self._redis.lpop(queue_name)

    def get(self, queue_name: str, task_id: str) -> None:
        raise NotImplementedError


plain = Gator(_DSN)
skinny = Gator(_DSN, task_class=SkinnyTask)
elsewhere = Gator(_DSN, "elsewhere")
if _DSN.startswith("redis"):
    careless = Gator(_DSN, backend_class=Careless)
guarded = Gator(
    _DSN, keys=["not for production: 32 characters"], allow="shop.*", options={"delay_by": 60}
)
no_gator = "a string"
