"""Many at once, the same once, the first first: batch, map, if_exists, priority, max_length, defaults."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.backends.base import Message
from alligator.constants import DELAYED, SUCCESS, WAITING
from alligator.exceptions import InvalidArguments, InvalidOption, QueueFull, TaskExists
from tests.features.work import QuietWorker, do, done, fail, work_off

# Batch and map


def test_a_batch_is_queued_at_its_end_in_order(gator: Gator) -> None:
    with gator.batch(retries=1) as batch:
        tasks = [batch.task(do, number) for number in range(2500)]
        assert gator.len() == 0
        assert len(batch) == 2500

    assert gator.len() == 2500
    assert {task.status for task in tasks} == {WAITING}
    work_off(gator)
    assert done == list(range(2500))


def test_an_exception_inside_a_batch_queues_nothing(gator: Gator) -> None:
    with pytest.raises(RuntimeError, match="half-way"), gator.batch() as batch:
        batch.task(do, 1)
        raise RuntimeError("half-way")

    assert gator.len() == 0
    assert len(batch) == 0


def test_what_cannot_be_queued_is_refused_where_it_is_put_into_a_batch(gator: Gator) -> None:
    with gator.batch() as batch:
        batch.task(do, 1)
        with pytest.raises(InvalidArguments, match=r"NaN|nan"):
            batch.task(do, float("nan"))

    assert gator.len() == 1


def test_some_tasks_of_a_batch_may_have_further_options(gator: Gator) -> None:
    with gator.batch(delay_by=3600) as batch:
        later = batch.task(do, "later")
        with batch.options(delay_by=0, priority=3) as opts:
            now = opts.task(do, "now")

    assert (later.status, now.status) == (DELAYED, WAITING)
    work_off(gator)
    assert done == ["now"]


def test_where_tasks_run_at_once_those_of_a_batch_do_so_at_its_end(gator: Gator) -> None:
    with gator.batch(is_async=False) as batch:
        first = batch.task(do, 1)
        with batch.options(depends_on=[first]) as opts:
            second = opts.task(do, 2)
        assert done == []

    assert done == [1, 2]
    assert (second.status, gator.len()) == (SUCCESS, 0)
    assert [task.result for task in gator.options(is_async="off").map(do, [3])] == [3]
    with pytest.raises(ValueError, match="failed"), gator.batch(is_async=False) as batch:
        batch.task(fail)
        batch.task(do, 4)
    assert done == [1, 2, 3, "failed"]


def test_many_tasks_cannot_have_one_id(gator: Gator) -> None:
    with pytest.raises(InvalidOption, match="task_id"):
        gator.batch(task_id="one")
    with pytest.raises(InvalidOption, match="task_id"):
        Gator("locmem://", options={"task_id": "one"})

    with gator.batch() as batch, batch.options(task_id="one") as opts:
        opts.task(do, 1)

    assert gator.status("one").state == "waiting"


def test_map_queues_a_call_for_each_item_of_any_iterable(gator: Gator) -> None:
    def numbers() -> Iterator[int]:
        yield from range(1500)

    tasks = gator.map(do, numbers())

    assert len(tasks) == gator.len() == 1500
    work_off(gator)
    assert done == list(range(1500))


def test_options_go_for_map_too(gator: Gator) -> None:
    gator.options(priority=5).map(do, ["first"])
    gator.task(do, "second")
    gator.options(priority=9).map(do, ["zeroth"])

    work_off(gator)

    assert done == ["zeroth", "first", "second"]


# Priority


def test_a_higher_priority_comes_first_and_equals_come_in_order(gator: Gator) -> None:
    for priority in (0, -5, 100, None, 5, 0, 100):
        with gator.options(priority=priority) as opts:
            opts.task(do, priority)

    work_off(gator)

    assert done == [100, 100, 5, 0, None, 0, -5]


def test_a_retry_keeps_its_priority(gator: Gator) -> None:
    with gator.options(priority=5, retries=1) as opts:
        opts.task(fail_once, "urgent")
    gator.task(do, "other")

    QuietWorker(gator, burst=True, max_tasks=1).run_forever()
    work_off(gator)

    assert done == ["urgent", "urgent", "other"]


def fail_once(what: str) -> None:
    """Note it, and fail the first time."""
    done.append(what)
    if done.count(what) == 1:
        raise ValueError(what)


# Several queues


def test_queues_are_consumed_in_strict_order(gators: Callable[..., Gator]) -> None:
    for name in ("second", "first"):
        gators(name).map(do, [name] * 20)

    work_off(gators(), to_consume=["first", "second"])

    assert done == ["first"] * 20 + ["second"] * 20


def test_weights_share_a_worker_between_queues(gators: Callable[..., Gator]) -> None:
    for name in ("heavy", "light"):
        gators(name).map(do, [name] * 400)

    # One at a time, so that each of them is a choice.
    gator = gators()
    for _ in range(400):
        QuietWorker(gator, to_consume={"heavy": 3, "light": 1}, max_tasks=1).run_forever()

    # 300 are expected; of 400 fair choices fewer than 250 would be worse than one in a hundred million.
    assert 250 < done.count("heavy") < 350
    work_off(gators(), to_consume={"heavy": 3, "light": 1})
    assert (done.count("heavy"), done.count("light")) == (400, 400)


def test_an_empty_queue_leaves_its_turn_to_the_next(gators: Callable[..., Gator]) -> None:
    gators("light").map(do, range(50))

    work_off(gators(), to_consume={"heavy": 1000, "light": 1})

    assert done == list(range(50))


@pytest.mark.parametrize("weights", [{"a": 0}, {"a": 1.5}, {"a": True}, {}], ids=str)
def test_weights_that_make_no_sense_are_refused(weights: Any) -> None:
    with pytest.raises(InvalidOption):
        QuietWorker(Gator("locmem://"), to_consume=weights)


# Uniqueness


def test_an_id_that_is_queued_may_be_refused_skipped_or_replaced(gator: Gator) -> None:
    def push(if_exists: str | None, what: str) -> Task:
        with gator.options(task_id="one", if_exists=if_exists) as opts:
            return opts.task(do, what)

    push(None, "first")
    push(None, "silently skipped")
    push("skip", "skipped")
    with pytest.raises(TaskExists, match="'one' is queued or runs"):
        push("raise", "refused")
    push("replace", "replaced")

    assert gator.len() == 1
    work_off(gator)
    assert done == ["replaced"]
    push("raise", "again")
    work_off(gator)
    assert done == ["replaced", "again"]


def test_a_debounce_runs_the_last_call_after_a_pause(gator: Gator) -> None:
    for what in range(20):
        with gator.options(task_id="save", if_exists="replace", delay_by=3600) as opts:
            opts.task(do, what)
    work_off(gator)
    assert (done, gator.len()) == ([], 1)

    gator.backend.reschedule(gator.queue_name, ["save"])
    work_off(gator)

    assert done == [19]


def push_again(gator_dsn: str, what: str) -> None:
    """Replace the task that this runs in."""
    done.append(f"begin {what}")
    gator = Gator(gator_dsn)
    with gator.options(task_id="one", if_exists="replace") as opts:
        opts.task(do, "replacement")
    gator.backend.close()


def test_a_task_that_runs_is_replaced_when_it_is_over(shared_gator: Gator) -> None:
    with shared_gator.options(task_id="one") as opts:
        opts.task(push_again, shared_gator.dsn.url, "old")

    work_off(shared_gator)

    assert done == ["begin old", "replacement"]
    assert shared_gator.len() == 0


def push_same_ids(dsn: str, number: int) -> int:
    """Push a thousand ids with if_exists="raise"; return how many were new."""
    gator, new = Gator(dsn), 0
    for task_id in range(1000):
        with gator.options(task_id=f"t{task_id}", if_exists="raise") as opts:
            try:
                opts.task(do, task_id)
                new += 1
            except TaskExists:
                pass
    gator.backend.close()
    return new


def test_eight_processes_that_push_the_same_ids_make_each_task_once(shared_gator: Gator) -> None:
    push = partial(push_same_ids, shared_gator.dsn.url)
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as processes:
        new = sum(processes.map(push, range(8)))

    assert new == shared_gator.len() == 1000


# A full queue


def test_a_queue_may_have_a_length(gators: Callable[..., Gator]) -> None:
    gator = gators(max_length=3)
    gator.map(do, range(3))

    with pytest.raises(QueueFull, match="3"):
        gator.task(do, "one too many")
    with pytest.raises(QueueFull), gator.batch() as batch:
        batch.task(do, 1)
        batch.task(do, 2)

    assert gator.len() == 3
    work_off(gator)
    gator.task(do, "there is room again")
    gators().task(do, "a Gator without a limit has none")


@pytest.mark.parametrize("length", [0, -1, 1.5, "many", True])
def test_a_length_that_makes_no_sense_is_refused(length: Any) -> None:
    with pytest.raises(InvalidOption, match="max_length"):
        Gator("locmem://", max_length=length)


# Defaults, and producers in an event loop


def test_a_gators_own_options_go_for_each_task_unless_it_says_otherwise() -> None:
    gator = Gator("locmem://", options={"retries": 3, "priority": 7, "timeout": 60})

    plain = gator.task(do, 1)
    with gator.options(retries=1) as opts:
        other = opts.task(do, 2)
    with gator.batch(priority=1) as batch:
        batched = batch.task(do, 3)

    assert (plain.retries, plain.priority, plain.timeout) == (3, 7, 60)
    assert (other.retries, other.priority, other.timeout) == (1, 7, 60)
    assert (batched.retries, batched.priority, batched.timeout) == (3, 1, 60)


def test_wrong_defaults_are_refused_by_the_gator() -> None:
    with pytest.raises(InvalidOption, match="no option 'retry'"):
        Gator("locmem://", options={"retry": 3})


def test_a_producer_in_an_event_loop_does_not_block_it(gator: Gator) -> None:
    async def produce() -> list[Task]:
        return await asyncio.gather(*(gator.task_async(do, number) for number in range(100)))

    tasks = asyncio.run(produce())

    assert gator.len() == len({task.task_id for task in tasks}) == 100


def test_the_payload_has_only_what_was_set(gator: Gator) -> None:
    gator.task(do, 1)
    with gator.options(priority=3, backoff=2.0) as opts:
        opts.task(do, 2)

    bodies = [
        Task.deserialize(held.body).__dict__.keys()
        for held in gator.backend.reserve([gator.queue_name], "w", limit=2).reservations
    ]

    assert {"priority", "backoff"} & bodies[1] == set()  # the first one pushed
    assert {"priority", "backoff"} <= bodies[0]  # the higher priority


def test_a_payload_with_options_of_another_kind_is_no_task(gator: Gator) -> None:
    body = (
        b'{"task_id":"t1","retries":0,"async":true,"module":"tests.features.work","callable":"do",'
        b'"args":[1],"kwargs":{},"options":{"timeout":"soon"}}'
    )
    gator.backend.push_many(gator.queue_name, [Message("t1", body)])

    QuietWorker(gator, burst=True, code_wait=0.001).run_forever()

    assert done == []
    assert gator.status("t1").state in ("waiting", "delayed", "failed")  # looked at, or to be


def test_what_cannot_be_run_ends_no_burst(gator: Gator) -> None:
    gator.backend.push_many("all", [Message("im\npossible", b"{}")])
    gator.task(do, "work")

    work_off(gator)

    assert done == ["work"]
