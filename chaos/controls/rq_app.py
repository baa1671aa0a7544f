"""The program for RQ, set up as its documentation advises: what fails, or is abandoned, is tried again."""

import os
from importlib import import_module
from typing import Any

from chaos.controls import work as tasks

_redis: Any = import_module("redis")
_rq: Any = import_module("rq")  # it is not installed where this is checked

queue: Any = _rq.Queue("default", connection=_redis.Redis.from_url(os.environ["CONTROL_DSN"]))


def push(journal: str, name: str, seconds: float) -> None:
    """Queue a task."""
    queue.enqueue(
        tasks.work, journal, name, seconds, job_id=name, retry=_rq.Retry(max=3), result_ttl=3600
    )
