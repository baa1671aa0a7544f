"""Dead letters as a person deals with them: newest first, by id, or all of them."""

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from alligator import notes, payloads
from alligator.backends.base import Backend, DeadLetter, Message
from alligator.commands.passing import Passed, never
from alligator.commands.tables import CUT
from alligator.deaths import Death
from alligator.dependencies import wake
from alligator.dependencies.edges import Name, edges_in, needs_of, unlink
from alligator.exceptions import BackendRefused, InvalidOption, UnreadableTask
from alligator.peeks import Peek
from alligator.statuses import Progress, progress_in

PAGE = 500
"""Dead letters to read, move or remove in one call: the store is free for others in between."""
SHORTEST_PART = 4
"""Characters of an id that may stand for it; fewer hit one by chance."""
HELD_BACK = 60.0
"""Seconds that what has expired is held back while its payload is changed; should we die, it expires again."""


@dataclass(frozen=True, slots=True)
class Story:
    """What a dead letter tells."""

    reason: str
    error: str
    traceback: str
    death: Death | None = None
    """How the process ended that ran it, if one has."""
    progress: Progress | None = None
    """How far it was then."""

    @classmethod
    def of(cls, letter: DeadLetter) -> "Story":
        """Read a dead letter's note; one that is not ours is its error."""
        told = notes.read(letter.note)
        return cls(
            reason=str(told.get("reason", "")),
            error=str(told.get("error", "")),
            traceback=str(told.get("traceback", "")),
            death=notes.death_in(told),
            progress=progress_in(notes.progress_in(told)),
        )

    @property
    def error_line(self) -> str:
        """The error in one line."""
        # A SyntaxError begins with where it is, and shows the line: what it is comes after that.
        lines = itertools.dropwhile(
            lambda line: line.startswith((" ", 'File "')), self.error.split("\n")
        )
        return " ".join(" ".join(lines).split() or self.error.split())


@dataclass(frozen=True, slots=True)
class Ref:
    """Which dead letter it is, without what it holds: there may be very many."""

    queue_name: str
    letter_id: str
    task_id: str
    is_dependent: bool = False
    """Whether it failed because of another task."""
    expires_at: float | None = None
    """When its task expires, or has expired."""
    is_unchecked: bool = False
    """Whether it is signed, and there are no keys here."""

    @classmethod
    def to(cls, letter: DeadLetter) -> "Ref":
        """Return the reference to a dead letter."""
        # A look at how it begins: the note has a traceback, and there may be very many.
        is_dependent = letter.note.startswith('{"reason":"dependency"')
        expires_at = Peek.into(letter.body).expires_at if b'"expires"' in letter.body else None
        is_unchecked = payloads.signature_of(letter.body) == "unchecked"
        which = letter.queue_name, letter.letter_id, letter.task_id
        return cls(*which, is_dependent, expires_at, is_unchecked)

    @property
    def task(self) -> Name:
        """The task's queue and its id."""
        return self.queue_name, self.task_id

    def has_expired(self, now: float) -> bool:
        """Whether its task would expire again at once, if it were queued again."""
        return self.expires_at is not None and self.expires_at < now


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of dead letters that were to be retried or purged."""

    done: list[Ref] = field(default_factory=list[Ref])
    stayed: list[Ref] = field(default_factory=list[Ref])
    """Not retried: their task is queued again already."""
    gone: list[Ref] = field(default_factory=list[Ref])
    """Someone else has just retried or purged them."""
    waiting: list[Ref] = field(default_factory=list[Ref])
    """Those of ``done`` that wait for others."""
    expired: list[Ref] = field(default_factory=list[Ref])
    """Not retried: they have expired, or failed for what has, and nobody has named them."""


def callable_of(body: bytes) -> str | None:
    """Return what a queued task calls, such as "myapp.tasks.send"; None if only its own class can tell.

    Nothing is imported.
    """
    try:
        payload = payloads.decode(body)
    except UnreadableTask:
        return None
    return f"{payload['module']}.{payload['callable']}"


def newest(
    backend: Backend,
    queue_names: Sequence[str],
    limit: int | None = None,
    passed: Passed = never,
) -> Iterator[DeadLetter]:
    """Return the dead letters of some queues, the newest first; ``limit`` of them, or all.

    Args:
        backend: The store.
        queue_names: Where to look.
        limit: How many.
        passed: Called with a queue that cannot be read, and why: it is passed over, unless that raises.
    """
    at_once = min(limit or PAGE, PAGE)
    each = [_newest_of(backend, name, at_once=at_once, passed=passed) for name in queue_names]
    letters = heapq.merge(*each, key=lambda letter: letter.buried_at, reverse=True)
    return itertools.islice(letters, limit)


def find(
    backend: Backend, queue_names: Sequence[str], task_id: str, passed: Passed = never
) -> list[DeadLetter]:
    """Return a task's dead letters, the newest first.

    Args:
        backend: The store.
        queue_names: Where to look.
        task_id: The whole id, or how it begins or ends, if no other's does. (The ids that Alligator
            makes begin with the time, and so like their neighbours: their ends tell them apart.)
        passed: As ``newest``.

    Raises:
        InvalidOption: That part of an id fits several.
    """
    found = [
        letter
        for name in queue_names
        for letter in _newest_of(backend, name, task_id, passed=passed)
    ]
    part = task_id.removeprefix(CUT)  # as copied from a list
    if found or len(part) < SHORTEST_PART:
        return found
    for letter in newest(backend, queue_names, passed=passed):
        if letter.task_id.startswith(part) or letter.task_id.endswith(part):
            if found and letter.task_id != found[0].task_id:
                raise InvalidOption(
                    f"{task_id!r} is part of several ids, such as {found[0].task_id!r} and "
                    f"{letter.task_id!r}: give more of it."
                )
            found.append(letter)
    return found


def retry(backend: Backend, refs: Sequence[Ref], *, with_expired: bool = True) -> Outcome:
    """Queue dead letters again, in this order; of several that a task has, the last only.

    What fails again meanwhile is a new dead letter, and is left. What failed because of another task does not
    wait for that any more (see revival.py).

    Args:
        backend: The store.
        refs: Which.
        with_expired: Whether what has expired is run all the same, as a person wants it who has named it. To
            expire is all that ends a replay: somebody without a key may have put an old task back, for the
            next one to meet who retries all that is dead. (Where a store cannot tell what is queued, it
            is queued again, and expires again.)
    """
    last = {ref.task: ref for ref in refs}
    now = backend.now()
    expired = [ref for ref in last.values() if backend.can_find and ref.has_expired(now)]
    if not with_expired and expired:
        left = {ref.task for ref in expired}
        outcome = retry(backend, [ref for ref in refs if ref.task not in left])
        return replace(outcome, expired=expired)
    forget_needs(backend, last.values())
    late = set(expired)
    done = in_pages(backend.retry_dead, (ref for ref in last.values() if ref not in late))
    for at in range(0, len(expired), PAGE):
        page = expired[at : at + PAGE]
        moved = in_pages(partial(backend.retry_dead, due_at=backend.now() + HELD_BACK), page)
        let_run(backend, moved)
        wake(backend, {ref.task: 0.0 for ref in page if ref in moved})
        done |= moved
    return outcome_of(backend, refs, done)


def let_run(backend: Backend, refs: Collection[Ref]) -> None:
    """Let tasks that are held back not expire, if they have already: a person wants them to be run.

    A payload in a form of its own stays as it is.
    """
    now = backend.now()
    changed: dict[str, list[Message]] = {}
    for ref in refs:
        if not ref.has_expired(now):
            continue
        found = backend.find(*ref.task)
        body = None if found is None else _without_expiry(found.body)
        if found is not None and found.due_at and body is not None:
            message = Message(
                ref.task_id, body, due_at=found.due_at, priority=found.priority, replaces=True
            )
            changed.setdefault(ref.queue_name, []).append(message)
    for queue_name, messages in changed.items():
        for at in range(0, len(messages), PAGE):
            backend.push_many(queue_name, messages[at : at + PAGE])


def _without_expiry(body: bytes) -> bytes | None:
    """Return a payload as it would be if the task had never been told to expire; None: that cannot be said.

    Of one that is signed, it can be said by who can sign it anew.
    """
    if payloads.signature_of(body) == "unchecked":
        return None
    try:
        payload = payloads.decode(body)
        payload["options"].pop("expires", None)
        return payloads.encode(payload).encode()
    except (UnreadableTask, KeyError, ValueError, RecursionError):
        return None


def purge(backend: Backend, refs: Sequence[Ref]) -> Outcome:
    """Remove dead letters for good."""
    purged = in_pages(backend.purge_dead, refs)
    forget_needs(backend, (ref for ref in purged if ref.is_dependent and _is_last(backend, ref)))
    return outcome_of(backend, refs, purged)


def forget_needs(backend: Backend, refs: Iterable[Ref]) -> None:
    """Forget what tasks waited for that failed because of others, unless they are queued again."""
    pairs: list[tuple[Name, Name]] = []
    for ref in refs:
        if ref.is_dependent and backend.find(*ref.task) is None:
            pairs += [(ref.task, on) for on in edges_in(backend, needs_of(ref.task))]
    unlink(backend, pairs)


def _is_last(backend: Backend, ref: Ref) -> bool:
    return not backend.dead(ref.queue_name, task_id=ref.task_id, limit=1)


def _newest_of(
    backend: Backend,
    queue_name: str,
    task_id: str | None = None,
    at_once: int = PAGE,
    passed: Passed = never,
) -> Iterator[DeadLetter]:
    # What is buried meanwhile moves the others on, and so some are met again.
    met: set[str] = set()
    for skip in itertools.count(0, at_once):
        try:
            page = backend.dead(queue_name, task_id=task_id, limit=at_once, skip=skip)
        except BackendRefused as err:
            passed(queue_name, err)
            return
        for letter in page:
            if letter.letter_id not in met:
                met.add(letter.letter_id)
                yield letter
        if len(page) < at_once:
            return


def in_pages(treat: Callable[[str, Sequence[str]], list[str]], refs: Iterable[Ref]) -> set[Ref]:
    """Call a store's method on some dead letters at a time. Returns those that it treated."""
    queues: dict[str, dict[str, Ref]] = {}
    for ref in refs:
        queues.setdefault(ref.queue_name, {})[ref.letter_id] = ref
    treated: set[Ref] = set()
    for queue_name, of_queue in queues.items():
        ids = list(of_queue)
        for at in range(0, len(ids), PAGE):
            treated.update(of_queue[id] for id in treat(queue_name, ids[at : at + PAGE]))
    return treated


def outcome_of(backend: Backend, refs: Sequence[Ref], done: set[Ref]) -> Outcome:
    """Return what became of dead letters, of which these are done."""
    outcome = Outcome()
    for ref in refs:
        if ref in done:
            outcome.done.append(ref)
        elif any(
            letter.letter_id == ref.letter_id
            for letter in _newest_of(backend, ref.queue_name, ref.task_id)
        ):
            outcome.stayed.append(ref)
        else:
            outcome.gone.append(ref)
    return outcome
