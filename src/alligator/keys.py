"""What is kept in a store's records, under which keys: one page that lists them all.

============================  ==============================================================================
``workers/<worker>``          who works on this store (registry.py)
``progress/<ref>``            how far a running task is, and where a new attempt resumes (checkpoints.py)
``stops/<ref>``               that a running task is to end, and why: canceled, timeout (stops.py)
``stops/stacks-<question>``   that somebody asks where running tasks are (stack_records.py)
``stacks/<question>/<...>``   what a worker has answered
``deaths/<ref>``              how the process ended that ran a task which is queued still (deaths.py)
``results/<ref>``             a kept result (results/)
``outcomes/<ref>``            how a task ended, for a day longer than its result (results/)
``needs:<ref>/<ref>``         what a task still waits for (dependencies/)
``dependents:<ref>/<ref>``    what waits for a task (dependencies/)
``failed-by:<ref>/<ref>``     what failed because a task did (dependencies/)
``limits/<limit>``            who runs, or started when, under a limit, and who is next (limits/gates.py)
``parked:<limit>/<place>``    the middle of a long line for a limit, some tasks each (limits/lines.py)
``parked:<limit>/<ref>``      which of those a task is in (limits/lines.py)
``schedules:<queue>/<name>``  what is queued again and again (schedules/)
``schedules/<queue>``         which queues have such (schedules/)
``outboxes:<queue>/<id>``     which rows of an outbox came here last (outbox/)
``moving:<queue>/<...>``      that a task is being moved here, from which store, by whom (commands/move/)
``moved:<queue>/<...>``       that it was taken out there for that, and to which store it went
``moves:<queue>/mover``       who moves it; whoever begins anew stops all others
``moves/home``                what tells a store from others
============================  ==============================================================================

A ``<ref>`` names a task of a queue, with one ":" in it; a ``<question>`` and a ``<place>`` have none. A
``<limit>`` is "concurrency:<key>" or "rate:<key>".
"""

import re

RESULTS = "results"
OUTCOMES = "outcomes"
PROGRESS = "progress"
STOPS = "stops"
DEATHS = "deaths"
STACKS = "stacks"
NEEDS = "needs"
DEPENDENTS = "dependents"
FAILED_BY = "failed-by"
SCHEDULES = "schedules"
OUTBOXES = "outboxes"
LIMITS = "limits"
PARKED = "parked"
MOVING = "moving"
MOVED = "moved"
MOVES = "moves"


def ref(queue_name: str, task_id: str) -> str:
    """Return the name of a task of a queue, as a part of a key.

    Example:
        >>> ref("all", "a/b")
        'all:a%2Fb'
    """
    return f"{escaped(queue_name)}:{escaped(task_id)}"


def of_ref(ref: str) -> tuple[str, str]:
    """Return the queue and the id that a ref names.

    Example:
        >>> of_ref("all:a%2Fb")
        ('all', 'a/b')
    """
    queue_name, _, task_id = ref.partition(":")
    return unescaped(queue_name), unescaped(task_id)


def with_queue(queue_name: str) -> str:
    """Return a queue's name as the end of the name of a family that goes with it.

    Nothing else is escaped, for a cluster's node is chosen by this name, and by that of the queue itself.

    Example:
        >>> f"schedules:{with_queue('mail:a/b')}"
        'schedules:mail:a%2Fb'
    """
    return queue_name.replace("%", "%25").replace("/", "%2F")


def escaped(name: str) -> str:
    r"""Return a name without the characters that part a key, nor any that a store might not carry in one.

    The latter are in no name that we take; other programs may put tasks into a store with an id like that.

    Example:
        >>> escaped("a/b"), escaped("a\0b\ud800")
        ('a%2Fb', 'a%u0000b%uD800')
    """
    name = name.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
    if name.isascii() and name.isprintable():
        return name
    return _UNCARRIED.sub(lambda found: f"%u{ord(found[0]):04X}", name)


def unescaped(name: str) -> str:
    """Return the name that was escaped."""
    if "%u" in name:
        name = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    return name.replace("%3A", ":").replace("%2F", "/").replace("%25", "%")


_UNCARRIED = re.compile("[\0\ud800-\udfff]")
_ESCAPED = re.compile("%u([0-9A-F]{4})")
