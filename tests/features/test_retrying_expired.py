"""Dead letters whose task has expired: who queues one again by hand wants it to be run."""

import pytest

from alligator import Gator, Task
from alligator.backends.base import Bury, DeadLetter, Message
from alligator.commands import letters, revival
from alligator.commands.letters import Ref
from alligator.testing.stores import let_pass, take
from tests.features.schedules_work import OddTask
from tests.features.work import do, done, fail, work_off

LONG_AGO = 1_000_000_000.0


def refs(gator: Gator) -> list[Ref]:
    """What to retry, the oldest first."""
    return [Ref.to(letter) for letter in reversed(gator.backend.dead("all"))]


def expired(gator: Gator, *names: str, priority: int = 0) -> None:
    """Let tasks die of having expired."""
    for name in names:
        with gator.options(task_id=name, expires=0.02, priority=priority) as opts:
            opts.task(do, name)
    let_pass(gator.backend, 0.1)
    work_off(gator)
    assert done == []


def test_what_has_expired_is_run_in_the_order_it_died(gator: Gator) -> None:
    names = [f"t{number}" for number in range(20)]
    expired(gator, *names)

    outcome = letters.retry(gator.backend, refs(gator))

    assert [ref.task_id for ref in outcome.done] == names
    assert gator.backend.count("all").waiting == 20
    work_off(gator)
    assert done == names
    assert gator.backend.dead("all") == []


def test_it_stays_as_it_is_otherwise(gator: Gator) -> None:
    with gator.options(task_id="t1", expires=0.02, priority=7, retries=3, backoff=5) as opts:
        opts.task(do, ["ž", 1.5])
    let_pass(gator.backend, 0.1)
    work_off(gator)
    gator.task(do, "another")

    letters.retry(gator.backend, refs(gator))

    held = take(gator.backend)
    task = Task.deserialize(held.body)
    assert (held.task_id, held.deliveries, task.priority, task.retries) == ("t1", 1, 7, 3)
    assert (task.backoff, task.func_args, task.expires) == (5.0, (["ž", 1.5],), None)


def test_what_failed_and_has_expired_since_is_run(gator: Gator) -> None:
    with gator.options(task_id="t1", expires=0.5) as opts:
        opts.task(fail, "once")
    with pytest.raises(ValueError, match="once"):
        gator.get("t1")
    let_pass(gator.backend, 0.55)

    letters.retry(gator.backend, refs(gator))

    with pytest.raises(ValueError, match="once"):  # its own failure
        gator.pop()


def test_what_has_not_expired_yet_still_may(gator: Gator) -> None:
    with gator.options(task_id="t1", expires=600) as opts:
        opts.task(fail, "once")
    with pytest.raises(ValueError, match="once"):
        gator.pop()

    letters.retry(gator.backend, refs(gator))

    assert Task.deserialize(take(gator.backend).body).expires is not None


def test_what_is_queued_again_already_stays_as_it_is(gator: Gator) -> None:
    expired(gator, "t1")
    with gator.options(task_id="t1", delay_by=600) as opts:
        opts.task(do, "anew")

    outcome = letters.retry(gator.backend, refs(gator))

    assert [ref.task_id for ref in outcome.stayed] == ["t1"]
    found = gator.backend.find("all", "t1")
    assert found is not None
    assert Task.deserialize(found.body).func_args == ("anew",)


def test_with_its_dependents_it_is_run_too(gator: Gator) -> None:
    with gator.options(expires=0.02) as opts:
        first = opts.task(do, "first")
    with gator.options(depends_on=first, expires=0.02) as opts:
        opts.task(do, "second")
    let_pass(gator.backend, 0.1)
    work_off(gator)
    assert done == []

    outcome = revival.retry(gator.backend, refs(gator))

    assert (len(outcome.done), len(outcome.waiting)) == (2, 1)
    work_off(gator)
    assert done == ["first", "second"]


def test_what_nobody_has_named_stays_dead(gator: Gator) -> None:
    """An old task may have been put back by somebody, to be met by who retries all that is dead."""
    expired(gator, "t1", "t2")
    with gator.options(task_id="t3", expires=600) as opts:
        opts.task(fail, "t3")
    work_off(gator)
    for retry in (letters.retry, revival.retry):
        outcome = retry(gator.backend, refs(gator), with_expired=False)

        assert [ref.task_id for ref in outcome.expired] == ["t1", "t2"]
        assert [ref.task_id for ref in outcome.done] == ["t3"]
        assert (outcome.stayed, outcome.gone) == ([], [])
        work_off(gator)
        assert sorted(ref.task_id for ref in refs(gator)) == ["t1", "t2", "t3"]
    assert done == ["t3"] * 3


def test_nor_is_run_what_waited_for_such_a_one(gator: Gator) -> None:
    with gator.options(expires=0.02) as opts:
        first = opts.task(do, "first")
    with gator.options(depends_on=first) as opts:
        second = opts.task(do, "second")
    let_pass(gator.backend, 0.1)
    work_off(gator)
    work_off(gator)

    outcome = revival.retry(gator.backend, refs(gator), with_expired=False)

    assert outcome.done == []
    assert {ref.task_id for ref in outcome.expired} == {first.task_id, second.task_id}
    outcome = revival.retry(gator.backend, refs(gator))
    assert len(outcome.done) == 2
    work_off(gator)
    assert done == ["first", "second"]


def test_a_payload_in_a_form_of_its_own_stays_as_it_is(gator: Gator) -> None:
    odd = Gator(str(gator.dsn), task_class=OddTask, backend_class=lambda _: gator.backend)
    with odd.options(task_id="t1", expires=0.02) as opts:
        opts.task(do, "odd")
    let_pass(gator.backend, 0.1)
    work_off(odd)
    [letter] = gator.backend.dead("all")

    letters.retry(gator.backend, refs(gator))

    assert take(gator.backend).body == letter.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"expires": 5}',
        b'"expires"',
        b'{"task_id":"t1","retries":0,"module":"m","callable":"f","options":{"expires":5},"args":[NaN]}',
        b'{"task_id":"t1","retries":0,"module":"m","callable":"f","options":{"expires":NaN}}',
    ],
)
def test_a_payload_that_is_none_of_ours_is_queued_again_as_it_is(gator: Gator, body: bytes) -> None:
    gator.backend.push_many("all", [Message("t1", body)])
    gator.backend.settle([Bury(take(gator.backend), "note")])

    letters.retry(gator.backend, refs(gator))

    assert take(gator.backend).body == body


def test_what_expires_is_seen_in_a_dead_letter() -> None:
    task = Task(task_id="t1")
    task.to_call(do, "x")
    task.expires = 0.0, LONG_AGO
    text = task.serialize()
    body = text.encode() if isinstance(text, str) else text
    ref = Ref.to(DeadLetter("all", "1", "t1", body, "note", LONG_AGO))

    assert (ref.expires_at, ref.has_expired(LONG_AGO), ref.has_expired(LONG_AGO + 1)) == (
        LONG_AGO,
        False,
        True,
    )
