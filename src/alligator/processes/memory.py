"""How much memory this process takes."""

import os
import resource
import sys

_STATM = "/proc/self/statm"


def resident_mib() -> float:
    """Return the MiB of memory that this process has in use now; off Linux, the most that it ever had.

    Example:
        >>> resident_mib() > 1
        True
    """
    try:
        with open(_STATM, encoding="ascii") as file:  # noqa: PTH123 -- to import pathlib takes long
            pages = int(file.read().split()[1])  # proc(5): the second field is the resident set
    except OSError:
        return peak_of(resource.getrusage(resource.RUSAGE_SELF)) / 2**20
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def peak_of(usage: resource.struct_rusage) -> int:
    """Return the bytes of memory that a process had in use at the most, by what it has used in all."""
    return usage.ru_maxrss * (
        1 if sys.platform == "darwin" else 2**10
    )  # bytes there, KiB elsewhere
