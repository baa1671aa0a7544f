"""System calls of a process: counted, and a kill at the n-th of a kind."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import found, missing

FRUITLESS = {
    *("brk", "madvise", "mmap", "mprotect", "munmap"),
    *("access", "fstat", "getcwd", "ioctl", "lseek", "lstat", "newfstatat", "pread64", "read"),
    *("fstatfs", "readlink", "stat", "statfs", "statx"),
    *("getegid", "geteuid", "getgid", "getpeername", "getpid", "getppid", "getrandom"),
    *("getsockname", "getsockopt", "gettid", "getuid", "sysinfo", "uname"),
    *("clone", "clone3", "futex", "prlimit64", "restart_syscall", "rseq", "sched_getaffinity"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield", "set_robust_list"),
}
"""Calls that change nothing outside of the process: a kill at one of them is a kill at the next that does."""


def calls_in(log: Path) -> Counter[str]:
    """Return how often a process has made each system call that may matter to others, by what strace wrote.

    Of several threads the one counts that made most: strace counts the calls of each by themselves.

    Example:
        >>> log = tmp_path / "log"
        >>> _ = log.write_text("7 fsync(3) = 0\\n7 poll( <unfinished ...>\\n7 <... poll resumed>) = 0\\n")
        >>> sorted(calls_in(log).items())
        [('fsync', 1), ('poll', 1)]
    """
    calls = re.findall(r"^(\d+) +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE)
    most = Counter[str]()
    for (_, name), times in Counter(calls).items():
        if name not in FRUITLESS:
            most[name] = max(most[name], times)
    return most


def counting(log: Path) -> list[str]:
    """Return strace's options for counting calls."""
    return ["-o", str(log)]


def killing(name: str, number: int) -> list[str]:
    """Return strace's options for a kill just before a call, the n-th of its kind."""
    return ["-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}"]


@contextmanager
def traced(pid: int, options: Sequence[str]) -> Generator[None]:
    """Trace a process, with its threads, for the time of the block, in which it has to end."""
    strace = found("strace", shutil.which("strace"))
    words = [strace, "-f", *options, "-p", str(pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        if "attached" not in said:
            missing(f"strace may not trace here: {said.strip()}")
        yield
        process.stderr.read()
