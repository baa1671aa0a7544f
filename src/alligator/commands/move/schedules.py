"""Moving schedules from one store to another: none is queued by both, none is lost, none comes back.

For each one:

1. In the new store a mark is put in its place, unless one of that name is there.
2. In the old store it is replaced, just as it is, by a note of where it goes, which holds it. From here on it
   is no schedule there.
3. In the new store it takes the place of the mark.
4. The note is deleted.

So wherever this is killed, a note says that a schedule was moved, and a mark that it is not there yet. Who
removes a schedule in the old store removes the note, too, and the mark is of no use any more.
"""

import base64

from alligator import keys, payloads
from alligator.backends.base import Records
from alligator.commands.move.moved import Moved
from alligator.schedules import schedule_records

AT_ONCE = 0.0
"""The ttl of what is to be gone: to let a record expire is to delete it only if it still is as it was read."""
_MOVED_TO, _COMING_FROM = "moved_to", "coming_from"


def move_schedules(
    source: Records, target: Records, homes: tuple[str, str], name: str, moved: Moved
) -> None:
    """Move the schedules of a queue.

    Args:
        source: Where they are.
        target: Where they are to be.
        homes: What the two stores are called.
        name: The queue.
        moved: Where to note what was done.
    """
    family, mark = schedule_records.family(name), _written(_COMING_FROM, homes[0])
    keys_found = list(source.list(family))
    if keys_found:
        # First, as where one is added: if the queue were not listed, nobody would see them.
        target.swap(f"{keys.SCHEDULES}/{keys.escaped(name)}", None, b"{}")
    for key in keys_found:
        value = source.get(key)
        while value is not None and not is_on_the_way(value):
            if not target.swap(key, None, mark) and target.get(key) != mark:
                moved.clashing_schedules.append((name, schedule_records.name_in(key)))
                break
            # If it was just queued, or changed: once more.
            source.swap(key, value, _written(_MOVED_TO, homes[1], value))
            value = source.get(key)
        schedule = None if value is None else _moved_to(homes[1], value)
        if value is None or schedule is None:
            continue
        moved.schedules += target.swap(key, mark, schedule)
        source.swap(key, value, value, AT_ONCE)
    for key, value in target.list(family).items():
        if value == mark and not _comes(source.get(key), homes[1]):
            target.swap(key, mark, mark, AT_ONCE)


def is_on_the_way(value: bytes) -> bool:
    """Whether a record stands for a schedule that is being moved."""
    return value.startswith((f'{{"{_MOVED_TO}"'.encode(), f'{{"{_COMING_FROM}"'.encode()))


def count(records: Records, queue_name: str) -> int:
    """Return how many schedules a queue has."""
    values = records.list(schedule_records.family(queue_name)).values()
    return sum(not is_on_the_way(value) for value in values)


def _written(what: str, home: str, schedule: bytes | None = None) -> bytes:
    told = {what: home}
    if schedule is not None:
        told["schedule"] = base64.b64encode(schedule).decode()
    return payloads.encode(told).encode()


def _comes(value: bytes | None, home: str) -> bool:
    """Whether a schedule may still come to a store: it was not removed, nor went elsewhere."""
    return value is not None and (not is_on_the_way(value) or _moved_to(home, value) is not None)


def _moved_to(home: str, value: bytes) -> bytes | None:
    """Return the schedule that goes to a store; None: that is no note of one."""
    told = payloads.object_in(value) if is_on_the_way(value) else {}
    if told.get(_MOVED_TO) != home:
        return None
    try:
        return base64.b64decode(told["schedule"])
    except (LookupError, TypeError, ValueError):
        return None  # somebody else has written it
