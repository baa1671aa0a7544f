"""Reading stacks: those of this process, and what faulthandler writes of another one."""

import asyncio
import faulthandler
import inspect
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from alligator.backends.base import Reservation
from alligator.deaths import MAX_STACK
from alligator.dumps import Frame, dump_of_this, read_dump
from alligator.printable import Formatter
from alligator.processes.activity import Activity, activity_of
from alligator.processes.board import Board, Mark, Posted, State
from alligator.processes.inquiry import ASK, SIGNAL, Inquiry, answer, crash_in, stacks_in
from alligator.processes.stacks import MAX_FRAMES, Begun, stacks_of, text_of
from alligator.testing.stores import until


def posted(number: int, thread: int, state: State = State.STARTED) -> Posted:
    held = Reservation("all", f"t{number}", b"", "token")
    return Posted(number, held, 0.0, state, Mark.NONE, thread=thread)


def functions(stack: str) -> list[str]:
    return [line.rpartition(" in ")[2] for line in stack.splitlines()]


# Of this process.


@contextmanager
def waiting() -> Generator[threading.Thread]:
    """A thread that waits while the block runs."""
    gate = threading.Event()
    thread = threading.Thread(target=wait_in_here, args=[gate])
    thread.start()
    try:
        yield thread
    finally:
        gate.set()
        thread.join()


def wait_in_here(gate: threading.Event) -> None:
    gate.wait()


def test_a_thread_has_its_stack() -> None:
    with waiting() as thread:
        stacks = stacks_of([Begun(7, thread.ident or 0), Begun(8, threading.get_ident())])

    assert "wait_in_here" in functions(stacks[7])
    assert "test_a_thread_has_its_stack" in functions(stacks[8])


def test_a_thread_that_has_ended_has_none() -> None:
    assert stacks_of([Begun(7, 12345)]) == {7: ""}


def test_a_coroutine_has_the_stack_of_what_it_waits_for() -> None:
    async def outer() -> None:
        await inner()

    async def inner() -> None:
        await asyncio.Future()

    async def look() -> str:
        coroutine = outer()
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0)
        [stack] = stacks_of([Begun(1, 0, coroutine)]).values()
        task.cancel()
        return stack

    assert functions(asyncio.run(look())) == ["outer", "inner"]


def test_one_that_waits_for_an_old_generator_has_its_stack() -> None:
    import types

    @types.coroutine
    def old() -> Generator[None]:
        yield

    async def new() -> None:
        await old()

    coroutine = new()
    coroutine.send(None)
    [stack] = stacks_of([Begun(1, 0, coroutine)]).values()
    coroutine.close()

    assert functions(stack) == ["new", "old"]


def test_a_coroutine_that_runs_has_the_stack_of_its_thread() -> None:
    coroutines: list[Any] = []

    async def run() -> dict[int, str]:
        return stacks_of([Begun(1, threading.get_ident(), coroutines[0])])

    coroutines.append(run())
    [stack] = asyncio.run(coroutines[0]).values()

    assert "run" in functions(stack)
    assert "test_a_coroutine_that_runs_has_the_stack_of_its_thread" in functions(stack)


def test_one_that_has_ended_or_not_begun_does_no_harm() -> None:
    async def nothing() -> None:
        pass

    fresh, ended = nothing(), nothing()
    asyncio.run(ended)

    stacks = stacks_of([Begun(1, 0, fresh), Begun(2, 0, ended), Begun(3, 0, object())])
    fresh.close()

    assert (stacks[2], stacks[3]) == ("", "")
    assert inspect.getcoroutinestate(ended) == inspect.CORO_CLOSED


def test_of_a_deep_recursion_the_innermost_is_told() -> None:
    def dive(depth: int) -> str:
        if depth:
            return dive(depth - 1)
        return stacks_of([Begun(1, threading.get_ident())])[1]

    lines = dive(300).splitlines()

    assert len(lines) == MAX_FRAMES + 1
    assert lines[0] == "(at least 50 more)"
    assert "dive" in functions("\n".join(lines))


def test_of_a_hundred_threads_the_oldest_says_that_it_is_not_told() -> None:
    me = threading.get_ident()
    with ExitStack() as threads:
        oldest, *_, newest = [threads.enter_context(waiting()).ident or 0 for _ in range(101)]

        stacks = stacks_of([Begun(1, me), Begun(2, newest)])
        from_outside = stacks_in(dump_of_this(), [posted(1, me), posted(2, newest)])

    for found in (stacks, from_outside):
        assert found[1] == "(one of more than 100 threads: not told)"
        assert "wait_in_here" in functions(found[2])
    assert oldest != newest


# Of another one, by faulthandler.


def test_what_faulthandler_writes_is_read() -> None:
    with waiting() as thread:
        found = dump_of_this()
    stacks = stacks_in(found, [posted(1, thread.ident or 0), posted(2, threading.get_ident())])

    assert (found.current, found.fatal) == (threading.get_ident(), "")
    assert "wait_in_here" in functions(stacks[1])
    assert functions(stacks[2])[-1] == "dump_of_this"


@pytest.mark.parametrize("char", ["x", "\n", "é", "\U0001f600"])
def test_an_answer_that_would_be_too_long_tells_of_some(char: str) -> None:
    file = os.memfd_create("stacks")
    asked: list[bytes] = []
    inquiry = Inquiry(file, Board(), asked.append, lambda number: None, lambda: None)
    stacks = {number: f"{char * 20_000} of {number}" for number in range(1000)}

    answer(file, int(asked[0].removeprefix(ASK)), stacks)

    assert inquiry.tick()
    os.close(file)
    assert inquiry.stacks.keys() == stacks.keys()
    told = [stack for stack in inquiry.stacks.values() if stack]
    assert len(told) >= 5
    assert all(stack == stacks[number][-MAX_STACK:] for number, stack in enumerate(told))


@dataclass
class Suspect:
    """A child of which the parent sees what a test says."""

    is_asleep: bool = False
    seconds: float = 0.0
    now: float = 0.0
    turns: int = 1
    tasks: int = 0
    signals: list[int] = field(default_factory=list[int])
    on_look: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.board = Board()
        for _ in range(self.turns):
            self.board.turn()
        held = [posted(number, 0).reservation for number in range(1, self.tasks + 1)]
        self.board.post([(number, one, 0.0, State.STARTED) for number, one in enumerate(held, 1)])
        for number in range(1, self.tasks + 1):
            self.board.set_thread(number, 100 + number)

    def look(self) -> Activity:
        self.on_look()
        return Activity(self.is_asleep, self.seconds)

    @contextmanager
    def asked(self) -> Generator[Inquiry]:
        with tempfile.TemporaryFile() as file:
            yield Inquiry(
                file.fileno(),
                self.board,
                lambda line: None,
                self.signals.append,
                self.look,
                clock=lambda: self.now,
            )

    def after(self, now: float, seconds: float) -> None:
        """Let so much time go by, and so much of it a processor's for the child, since it was asked."""
        self.now, self.seconds = now, seconds


def test_where_all_sleep_a_call_into_c_that_sleeps_has_the_lock() -> None:
    child = Suspect(is_asleep=True)
    with child.asked() as inquiry:
        child.now = 0.1
        assert not inquiry.tick()
        assert child.signals == []  # it has hardly had the time
        child.now = 0.3
        assert not inquiry.tick()
        assert child.signals == [SIGNAL]
        child.now = 0.6
        assert not inquiry.tick()  # the handler has not written anything yet
        faulthandler.dump_traceback(inquiry.file)
        assert inquiry.tick()
    assert child.signals == [SIGNAL]  # once


@pytest.mark.parametrize(("tasks", "patience"), [(1, 0.25), (4, 0.4), (20, 1.2)])
def test_where_one_call_runs_longer_than_turns_would_take_it_has_the_lock(
    tasks: int, patience: float
) -> None:
    child = Suspect(tasks=tasks)
    with child.asked() as inquiry:
        child.after(patience - 0.01, 3.0)  # on four processors
        assert not inquiry.tick()
        child.after(1.5, patience - 0.01)
        assert not inquiry.tick()
        assert child.signals == []
        child.after(1.6, patience + 0.01)
        assert not inquiry.tick()
        assert child.signals == [SIGNAL]


@pytest.mark.parametrize("turns", [1, 2], ids=["has heard", "does something else"])
@pytest.mark.parametrize("is_asleep", [True, False])
def test_who_may_run_python_is_never_sent_the_signal(turns: int, is_asleep: bool) -> None:
    """Whether it has heard and does not get to answer, or is held up elsewhere."""
    child = Suspect(turns=turns, is_asleep=is_asleep)
    with child.asked() as inquiry:
        if turns == 1:
            child.board.turn()
        for now in range(20):
            child.after(now / 10, now / 10)
            assert not inquiry.tick()
        child.now = 3.1
        assert inquiry.tick()

    assert child.signals == []
    assert inquiry.stacks == {}


def test_nor_is_one_that_takes_the_lock_while_it_is_looked_at() -> None:
    child = Suspect(is_asleep=True)
    with child.asked() as inquiry:
        child.on_look = child.board.turn
        child.now = 1.0
        inquiry.tick()

    assert child.signals == []


def test_nor_is_one_that_is_stopped_or_has_no_processor() -> None:
    child = Suspect()
    with child.asked() as inquiry:
        child.now = 1.9
        assert not inquiry.tick()

    assert child.signals == []


def test_a_process_of_which_one_thread_runs_does_not_sleep() -> None:
    with waiting():
        activity = activity_of(os.getpid())

    assert activity is not None
    assert not activity.is_asleep
    assert 0 < activity.seconds < time.process_time() + 1  # without threads that have ended


def test_a_process_that_waits_sleeps_unless_it_is_stopped() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as program:
        until(lambda: is_asleep(program.pid), "it waits")
        os.kill(program.pid, signal.SIGSTOP)
        until(lambda: not is_asleep(program.pid), "it is stopped")
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        assert activity_of(program.pid) is None


def is_asleep(pid: int) -> bool:
    activity = activity_of(pid)
    return activity is not None and activity.is_asleep


def test_what_is_not_begun_has_no_stack() -> None:
    ident = threading.get_ident()
    assert stacks_in(dump_of_this(), [posted(1, ident, State.HELD)]) == {}


CRASH = """\
Fatal Python error: Segmentation fault

Current thread 0x000000000000002a (most recent call first):
  File "/app/shop.py", line 17 in <lambda>
  File "/app/a \\xe4 \\u2028.py", line ??? in charge

Thread 0x000000000000002b [alligator-0] (most recent call first):
  <no Python frame>

Thread 0x000000000000002c (most recent call first):
  File "/app/other.py", line 3 in wait
  ...

Current thread's C stack trace (most recent call first):
  Binary file "/usr/lib/libc.so", at abort+0x1 [0x2a]

Extension modules: numpy.core, _cffi (total: 2)
"""


def crashed(text: str, *tasks: Posted) -> tuple[str, dict[int, str]]:
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        return crash_in(file.fileno(), tasks)


def test_a_crash_is_told_of_the_task_that_was_there() -> None:
    where, stacks = crashed(CRASH, posted(1, 0x2A), posted(2, 0x2C), posted(3, 0x2B))

    crash = (
        'File "/app/a \\xe4 \\u2028.py", line ?, in charge\n'
        'File "/app/shop.py", line 17, in <lambda>\n'
        "Segmentation fault"
    )
    assert where == crash
    assert stacks == {1: crash, 2: 'File "/app/other.py", line 3, in wait', 3: ""}


def test_of_what_shares_the_event_loop_that_is_said() -> None:
    stacks = stacks_in(read_dump(CRASH), [posted(1, 0x2C), posted(2, 0x2C)])

    assert stacks[1] == stacks[2]
    assert stacks[1].startswith("In the event loop, which it shares with others:\n")


@pytest.mark.parametrize(
    "text",
    ["", "Thread 0x", '  File "x", line 1 in f', "Fatal Python error: ", "{" * 1000, "\0" * 100],
)
def test_what_makes_no_sense_tells_nothing(text: str) -> None:
    _, stacks = crashed(text, posted(1, 0x2A))

    assert stacks.get(1, "") == ""


def test_what_calls_a_task_is_left_out() -> None:
    import alligator.tasks

    ours = Frame(alligator.tasks.__file__, "1", "begin")
    own = Frame("/app/alligator/tasks.py", "2", "begin")

    assert functions(text_of([Frame("run.py", "1", "main"), ours, own])) == ["begin"]
    assert functions(text_of([own, ours])) == ["begin", "begin"]


def test_a_stack_in_the_log_passes_for_no_line_of_it() -> None:
    record = logging.makeLogRecord({"msg": "died", "below": "File 'a'\nERROR forged\x1b[2J"})

    assert Formatter("%(message)s").format(record) == (
        "died\n    File 'a'\n    ERROR forged\\x1b[2J"
    )
