"""What keeps a limit: who is in, who was called, and the line of those who wait.

One record says all of it, and is swapped as a whole. A task that finds no room is *parked*: it joins the line,
and is released with a delay. Whoever makes room *calls* the first in line: notes in the same swap that a place
is kept for it, and lets it be due. It returns to its place in its queue, comes to a worker, and enters.

Under a fast rate, tasks enter some at a time: those that the worker has at hand, in one swap. Each counts as
started at that moment; so before one begins, all that are left are counted anew if it is late. One that is
later than a whole span may find that others have had its turn: then it waits again.

What a crash between any two steps leaves behind:

- Before the swap: nothing.
- After it, before the task that was called is told: the task of the worker that crashed was not settled yet, so
  it is handed out again, and who enters, leaves or is parked reminds those who were called.
- After a task joined the line, before it is released: it is handed out again, and finds that it has a place.
- A place of a task that died for good, or was called and then dropped or replaced: one of the line is its
  *guard*, who comes back every now and then, looks after all the others, and waits on.
"""

import itertools
import math
import threading
from binascii import crc32
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from alligator import keys
from alligator.backends.abilities import refusal
from alligator.backends.base import Backend, Found, Reservation
from alligator.exceptions import InvalidOption
from alligator.limits.record import SAFETY, Call, Record, State
from alligator.limits.rules import Rule

NAP = 600.0
"""Seconds for which those who are no guards are delayed, or a multiple of it: should there be no guard."""
SLACK = 5.0
"""Seconds that a release may come after it was decided on. A delayed task that is due at another moment has got
its delay from somebody else, and it is not for us to end it."""
AHEAD = 60.0
"""Seconds: those whose time comes sooner are called already, so that no start waits for the one before."""
LOOK_EVERY = 5.0
"""Seconds between two looks after those who are in: most of them leave by themselves."""
LOOK_AT = 20
"""Tasks to look at before the record is written; the next ones come after that."""
RECOUNTS = 5
"""Times to count starts anew where that takes so long that they are late again."""

Moments = dict[str, float]
"""By ref, when a task is due."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How matters stand for a task that is parked."""

    due_at: float | None
    """When it may start; None: nobody knows."""
    holders: tuple[tuple[str, str], ...]
    """The queues and ids of tasks that have the places; of many, some."""


class Entry:
    """That some tasks were let in together. Each is to begin when its code is about to run."""

    def __init__(self, gate: "Gate", counted_at: float, helds: Iterable[Reservation]) -> None:
        self._gate = gate
        self._counted_at = counted_at
        self._left = set(helds)
        self._lock = threading.Lock()

    def begin(self, held: Reservation) -> bool:
        """Return whether a task may start: not if that comes so late that others have had its turn."""
        with self._lock:
            # All that are left, so that not each has to do it.
            may_start = self._recount(len(self._left | {held}))
            self._left.discard(held)
            return may_start

    def _recount(self, number: int) -> bool:
        for _ in range(RECOUNTS):
            counted_at = self._gate.recount(self._counted_at, number)
            if counted_at is None:
                return False
            if counted_at == self._counted_at:
                break
            self._counted_at = counted_at
        return True


class Gate:
    """A limit of the tasks that have the same key.

    Args:
        backend: The store.
        name: What is limited: the kind of limit, and its key, escaped.
        rule: Who may start.
    """

    def __init__(self, backend: Backend, name: str, rule: Rule) -> None:
        if backend.records is None:
            raise InvalidOption(refusal(type(backend).__module__, "limit"))
        self._backend = backend
        self._record = Record(backend.records, backend.now, name)
        self._rule = rule

    def enter(self, helds: Sequence[Reservation]) -> dict[Reservation, Entry]:
        """Let tasks in, up to the first for which there is no room; the same hand-outs may ask again.

        Returns:
            The entry of each that is in.
        """
        while True:
            state = self._record.read()
            # Those who were in before ask again, for they got no answer. They may be late by what that took.
            again = [held for held in helds if state.inside.get(_ref(held)) == held.token]
            others = (held for held in helds if held not in again)
            new = list(itertools.takewhile(partial(self._admit, state), others))
            entries = dict.fromkeys(again, Entry(self, math.inf, ()))
            if not new:
                self._remind(state, state.called if again else ())
                return entries
            self._call_next(state)
            if state.overdue:
                self._look(state, at_once=any(held.deliveries > 1 for held in new))
            if self._write(state):
                self._tell(state)
                return entries | dict.fromkeys(new, Entry(self, state.counted_at, new))

    def _admit(self, state: State, held: Reservation) -> bool:
        """Let a task in if there is room for it, and nobody before it; return whether it is so."""
        ref = _ref(held)
        if not state.line and ref not in state.called:
            due_at = self._rule.opening(state)
            if due_at is not None and due_at <= state.now:
                state.called[ref] = Call(due_at, 0.0)  # if only for this moment
        if not self._rule.may_start(state, ref):
            return False
        self._rule.admit(state, ref, held.token)
        return True

    def recount(self, counted_at: float, number: int) -> float | None:
        """Count starts anew if they come so late that it matters.

        Returns:
            When they count; None: there is no room for them any more.
        """
        while self._rule.is_late(counted_at, self._backend.now()):
            state = self._record.read()
            if not self._rule.recount(state, counted_at, number):
                return None
            if self._write(state):
                return state.counted_at
        return counted_at

    def park(self, helds: Sequence[Reservation]) -> Moments:
        """Give places in the line to tasks that were not let in; return when they are to be due.

        They are to be released with such delays, and ``parked`` is to be called then.
        """
        refs = [_ref(held) for held in helds]
        while True:
            state = self._record.read()
            for ref in refs:
                if ref in state.called:
                    self._rule.deny(state, ref)
                elif not self._is_in_line(state, ref):
                    state.line.append(ref)
            self._call_next(state, set(refs))
            self._look(state, set(refs), at_once=any(held.deliveries > 1 for held in helds))
            moments = {ref: self._due_at(state, ref) for ref in refs}
            if self._write(state):
                self._tell(state)
                return moments

    def parked(self, moments: Moments, decided_at: float) -> None:
        """See to tasks that have just been released: while they were held, they could not be told anything."""
        state = self._record.read()
        if state.now > decided_at + SLACK:
            self._reschedule(moments)  # by which they will be known for ours
        for ref, due_at in moments.items():
            call = state.called.get(ref)
            if call is None:
                if ref == state.guard and state.guard_due_at != due_at:
                    self._reschedule({ref: state.guard_due_at})
            elif call.parked_until != due_at or self._rule.may_start(state, ref):
                state.called[ref] = Call(call.due_at, due_at)
                self._remind(state, [ref])

    def leave(self, ref: str, token: str | None = None) -> None:
        """Let a task go, and call the next.

        Args:
            ref: The task.
            token: The hand-out that is in. None: whatever place it has, it needs it no more.
        """
        while True:
            state = self._record.read()
            if token is None and self._is_inside(state, ref):
                return  # another one of its id, which has come since
            if not _strike_out(state, ref, token):
                # It may be that this was done before, for an answer that got lost.
                self._remind(state, state.overdue)
                return
            is_somebody_overdue = bool(state.overdue)
            self._call_next(state)
            if is_somebody_overdue:
                is_last = not state.inside and not state.line
                self._look(state, at_once=is_last or token is None)
            if self._write(state):
                self._tell(state)
                self._remind(state, (one for one, call in state.called.items() if call.was_denied))
                return

    def standing(self, ref: str, due_at: float) -> Standing | None:
        """Return how matters stand for a task that is delayed; None if that is for another reason.

        Args:
            ref: The task.
            due_at: Until when it is delayed.
        """
        state = self._record.read()
        call = state.called.get(ref)
        if call is not None:
            is_ours = any(_is_near(due_at, at) for at in (call.due_at, call.parked_until))
        elif ref == state.guard and _is_near(due_at, state.guard_due_at):
            is_ours = True
        else:
            is_in_line = state.line.has_at_an_end(ref) or state.line.has_between(ref)
            is_ours = is_in_line and _is_near(due_at, _phase(ref), NAP)
        if not is_ours:
            return None
        inside = state.inside if self._rule.counts_inside else {}
        found = ((ref, one) for ref, one in self._found(inside) if one is not None)
        holders = tuple(keys.of_ref(ref) for ref, one in found if one.token == inside[ref])
        return Standing(call.due_at if call and call.due_at > state.now else None, holders)

    def _is_in_line(self, state: State, ref: str) -> bool:
        # Most are new. One that was parked comes back when its nap is over, if it is not called before. Should
        # it be so late that it is taken for a new one, it has two places, and is called from the first.
        may_be_back = (state.now - _phase(ref) + 1.0) % NAP < SAFETY
        return state.line.has_at_an_end(ref) or (may_be_back and state.line.has_between(ref))

    def _due_at(self, state: State, ref: str) -> float:
        """Return when a task that is parked is due."""
        now = state.now
        if (call := state.called.get(ref)) is not None:
            if not call.parked_until:  # called this moment
                call = state.called[ref] = Call(call.due_at, max(call.due_at, now))
            return call.parked_until
        if ref == state.guard:
            for_long = now - (state.moved_at or now)
            state.guard_due_at = now + min(max(SAFETY, for_long), 10 * SAFETY)
            return state.guard_due_at
        # So that of all who nap, about one a second wakes up.
        earliest = now + NAP * max(1, math.ceil(len(state.line) / NAP)) - NAP / 2
        return earliest + (_phase(ref) - earliest) % NAP

    def _call_next(self, state: State, here: Iterable[str] = ()) -> None:
        """Call the first in line, as many as there is room for.

        Args:
            state: What is changed.
            here: Tasks that are here, and need not be told.
        """
        state.has_more = False
        looks = 0
        while state.line and len(state.called) < self._rule.most_called:
            due_at = self._rule.opening(state)
            if due_at is None or (state.called and due_at > state.now + AHEAD):
                break
            if looks == LOOK_AT:
                state.has_more = True
                break
            ref = state.line.pop()
            if ref is None:
                break
            if ref in here:
                state.called.setdefault(ref, Call(due_at, 0.0))
            else:
                looks += 1
                found = self._still_waiting(state, ref)
                if found is not None and ref not in state.called:
                    state.called[ref] = Call(due_at, found.due_at)
                    state.news[ref] = due_at
            if ref == state.guard:
                state.guard = ""
        self._post_guard(state, here)

    def _post_guard(self, state: State, here: Iterable[str]) -> None:
        """See to it that one of the line is its guard, and comes soon after another one was called."""
        if not state.line:
            state.guard = ""
            return
        is_new = not state.guard
        if is_new:
            state.guard = state.line.last()
        if is_new or (state.news and state.guard_due_at > state.now + 2 * SAFETY):
            state.guard_due_at = state.now + SAFETY
            if state.guard not in here:
                state.news[state.guard] = state.guard_due_at

    def _still_waiting(self, state: State, ref: str) -> Found | None:
        """Return a task that was in the line; None if it does not wait for us any more."""
        found = self._find(ref)
        if found is None or not found.due_at:
            return found  # it is gone; or on its way to us, or about to be released
        is_guard = ref == state.guard and _is_near(found.due_at, state.guard_due_at)
        return found if is_guard or _is_near(found.due_at, _phase(ref), NAP) else None

    def _look(self, state: State, here: Iterable[str] = (), *, at_once: bool = False) -> None:
        """Forget those who have gone without a word, and tell those who were called and may not know.

        Args:
            state: What is changed.
            here: Tasks that are here, and need not be told.
            at_once: However soon after the last look: for a task whose last worker has died, perhaps when it
                was about to tell somebody; and for one after whom nobody may come.
        """
        if not at_once and state.now - state.looked_at < LOOK_EVERY:
            return
        state.looked_at = state.now
        if self._rule.counts_inside:
            for ref in list(state.inside)[:LOOK_AT]:
                is_inside, token = self._is_inside(state, ref), state.inside.pop(ref)
                if is_inside:
                    state.inside[ref] = token  # as the last one: next time it is the others' turn
        for ref, found in self._found(state.overdue):
            if found is None:
                del state.called[ref]
            elif _is_near(found.due_at, state.called[ref].parked_until):
                state.news[ref] = state.called[ref].due_at
        if state.guard and self._find(state.guard) is None:
            state.guard = ""
        self._call_next(state, here)

    def _is_inside(self, state: State, ref: str) -> bool:
        """Whether a task is in under a hand-out that holds it."""
        token = state.inside.get(ref)
        found = self._find(ref) if token else None
        return found is not None and found.token == token and found.lapses_at > state.now

    def _remind(self, state: State, refs: Iterable[str]) -> None:
        """Tell those who were called once more, if they are still delayed as they were then."""
        for ref, found in self._found(refs):
            call = state.called[ref]
            if found and _is_near(found.due_at, call.parked_until):
                self._reschedule({ref: call.due_at}, state.now)

    def _found(self, refs: Iterable[str]) -> Iterator[tuple[str, Found | None]]:
        """Yield tasks as they are, up to so many."""
        for ref in list(refs)[:LOOK_AT]:
            yield ref, self._find(ref)

    def _find(self, ref: str) -> Found | None:
        """Return a task as it is."""
        try:
            return self._backend.find(*keys.of_ref(ref))
        except ValueError:  # what somebody else has written there is a name that no task can have
            return None

    def _tell(self, state: State) -> None:
        """Do what was written: let those who were called be due; and go on, if those were not all."""
        self._reschedule(state.news, state.now)
        while state.has_more:
            state = self._record.read()
            self._call_next(state)
            if self._write(state):
                self._reschedule(state.news, state.now)
            else:
                state.has_more = True

    def _write(self, state: State) -> bool:
        return self._record.swap(state, self._rule.kept_for(state) if state.is_idle else None)

    def _reschedule(self, moments: Mapping[str, float], now: float = 0.0) -> None:
        """Let delayed tasks be due at certain moments. Those that are held will hear of it afterwards."""
        together: dict[tuple[str, float], list[str]] = {}
        for ref, due_at in moments.items():
            queue_name, task_id = keys.of_ref(ref)
            when = 0.0 if due_at <= now else due_at
            together.setdefault((queue_name, when), []).append(task_id)
        for (queue_name, when), task_ids in together.items():
            with suppress(ValueError):  # as above
                self._backend.reschedule(queue_name, task_ids, when)


def _ref(held: Reservation) -> str:
    return keys.ref(held.queue_name, held.task_id)


def _strike_out(state: State, ref: str, token: str | None) -> bool:
    """Forget that a task is in; without a token, also that it was called, or is the guard.

    Returns whether it was any of that.
    """
    if token is not None and state.inside.get(ref) != token:
        return False
    was_in = state.inside.pop(ref, None) is not None
    was_called = token is None and state.called.pop(ref, None) is not None
    is_guard = token is None and ref == state.guard
    if is_guard:
        state.guard = ""
    state.moved_at = state.now
    return was_in or was_called or is_guard


def _phase(ref: str) -> float:
    """Return a part of a nap by which tasks differ: each wakes up so long after a multiple of naps."""
    return crc32(ref.encode()) % (NAP * 1000) / 1000


def _is_near(due_at: float, expected: float, every: float = math.inf) -> bool:
    """Return whether a task is due when it was to be, or so many seconds later, or twice as many."""
    # Our clock may be a little ahead of the store's.
    return 0.0 <= (due_at - expected + 1.0) % every <= SLACK + 1.0
