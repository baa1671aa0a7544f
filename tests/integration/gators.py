"""Configured Gators, for ``latergator module:gator``. The test names the store in the environment."""

import bz2
import json
import os
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


plain = Gator(_DSN)
skinny = Gator(_DSN, task_class=SkinnyTask)
elsewhere = Gator(_DSN, "elsewhere")
no_gator = "a string"
