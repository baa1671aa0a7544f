"""The limit on the time of a block: raised in it, or not at all, and nothing of it stays."""

import asyncio
import gc
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from alligator.exceptions import TaskTimeout
from alligator.testing.running import Child, in_a_thread, in_threads
from alligator.timeouts import limited, time_limit
from alligator.utils import run_coroutine

FAR = 60.0

Place = Callable[[Callable[[], Any]], Any]


def here(call: Callable[[], Any]) -> Any:
    return call()


def elsewhere(call: Callable[[], Any]) -> Any:
    with in_a_thread(call) as result:
        return result.result()


@pytest.fixture(params=[here, elsewhere], ids=["main thread", "other thread"])
def place(request: pytest.FixtureRequest) -> Place:
    """Calls a function in the main thread, or in another one."""
    found: Place = request.param
    return found


@pytest.fixture(autouse=True)
def timer_as_before() -> Iterator[None]:
    """Whatever runs here, the alarm of this process is as it was."""
    handler, (before, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    began_at = time.monotonic()
    yield
    after, _ = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) == handler
    assert after == pytest.approx(before - (time.monotonic() - began_at) if before else 0, abs=0.1)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_block_that_runs_too_long_is_told_so(place: Place) -> None:
    def call() -> float:
        began_at = time.monotonic()
        with pytest.raises(TaskTimeout, match=r"It ran for more than 0\.05 s"), time_limit(0.05):
            spin(FAR)
        return time.monotonic() - began_at

    assert 0.05 <= place(call) < 5


def test_in_the_main_thread_a_sleep_ends_too() -> None:
    with pytest.raises(TaskTimeout), time_limit(0.05):
        time.sleep(FAR)


def test_in_the_main_thread_a_wait_for_a_socket_ends_too() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(TaskTimeout), time_limit(0.05):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_block_that_ends_in_time_hears_nothing(place: Place) -> None:
    def call() -> str:
        with time_limit(0.1):
            result = "done"
        spin(0.2)
        return result

    assert place(call) == "done"


def test_no_limit_is_none(place: Place) -> None:
    def call() -> None:
        with time_limit(None):
            spin(0.01)

    place(call)


def test_the_smallest_limit_is_a_limit(place: Place) -> None:
    def call() -> None:
        with pytest.raises(TaskTimeout), time_limit(1e-12):
            spin(FAR)

    place(call)


@pytest.mark.parametrize("seconds", [100 * 365 * 86400.0, 9.4e9, 1e300])
def test_the_largest_limit_can_be_set_and_the_others_are_kept(seconds: float, place: Place) -> None:
    def call() -> None:
        with time_limit(seconds), pytest.raises(TaskTimeout), time_limit(0.05):
            spin(FAR)
        with pytest.raises(TaskTimeout), time_limit(0.05):
            spin(FAR)

    place(call)


def test_a_thread_that_could_not_be_started_is_started_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def call() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="start new thread"), time_limit(FAR):
                pass
        with pytest.raises(TaskTimeout), time_limit(0.05):
            spin(FAR)
        return "told"

    with Child(lambda: elsewhere(call)) as fork:  # it has none of the threads of its parent
        assert fork.result() == "told"


def test_the_blocks_own_exception_passes(place: Place) -> None:
    def call() -> None:
        with pytest.raises(ZeroDivisionError), time_limit(FAR):
            raise ZeroDivisionError

    place(call)


def test_it_is_raised_once_and_the_block_may_tidy_up(place: Place) -> None:
    def call() -> list[str]:
        seen: list[str] = []
        with time_limit(0.05):
            try:
                spin(FAR)
            except TaskTimeout:
                seen.append("told")
            spin(0.2)
            seen.append("tidied up")
        return seen

    assert place(call) == ["told", "tidied up"]


class Final:
    """Takes its time to go."""

    def __del__(self) -> None:
        spin(0.2)


def test_what_nobody_would_hear_is_said_later(place: Place) -> None:
    """An exception that is raised in a finalizer is ignored, and so would be the limit."""

    def call() -> None:
        with pytest.raises(TaskTimeout), time_limit(0.1):
            Final()
            spin(FAR)

    place(call)


def test_what_the_garbage_collectors_callbacks_swallow_is_said_later(place: Place) -> None:
    """The interpreter ignores what they raise; their names tell nothing."""

    def dawdle(phase: str, info: dict[str, int]) -> None:
        spin(0.2)

    def call() -> None:
        with pytest.raises(TaskTimeout, match=r"0\.1 s"), time_limit(0.1):
            gc.collect()
            spin(FAR)

    gc.callbacks.append(dawdle)
    try:
        place(call)
    finally:
        gc.callbacks.remove(dawdle)


class Careful:
    """Goes without an error, whatever comes, as clients of servers do."""

    def __init__(self, ends: list[str]) -> None:
        self._ends = ends

    def __del__(self) -> None:
        let_go(self._ends)


def let_go(ends: list[str]) -> None:
    try:
        spin(0.2)
        ends.append("whole")
    except Exception:
        ends.append("broken off")


def is_called_back(ends: list[str]) -> None:
    weakref.finalize(Final, let_go, ends)()


@pytest.mark.parametrize("go", [Careful, is_called_back])
def test_what_catches_it_as_it_goes_is_not_broken_off_and_it_is_said_later(
    go: Callable[[list[str]], object], place: Place
) -> None:
    ends: list[str] = []

    def call() -> None:
        with pytest.raises(TaskTimeout, match=r"0\.1 s"), time_limit(0.1):
            go(ends)
            spin(FAR)

    place(call)

    assert ends == ["whole"]


def test_of_many_that_go_none_hears_it() -> None:
    ends: list[str] = []

    class Short:
        def __del__(self) -> None:
            try:
                spin(0.0002)
            except BaseException:
                ends.append("broken off")

    def run(number: int) -> None:
        for _ in range(20):
            with pytest.raises(TaskTimeout), time_limit(0.01):
                while True:
                    Short()
                    spin(0.0002)

    in_threads(2, run)

    # One may begin in the very step for which it was raised.
    assert len(ends) < 5


def test_it_is_looked_for_finalizers_again_and_again() -> None:
    """A file of dumps that is full is followed by another one; and no more of them are left than one."""

    class Slow:
        def __del__(self) -> None:
            try:
                spin(0.02)
            except TaskTimeout:
                broken_off.append(self)

    broken_off: list[object] = []

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
            return
        with pytest.raises(TaskTimeout), time_limit(0.001):
            Slow()
            spin(FAR)

    def call() -> int:
        for _ in range(5):
            deep(90)
        before = open_files()
        for _ in range(60):
            deep(90)
        return open_files() - before

    assert elsewhere(call) <= 0
    assert len(broken_off) < 3  # as above


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_programs_own_hook_hears_of_all_that_is_ignored_but_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("its own fault")

    ignored: list[str] = []

    def note(told: "sys.UnraisableHookArgs") -> None:
        ignored.append(repr(told.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", note)

    def run(number: int) -> None:
        for final in (Final, Failing, Final):
            with pytest.raises(TaskTimeout, match=r"0\.05 s"), time_limit(0.05):
                final()
                spin(FAR)

    in_threads(1, run)

    assert ignored == ["ValueError('its own fault')"]


def storm(runs: int) -> int:
    """Let blocks end at the very moment when their time is over; return how many heard of it."""
    heard: list[str] = []
    for _ in range(runs):
        seconds = random.uniform(0.0001, 0.001)
        try:
            with time_limit(seconds):
                spin(random.uniform(0.9, 1.1) * seconds)
        except TaskTimeout as err:
            heard.append(str(err))
        # What comes after the block is not to be hit by anything: neither here, nor in the next round.
        sum(range(50))
    assert all(heard)
    return len(heard)


def test_nothing_is_raised_after_the_block_in_the_main_thread() -> None:
    assert 0 < storm(1000) < 1000


def test_nothing_is_raised_after_the_block_in_other_threads() -> None:
    assert sum(in_threads(3, lambda number: storm(300))) < 900


def test_an_inner_limit_leaves_the_outer_one(place: Place) -> None:
    def call() -> list[str]:
        heard: list[str] = []
        try:
            with time_limit(0.3):
                try:
                    with time_limit(0.05):
                        spin(FAR)
                except TaskTimeout as err:
                    heard.append(str(err))
                spin(FAR)
        except TaskTimeout as err:
            heard.append(str(err))
        return heard

    assert place(call) == ["It ran for more than 0.05 s", "It ran for more than 0.3 s"]


@pytest.fixture
def alarms() -> Iterator[list[float]]:
    """When alarms of the program's own came."""
    came: list[float] = []

    def ring(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())

    handler = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, 0)
    began_at = time.monotonic()
    yield came
    signal.signal(signal.SIGALRM, handler)
    if left:
        passed = time.monotonic() - began_at
        signal.setitimer(signal.ITIMER_REAL, max(0.1, left - passed), every)


@pytest.mark.parametrize("seconds", [0.05, FAR])
def test_the_programs_own_alarm_comes_when_it_should(seconds: float, alarms: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    began_at = time.monotonic()
    try:
        with time_limit(seconds):
            spin(0.3)
    except TaskTimeout:
        pass
    looked_at = time.monotonic()
    left, _ = signal.getitimer(signal.ITIMER_REAL)

    # What is left, and not when it came: a busy machine is late with anything.
    assert looked_at + left - began_at == pytest.approx(1.0, abs=0.1)
    while not alarms and time.monotonic() < began_at + 30:
        pass
    assert alarms


def test_the_programs_own_alarm_is_late_rather_than_lost(alarms: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with time_limit(FAR):
        spin(0.2)
        assert alarms == []

    spin(0.05)

    assert len(alarms) == 1


def test_the_programs_own_alarm_goes_on_coming(alarms: list[float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    with time_limit(FAR):
        spin(0.05)

    spin(0.2)
    signal.setitimer(signal.ITIMER_REAL, 0)

    assert len(alarms) > 3


def test_an_alarm_that_the_block_has_set_ends_with_it(alarms: list[float]) -> None:
    """It would come to the program's own handler, which knows nothing of it."""
    with time_limit(FAR):
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    spin(0.2)
    assert alarms == []


def test_a_fork_has_no_limit(place: Place) -> None:
    def in_the_fork() -> str:
        spin(0.3)
        return "went on"

    def call() -> None:
        with pytest.raises(TaskTimeout), time_limit(0.1), Child(in_the_fork) as child:
            assert child.result() == "went on"

    place(call)


def test_a_fork_may_have_limits_of_its_own(place: Place) -> None:
    def in_the_fork() -> str:
        heard = "nothing"
        try:
            with time_limit(0.05):
                spin(FAR)
        except TaskTimeout as err:
            heard = str(err)
        return heard

    def call() -> str:
        with time_limit(FAR), Child(in_the_fork) as child:
            return str(child.result())

    assert place(call) == "It ran for more than 0.05 s"


def test_the_end_of_the_block_in_a_fork_waits_for_nobody() -> None:
    """The fork has none of the threads that its parent has."""

    def call() -> None:
        for _ in range(20):
            limit = time_limit(FAR)
            with limit:
                pid = os.fork()
                if pid:
                    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            if pid == 0:
                os._exit(0)

    elsewhere(call)


# Coroutines.


async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def test_a_coroutine_is_told_where_it_waits(place: Place) -> None:
    def call() -> None:
        with pytest.raises(TaskTimeout, match=r"It ran for more than 0\.05 s"):
            run_coroutine(limited(sleep(FAR), 0.05))

    place(call)


def test_a_coroutine_has_the_time_that_is_left(place: Place) -> None:
    def call() -> None:
        with pytest.raises(TaskTimeout, match=rf"It ran for more than {FAR:g} s"):
            run_coroutine(limited(sleep(FAR), FAR, 0.05))

    place(call)


@pytest.mark.parametrize("seconds", [None, FAR, 9.4e9, 1e300])
def test_a_coroutine_that_ends_in_time_returns_its_result(
    seconds: float | None, place: Place
) -> None:
    assert place(lambda: run_coroutine(limited(sleep(0.0), seconds))) == "slept"


def test_a_coroutines_own_timeout_is_its_own() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(FAR)

    with pytest.raises(TimeoutError) as caught:
        run_coroutine(limited(impatient(), FAR))
    assert not isinstance(caught.value, TaskTimeout)


def test_a_coroutine_may_tidy_up() -> None:
    tidied: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(FAR)
        finally:
            await asyncio.sleep(0.05)
            tidied.append("up")

    with pytest.raises(TaskTimeout):
        run_coroutine(limited(tidy(), 0.05))
    assert tidied == ["up"]


def test_the_watcher_keeps_nothing_of_blocks_that_have_ended() -> None:
    """However long their time would have been."""

    def call() -> int:
        kind = type(time_limit(FAR))
        for _ in range(100):
            with time_limit(1e6):
                pass
        time_is_up = time.monotonic() + 5
        while (kept := kept_of(kind)) > 10 and time.monotonic() < time_is_up:
            pass
        return kept

    assert elsewhere(call) <= 10  # the last ones, which go when the next one comes


def kept_of(kind: type[object]) -> int:
    return sum(isinstance(one, kind) for one in gc.get_objects())


def test_there_is_one_watcher() -> None:
    def call(number: int) -> None:
        with time_limit(FAR):
            spin(0.1)

    in_threads(1, call)  # at the very first use, two may start at once
    before = threading.active_count()
    in_threads(4, call)
    in_threads(4, call)

    assert threading.active_count() == before
    assert sum(one.name == "alligator-limits" for one in threading.enumerate()) > 0
