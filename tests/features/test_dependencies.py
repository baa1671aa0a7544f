"""Tasks that depend on others: they run after these have succeeded, or fail with them."""

import bz2
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest

from alligator import Gator, Task, cli, dependencies, results
from alligator.attempts import Runner
from alligator.backends.base import Ack, Backend, Counts, Message, Release
from alligator.commands import letters, revival
from alligator.commands.letters import Ref, Story
from alligator.constants import CANCELED, DELAYED, SUCCESS, WAITING
from alligator.dependencies import OurTask, Verdict, depending, follow_of, released
from alligator.dependencies.edges import (
    Edge,
    Name,
    dependents_of,
    edges_in,
    failed_of,
    link,
    need,
    needs_of,
    records_of,
)
from alligator.exceptions import (
    BackendUnavailable,
    InvalidOption,
    QueueFull,
    TaskExists,
    TaskFailed,
    UnknownTask,
    UnreadableTask,
)
from alligator.runs import Run
from alligator.testing.stores import FAR_OFF, let_pass, take, until
from tests.features import work
from tests.features.work import QuietWorker, do, fail, work_off

ODD = ["a/b", "a:b", "a%2Fb", "%", "ž🐊", " x ", "'", '"', "x" * 255]
"""Names that may be taken for something else where they are parts of others."""


def push(
    gator: Gator, what: Any, *needed: Any, func: Callable[..., Any] = do, **kwargs: Any
) -> Task:
    """Queue a task that notes what it is, and depends on others."""
    with gator.options(depends_on=needed, **kwargs) as opts:
        return opts.task(func, what)


def beside(gator: Gator, queue_name: str = "all", **kwargs: Any) -> Gator:
    """Return a Gator on another queue of the same store."""
    return Gator("locmem://", queue_name, backend_class=lambda dsn: gator.backend, **kwargs)


def edges_left(gator: Gator, *tasks: Task) -> list[str]:
    """Return what records there are of what these tasks need, or of what needs them."""
    records = gator.backend.records
    assert records is not None
    names = [(task.queue_name or "", task.task_id) for task in tasks]
    families = [of(name) for name in names for of in (needs_of, dependents_of, failed_of)]
    return [key for family in families for key in records.list(family)]


def told(gator: Gator, task: Task) -> tuple[str, str]:
    """Return why a task is dead."""
    [letter] = gator.backend.dead(gator.queue_name, task_id=task.task_id)
    story = Story.of(letter)
    return story.reason, story.error


def refs(*tasks: Task, of: Gator) -> list[Ref]:
    """Return the tasks' dead letters."""
    return [
        Ref.to(letter)
        for task in tasks
        for letter in of.backend.dead(task.queue_name or "", task_id=task.task_id)
    ]


def let_look(gator: Gator, *tasks: Task) -> None:
    """Let the time come at which blocked tasks look by themselves."""
    gator.backend.reschedule(gator.queue_name, [task.task_id for task in tasks])
    work_off(gator)


NAMELESS = ["all:%uD800", "%uD800:x", "all:a%u0000b", "a%u0000b:x", "all:", f"all:{'x' * 256}"]
"""What no task can be called, as a part of a key that anybody may have written."""


def test_what_cannot_be_a_task_keeps_none_waiting(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)
    families = dependents_of(name_of(first)), needs_of(name_of(second))
    forged = {f"{family}/{ref}": b'{"of": 1, "at": 1.0}' for family in families for ref in NAMELESS}
    records_of(gator.backend).set_many(forged)

    work_off(gator)

    assert work.done == ["first", "second"]
    assert gator.backend.count("all") == Counts()


def test_nor_is_it_queued_again_with_what_it_is_said_to_have_failed_for(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    push(gator, "second", first)
    work_off(gator)
    family = failed_of(name_of(first))
    records_of(gator.backend).set_many({f"{family}/{ref}": b'{"failed": "?"}' for ref in NAMELESS})

    dead = [Ref.to(letter) for letter in gator.backend.dead("all", task_id=first.task_id)]
    outcome = revival.retry(gator.backend, dead)

    assert len(outcome.done) == 2
    assert gator.backend.count("all") == Counts(delayed=1, waiting=1)


def name_of(task: Task) -> Name:
    return task.queue_name or "", task.task_id


# Order


def test_a_task_runs_after_the_one_it_depends_on(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)
    third = push(gator, "third", second)
    assert (first.status, second.status) == (WAITING, DELAYED)
    assert (gator.backend.count("all").waiting, gator.backend.count("all").delayed) == (1, 2)

    work_off(gator)

    assert work.done == ["first", "second", "third"]
    assert edges_left(gator, first, second, third) == []
    assert gator.len() == 0


def test_ids_stand_for_tasks_of_the_same_queue(gator: Gator) -> None:
    push(gator, "first", task_id="t1")
    push(gator, "second", "t1")
    with gator.options(depends_on="t1") as opts:  # one need not be listed
        opts.task(do, "third")

    work_off(gator)

    assert work.done == ["first", "second", "third"]


def test_a_task_that_depends_on_two_waits_for_both(gator: Gator) -> None:
    top = push(gator, "top")
    left, right = push(gator, "left", top), push(gator, "right", top)
    bottom = push(gator, "bottom", left, right, left.task_id)

    work_off(gator)

    assert work.done[0] == "top"
    assert sorted(work.done[1:3]) == ["left", "right"]
    assert work.done[3:] == ["bottom"]
    assert edges_left(gator, top, left, right, bottom) == []


def test_a_task_is_handed_out_only_when_it_needs_nothing_more(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Name] = []
    verdict = dependencies.verdict

    def noting(backend: Backend, name: Name, depends_on: Collection[Name]) -> Verdict:
        asked.append(name)
        return verdict(backend, name, depends_on)

    monkeypatch.setattr(dependencies, "verdict", noting)
    last = push(gator, "last", *[push(gator, number) for number in range(5)], priority=9)

    while gator.pop() is not None:
        pass

    assert work.done == [0, 1, 2, 3, 4, "last"]
    assert asked == [("all", last.task_id)]


def test_one_may_depend_on_a_thousand(gator: Gator) -> None:
    with gator.batch() as batch:
        before = [batch.task(do, number) for number in range(1000)]
        with batch.options(depends_on=before) as opts:
            last = opts.task(do, "last")
    one_more = push(gator, "one more", *before)

    work_off(gator)

    assert sorted(work.done[:1000]) == list(range(1000))
    assert sorted(work.done[1000:]) == ["last", "one more"]
    assert edges_left(gator, last, one_more) == []


def test_ten_thousand_may_depend_on_one(gator: Gator, capsys: pytest.CaptureFixture[str]) -> None:
    with gator.batch() as batch:
        first = batch.task(do, -1)
        with batch.options(depends_on=first) as opts:
            for number in range(10_000):
                opts.task(do, number)
    assert gator.backend.count("all").waiting == 1
    began = time.monotonic()

    work_off(gator)

    with capsys.disabled():
        print(f"\n{gator.dsn.scheme}: 10,000 dependents done in {time.monotonic() - began:.1f} s")
    assert work.done[0] == -1
    assert sorted(work.done[1:]) == list(range(10_000))
    assert edges_left(gator, first) == []
    assert gator.len() == 0


def test_a_task_of_another_queue_may_be_waited_for(gator: Gator) -> None:
    other = beside(gator, "other")
    first = push(gator, "first")
    second = push(other, "second", first)
    third = push(gator, "third", second, first)

    work_off(other)
    assert work.done == []
    work_off(gator)
    assert work.done == ["first"]
    work_off(other)
    assert work.done == ["first", "second"]
    work_off(gator, to_consume=["all", "other"])

    assert work.done == ["first", "second", "third"]
    assert edges_left(gator, first, second, third) == []


def test_odd_names_of_queues_and_tasks(gator: Gator) -> None:
    for queue_name in ["a/b", "needs:a", "%3A", "ž🐊", "q" * 200]:
        other = beside(gator, queue_name)
        before = [push(other, (queue_name, name), task_id=name) for name in ODD]
        after = [push(other, name, name, task_id=f"{name[:200]}!") for name in ODD]
        work.done.clear()

        work_off(other)

        assert sorted(work.done[len(ODD) :]) == sorted(ODD)
        assert edges_left(other, *before, *after) == []


def test_priorities_count_among_those_that_are_let_go(gator: Gator) -> None:
    first = push(gator, "first")
    push(gator, "usual", first)
    push(gator, "urgent", first, priority=5)
    for number in range(3):
        push(gator, number)

    work_off(gator, max_tasks=2)

    # The dependents were let go before the others that waited were taken.
    assert work.done == ["first", "urgent"]


def test_a_retry_of_what_is_waited_for_is_waited_for_too(gator: Gator) -> None:
    first = push(gator, "first", func=fail, retries=2)
    second = push(gator, "second", first)

    work_off(gator)

    assert work.done == ["first"] * 3
    assert told(gator, second)[0] == "dependency"


def test_a_task_keeps_its_own_retries(gator: Gator) -> None:
    first = push(gator, "first")
    push(gator, "second", first, func=fail, retries=2)

    work_off(gator)

    assert work.done == ["first", "second", "second", "second"]


# Time


def test_a_delay_counts_from_the_push_and_not_from_what_is_waited_for(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first, delay_by=FAR_OFF)
    third = push(gator, "third", first, delay_until=datetime.fromtimestamp(time.time() + 60, UTC))

    work_off(gator)

    assert work.done == ["first"]
    for task, due_in in [(second, FAR_OFF), (third, 60.0)]:
        found = gator.backend.find("all", task.task_id)
        assert found is not None
        assert abs(found.due_at - gator.backend.now() - due_in) < 20
    assert edges_left(gator, first, second, third) == []


def test_a_delay_that_is_over_delays_no_more(gator: Gator) -> None:
    first = push(gator, "first")
    push(gator, "second", first, delay_by=0.05)
    let_pass(gator.backend, 0.1)

    work_off(gator)

    assert work.done == ["first", "second"]


def test_a_delay_may_end_last(gator: Gator) -> None:
    first = push(gator, "first")
    push(gator, "second", first, delay_by=0.3)
    work_off(gator)
    assert work.done == ["first"]

    take_and_run(gator)

    assert work.done == ["first", "second"]


def take_and_run(gator: Gator) -> None:
    """Wait for the next task, and run it."""
    gator.backend.settle([Release(take(gator.backend))])
    work_off(gator)


# What is over already


def test_what_has_succeeded_and_is_known_to_have_is_not_waited_for(gator: Gator) -> None:
    kept = push(gator, "kept", keep_result=60)
    waited_for = push(gator, "waited for")
    before = push(gator, "before", waited_for)
    work_off(gator)

    after = push(gator, "after", kept.task_id, waited_for.task_id)
    delayed = push(gator, "delayed", kept.task_id, delay_by=FAR_OFF)

    assert (after.status, delayed.status) == (WAITING, DELAYED)
    assert edges_left(gator, kept, waited_for, before, after, delayed) == []
    work_off(gator)
    assert work.done[-1] == "after"


def test_some_may_have_succeeded_and_others_not(gator: Gator) -> None:
    kept = push(gator, "kept", keep_result=60)
    work_off(gator)
    other = push(gator, "other")
    last = push(gator, "last", kept, other)

    work_off(gator)

    assert work.done == ["kept", "other", "last"]
    assert edges_left(gator, kept, other, last) == []


def test_a_task_that_was_run_here_and_now_has_succeeded(gator: Gator) -> None:
    ran = push(gator, "ran", is_async=False)
    assert ran.status == SUCCESS

    task = push(gator, "task", ran)

    assert (task.depends_on, task.status) == (None, WAITING)
    work_off(gator)
    assert work.done == ["ran", "task"]


def test_what_is_done_and_forgotten_cannot_be_waited_for(gator: Gator) -> None:
    first = push(gator, "first")
    work_off(gator)

    with pytest.raises(UnknownTask, match=f"Nothing is known of task '{first.task_id}'.*one batch"):
        push(gator, "second", first.task_id, task_id="second")

    assert gator.len() == 0
    assert edges_left(gator, first) == []
    assert edges_in(gator.backend, needs_of(("all", "second"))) == {}


def drop(gator: Gator, task: Task) -> None:
    gator.backend.drop_all(gator.queue_name)


def purge(gator: Gator, task: Task) -> None:
    with pytest.raises(ValueError, match="first"):
        gator.get(task.task_id)
    letters.purge(gator.backend, refs(task, of=gator))


def succeed(gator: Gator, task: Task) -> None:
    task.to_call(do, "first")
    gator.backend.cancel(gator.queue_name, task.task_id)
    gator.push(task, do, "first")
    gator.get(task.task_id)


@pytest.mark.parametrize("end", [drop, purge, succeed])
def test_what_has_left_no_trace_is_not_taken_to_have_succeeded(
    gator: Gator, end: Callable[[Gator, Task], None]
) -> None:
    first = push(gator, "first", func=fail)
    end(gator, first)

    with pytest.raises(UnknownTask, match="not known how it ended"):
        push(gator, "second", first)

    assert gator.len() == 0
    assert edges_left(gator, first) == []


def test_a_success_that_is_known_where_results_are_kept_counts(
    gator: Gator, tmp_path: Path
) -> None:
    apart = Gator(
        "locmem://",
        backend_class=lambda dsn: gator.backend,
        results=f"sqlite://{tmp_path}/results.db",
    )
    first, bad = push(apart, "first", keep_result=60), push(apart, "bad", func=fail, keep_result=60)
    work_off(apart)
    letters.purge(gator.backend, refs(bad, of=gator))

    assert push(apart, "second", first.task_id).status == WAITING
    with pytest.raises(TaskFailed, match="which failed: ValueError: bad"):
        push(apart, "third", bad.task_id)
    assert apart.results is not None
    assert gator.backend.records is not None
    assert gator.backend.records.list("outcomes") == {}


def test_what_was_not_queued_after_all_is_not_taken_to_have_succeeded(gator: Gator) -> None:
    full = beside(gator, max_length=1)
    push(full, "takes the room")
    unsent = Task()
    with pytest.raises(QueueFull):
        full.push(unsent, do, "first")

    with pytest.raises(UnknownTask):
        push(gator, "second", unsent)


def test_what_was_never_queued_cannot_be_waited_for(gator: Gator) -> None:
    with pytest.raises(UnknownTask, match="Nothing is known of task 'nobody'"):
        push(gator, "second", "nobody")

    assert gator.len() == 0


def test_nothing_of_a_batch_is_queued_if_one_task_waits_for_nobody(gator: Gator) -> None:
    known = push(gator, "known")
    tasks = [known]
    with pytest.raises(UnknownTask), gator.batch() as batch:
        tasks.append(batch.task(do, "first"))
        with batch.options(depends_on=tasks) as opts:
            tasks.append(opts.task(do, "second"))
        with batch.options(depends_on="nobody") as opts:
            tasks.append(opts.task(do, "third"))

    assert gator.len() == 1
    assert edges_left(gator, *tasks) == []


def test_what_has_failed_cannot_be_waited_for(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    work_off(gator)

    with pytest.raises(TaskFailed, match=r"cannot depend on .*, which failed: ValueError: first"):
        push(gator, "second", first)

    assert gator.len() == 0
    assert edges_left(gator, first) == []


def test_what_was_canceled_cannot_be_waited_for(gator: Gator) -> None:
    first = push(gator, "first", keep_result=60)
    gator.cancel(first.task_id)

    with pytest.raises(TaskFailed, match="which was canceled"):
        push(gator, "second", first)

    assert gator.len() == 0


def test_the_last_time_counts_of_an_id_used_again(gator: Gator) -> None:
    push(gator, "fails", task_id="daily", func=fail)
    work_off(gator)
    push(gator, "succeeds", task_id="daily", keep_result=60)
    work_off(gator)
    push(gator, "after a success", "daily")
    work_off(gator)
    assert work.done[-1] == "after a success"

    push(gator, "fails", task_id="daily", func=fail)
    work_off(gator)

    with pytest.raises(TaskFailed, match="which failed: ValueError: fails"):
        push(gator, "after a failure", "daily")


def test_a_success_that_others_waited_for_counts_more_than_a_failure_before(gator: Gator) -> None:
    for func in (do, fail, do):
        daily = push(gator, "daily", task_id="daily", func=func)
        push(gator, "after", daily)
        work_off(gator)

    assert push(gator, "one more", "daily").status == WAITING
    assert work.done == ["daily", "after", "daily", "daily", "after"]


def test_how_long_a_success_is_known_counts_from_when_it_is_told(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = push(gator, "kept", keep_result=60)
    push(gator, "after", kept)
    gator.pop()
    monkeypatch.setattr(results, "REMEMBERED", -59.9)
    run_ours(gator)

    assert gator.backend.records is not None
    assert kept.wait(0) == "kept"
    records = gator.backend.records
    until(lambda: results.outcome_of(records, "all", kept.task_id) is None, "it is forgotten")


# Failures


def test_what_depends_on_a_failure_fails_with_it(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    second = push(gator, "second", first)
    third = push(gator, "third", second)
    free = push(gator, "free")

    work_off(gator)

    assert work.done == ["first", "free"]
    assert told(gator, second) == (
        "dependency",
        f"alligator.exceptions.TaskFailed: It depends on '{first.task_id}', which failed: ValueError: first",
    )
    reason, error = told(gator, third)
    assert reason == "dependency"
    assert f"It depends on '{second.task_id}', which failed: It depends on" in error
    assert error.endswith("which failed: ValueError: first")
    assert gator.len() == 0
    assert free.status == WAITING


def test_what_depends_on_a_canceled_task_fails(gator: Gator) -> None:
    other = beside(gator, "other")
    first = push(gator, "first")
    second = push(other, "second", first)

    assert gator.cancel(first.task_id)
    work_off(gator)
    work_off(other)

    assert work.done == []
    error = told(other, second)[1]
    assert error.endswith(f"It depends on '{first.task_id}' of queue 'all', which was canceled")


def test_what_depends_on_a_dropped_task_fails(gator: Gator) -> None:
    other = beside(gator, "other")
    first = push(gator, "first")
    second = push(other, "second", first)

    gator.backend.drop_all("all")
    work_off(gator)
    work_off(other)

    assert told(other, second)[1].endswith("which was canceled")


def test_one_of_two_that_fails_is_enough(gator: Gator) -> None:
    good, bad = push(gator, "good"), push(gator, "bad", func=fail)
    last = push(gator, "last", good, bad)

    work_off(gator)

    assert sorted(work.done) == ["bad", "good"]
    assert told(gator, last)[0] == "dependency"
    assert list(edges_in(gator.backend, needs_of(("all", last.task_id)))) == [("all", bad.task_id)]


def test_who_waits_for_the_result_of_a_dependent_is_told(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    second = push(gator, "second", first, keep_result=60)

    work_off(gator)

    with pytest.raises(TaskFailed, match=r"It depends on .* ValueError: first") as caught:
        second.wait(timeout=0)
    assert caught.value.reason == "dependency"


def test_a_thousand_fail_with_one(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    with gator.batch(depends_on=first) as batch:
        for number in range(1000):
            batch.task(do, number)

    work_off(gator)

    assert work.done == ["first"]
    assert gator.backend.count("all").dead == 1001


def test_a_long_chain_of_failures_tells_where_it_began(gator: Gator) -> None:
    last = push(gator, "first", func=fail)
    for number in range(30):
        last = push(gator, number, last)

    work_off(gator)

    error = told(gator, last)[1]
    assert error.endswith("which failed: ValueError: first")
    assert len(error) < 2 * dependencies.MAX_WHY


def test_a_canceled_dependent_is_not_brought_back(gator: Gator) -> None:
    first = push(gator, "first")
    second, third = push(gator, "second", first), push(gator, "third", first)
    fourth = push(gator, "fourth", second)
    canceled = gator.cancel(second.task_id)
    assert canceled is not None
    assert canceled.status == CANCELED

    work_off(gator)

    assert work.done == ["first", "third"]
    assert told(gator, fourth)[1].endswith("which was canceled")
    assert edges_left(gator, first, third) == []


def test_a_failure_is_nothing_to_what_needs_it_no_more(gator: Gator) -> None:
    first = push(gator, "first", func=fail)
    second = push(gator, "second", first)
    records = gator.backend.records
    assert records is not None
    records.delete(need(("all", second.task_id), ("all", first.task_id)))

    work_off(gator)

    assert [letter.task_id for letter in gator.backend.dead("all")] == [first.task_id]
    assert edges_left(gator, first, second) == []
    let_look(gator, second)
    assert work.done == ["first", "second"]


def test_what_a_canceled_dependent_failed_for_is_forgotten_in_time(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "REMEMBERED", 0.05)
    first = push(gator, "first", func=fail)
    second, third = push(gator, "second", first), push(gator, "third", first)
    gator.cancel(second.task_id)
    work_off(gator)
    let_pass(gator.backend, 0.1)

    assert edges_left(gator, second) == []
    assert edges_left(gator, third) != []


def canceled(gator: Gator) -> None:
    assert gator.cancel("second")


def dropped(gator: Gator) -> None:
    gator.backend.drop_all("other")


def replaced(gator: Gator) -> None:
    pass


@pytest.mark.parametrize("ends", [do, fail])
@pytest.mark.parametrize("gone", [canceled, dropped, replaced])
def test_another_of_its_id_does_not_start_when_what_a_former_one_waited_for_is_over(
    gator: Gator, gone: Callable[[Gator], None], ends: Callable[..., Any]
) -> None:
    other = beside(gator, "other")
    first = push(gator, "first", func=ends)
    second = push(other, "second", first, task_id="second")
    gone(other)
    with other.options(task_id="second", if_exists="replace", delay_by=FAR_OFF) as opts:
        opts.task(do, "another")

    work_off(gator)
    work_off(other)

    assert work.done == ["first"]
    assert edges_left(gator, first, second) == []
    found = gator.backend.find("other", "second")
    assert found is not None
    assert found.due_at > gator.backend.now() + 0.9 * FAR_OFF


def test_of_two_of_its_id_only_the_one_that_waits_starts(gator: Gator) -> None:
    first, slow = push(gator, "first"), push(gator, "slow", delay_by=FAR_OFF)
    push(gator, "former", slow, first, task_id="second")
    gator.backend.cancel("all", "second")
    second = push(gator, "second", first, task_id="second")

    work_off(gator)
    let_look(gator, slow)

    assert work.done == ["first", "second", "slow"]
    assert edges_left(gator, first, slow, second) == []


def test_what_is_queued_again_before_its_failure_is_told_is_waited_for(gator: Gator) -> None:
    push(gator, "first", task_id="first")
    second = push(gator, "second", "first")
    gator.cancel("first")
    push(gator, "first again", task_id="first")

    work_off(gator)

    assert work.done == ["first again", "second"]
    assert edges_left(gator, second) == []


# Batches


def test_a_task_may_depend_on_those_before_it_in_a_batch(gator: Gator) -> None:
    with gator.batch() as batch:
        first = batch.task(do, "first")
        with batch.options(depends_on=[first]) as opts:
            second = opts.task(do, "second")
        with batch.options(depends_on=[first, second.task_id]) as opts:
            third = opts.task(do, "third")
    assert gator.backend.count("all").delayed == 2

    work_off(gator)

    assert work.done == ["first", "second", "third"]
    assert edges_left(gator, first, second, third) == []


def test_a_batch_larger_than_any_step_of_a_store(gator: Gator) -> None:
    with gator.batch() as batch:
        last = batch.task(do, 0)
        for number in range(1, 1500):
            with batch.options(depends_on=last) as opts:
                last = opts.task(do, number)

    work_off(gator)

    assert work.done == list(range(1500))


def test_many_pairs_in_a_batch(gator: Gator) -> None:
    with gator.batch() as batch:
        for number in range(1200):
            with batch.options(depends_on=batch.task(do, (number, 0))) as opts:
                opts.task(do, (number, 1))

    work_off(gator)

    assert [place for number in range(1200) for n, place in work.done if n == number] == [
        0,
        1,
    ] * 1200


def test_a_batch_may_have_a_task_that_is_queued_already(gator: Gator) -> None:
    push(gator, "old", task_id="old")
    with gator.batch() as batch:
        with batch.options(task_id="old") as opts:
            old = opts.task(do, "not again")
        with batch.options(depends_on=old) as opts:
            new = opts.task(do, "new")

    work_off(gator)

    assert work.done == ["old", "new"]
    assert edges_left(gator, old, new) == []


def test_what_was_there_before_a_batch_and_ends_in_its_push_is_queued_again(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(gator, "old", func=fail, task_id="old")
    push_many = gator.backend.push_many

    def end_it(queue_name: str, messages: Sequence[Message], **kwargs: Any) -> list[bool]:
        queued = push_many(queue_name, messages, **kwargs)
        if len(messages) == 2:
            with pytest.raises(ValueError, match="old"):
                gator.get("old")
        return queued

    monkeypatch.setattr(gator.backend, "push_many", end_it)
    with gator.batch() as batch:
        with batch.options(task_id="old") as opts:
            old = opts.task(do, "again")
        with batch.options(depends_on=old) as opts:
            new = opts.task(do, "new")

    work_off(gator)

    assert work.done == ["old", "again", "new"]
    assert edges_left(gator, old, new) == []


def test_a_batch_may_have_a_dependent_that_is_queued_already(gator: Gator) -> None:
    first = push(gator, "first", delay_by=FAR_OFF)
    push(gator, "old", first, task_id="old")
    with gator.batch() as batch:
        other = batch.task(do, "other")
        with batch.options(task_id="old", depends_on=other) as opts:
            old = opts.task(do, "not again")
        with batch.options(depends_on=old) as opts:
            opts.task(do, "new")
    work_off(gator)
    assert work.done == ["other"]

    gator.backend.reschedule("all", [first.task_id])
    work_off(gator)

    assert work.done == ["other", "first", "old", "new"]


def test_an_id_twice_in_a_batch_counts_once(gator: Gator) -> None:
    never = push(gator, "never", delay_by=FAR_OFF)
    with gator.batch() as batch:
        first = batch.task(do, "first")
        for needed in (first, never):
            with batch.options(task_id="twice", depends_on=needed) as opts:
                opts.task(do, needed.func_args[0] + " is done")

    work_off(gator)

    assert work.done == ["first", "first is done"]


# An id that is queued already


def test_a_push_of_an_id_that_is_queued_changes_nothing(gator: Gator) -> None:
    first, never = push(gator, "first"), push(gator, "never", delay_by=FAR_OFF)
    task = push(gator, "task", first, task_id="task")

    push(gator, "not me", never, task_id="task")
    with pytest.raises(TaskExists):
        push(gator, "nor me", never, task_id="task", if_exists="raise")

    assert len(edges_left(gator, task)) == 1
    work_off(gator)
    assert work.done == ["first", "task"]


def test_the_same_task_may_be_pushed_again(gator: Gator) -> None:
    first = push(gator, "first", delay_by=FAR_OFF)
    task = push(gator, "task", first)
    found = gator.backend.find("all", task.task_id)

    gator.push(task, do, "task")

    assert gator.backend.find("all", task.task_id) == found
    gator.backend.reschedule("all", [first.task_id])
    work_off(gator)
    assert work.done == ["first", "task"]


def test_what_a_task_of_the_same_id_has_left_is_none_of_a_new_one(gator: Gator) -> None:
    bad, good = push(gator, "bad", func=fail), push(gator, "good", delay_by=FAR_OFF)
    push(gator, "old", bad, good, task_id="task")
    work_off(gator)
    assert gator.backend.dead("all", task_id="task")
    first, other = push(gator, "first"), push(gator, "other")

    push(gator, "new", first, other, task_id="task")
    work_off(gator)

    assert work.done == ["bad", "first", "other", "new"]


def test_what_a_task_of_the_same_id_has_left_long_ago_is_removed(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depending, "IN_FLIGHT", 0.0)
    never, first = push(gator, "never", delay_by=FAR_OFF), push(gator, "first")
    push(gator, "old", never, task_id="task")
    gator.cancel("task")
    let_pass(gator.backend, 0.05)

    push(gator, "new", first, task_id="task")

    assert list(edges_in(gator.backend, needs_of(("all", "task")))) == [("all", first.task_id)]
    assert edges_left(gator, never) == []


def test_a_task_that_may_run_already_is_not_blocked_by_a_push_of_its_id(gator: Gator) -> None:
    first = push(gator, "first")
    push(gator, "task", first, task_id="task")
    gator.pop()
    run_ours(gator)
    assert gator.backend.count("all").waiting == 1

    push(gator, "not me", first.task_id, task_id="task")
    push(gator, "nor me", "nobody", task_id="task")

    assert edges_left(gator, first) == []
    work_off(gator)
    assert work.done == ["first", "task"]


def run_ours(gator: Gator) -> None:
    """Run the next task, which is one of Alligator's own."""
    [held] = gator.backend.reserve(["all"], "worker").reservations
    assert dependencies.class_for(held.body, Task) is OurTask
    gator.backend.settle([Runner(gator.backend, Task).attempt(held).settlement])


# What is refused


def test_what_can_never_be_is_refused(gator: Gator) -> None:
    unsent = Task()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"depends_on": ["me"], "task_id": "me"}, "cannot depend on itself"),
        ({"depends_on": ["a"], "if_exists": "replace"}, 'cannot have if_exists="replace"'),
        ({"depends_on": ["a"], "is_async": False}, "is_async=False runs at once"),
        ({"depends_on": [unsent]}, "has not been queued"),
        ({"depends_on": ["a\nb"]}, "control characters"),
        ({"depends_on": [""]}, "takes 0 bytes"),
        ({"depends_on": [5]}, "5 is neither"),
    ]
    for options, message in cases:
        with pytest.raises(InvalidOption, match=message), gator.options(**options) as opts:
            opts.task(do, 1)
    with pytest.raises(InvalidOption, match="neither"), gator.options(depends_on=[Fake()]) as opts:
        opts.task(do, 1)
    assert gator.len() == 0


class Fake:
    task_id = "t1"


def test_a_task_later_in_the_batch_cannot_be_waited_for(gator: Gator) -> None:
    with (
        pytest.raises(InvalidOption, match="'later', which comes later in the same batch"),
        gator.batch() as batch,
    ):
        with batch.options(depends_on=["later"]) as opts:
            opts.task(do, 1)
        with batch.options(task_id="later") as opts:
            opts.task(do, 2)

    assert gator.len() == 0


def test_no_dependencies_are_no_dependencies(gator: Gator) -> None:
    task = push(gator, "task")
    assert task.depends_on is None
    [held] = gator.backend.reserve(["all"], "worker").reservations

    assert b"depends_on" not in held.body


def test_a_full_queue_leaves_nothing_behind(gator: Gator) -> None:
    small = beside(gator, max_length=2)
    first = push(small, "first", delay_by=FAR_OFF)
    second = push(small, "second", first)

    with pytest.raises(QueueFull):
        push(small, "third", first, task_id="third")

    assert len(edges_left(gator, second)) == 1
    assert edges_in(gator.backend, needs_of(("all", "third"))) == {}


# Others' classes, and what the user sees of ours


class Compressed(Task):
    """Has a form of its own in the queue, around ours."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_start = noted_start

    def serialize(self) -> bytes:
        return bz2.compress(str(super().serialize()).encode())

    @classmethod
    def deserialize(cls, data: str | bytes) -> Self:
        assert isinstance(data, bytes)
        return super().deserialize(bz2.decompress(data))


class Forgetful(Compressed):
    """Its form has no options."""

    def _to_json(self, read: Any) -> dict[str, Any]:
        return {}


def noted_start(task: Task) -> None:
    work.done.append("starts")


def test_a_class_of_tasks_with_a_form_of_its_own(gator: Gator) -> None:
    own = beside(gator, task_class=Compressed)
    first = push(own, "first")
    push(own, "second", first)
    bad = push(own, "bad", func=fail)
    dependent = push(own, "dependent", bad)

    work_off(own)

    # Its hook has not seen what was none of its tasks.
    assert work.done == ["starts", "first", "starts", "bad", "starts", "second"]
    assert told(own, dependent)[0] == "dependency"


def test_queues_with_different_classes_of_tasks(gator: Gator) -> None:
    own = beside(gator, "own", task_class=Compressed)
    first = push(gator, "first")
    second = push(own, "second", first)
    push(gator, "third", second)

    work_off(gator)
    work_off(own)
    work_off(gator)

    assert work.done == ["first", "starts", "second", "third"]


def test_a_form_that_loses_what_a_task_depends_on_is_refused(gator: Gator) -> None:
    own = beside(gator, task_class=Forgetful)
    first = push(own, "first")

    with pytest.raises(InvalidOption, match=r"Forgetful has a form of its own.*depends_on"):
        push(own, "second", first)

    assert own.len() == 1
    assert edges_left(own, first) == []


@pytest.mark.parametrize(
    ("ours", "forged"),
    [
        (b'"callable":"released"', b'"callable":"fate_of"'),
        (b'"module":"alligator.dependencies"', b'"module":"os"'),
        (b'"options":{', b'"options":{"on_start":{"module":"os","callable":"abort"},'),
        (b'"options":{', b'"options":{"retry_on":[{"module":"antigravity","callable":"x"}],'),
    ],
)
def test_nothing_else_can_be_called_in_the_form_of_our_tasks(ours: bytes, forged: bytes) -> None:
    body = follow_of(("all", "t1")).on_success
    assert OurTask.deserialize(body).func is released
    assert ours in body

    body = body.replace(ours, forged)

    assert dependencies.class_for(body, Compressed) is OurTask
    with pytest.raises(UnreadableTask, match="it is not"):
        OurTask.deserialize(body)


def test_telling_is_tried_again(gator: Gator, monkeypatch: pytest.MonkeyPatch) -> None:
    own = beside(gator, task_class=Compressed)
    tries: list[int] = []
    free = dependencies.free

    def fails_once(*args: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise BackendUnavailable("away")
        free(*args)

    monkeypatch.setattr(dependencies, "free", fails_once)
    push(own, "second", push(own, "first"))
    work_off(own)
    assert work.done == ["starts", "first"]

    take_and_run(own)

    assert work.done == ["starts", "first", "starts", "second"]


def test_pop_runs_the_tasks_of_the_user_only(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)

    popped = [gator.pop(), gator.pop(), gator.pop()]

    assert [task and task.task_id for task in popped] == [first.task_id, second.task_id, None]
    assert work.done == ["first", "second"]


def test_a_task_that_is_blocked_cannot_be_got(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)

    got = gator.get(second.task_id)

    assert got is not None
    assert got.status == DELAYED
    assert work.done == []
    work_off(gator)
    assert work.done == ["first", "second"]


def test_a_worker_prints_and_counts_the_tasks_of_the_user_only(gator: Gator) -> None:
    printed: list[object] = []

    class Listener(QuietWorker):
        def result(self, result: object) -> None:
            printed.append(result)

    first = push(gator, "first")
    push(gator, "second", first)
    worker = Listener(gator, max_tasks=2)
    worker.run_forever()

    assert printed == ["first", "second"]
    assert worker.tasks_complete == 2
    blocked = push(gator, "blocked", push(gator, "far off", delay_by=FAR_OFF))
    gator.backend.reschedule("all", [blocked.task_id])
    Listener(gator, burst=True).run_forever()
    assert printed == ["first", "second"]


def test_released_is_for_workers_only() -> None:
    with pytest.raises(UnknownTask, match="only a worker can run it"):
        released("all", "t1", True)


def test_a_worker_that_leaves_does_not_tell_all_the_rest(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "PAGE", 2)
    first = push(gator, "first")
    for number in range(5):
        push(gator, number, first)
    gator.pop()
    [held] = gator.backend.reserve(["all"], "worker").reservations
    run = Runner(gator.backend, Task).begin(held)
    assert isinstance(run, Run)
    pages = iter([False, True])
    run.running.leave_when(lambda: next(pages))

    gator.backend.settle([run.complete().settlement])

    assert gator.backend.count("all").waiting == 1 + 2
    work_off(gator)
    assert work.done == ["first", 0, 1, 2, 3, 4]


# Looking by itself


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known of a task will never be known."""
    monkeypatch.setattr(dependencies, "PATIENCE", -1.0)


def lost_news(gator: Gator) -> bytes:
    """Take out, and return, what would have let the dependents go of a task that is over."""
    [held] = gator.backend.reserve(["all"], "loser").reservations
    assert dependencies.class_for(held.body, Task) is OurTask
    gator.backend.settle([Ack(held)])
    return held.body


def test_a_blocked_task_whose_time_comes_waits_on(gator: Gator) -> None:
    first = push(gator, "first", delay_by=FAR_OFF)
    second = push(gator, "second", first)

    let_look(gator, second)

    assert work.done == []
    found = gator.backend.find("all", second.task_id)
    assert found is not None
    assert found.due_at > gator.backend.now() + 0.9 * dependencies.LOOK
    let_look(gator, first)
    assert work.done == ["first", "second"]


def test_the_longer_a_task_waits_the_less_often_it_looks(
    gator: Gator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(gator, "first", delay_by=FAR_OFF)
    needed = "all", first.task_id
    name = "all", push(gator, "second", first).task_id
    looks: list[float] = []
    now = gator.backend.now()
    for age in (0.0, 600.0, 6000.0, 1e6):
        monkeypatch.setattr(gator.backend, "now", lambda age=age: now + age)
        looks.append(dependencies.verdict(gator.backend, name, {needed}).look_in)

    for look, least in zip(looks, (300.0, 1200.0, 12000.0, 21600.0), strict=True):
        assert least * 0.99 <= look <= 2 * least * 1.01


def test_a_success_that_was_never_told_is_found_out(gator: Gator) -> None:
    first = push(gator, "first", keep_result=60)
    second = push(gator, "second", first)
    gator.pop()
    lost_news(gator)
    work_off(gator)
    assert work.done == ["first"]

    let_look(gator, second)

    assert work.done == ["first", "second"]
    assert edges_left(gator, first, second) == []


def test_a_failure_that_was_never_told_is_found_out(gator: Gator) -> None:
    first = push(gator, "first", delay_by=FAR_OFF, func=fail)
    second = push(gator, "second", first)
    with pytest.raises(ValueError, match="first"):
        gator.get(first.task_id)
    lost_news(gator)

    let_look(gator, second)

    assert told(gator, second)[1].endswith("which failed: ValueError: first")
    assert dependents_of_task(gator, first) == []


def dependents_of_task(gator: Gator, task: Task) -> list[Name]:
    return list(edges_in(gator.backend, dependents_of(("all", task.task_id))))


@pytest.mark.usefixtures("impatient")
def test_a_task_of_which_nothing_is_known_is_given_up(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)
    gator.pop()
    lost_news(gator)
    let_look(gator, second)  # It might still be told.
    assert gator.backend.dead("all") == []

    let_look(gator, second)

    assert told(gator, second)[1].endswith("of which nothing is known")


@pytest.mark.usefixtures("impatient")
def test_a_task_that_was_missed_and_came_back_is_waited_for_anew(gator: Gator) -> None:
    push(gator, "first", task_id="first")
    second = push(gator, "second", "first")
    gator.pop()
    lost_news(gator)
    let_look(gator, second)
    push(gator, "first again", task_id="first", delay_by=FAR_OFF)
    let_look(gator, second)
    gator.get("first")
    news = lost_news(gator)
    let_look(gator, second)
    assert gator.backend.dead("all") == []

    gator.backend.push_many("all", [Message("news", news)])
    work_off(gator)

    assert work.done == ["first", "first again", "second"]


def test_a_task_is_not_given_up_too_soon(gator: Gator) -> None:
    first = push(gator, "first")
    second = push(gator, "second", first)
    gator.pop()
    news = lost_news(gator)

    for _ in range(3):
        let_look(gator, second)
    assert gator.backend.dead("all") == []
    gator.backend.push_many("all", [Message("news", news)])
    work_off(gator)

    assert work.done == ["first", "second"]


def test_one_that_nobody_watches_is_watched_at_the_look(gator: Gator) -> None:
    # Whatever has happened: what it needs is written down, and that is all.
    first = push(gator, "first", task_id="first", delay_by=FAR_OFF)
    second = Task(task_id="second")
    second.depend_on([("all", "first")])
    second.to_call(do, "second")
    link(gator.backend, {(("all", "second"), ("all", "first")): Edge(1, gator.backend.now())})
    gator.backend.push_many("all", [Message("second", str(second.serialize()).encode(), FAR_OFF)])

    let_look(gator, second)
    let_look(gator, first)

    assert work.done == ["first", "second"]


# Dead letters


def revived(gator: Gator, *tasks: Task) -> letters.Outcome:
    return revival.retry(gator.backend, refs(*tasks, of=gator))


def test_a_retry_with_dependents_brings_back_what_failed_because_of_it(gator: Gator) -> None:
    other = beside(gator, "other")
    first = push(gator, "first", func=flaky)
    second = push(other, "second", first)
    third = push(gator, "third", second)
    unrelated = push(gator, "unrelated", func=fail)
    work_off(gator, to_consume=["all", "other"])
    work_off(gator, to_consume=["all", "other"])
    assert (gator.backend.count("all").dead, other.backend.count("other").dead) == (3, 1)
    work.done[:] = ["mended"]

    outcome = revived(gator, first)

    assert {ref.task_id for ref in outcome.done} == {one.task_id for one in (first, second, third)}
    assert {ref.task_id for ref in outcome.waiting} == {second.task_id, third.task_id}
    assert gator.backend.count("all").waiting == 1
    for _ in range(3):
        work_off(gator, to_consume=["other", "all"])
    assert work.done == ["mended", "first", "second", "third"]
    assert edges_left(gator, first, second, third) == []
    assert [letter.task_id for letter in gator.backend.dead("all")] == [unrelated.task_id]


def flaky(what: Any) -> None:
    """Fail, unless it was mended."""
    if "mended" not in work.done:
        raise OSError(what)
    do(what)


def test_a_revived_task_waits_for_exactly_what_it_still_needs(gator: Gator) -> None:
    good, bad = push(gator, "good"), push(gator, "bad", func=flaky)
    slow = push(gator, "slow", delay_by=FAR_OFF)
    last = push(gator, "last", good, bad, slow)
    work_off(gator)
    assert told(gator, last)[0] == "dependency"
    work.done[:] = ["mended"]

    revived(gator, bad)
    work_off(gator)

    needs = edges_in(gator.backend, needs_of(("all", last.task_id)))
    assert list(needs) == [("all", slow.task_id)]
    let_look(gator, slow)
    assert work.done == ["mended", "bad", "slow", "last"]
    assert edges_left(gator, good, bad, slow, last) == []


def test_what_failed_for_two_comes_back_when_both_are_retried(gator: Gator) -> None:
    one, two = push(gator, "one", func=flaky), push(gator, "two", func=flaky)
    last = push(gator, "last", one, two)
    work_off(gator)
    work.done[:] = ["mended"]

    assert [ref.task_id for ref in revived(gator, one).done] == [one.task_id]
    work_off(gator)
    assert work.done == ["mended", "one"]
    assert {ref.task_id for ref in revived(gator, two).done} == {two.task_id, last.task_id}
    work_off(gator)

    assert work.done == ["mended", "one", "two", "last"]
    assert edges_left(gator, one, two, last) == []


def test_both_may_be_retried_at_once(gator: Gator) -> None:
    one, two = push(gator, "one", func=flaky), push(gator, "two", func=flaky)
    last = push(gator, "last", one, two)
    after = push(gator, "after", last, two)
    work_off(gator)
    work.done[:] = ["mended"]

    outcome = revived(gator, two, last, one)

    assert len(outcome.done) == 4
    work_off(gator)
    assert sorted(work.done[1:3]) == ["one", "two"]
    assert work.done[3:] == ["last", "after"]
    assert edges_left(gator, one, two, last, after) == []


def test_it_may_fail_again(gator: Gator) -> None:
    first = push(gator, "first", func=flaky)
    second = push(gator, "second", first)
    for _ in range(3):
        work_off(gator)
        assert told(gator, second)[0] == "dependency"
        assert len(revived(gator, first).done) == 2
    work.done[:] = ["mended"]

    work_off(gator)

    assert work.done == ["mended", "first", "second"]
    assert edges_left(gator, first, second) == []


def test_what_is_queued_again_is_left_alone(gator: Gator) -> None:
    first = push(gator, "first", func=flaky)
    second = push(gator, "second", first, task_id="second")
    work_off(gator)
    work.done[:] = ["mended"]
    push(gator, "another second", task_id="second", delay_by=FAR_OFF)

    outcome = revived(gator, first, second)

    assert [ref.task_id for ref in outcome.stayed] == ["second"]
    assert [ref.task_id for ref in outcome.done] == [first.task_id]
    work_off(gator)
    found = gator.backend.find("all", "second")
    assert found is not None
    assert found.due_at > gator.backend.now() + 1000


def test_a_dependent_that_is_retried_alone_waits_no_more(gator: Gator) -> None:
    bad, slow = push(gator, "bad", func=fail), push(gator, "slow", delay_by=FAR_OFF)
    last = push(gator, "last", bad, slow)
    work_off(gator)

    letters.retry(gator.backend, refs(last, of=gator))
    work_off(gator)

    assert work.done == ["bad", "last"]
    assert edges_left(gator, bad, slow, last) == []


def test_purging_a_dependent_forgets_what_it_needed(gator: Gator) -> None:
    bad, slow = push(gator, "bad", func=fail), push(gator, "slow", delay_by=FAR_OFF)
    last = push(gator, "last", bad, slow)
    work_off(gator)

    letters.purge(gator.backend, refs(last, of=gator))

    assert edges_left(gator, bad, slow, last) == []


def test_the_command_retries_with_dependents(
    shared_gator: Gator, capsys: pytest.CaptureFixture[str]
) -> None:
    gator = shared_gator
    first = push(gator, "first", func=flaky)
    push(gator, "second", first)
    work_off(gator)
    work.done[:] = ["mended"]
    dsn = gator.dsn.url

    status = cli.main(["dead", dsn, "retry", first.task_id, "--with-dependents"])

    assert status == 0
    assert capsys.readouterr().out == (
        "2 dead letters queued again.\nOf these, 1 waits for others of them.\n"
    )
    work_off(gator)
    assert work.done == ["mended", "first", "second"]


# Edges as another version may have written them


@pytest.mark.parametrize(
    ("value", "edge"),
    [
        (b"", Edge()),
        (b"[]", Edge()),
        (b"\xff", Edge()),
        (b'{"of": "2", "at": null, "more": 1}', Edge()),
        (b'{"of": 2, "due_at": 7.5, "more": 1}', Edge(of=2, due_at=7.5)),
    ],
)
def test_a_record_is_read_whatever_it_says(value: bytes, edge: Edge) -> None:
    assert Edge.read(value) == edge
    assert Edge.read(edge.written()) == edge
