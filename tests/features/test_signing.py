"""Signed tasks: all that can be queued is signed and runs, and nothing else does, wherever it comes from."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alligator import Concurrency, Gator, Retry, Snooze, Task
from alligator.backends.base import Backend, Listed, Message, as_bytes
from alligator.commands import letters
from alligator.commands.move import moving
from alligator.dependencies import is_our_own
from alligator.exceptions import InvalidArguments, TaskFailed, TaskRefused, UnreadableTask
from alligator.outbox import outbox_at
from alligator.outbox.forwarding import Forwarder
from alligator.payloads import Refused, is_signed, plain
from alligator.schedules import Scheduler, schedule_records
from alligator.signed_store import SignedStore
from tests.features import work
from tests.features.schedules_work import OddTask, Scene
from tests.features.work import QuietWorker, do, fail, work_off
from tests.support.kinds import empty_store

Gators = Callable[..., Gator]
KEY, NEW_KEY = "key of the tests, the first one..", "key of the tests, the second one."


@pytest.fixture
def gator(gators: Gators) -> Gator:
    """A Gator with a key, on each kind of store that processes can share."""
    return gators(keys=[KEY])


@pytest.fixture
def stranger(gators: Gators) -> Backend:
    """Somebody who can write to the same store, and has no key."""
    return gators().backend


def forged(task_id: str, **changes: Any) -> bytes:
    """Return a task as somebody without a key would write it."""
    task = Task(task_id=task_id)
    task.to_call(do, "forged")
    return json.dumps({**json.loads(task.serialize()), **changes}).encode()


def queued(store: Backend, *states: Any) -> list[Listed]:
    return [
        one for state in states or ("waiting", "delayed") for one in store.walk("all", state)[0]
    ]


def refused(store: Backend) -> list[str]:
    """Return the ids of what was refused, sorted; nothing else may be dead."""
    found = store.dead("all")
    assert {json.loads(letter.note)["reason"] for letter in found} <= {"refused"}
    return sorted(letter.task_id for letter in found)


def note_hook(task: Task, _: object = None) -> None:
    work.done.append("hook")


def fail_once() -> None:
    work.done.append("try")
    if work.done.count("try") == 1:
        raise Retry(delay=0)


def snooze_once() -> None:
    work.done.append("snooze")
    if work.done.count("snooze") == 1:
        raise Snooze(0)


# All that can be queued, is signed, and runs:


def test_whatever_is_queued_is_signed_and_runs(gator: Gator, stranger: Backend) -> None:
    gator.task(do, "plain")
    gator.map(do, ["mapped"])
    with gator.options(retries=1, on_start=note_hook, on_success=note_hook) as opts:
        opts.task(fail_once)
    gator.task(snooze_once)
    with gator.batch(limit=Concurrency("key", 1)) as batch:
        first = batch.task(do, "first")
        with batch.options(depends_on=[first]) as opts:
            opts.task(do, "second")
    with gator.options(task_id="again", if_exists="replace") as opts:
        opts.task(do, "old")
        opts.task(do, "new")
    assert all(is_signed(one.body) for one in queued(stranger))
    assert all(
        is_signed(one.follow.on_success) and is_signed(one.follow.on_failure)
        for one in queued(stranger)
        if one.follow
    )

    work_off(gator)

    assert Counter(work.done) == {
        **dict.fromkeys(("plain", "mapped", "first", "second", "new"), 1),
        "try": 2,
        "snooze": 2,
        "hook": 3,
    }
    assert not stranger.dead("all")


def test_what_waits_for_its_retry_is_signed(gator: Gator, stranger: Backend) -> None:
    with gator.options(retries=1, backoff=3600) as opts:
        opts.task(fail)

    work_off(gator)

    [task] = queued(stranger)
    assert is_signed(task.body)


def test_results_status_cancel_pop_and_get_work_as_ever(gator: Gator) -> None:
    with gator.options(keep_result=60) as opts:
        first, second = opts.task(do, 1), opts.task(do, 2)
    third = gator.task(do, 3)
    assert gator.status(first.task_id).callable == "tests.features.work.do"
    assert gator.status(first.task_id).signature == "fits"
    canceled = gator.cancel(third.task_id)
    assert canceled is not None
    assert canceled.func_args == (3,)

    ran = gator.get(second.task_id)
    assert ran is not None
    assert ran.result == 2
    popped = gator.pop()
    assert popped is not None
    assert popped.result == 1
    assert (first.wait(5), second.wait(5)) == (1, 2)


def test_classes_with_a_form_of_their_own_lose_nothing(gators: Gators, stranger: Backend) -> None:
    gator = gators(keys=[KEY], task_class=OddTask)
    with gator.options(retries=1) as opts:
        opts.task(fail_once)
    assert all(is_signed(one.body) for one in queued(stranger))

    work_off(gator)

    assert work.done == ["try", "try"]


def test_a_dead_letter_that_was_signed_runs_again(gator: Gator) -> None:
    with gator.options(task_id="t1", expires=3600) as opts:
        opts.task(fail, "t1")
    work_off(gator)
    [letter] = gator.backend.dead("all")

    letters.retry(gator.backend, [letters.Ref.to(letter)])
    work_off(gator)

    assert work.done == ["t1", "t1"]


def test_without_keys_a_worker_runs_what_is_signed(gator: Gator, gators: Gators) -> None:
    """So that keys can be given to those first who queue, and then to workers."""
    gator.task(do, "signed")
    with gator.options(retries=1) as opts:
        opts.task(fail_once)

    keyless = gators()
    assert keyless.status(queued(keyless.backend)[0].task_id).signature == "unchecked"
    work_off(keyless)

    assert work.done == ["signed", "try", "try"]


def test_each_key_verifies_and_the_first_one_signs(gators: Gators, stranger: Backend) -> None:
    old, both, new = gators(keys=[KEY]), gators(keys=[NEW_KEY, KEY]), gators(keys=[NEW_KEY])
    old.task(do, "old")
    work_off(both)
    both.task(do, "both")
    work_off(new)
    with old.options(task_id="late") as opts:
        opts.task(do, "late")
    work_off(new)

    assert work.done == ["old", "both"]
    assert refused(stranger) == ["late"]


def test_what_tells_dependents_is_known_though_it_is_signed(
    gator: Gator, stranger: Backend
) -> None:
    """To a worker without keys, and to who moves tasks."""
    with gator.batch() as batch:
        first = batch.task(do, "first")
        with batch.options(depends_on=[first]) as opts:
            opts.task(do, "second")
    gator.get(first.task_id)

    [tells] = queued(stranger, "waiting")
    assert is_signed(tells.body)
    assert is_our_own(tells.body)
    work_off(gator)
    assert work.done == ["first", "second"]


# What a stranger writes does not run:


@pytest.mark.parametrize("take", ["worker", "pop", "get"])
def test_what_is_not_signed_is_buried_whole(
    gator: Gator, stranger: Backend, take: str, caplog: pytest.LogCaptureFixture
) -> None:
    stranger.push("all", "t1", forged("t1"))
    stranger.push("all", "t2", forged("t2"))
    gator.task(do, "good")

    if take == "worker":
        work_off(gator)
    elif take == "pop":
        assert gator.pop() is not None
        assert gator.pop() is None
    else:
        assert gator.get("t1") is None
        assert gator.get("t2") is None
        work_off(gator)

    assert work.done == ["good"]
    assert refused(stranger) == ["t1", "t2"]
    assert {letter.body for letter in stranger.dead("all")} == {forged("t1"), forged("t2")}
    assert "Task 't1' is refused, and buried: It is not signed" in caplog.text


def test_a_signed_task_runs_under_no_other_name_and_in_no_other_queue(
    gators: Gators, stranger: Backend
) -> None:
    gators("mail", keys=[KEY]).push(Task(task_id="t1"), do, "mail")
    [seen] = stranger.walk("mail", "waiting")[0]
    stranger.push("all", "t1", seen.body)
    stranger.push("all", "t2", seen.body)
    stranger.push("mail", "t2", seen.body)

    work_off(gators(keys=[KEY]), to_consume=["all", "mail"])

    assert work.done == ["mail"]
    assert refused(stranger) == ["t1", "t2"]
    assert [letter.task_id for letter in stranger.dead("mail")] == ["t2"]


def test_what_is_queued_is_not_doubled_by_pushing_it_again(gator: Gator, stranger: Backend) -> None:
    gator.push(Task(task_id="t1"), do, "once")
    [seen] = queued(stranger)
    assert stranger.push_many("all", [Message("t1", seen.body)]) == [False]

    work_off(gator)

    assert work.done == ["once"]


def test_one_that_has_expired_is_not_run_though_it_is_pushed_again() -> None:
    with Scene("locmem://") as scene:
        gator = scene.gator(keys=[KEY], options={"expires": 60})
        gator.push(Task(task_id="t1", expires=60), do, "once")
        [seen] = queued(scene.backend)
        work_off(gator)
        scene.clock.turn(61)
        scene.backend.push("all", "t1", seen.body)
        work_off(gator)

        assert work.done == ["once"]
        [letter] = scene.backend.dead("all")
        assert json.loads(letter.note)["reason"] == "expired"


def test_a_delay_that_a_stranger_ends_is_put_back(gator: Gator, stranger: Backend) -> None:
    with gator.options(task_id="t1", delay_by=3600) as opts:
        opts.task(do, "late")
    assert stranger.reschedule("all", ["t1"]) == [True]

    work_off(gator)

    assert work.done == []
    [task] = queued(stranger, "delayed")
    assert 3500 < task.due_at - time.time() < 3700
    gator.get("t1")  # by hand, its time does not matter
    assert work.done == ["late"]


def test_a_delay_that_is_over_is_over(gator: Gator) -> None:
    with gator.options(delay_by=0.05, retries=1) as opts:
        opts.task(fail_once)

    QuietWorker(gator, max_tasks=2).run_forever()

    assert work.done == ["try", "try"]


def test_many_that_are_refused_keep_nothing_from_running(gator: Gator, stranger: Backend) -> None:
    stranger.push_many("all", [Message(f"f{n}", forged(f"f{n}")) for n in range(600)])
    gator.task(do, "good")

    work_off(gator)

    assert work.done == ["good"]
    assert stranger.count("all").dead == 600


def test_nothing_that_is_refused_is_ever_signed(gator: Gator, stranger: Backend) -> None:
    """Neither by a person who retries it, nor because it is to be changed on its way."""
    stranger.push("all", "t1", forged("t1", options={"expires": 1.0}))
    work_off(gator)
    [letter] = gator.backend.dead("all")
    letters.retry(gator.backend, [letters.Ref.to(letter)])
    [listed] = queued(gator.backend)
    assert isinstance(listed.body, Refused)
    assert listed.body.raw == forged("t1", options={"expires": 1.0})
    with pytest.raises(TaskRefused):
        gator.backend.push_many("all", [Message("t2", listed.body)])
    with pytest.raises(InvalidArguments, match="begins as a signed one"):
        gator.backend.push_many("all", [Message("t2", b"alligator-signed:1:" + bytes(50))])

    work_off(gator)

    assert work.done == []
    assert not any(is_signed(one.body) for one in stranger.dead("all"))


def test_one_that_is_refused_is_told_as_that(gator: Gator, stranger: Backend) -> None:
    stranger.push("all", "t1", forged("t1"))

    status = gator.status("t1")

    assert (status.state, status.signature, status.callable) == ("waiting", "refused", "")
    assert status.error.startswith("It is not signed")
    with pytest.raises(UnreadableTask, match=r"'t1' is canceled\. It is not signed"):
        gator.cancel("t1")
    assert not queued(stranger)


def test_who_waits_for_a_task_that_is_refused_is_told(gator: Gator, stranger: Backend) -> None:
    with gator.options(keep_result=60, task_id="t1") as opts:
        task = opts.task(do, "genuine")
    stranger.cancel("all", "t1")
    stranger.push("all", "t1", forged("t1"))
    work_off(gator)

    with pytest.raises(TaskFailed, match="not signed"):
        task.wait(20)


# Schedules:


def test_schedules_are_signed_and_run() -> None:
    with Scene("locmem://") as scene:
        gator = scene.gator(keys=[KEY])
        gator.every(60, do, "minute", name="m")
        gator.every(60, do, "minute", name="m")
        assert [one.callable for one in gator.schedules()] == ["tests.features.work.do"]
        scheduler = Scheduler(gator.backend, ["all"], Task)
        for _ in range(2):
            scene.clock.turn(61)
            scheduler.tick()
            work_off(gator)

        assert work.done == ["minute", "minute"]
        assert scene.backend.records is not None
        [value] = scene.backend.records.list(schedule_records.family("all")).values()
        assert is_signed(value)


def test_a_forged_schedule_queues_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Scene("locmem://") as scene:
        gator, records = scene.gator(keys=[KEY]), scene.backend.records
        assert records is not None
        scene.gator().every(1, do, "not signed", name="not signed")
        gator.every(60, do, "mine", name="mine")
        key = schedule_records.key_of("all", "mine")
        value = records.get(key) or b""
        records.set(schedule_records.key_of("all", "other name"), value)
        records.set(schedule_records.key_of("mail", "mine"), value)
        records.set(key, value.replace(b'"every":60.0', b'"every":1.0 '))
        scene.clock.turn(3600)
        Scheduler(gator.backend, ["all", "mail"], Task).tick()

        assert not queued(scene.backend)
        assert not scene.backend.walk("mail", "waiting")[0]
        assert caplog.text.count("queues nothing: ValueError: ") == 4
        gator.every(60, do, "mine", name="mine")  # as its program does it at each start
        assert [one.name for one in gator.schedules()] == ["mine"]


# By other ways into the store:


def test_in_a_transaction_tasks_are_signed(tmp_path: Path) -> None:
    with closing(Gator(f"sqlite://{tmp_path}/shop.db", keys=[KEY]).backend) as backend:
        gator = Gator(f"sqlite://{tmp_path}/shop.db", keys=[KEY])
        assert gator.len() == 0
        with closing(sqlite3.connect(tmp_path / "shop.db")) as db, db, gator.using(db):
            gator.task(do, "joined")
        assert isinstance(backend, SignedStore)
        assert all(is_signed(one.body) for one in queued(backend.store))
        work_off(gator)
        gator.backend.close()
    assert work.done == ["joined"]


def test_an_outbox_forwards_signatures_and_makes_none(
    tmp_path: Path, gators: Gators, stranger: Backend
) -> None:
    outbox_dsn = f"sqlite://{tmp_path}/outbox.db"
    sqlite3.connect(tmp_path / "outbox.db").close()
    gator, thief = gators(keys=[KEY], store_name="s"), gators(store_name="s")
    with closing(outbox_at(outbox_dsn)) as outbox:
        outbox.migrate()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        for one, name in ((gator, "mine"), (thief, "theirs")):
            with connection, one.using(connection), one.options(task_id=name) as opts:
                opts.task(do, name)
    with closing(Forwarder(gator, outbox_at(outbox_dsn))) as forwarder:
        forwarder.forward_all()

    work_off(gator)

    assert work.done == ["mine"]
    assert refused(stranger) == ["theirs"]


def test_what_is_moved_keeps_its_signature(
    gators: Gators, gator: Gator, stranger: Backend, tmp_path: Path
) -> None:
    with gator.batch() as batch:
        first = batch.task(do, "first")
        with batch.options(depends_on=[first]) as opts:
            opts.task(do, "second")
    gator.every(3600, do, "hour", name="h")
    stranger.push("all", "forged", forged("forged"))
    there = Gator(f"sqlite://{tmp_path}/there.db", keys=[KEY])

    moving.move(gator.backend, there.backend, ["all"])

    assert [one.name for one in there.schedules()] == ["h"]
    work_off(there)
    assert work.done == ["first", "second"]
    assert refused(there.backend) == ["forged"]
    there.backend.close()


@pytest.mark.parametrize("has_keys", [True, False])
def test_where_ids_are_not_known_tasks_are_signed_anew(
    request: pytest.FixtureRequest, tmp_path: Path, *, has_keys: bool
) -> None:
    keys = [KEY]
    here = Gator(f"sqlite://{tmp_path}/q.db", keys=keys)
    there = Gator(empty_store("beanstalk", request), keys=keys)
    for name in ("first", "second"):
        here.push(Task(task_id=name), do, name)
    here.store.push("all", "forged", forged("forged"))
    source, target = (one.backend if has_keys else one.store for one in (here, there))
    moved = moving.move(source, target, ["all"], skip=True)
    if not has_keys:
        assert [why for *_, why in moved.skipped] == 2 * [
            "it is to be signed anew for that store, and here are no keys: set ALLIGATOR_KEYS."
        ]
        assert here.len() == 2
        return
    assert there.len() == 3

    moving.move(target, source, ["all"])
    work_off(here)

    assert work.done == ["first", "second"]
    assert len(refused(here.backend)) == 1


def test_what_was_written_can_be_read_without_a_key(gator: Gator, stranger: Backend) -> None:
    """To sign is not to hide."""
    task = gator.task(do, "read me")
    [seen] = queued(stranger)

    assert Task.deserialize(seen.body).func_args == ("read me",)
    assert plain(seen.body) == as_bytes(task.serialize())
