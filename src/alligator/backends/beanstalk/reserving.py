"""Reserving jobs over one connection, in few round trips however many tasks and tubes there are."""

from collections.abc import Sequence
from typing import Any

from alligator.backends.beanstalk.connection import Connection, is_error
from alligator.bell import Bell

FIRST = 16
"""Tasks to ask for in the first round trip of a large batch: where fewer are ready, many would be in vain."""


def look(connection: Connection, tubes: Sequence[str], limit: int) -> list[Any]:
    """Reserve what is ready now, in strict order of the tubes."""
    jobs: list[Any] = []
    for tube in _with_any_ready(connection, tubes):
        several = FIRST
        while len(jobs) < limit:
            watch = connection.watch([tube])
            count = min(several, limit - len(jobs))
            answers = connection.run([*watch, *[("reserve", 0)] * count])
            got = [one for one in answers[len(watch) :] if not is_error(one)]
            jobs += got
            if len(got) < count:
                break
            several *= 4
    return jobs


def wait_for(
    connection: Connection, tubes: Sequence[str], limit: int, seconds: int, bell: Bell
) -> list[Any] | None:
    """Reserve what comes within some seconds, if it comes to one of the tubes; None if the bell interrupts."""
    connection.run(connection.watch(tubes))
    answer = connection.wait(("reserve", seconds), seconds + 1.0, bell)
    if answer is None:
        return None
    if is_error(answer):
        return []
    return [answer, *(look(connection, tubes, limit - 1) if limit > 1 else [])]


def _with_any_ready(connection: Connection, tubes: Sequence[str]) -> Sequence[str]:
    """Return the tubes in which to look: one round trip for each that is empty would be many."""
    if len(tubes) == 1:
        return tubes
    answers = connection.run([("stats_tube", tube) for tube in tubes])
    return [
        tube
        for tube, stats in zip(tubes, answers, strict=True)
        if not is_error(stats) and stats["current-jobs-ready"]
    ]
