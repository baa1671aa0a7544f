"""Stores that are files: whether somebody writes to one just now."""

from pathlib import Path

from alligator.dsn import DSN


def is_written_to(dsn: DSN) -> bool:
    """Return whether a process is writing to a SQLite file: stopped, it would keep out everybody else.

    Example:
        >>> is_written_to(DSN.parse("redis://localhost/0"))
        False
    """
    if dsn.scheme != "sqlite":
        return False
    from fcntl import LOCK_EX, LOCK_NB, flock  # here, for Windows has none

    try:
        with Path(f"{dsn.rest}-lock").open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
