"""Queues tasks in another system: ``python -m chaos.controls.producer APP JOURNAL SECONDS < NAMES``.

A push that the store does not answer is not repeated: the store could not tell the second one.
"""

import os
import sys
import time
from importlib import import_module
from typing import Any

from alligator.verify.journal import Journal


def main(app_name: str, journal_path: str, seconds: str) -> None:
    """Queue a task for each line of standard input."""
    app: Any = import_module(app_name)
    redis: Any = import_module("redis")
    journal = Journal(journal_path)
    for line in sys.stdin:
        name = line.strip()
        journal.note("push", name)
        try:
            app.push(journal_path, name, float(seconds))
        except redis.RedisError:
            _wait_for(redis)
        else:
            journal.note("pushed", name)


def _wait_for(redis: Any) -> None:
    """Wait until the server answers again."""
    client: Any = redis.Redis.from_url(os.environ["CONTROL_DSN"])
    while True:
        try:
            client.ping()
        except redis.RedisError:
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
