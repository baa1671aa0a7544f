"""No number is closed that is another file's by now."""

import gc
import os
from functools import partial

import pytest

from alligator.bell import Bell
from alligator.descriptors import Descriptors, Opened
from alligator.testing.running import in_processes, in_threads


def is_open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


def a_file() -> Descriptors:
    return Descriptors(os.open(os.devnull, os.O_RDWR))


def test_who_has_it_may_use_it_though_it_is_closed_meanwhile() -> None:
    opened = Opened(a_file)
    ours = opened.get()
    [file] = ours.files

    opened.close()

    assert is_open(file)
    assert opened.get().files != ours.files
    del ours
    assert not is_open(file)


def test_closed_twice_it_closes_no_other_file() -> None:
    opened = Opened(a_file)
    [file] = opened.get().files
    opened.close()
    other = os.open(os.devnull, os.O_RDWR)
    assert other == file

    opened.close()
    del opened
    gc.collect()

    assert is_open(other)
    os.close(other)


def opened_by(opened: Opened, number: int) -> Descriptors:
    return opened.get()


def test_threads_that_open_it_at_once_have_the_same() -> None:
    for _ in range(50):
        got = in_threads(4, partial(opened_by, Opened(a_file)))
        assert len({files.files for files in got}) == 1


def test_a_fork_opens_its_own_and_leaves_the_parents_alone() -> None:
    opened = Opened(a_file)
    [file] = opened.get().files

    def in_fork(number: int) -> list[int]:
        os.close(file)  # as a program does that becomes a daemon
        again = os.open(os.devnull, os.O_RDWR)
        files = list(opened.get().files)
        opened.close()
        gc.collect()
        return [file, again, *files, int(is_open(again))]

    [[ours, again, theirs, still_open]] = in_processes(1, in_fork)

    assert ours == again != theirs
    assert still_open
    assert is_open(file)


def test_a_bell_may_be_rung_while_another_thread_closes_it() -> None:
    bell = Bell()
    failed: list[OSError] = []

    def use(number: int) -> None:
        for _ in range(2000):
            try:
                bell.ring() if number else bell.close()
            except OSError as err:
                failed.append(err)

    in_threads(2, use)

    assert failed == []


@pytest.mark.parametrize("once_more", [1, 2])
def test_a_bell_that_was_closed_rings_on(once_more: int) -> None:
    bell = Bell()
    for _ in range(once_more):
        bell.close()
    bell.ring()
    assert bell.wait(0).name == "BY_RING"
