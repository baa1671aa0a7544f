"""Whether a queue is as fast with a million tasks waiting as with ten thousand, on this machine.

    python benchmarks/waiting.py [--few N] [--many N] [--rounds N] [--store NAME ...]

Both queues are there at the same time, each in a store of its own, and calls go to them by turns: whatever else
the machine does meets both alike. Each round has a ratio; the median is printed, and where half of them lie.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import jobs
from stores import FINDING, LARGE, STORES, opened, size_of

from alligator import Gator, Task
from alligator.backends.base import Ack, Message, Settlement, as_bytes
from alligator.processes.pacing import LARGEST_BATCH as BATCH
from alligator.utils import new_id

BATCHES = 8
"""To take in a round, and to push."""
SINGLES = 90
"""Tasks to push one by one in a round; and so many are canceled."""
ENOUGH = 0.9
"""The ratio below which the longer queue is slower, if it is no chance: if three rounds of four are below 1."""

Call = Callable[[], object]


class Queue:
    """A queue whose tasks are known, in their order. It prepares calls, which are then made and timed."""

    def __init__(self, dsn: str) -> None:
        gator = Gator(dsn)
        self.name, self.backend = gator.queue_name, gator.backend
        self._ids: list[str] = []
        self._done: list[Settlement] = []
        task = Task()
        task.to_call(jobs.noop, 1)
        self._body = as_bytes(task.serialize())

    def fill(self, count: int) -> None:
        for at in range(0, count, 10_000):
            self._pushing(min(10_000, count - at))()

    def takes(self) -> list[Call]:
        """As a busy worker does: each acknowledges the batch before."""
        places = range(0, BATCHES * BATCH, BATCH)
        expected = [self._ids[place : place + BATCH] for place in places]
        del self._ids[: BATCHES * BATCH]
        return [partial(self._take, ids) for ids in expected]

    def pushes(self) -> list[Call]:
        return [self._pushing(BATCH) for _ in range(BATCHES)]

    def single_pushes(self) -> list[Call]:
        return [self._pushing(1) for _ in range(SINGLES)]

    def cancels(self, third: int) -> list[Call]:
        """Of tasks all over a third of the queue."""
        size = len(self._ids) // 3
        places = random.sample(range(third * size, (third + 1) * size), SINGLES // 3)
        ids = [self._ids[place] for place in places]
        for place in sorted(places, reverse=True):
            del self._ids[place]
        return [partial(self._cancel, task_id) for task_id in ids]

    def close(self) -> None:
        """Check that all is as it should be."""
        self.backend.settle(self._done)
        assert self.backend.len(self.name) == len(self._ids)
        self.backend.close()

    def _pushing(self, count: int) -> Call:
        messages = [Message(new_id(), self._body) for _ in range(count)]
        self._ids += [message.task_id for message in messages]
        return partial(self.backend.push_many, self.name, messages)

    def _take(self, expected: Sequence[str]) -> None:
        batch = self.backend.reserve(
            [self.name], "worker", limit=BATCH, lease=3600, settlements=self._done
        )
        self._done = [Ack(held) for held in batch.reservations]
        assert [held.task_id for held in batch.reservations] == expected

    def _cancel(self, task_id: str) -> None:
        assert self.backend.cancel(self.name, task_id)


STEPS: dict[str, tuple[int, Callable[[Queue], list[Call]]]] = {
    f"reserve and acknowledge, {BATCH} at once": (BATCH, Queue.takes),
    f"push, {BATCH} at once": (BATCH, Queue.pushes),
    "cancel in the first third": (1, lambda queue: queue.cancels(0)),
    "cancel in the middle third": (1, lambda queue: queue.cancels(1)),
    "cancel in the last third": (1, lambda queue: queue.cancels(2)),
    "push one by one": (1, Queue.single_pushes),
}
"""How many tasks a call is for, and the calls of a round; after all of them a queue is as long as before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--store", action="append", choices=FINDING)
    options = parser.parse_args()
    for name in options.store or LARGE:
        print(f"{name}: {STORES[name].__doc__}")
        with opened([name]) as few, opened([name]) as many:
            if few and many:
                compare(name, few[name], many[name], (options.few, options.many), options.rounds)


def compare(name: str, few_dsn: str, many_dsn: str, sizes: tuple[int, int], rounds: int) -> None:
    """Show a store's figures."""
    few, many = Queue(few_dsn), Queue(many_dsn)
    few.fill(sizes[0])
    before, began = size_of(name, many_dsn), time.monotonic()
    many.fill(sizes[1])
    took, each = time.monotonic() - began, (size_of(name, many_dsn) - before) / sizes[1]
    print(
        f"  {sizes[1]:,} tasks queued in {took:.0f} s{f', {each:.0f} bytes each' if each else ''}"
    )
    print(f"  {'tasks/s':40}{sizes[0]:>10,}{sizes[1]:>12,}   ratio   half of them")
    figures: dict[str, list[tuple[float, float]]] = {what: [] for what in STEPS}
    for _ in range(rounds):
        for what, (tasks, calls) in STEPS.items():
            seconds = by_turns(calls(few), calls(many))
            figures[what].append((tasks / seconds[0], tasks / seconds[1]))
    few.close()
    many.close()
    for what, pairs in figures.items():
        show(what, pairs)


def by_turns(few: Sequence[Call], many: Sequence[Call]) -> tuple[float, float]:
    """Make calls; return how long one takes here and there."""
    seconds = [0.0, 0.0]
    for pair in zip(few, many, strict=True):
        # First the one or the other: what a call leaves to be done must not always meet the same one.
        for which in random.sample((0, 1), 2):
            began = time.perf_counter()
            pair[which]()
            seconds[which] += time.perf_counter() - began
    return seconds[0] / len(few), seconds[1] / len(many)


def show(what: str, pairs: Sequence[tuple[float, float]]) -> None:
    few, many = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    low, ratio, high = statistics.quantiles([of_many / of_few for of_few, of_many in pairs], n=4)
    print(
        f"  {what:40}{few:10,.0f}{many:12,.0f}{ratio:8.2f}   {low:.2f} to {high:.2f}"
        f"{'   slower' if ratio < ENOUGH and high < 1 else ''}"
    )


if __name__ == "__main__":
    main()
