"""Tasks of tests of a worker process's life."""

from alligator.verify.journal import Journal

_kept: list[bytearray] = []


def grow(journal: str, name: str, mib: int) -> None:
    """Take so many MiB of memory, and never give them back."""
    Journal(journal).note("start", name)
    _kept.append(bytearray(b"x") * (mib * 2**20))
    Journal(journal).note("finish", name)
