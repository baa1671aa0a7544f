"""The demo: measure every Python file of the standard library, one task a file, on SQLite.

No server is needed. The tasks wait in one SQLite database and write what they find into another; two
worker processes run them. Files that do not parse (the library has some, to test Python with) fail, are
tried again, fail again, and are kept as dead letters.

    python examples/demo/run.py [--dir FOLDER]
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alligator import Gator
from alligator.exceptions import AlligatorException, InvalidArguments
from alligator.printable import printable
from measure import make_results, measure

HERE = Path(__file__).resolve().parent
OTHERS_CODE = {"site-packages", "dist-packages", "__pycache__"}
OUR_OWN = "does_not_parse.txt"
LARGEST = 10
FAILURES = 3
"""How many are shown of the largest files, and of those that failed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure Python files, one task a file.")
    parser.add_argument("--dir", metavar="FOLDER", help="where (default: the standard library)")
    asked = parser.parse_args().dir
    folder = Path(asked or sysconfig.get_path("stdlib")).expanduser().resolve()
    names = python_files(folder)

    work = Path(tempfile.mkdtemp(prefix="alligator-demo-"))
    results, dsn = work / "results.db", f"sqlite://{work / 'queue.db'}"
    say(f"One task for each Python file of {folder}" + ("" if asked else f", and {OUR_OWN}"))
    say(f"The queue and the results are in {work}\n")

    # Held open while the workers write: the last to close a database has to tidy it up.
    with closing(make_results(str(results))) as database:
        gator = Gator(dsn)
        start = time.monotonic()
        count = queue_all(gator, folder, names, str(results))
        if not asked:  # some systems leave out the library's files that do not parse
            count += queue_all(gator, HERE, [OUR_OWN], str(results))
        say(f"{tasks(count)} queued in {time.monotonic() - start:.1f} s. Running them:\n")

        say(f"$ {typed(workers(dsn), for_tasks=True)}")
        start = time.monotonic()
        ended = run(workers(dsn))
        seconds = time.monotonic() - start
        if ended.stopped_by:
            say(f"\nStopped, with {tasks(gator.len())} still queued. The same command goes on.")
            return 128 + ended.stopped_by
        if ended.code != 0:
            say(f"\nThe workers ended with exit code {ended.code}.")
            return 1
        return report(database, gator, count, seconds)


def python_files(folder: Path) -> list[str]:
    """Return the Python files in a folder and below, relative to it, but for what is installed there."""
    if not folder.is_dir():
        raise SystemExit(f"No such folder: {folder}")
    names = sorted(_python_files(folder))
    if not names:
        raise SystemExit(f"No Python files (*.py) in {folder}")
    return names


def _python_files(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in OTHERS_CODE and name[0] != "."]
        for name in files:
            path = Path(place, name)
            if path.suffix == ".py" and path.is_file():  # a link may lead nowhere
                yield str(path.relative_to(folder))


def queue_all(gator: Gator, folder: Path, names: Iterable[str], results: str) -> int:
    """Queue a task for each file. Returns how many."""
    count = 0
    with gator.options(retries=1) as opts:
        for name in names:
            try:
                opts.task(measure, str(folder), name, results)
            except InvalidArguments as err:  # a file's name may be no text at all
                say(f"Left out {name!r}: {printable(str(err))}")
            else:
                count += 1
    return count


def workers(dsn: str) -> list[str]:
    return [*command("latergator"), "--workers", "2", "--burst", "--progress", dsn]


@dataclass(frozen=True)
class Ended:
    """How a program ended, and the signal, if any, by which someone asked us to stop."""

    code: int
    stopped_by: int


def run(words: list[str]) -> Ended:
    """Run a program to its end, its output going where ours goes."""
    stopped_by = 0
    program = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": python_path()})

    def stop(number: int, frame: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        # ^C in a terminal goes to all of its programs, and a second signal would mean "hurry".
        if number != signal.SIGINT or not is_in_foreground():
            program.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return Ended(program.wait(), stopped_by)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal
        return False


def python_path() -> str:
    """Return where the workers look for modules: here is the one of our task."""
    return os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))


def report(database: sqlite3.Connection, gator: Gator, count: int, seconds: float) -> int:
    """Tell what came of the tasks. Returns our exit code."""
    measured = database.execute("SELECT count(*) FROM files").fetchone()[0]
    dead = gator.backend.count(gator.queue_name).dead
    rate = count / seconds
    say(
        f"\n{tasks(count)} in {seconds:.1f} s, {rate:,.0f} a second, with the workers' start and end.\n"
    )
    if measured:
        tell_largest(database, measured)
    if dead:
        tell_dead(gator, dead)
    if measured + dead != count:
        say(f"\n{tasks(count - measured - dead)} missing here; still queued: {gator.len():,}.")
        return 1
    return 0


def tell_largest(database: sqlite3.Connection, measured: int) -> None:
    def row(name: str, *numbers: int) -> None:
        columns = "".join(f"{number:>11,}" for number in numbers)
        say(f"{columns}  {shortened(printable(name), width() - 35)}")

    say(f"{'lines':>11}{'functions':>11}{'branches':>11}  file")
    for name, *numbers in database.execute(
        "SELECT name, lines, functions, branches FROM files ORDER BY lines DESC, name LIMIT ?",
        (LARGEST,),
    ):
        row(name, *numbers)
    say("  " + "-" * (width() - 2))
    totals = database.execute("SELECT sum(lines), sum(functions), sum(branches) FROM files")
    row(f"all {measured:,} files", *totals.fetchone())


def tell_dead(gator: Gator, dead: int) -> None:
    say(f"\n{dead:,} failed, tried once more, and kept as dead letters:")
    letters = gator.backend.dead(gator.queue_name, limit=FAILURES)
    for letter in letters:
        _, name, _ = json.loads(letter.body)["args"]
        error = json.loads(letter.note)["error"].splitlines()[-1].strip()
        say(f"  {shortened(printable(name), width() - 2)}")
        say(f"    {textwrap.shorten(printable(error), width() - 4, placeholder='...')}")
    if dead > len(letters):
        say(f"  and {dead - len(letters):,} more")
    look = [*command("alligator"), "dead", gator.dsn.url]
    say("\nTo list them, to look at one, to try it again:")
    for words in ([], ["show", letters[0].task_id], ["retry", letters[0].task_id]):
        say(f"  {typed([*look, *words])}")
    say("and to run what is to be tried again:")
    say(f"  {typed(workers(gator.dsn.url), for_tasks=True)}")


def command(name: str) -> list[str]:
    """Return how to start one of Alligator's commands."""
    installed = Path(sys.executable).with_name(name)
    if installed.exists():
        return [str(installed)]
    module = {"alligator": "alligator.cli", "latergator": "alligator.latergator"}[name]
    return [sys.executable, "-m", module]


def typed(words: list[str], *, for_tasks: bool = False) -> str:
    """Return how to type a command here, in a shell; ``for_tasks`` if it must find our task's module."""
    program, *arguments = words
    if shutil.which(Path(program).name) == program:
        program = Path(program).name
    text = shlex.join([from_here(program), *arguments])
    return f"PYTHONPATH={shlex.quote(from_here(str(HERE)))} {text}" if for_tasks else text


def from_here(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def width() -> int:
    return min(shutil.get_terminal_size().columns, 100)


def shortened(text: str, length: int) -> str:
    """Return the end of a text that is too long: of a path, it says more than the beginning."""
    return text if len(text) <= length else "..." + text[-max(length - 3, 1) :]


def tasks(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"


def say(text: str) -> None:
    # At once: the workers write to the same place.
    print(text.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AlligatorException as err:
        sys.exit(printable(str(err)))
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
