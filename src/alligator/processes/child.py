"""One worker process of a supervisor: ``python -m alligator.processes.child CONTROL BOARD STACKS``.

CONTROL is the descriptor of a pipe from the parent, which writes lines: first JSON, the settings; later "s" to
leave, "c", a queue, an id and a token, to cancel a task that runs, or "l" and a number, to be told the stacks.
The pipe ends when the parent has died. BOARD is shared memory, where the parent reads what is held, STACKS a
file where it reads what this process, or faulthandler, says of stacks.
"""

import json
import logging
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from alligator.commands.targets import found_here, gator_at
from alligator.printable import Formatter
from alligator.processes.board import Board, End
from alligator.processes.inquiry import ASK, answer, heed, meet_signal
from alligator.processes.keeper import TICK, Keeper
from alligator.utils import take_default
from alligator.workers import Worker

STOP, HURRY = b"s\n", b"h\n"
CANCEL = b"c "
LAST_CALL = 1.0
"""Seconds for the store to take back what runs, once the parent has died and it is time to end."""
LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that tell parent or child to leave; but for those that were ignored before, as nohup does it."""

log = logging.getLogger("alligator.processes.child")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker process is told."""

    target: str = field(repr=False)
    results: str | None = field(repr=False)
    """Where results are kept, if that is another store; ``target`` may say so itself."""
    worker_id: str
    queues: list[str]
    weights: list[int]
    """One for each queue; or none, and the queues come in strict order."""
    max_tasks: int
    max_memory: int
    threads: int
    concurrency: int
    burst: bool
    lease: float
    grace: float
    nap: float
    level: int
    """Of logging: DEBUG also prints results, WARNING prints no more than problems."""
    tells_failures: bool = True
    """Whether to log each task that fails."""
    allow: list[str] | None = None
    """Patterns of what may run; None: what ``target`` says."""

    def line(self) -> bytes:
        """Return them as a line for the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"


def canceling(queue_name: str, task_id: str, token: str) -> bytes:
    """Return the line that says that a task was canceled which that hand-out holds."""
    # None of them has control characters, so this separator is free.
    return CANCEL + "\0".join((queue_name, task_id, token)).encode() + b"\n"


def canceled(line: bytes) -> tuple[str, str, str]:
    """Return the queue, the id and the token that such a line names."""
    queue_name, task_id, token = line[len(CANCEL) : -1].decode().split("\0")
    return queue_name, task_id, token


class _Supervised(Worker):
    """Says as much as the settings want."""

    level = logging.INFO

    def starting(self) -> None:
        if self.level <= logging.INFO:
            super().starting()

    def stopping(self) -> None:
        if self.level <= logging.INFO:
            super().stopping()

    def result(self, result: object) -> None:
        if self.level <= logging.DEBUG:
            super().result(result)


def main(control: int, board_file: int, stacks_file: int) -> None:
    """Work until told to leave."""
    heed(stacks_file)
    board = Board(mmap.mmap(board_file, Board.size()))
    lines = _lines(control, board)
    settings = Settings(**json.loads(_first(lines)))
    set_up_output(settings.level)
    if not settings.tells_failures:
        logging.getLogger("alligator.task").setLevel(logging.CRITICAL)
    found_here()
    for inherited in (control, board_file, stacks_file):
        os.set_inheritable(inherited, False)  # nothing that a task starts shall have them
    gator = gator_at(settings.target, settings.queues[0], settings.results)
    worker = _Supervised(
        gator,
        max_tasks=settings.max_tasks,
        to_consume=_to_consume(settings),
        nap_time=settings.nap,
        lease=settings.lease,
        grace=settings.grace,
        burst=settings.burst,
        threads=settings.threads,
        concurrency=settings.concurrency,
        max_memory=settings.max_memory,
        allow=settings.allow,
        board=board,
        worker_id=settings.worker_id,
    )
    worker.level = settings.level
    obeying = (lines, worker, board, stacks_file)
    threading.Thread(target=_obey, args=obeying, daemon=True).start()
    _leave_at_signal(worker)
    worker.run_forever()
    board.end = End.USED_UP if worker.is_used_up else End.FINISHED
    # Python waits for threads that tasks have left behind; so do we, but not for ever.
    end = threading.Timer(settings.grace, os._exit, [0])
    end.daemon = True
    end.start()


def _to_consume(settings: Settings) -> list[str] | dict[str, int]:
    if settings.weights:
        return dict(zip(settings.queues, settings.weights, strict=True))
    return settings.queues


def set_up_output(level: int) -> None:
    """Log to standard error; and print and log whatever a task comes up with, if need be escaped."""
    _occupy_standard_files()
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


def _occupy_standard_files() -> None:
    """Open what of 0, 1 and 2 was closed: else a pipe or a board gets that number, and is printed into."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)


def _obey(lines: Iterator[bytes], worker: Worker, board: Board, stacks_file: int) -> None:
    """Do what the parent says, until it has died: then give back what can be, and end before the leases do."""
    meet_signal()
    for line in lines:
        if line == STOP:
            worker.stop()
        elif line == HURRY:
            worker.hurry()
        elif line.startswith(ASK):
            _answer(int(line[len(ASK) :]), worker, stacks_file)
        else:
            worker.cancel(*canceled(line))
    _end_alone(worker, board)


def _end_alone(worker: Worker, board: Board) -> None:
    stays = min(worker.grace, worker.lease)
    leave_at = time.monotonic() + stays
    # A store that does not answer is asked again for as long as the grace lasts, and may keep a call waiting.
    end = threading.Timer(stays + LAST_CALL, os._exit, [1])
    end.daemon = True
    try:
        end.start()
        log.warning("The parent process has died: leaving")
        worker.stop()
        keeper = Keeper(worker.gator.backend, worker.lease)
        worker.give_back(started=False)
        while time.monotonic() < leave_at:
            keeper.tick([board])
            time.sleep(TICK)  # a thread of its own, with nothing else to wait for
        worker.give_back(started=True)
    finally:
        os._exit(1)


def _answer(question: int, worker: Worker, file: int) -> None:
    try:
        answer(file, question, worker.stacks())
    except Exception:  # nothing that was only asked may keep from heeding what is told
        log.exception("Cannot tell what runs here")


def _leave_at_signal(worker: Worker) -> None:
    """Leave at a signal, and never in haste: a service manager may signal parent and child alike.

    A handler that does nothing would do for what the parent sends; to ignore the signals would not: what a task
    starts would inherit that. What was ignored before stays so.
    """
    pid = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() == pid:
            worker.stop()
        else:
            take_default(number)

    for number in LEAVE:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, leave)


def _first(lines: Iterator[bytes]) -> bytes:
    try:
        return next(lines)
    except StopIteration:
        sys.exit("alligator.processes.child is started by latergator, not by hand.")


def _lines(file: int, board: Board) -> Generator[bytes]:
    """Give each line as it comes, until the end; the board tells when we wait for one."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    rest = b""
    while True:
        board.turn()
        poll.poll()
        board.turn()  # before anything is read: to read takes no lock of the interpreter, but this does
        chunk = os.read(file, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
