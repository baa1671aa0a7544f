"""How fast Alligator is on this machine, beside a floor: the bare calls that its guarantee needs.

    python benchmarks/bench.py [--tasks N] [--rounds N] [--store NAME ...]

Each store's figures are taken in turn, several rounds; the median is printed. Machines differ, and one machine
from hour to hour: compare within a run, never between runs.
"""

import argparse
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alligator import Gator, Worker, version

sys.path.insert(0, str(Path(__file__).parent))  # for workers, too, the jobs are a module

import jobs
from stores import FLOORS, STORES, Floor, opened, rate

Figures = dict[str, float]


class QuietWorker(Worker):
    """Prints nothing: what a worker costs, not what a terminal does."""

    def starting(self) -> None:
        pass

    def stopping(self) -> None:
        pass

    def result(self, result: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks to finish in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", action="append", choices=list(STORES))
    options = parser.parse_args()

    print(
        f"Alligator {version()}, Python {platform.python_version()}, SQLite "
        f"{sqlite3.sqlite_version}; no-op tasks, {options.rounds} rounds, medians.\n"
    )
    with opened(options.store) as dsns:
        rounds: dict[str, list[Figures]] = {name: [] for name in dsns}
        for _ in range(options.rounds):
            for name, dsn in dsns.items():
                rounds[name].append(measure(dsn, options.tasks, FLOORS.get(name)))
    for name, figures in rounds.items():
        show(name, figures)


def measure(dsn: str, tasks: int, floor: Floor | None) -> Figures:
    """Take a store's figures once."""
    gator = Gator(dsn)
    singles = tasks // 5
    figures = {"enqueue one by one, tasks/s": rate(singles, lambda: push_singly(gator, singles))}
    if floor is not None:
        figures["  floor: bare writes/s"] = floor(dsn, singles)
    figures["enqueue in batches, tasks/s"] = rate(tasks, lambda: push_batch(gator, tasks))
    finished = gator.len()
    figures["finished, one process, tasks/s"] = rate(
        finished, lambda: QuietWorker(gator, burst=True).run_forever()
    )
    if gator.backend.spans_processes:
        push_batch(gator, tasks)
        # Its start-up is in it: about 0.3 s.
        figures["finished, latergator --workers 2, tasks/s"] = rate(
            tasks, lambda: latergator(dsn, "--workers", "2", "--burst", "--quiet").wait()
        )
        median, late = latency(gator)
        figures["idle to start, median, ms"] = median * 1000
        figures["idle to start, 99 %, ms"] = late * 1000
    gator.backend.close()
    return figures


def push_singly(gator: Gator, count: int) -> None:
    for number in range(count):
        gator.task(jobs.noop, number)


def push_batch(gator: Gator, count: int) -> None:
    with gator.batch() as batch:
        for number in range(count):
            batch.task(jobs.noop, number)


def latency(gator: Gator, samples: int = 200) -> tuple[float, float]:
    """Return the median and the 99th percentile of the seconds from push to start, on an idle worker."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "starts"
        journal.touch()
        worker = latergator(str(gator.dsn.url), "--quiet")
        try:
            for number in range(samples + 1):
                gator.task(jobs.stamp, str(journal), time.time())
                while journal.read_text().count("\n") <= number:
                    time.sleep(0.001)
                time.sleep(0.05)  # so that the worker is idle again
        finally:
            worker.terminate()
            worker.wait()
        waits = [float(line) for line in journal.read_text().splitlines()][1:]
    return statistics.median(waits), statistics.quantiles(waits, n=100)[98]


def latergator(dsn: str, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "alligator.latergator", dsn, *options]
    return subprocess.Popen(command, cwd=Path(__file__).parent)


def show(name: str, figures: list[Figures]) -> None:
    print(f"{name}: {STORES[name].__doc__}")
    for what in figures[0]:
        values = sorted(figure[what] for figure in figures)
        median = statistics.median(values)
        digits = 2 if what.endswith("ms") else 0
        spread = f"{values[0]:,.{digits}f} to {values[-1]:,.{digits}f}"
        print(f"  {what:<44}{median:>12,.{digits}f}   ({spread})")
    print()


if __name__ == "__main__":
    main()
