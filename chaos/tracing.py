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


def points_in(log: Path, apart_from: str) -> list[tuple[str, int]]:
    """Return the system calls of a process that may matter to others, by what strace wrote.

    Each is the kind, and which of its kind it is. Of several threads the one counts that made most: strace
    counts the calls of each by themselves.

    Args:
        log: What strace wrote.
        apart_from: A file that is none of the process's own doings: the journal.

    Example:
        >>> from tempfile import mkdtemp
        >>> log = Path(mkdtemp()) / "log"
        >>> lines = "write(3</journal>) = 9", "fsync(4</file>) = 0", "write(4</file>) = 9", "poll( <unfinished"
        >>> _ = log.write_text("".join(f"7 {line} ...>\\n" for line in lines))
        >>> points_in(log, apart_from="/journal")
        [('fsync', 1), ('poll', 1), ('write', 2)]
    """
    seen, points = Counter[tuple[str, str]](), set[tuple[str, int]]()
    for line in log.read_text(errors="replace").splitlines():
        call = re.match(r"(\d+) +(\w+)\(", line)
        if call is None or call[2] in FRUITLESS:
            continue
        seen[call[1], call[2]] += 1
        if apart_from not in line:
            points.add((call[2], seen[call[1], call[2]]))
    return sorted(points)


def counting(log: Path) -> list[str]:
    """Return strace's options for counting calls, with the names of the files that they are about."""
    return ["-y", "-o", str(log)]


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
        try:
            yield
        except BaseException:
            process.kill()  # it would wait for the end of what it traces
            raise
        process.stderr.read()
