"""How names, priorities and bodies look in beanstalkd: pure functions, each with its way back.

A task that is pushed is a plain job: its body is the payload, its tube the queue. What beanstalkd has no place
for is put where it does no harm to others who read the tube:

- A queue's name is a tube's; what a tube's name cannot have is written as "$" and two hex digits.
- A job's priority also says how far the deliveries that beanstalkd's own counts tell are off.
- A retry is a new job, for beanstalkd cannot change one. A line before its body tells the id of the first.
"""

import hashlib
import json
import math
import re
from typing import Any, cast

from alligator import payloads
from alligator.exceptions import InvalidOption

MAX_TUBE = 200
"""The longest name of a tube."""

_UNSAFE = re.compile(rb"^-|[^A-Za-z0-9\-+/;._()]")
# greenstalk reads such a name as a number, and not all of them come out as they were.
_LIKE_A_NUMBER = re.compile(rb"\+[0-9_]+|0[0-9_]+|[0-9]+_[0-9_]+")
_ESCAPED = re.compile(rb"\$([0-9A-F]{2})")


def tube_of(queue_name: str) -> str:
    """Return the tube of a queue.

    Raises:
        InvalidOption: Its name is too long for one.

    Example:
        >>> tube_of("mail"), tube_of("two words")
        ('mail', 'two$20words')
    """
    tube = _UNSAFE.sub(lambda found: b"$%02X" % ord(found[0]), queue_name.encode())
    if _LIKE_A_NUMBER.fullmatch(tube):
        tube = b"$%02X" % tube[0] + tube[1:]
    if len(tube) > MAX_TUBE:
        raise InvalidOption(
            f"Queue name {queue_name[:40]!r} takes {len(tube)} bytes in beanstalkd, where letters and digits "
            f"of ASCII take one and others three or more; {MAX_TUBE} are possible."
        )
    return tube.decode()


def queue_of(tube: str) -> str:
    """Return the queue of a tube; that of one whose name we would not give is called the same.

    Example:
        >>> queue_of("two$20words")
        'two words'
    """
    name = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), tube.encode())
    try:
        return name.decode()
    except UnicodeDecodeError:
        return tube


def dead_tube_of(queue_name: str) -> str:
    """Return the tube that holds the notes of a queue's dead letters; no queue has it for its own.

    Example:
        >>> dead_tube_of("mail")
        'mail$.dead'
    """
    tube = tube_of(queue_name)
    if len(tube) + len(_DEAD) > MAX_TUBE:
        tube = hashlib.sha256(tube.encode()).hexdigest()
    return tube + _DEAD


def is_dead_tube(tube: str) -> bool:
    """Return whether a tube holds notes of dead letters."""
    return tube.endswith(_DEAD)


_DEAD = "$.dead"  # no "$" before a "." comes from a name


# Priorities: in beanstalkd, the smallest number is the most urgent.

MIDDLE = 2**31
"""Where a priority of 0 is: what jobs have that released versions of Alligator have put."""
_STEP = 2**16
_MOST = 100


def urgency(priority: int, surplus: int = 0) -> int:
    """Return a job's priority for beanstalkd.

    Args:
        priority: The task's.
        surplus: Deliveries to be added to those that the server counts.
    """
    # Whatever its sign, a job comes a little earlier for it: later could mean never, among many others.
    code = 2 * surplus - 1 if surplus > 0 else -2 * surplus
    return MIDDLE - priority * _STEP - min(code, _STEP // 4)


def surplus_in(pri: int) -> int:
    """Return the surplus of deliveries that a job's priority tells; 0 if it was not we who gave it.

    Example:
        >>> surplus_in(urgency(5, surplus=-2))
        -2
    """
    priority = round((MIDDLE - pri) / _STEP)
    code = MIDDLE - pri - priority * _STEP
    if abs(priority) > _MOST or code < 0:
        return 0
    return (code + 1) // 2 if code % 2 else -code // 2


def with_surplus(pri: int, surplus: int) -> int:
    """Return a job's priority with another surplus; as it was if it was not we who gave it.

    Example:
        >>> [surplus_in(with_surplus(MIDDLE, surplus)) for surplus in (-2, -1, 0, 1, 2)]
        [-2, -1, 0, 1, 2]
    """
    priority = round((MIDDLE - pri) / _STEP)
    return urgency(priority, surplus) if abs(priority) <= _MOST else pri


# Bodies.

_MARK = b"alligator-job 1 "


def job_body(body: bytes, task_id: str | None = None) -> bytes:
    r"""Return the body of a job that carries a task.

    Args:
        body: The task's.
        task_id: The task's id, if it is not to be that of the job.

    Example:
        >>> job_body(b"{}", task_id="12")
        b'alligator-job 1 {"id": "12"}\n{}'
    """
    if task_id is None and not body.startswith(_MARK):
        return body
    head = {} if task_id is None else {"id": task_id}
    return _MARK + json.dumps(head).encode() + b"\n" + body


def task_in(body: bytes, job_id: int) -> tuple[str, bytes]:
    """Return the id and the body of the task that a job carries.

    Example:
        >>> task_in(b"{}", 14), task_in(job_body(b"{}", task_id="12"), 14)
        (('14', b'{}'), ('12', b'{}'))
    """
    if body.startswith(_MARK):
        head, _, rest = body[len(_MARK) :].partition(b"\n")
        found = payloads.json_in(head)
        if isinstance(found, dict):  # else it is somebody else's, who happens to begin like that
            return str(cast(dict[str, Any], found).get("id", job_id)), rest
    return str(job_id), body


# Numbers.

_MAX_SECONDS = 2**32 - 1


def whole_seconds(seconds: float) -> int:
    """Return seconds as beanstalkd knows them: whole ones, and no more than 136 years."""
    return max(0, math.ceil(min(seconds, _MAX_SECONDS)))


def job_id(text: str) -> int | None:
    """Return the id of a job; None if the text is not what we would call one.

    Example:
        >>> job_id("12"), job_id("012"), job_id("twelve")
        (12, None, None)
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        return None
    return int(text) if str(int(text)) == text else None
