"""Processes that push, with threads, all over one Gator.

``python -m chaos.pushing DSN JOURNAL NAME FORKS THREADS TASKS [SECONDS]``: the one that is started uses the
Gator first; then it forks the others. TASKS is how many each thread pushes; 0: without end. A task takes
SECONDS.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count

from alligator import Gator
from alligator.verify.journal import Journal
from tests.integration import jobs

LOOK = 0.2
"""Seconds between two looks whether the parent lives."""


def main(
    dsn: str, path: str, name: str, forks: str, threads: str, tasks: str, seconds: str = "0"
) -> int:
    """Push, and wait for all that was forked; return how many of them have failed."""
    gator, journal = Gator(dsn), Journal(path)
    push = partial(_push, gator, journal, float(seconds))
    push(f"{name}-first")
    first, pids = os.getpid(), list[int]()
    for fork in range(int(forks)):
        pid = os.fork()
        if pid == 0:
            _leave_without(first)
            os._exit(_push_in_threads(push, f"{name}-{fork}", int(threads), int(tasks)))
        pids.append(pid)
    failed = _push_in_threads(push, f"{name}-parent", int(threads), int(tasks))
    return failed + sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)


def _push(gator: Gator, journal: Journal, seconds: float, name: str) -> None:
    """Push a task, and ask for it: the answer has to be of this one, and of no other thread's."""
    journal.note("push", name)
    with gator.options(task_id=name) as opts:
        task = opts.task(jobs.work, journal.path, name, seconds)
    journal.note("pushed", name)
    assert gator.len() >= 0
    if gator.backend.can_find:
        found = gator.backend.find(gator.queue_name, task.task_id)
        assert found is None or f'"{name}"'.encode() in found.body, f"{name} is {found}"


def _leave_without(parent: int) -> None:
    """End this process soon after its parent, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _push_in_threads(push: Callable[[str], None], name: str, threads: int, tasks: int) -> int:
    """Push in this thread, which may have used the Gator before a fork, and others; return how many failed."""
    failed = list(range(threads))

    def run(thread: int) -> None:
        numbers: Iterable[int] = range(tasks) if tasks else count()
        for number in numbers:
            push(f"{name}-{thread}-{number}")
        failed.remove(thread)

    others = [threading.Thread(target=run, args=(thread,)) for thread in range(1, threads)]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
