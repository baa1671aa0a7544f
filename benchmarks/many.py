"""What many delayed tasks, and many dependents of one, cost the others on this machine.

    python benchmarks/many.py [--delayed N] [--tasks N] [--dependents N] [--store NAME ...]

For each store: the rate of finished tasks with N delayed ones beside them, against that of another such store
without, by turns; and how long it takes to queue N tasks that wait for one, and until the last of them has run
after that one is done.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import jobs
from bench import QuietWorker, push_batch
from stores import FINDING, LARGE, STORES, opened, rate

from alligator import Gator, Task
from alligator.backends.base import Message, as_bytes

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--delayed", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks to finish in a round")
    parser.add_argument("--dependents", type=int, default=10_000)
    parser.add_argument("--store", action="append", choices=FINDING)
    options = parser.parse_args()
    for name in options.store or LARGE:
        print(f"\n{name}: {STORES[name].__doc__}")
        with opened([name]) as without, opened([name]) as beside:
            if without and beside:
                gator = Gator(beside[name])
                beside_delayed(Gator(without[name]), gator, options.delayed, options.tasks)
                dependents_of_one(gator, options.dependents)


def beside_delayed(without: Gator, beside: Gator, count: int, tasks: int) -> None:
    """Show what delayed tasks cost those that wait."""
    began = time.monotonic()
    push_delayed(beside, count)
    print(f"  {count:,} delayed tasks queued in {time.monotonic() - began:.1f} s")
    pairs = [(finished(without, tasks), finished(beside, tasks)) for _ in range(ROUNDS)]
    show("finished/s without delayed tasks", [rates[0] for rates in pairs])
    show("finished/s beside them", [rates[1] for rates in pairs])
    print(f"    ratio {statistics.median(after / before for before, after in pairs):.2f}")
    began = time.monotonic()
    beside.backend.drop_all(beside.queue_name)
    print(f"  dropped in {time.monotonic() - began:.1f} s")


def push_delayed(gator: Gator, count: int) -> None:
    task = Task()
    task.to_call(jobs.noop, 1)
    body = as_bytes(task.serialize())
    for start in range(0, count, 10_000):
        messages = [Message(f"d{start + number}", body, 3600.0) for number in range(10_000)]
        gator.backend.push_many(gator.queue_name, messages[: count - start])


def finished(gator: Gator, tasks: int) -> float:
    push_batch(gator, tasks)
    worker = QuietWorker(gator, max_tasks=tasks)
    return rate(tasks, worker.run_forever)


def dependents_of_one(gator: Gator, count: int) -> None:
    """Show what it takes to release the dependents of a task."""
    began = time.monotonic()
    with gator.batch() as batch:
        first = batch.task(jobs.noop, 0)
        with batch.options(depends_on=[first]) as opts:
            for number in range(count):
                opts.task(jobs.noop, number)
    print(f"  {count:,} dependents queued in a batch in {time.monotonic() - began:.2f} s")
    began = time.monotonic()
    QuietWorker(gator, burst=True).run_forever()
    took = time.monotonic() - began
    assert gator.len() == 0, gator.backend.count(gator.queue_name)
    print(f"  all run {took:.2f} s after the worker began with the first ({count / took:,.0f}/s)")


def show(what: str, rates: Sequence[float]) -> None:
    print(
        f"  {what:34} {statistics.median(rates):10,.0f}   ({min(rates):,.0f} to {max(rates):,.0f})"
    )


if __name__ == "__main__":
    main()
