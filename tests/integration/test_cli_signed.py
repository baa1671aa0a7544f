"""The command ``alligator`` on a store with signed tasks: with the keys, and without."""

import json
from typing import Any

import pytest

from alligator import Gator, Task
from alligator.backends.base import Backend
from alligator.signing import UNSIGNED
from tests.features.work import work_off
from tests.integration import jobs
from tests.integration.scenes import until
from tests.integration.test_cli import alligator, only_sqlite, refused, said

pytestmark = only_sqlite
KEY = "a key of the tests: 32 characters".replace(" ", "-")
FORGED = json.dumps({"task_id": "forged", "retries": 0, "module": "os", "callable": "system"})


@pytest.fixture
def stranger(dsn: str) -> Backend:
    """A store with a signed task, a forged one, and a dead letter of each."""
    ours, theirs = Gator(dsn, keys=[KEY]), Gator(dsn)
    with ours.options(task_id="dead") as opts:
        opts.task(jobs.add, "one", 2)
    theirs.backend.push("all", "dead-forged", FORGED)
    work_off(ours)
    ours.push(Task(task_id="ours"), jobs.add, 1, 2)
    theirs.backend.push("all", "forged", FORGED)
    ours.backend.close()
    return theirs.backend


def told(*words: object, **environment: str) -> Any:
    return json.loads(said(*words, "--json", **environment))


@pytest.mark.parametrize(
    ("keys", "of_ours", "of_theirs"),
    [({}, "unchecked", None), ({"ALLIGATOR_KEYS": KEY}, "fits", "refused")],
)
def test_it_says_of_each_task_whether_it_is_signed(
    dsn: str, stranger: Backend, keys: dict[str, str], of_ours: str, of_theirs: str | None
) -> None:
    add, system = "tests.integration.jobs.add", "os.system" if of_theirs is None else None
    queued = {one["task_id"]: one for one in told("list", dsn, **keys)["tasks"]}
    assert {name: one["signature"] for name, one in queued.items()} == {
        "ours": of_ours,
        "forged": of_theirs,
    }
    assert {name: one["callable"] for name, one in queued.items()} == {
        "ours": add,
        "forged": system,
    }
    dead = {one["task_id"]: one for one in told("dead", dsn, **keys)["dead_letters"]}
    assert {name: (one["signature"], one["callable"]) for name, one in dead.items()} == {
        "dead": (of_ours, add),
        "dead-forged": (of_theirs, system),
    }
    assert dead["dead-forged"]["reason"] == "refused"
    assert dead["dead-forged"]["payload_bytes"] == len(FORGED)
    [shown] = told("show", dsn, "forged", **keys)["tasks"]
    assert shown["signature"] == of_theirs


def test_it_says_so_in_words(dsn: str, stranger: Backend) -> None:
    keys = {"ALLIGATOR_KEYS": KEY}
    assert "signed    yes, by a key of ours\n" in said("show", dsn, "ours", **keys)
    assert "signed    yes, but by whom is not known" in said("show", dsn, "ours")
    assert "signed    not by a key of ours" in said("show", dsn, "forged", **keys)
    assert "is about to fail: It is not signed" in said("why", dsn, "forged", **keys)
    assert "signed" not in said("show", dsn, "forged")
    assert "? (refused)" in said("list", dsn, **keys)
    shown = said("dead", dsn, "show", "dead-forged", "--payload", **keys)
    assert "callable  unknown: nothing in it is read\n" in shown
    assert '"callable": "system"' in shown  # for a person to look at


def test_what_is_scheduled_and_not_signed_is_a_fault(dsn: str) -> None:
    theirs, keys = Gator(dsn), {"ALLIGATOR_KEYS": KEY}
    theirs.every(60, jobs.add, 1, 2, name="theirs")
    theirs.push(Task(task_id="forged"), jobs.add, 1, 2)
    Gator(dsn, keys=[KEY]).every(60, jobs.add, 1, 2, name="ours")

    ran = alligator("check", dsn, "--json", **keys)
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["looked_at"], found["at_fault"]) == (1, 3, 2)
    [fault] = found["faults"]
    assert fault["problem"] == UNSIGNED
    assert [one["task_id"] for one in fault["examples"]] == ["forged", "schedule theirs"]

    ran = alligator("schedules", dsn, **keys)
    assert ran.returncode == 1
    assert len(ran.stdout.splitlines()) == 2  # the heading, and ours
    assert ran.stderr == (
        f"alligator: Schedule 'theirs' of queue 'all' queues nothing here: {UNSIGNED}\n"
    )
    assert said("schedules", dsn).count("tests.integration.jobs.add") == 2


def test_a_letter_that_is_retried_keeps_its_signature_or_its_want_of_one(
    dsn: str, stranger: Backend
) -> None:
    keys = {"ALLIGATOR_KEYS": KEY}
    said("dead", dsn, "retry", "dead", **keys)
    said("dead", dsn, "retry", "dead-forged", **keys)
    ours = Gator(dsn, keys=[KEY])
    work_off(ours)
    ours.backend.close()

    reasons = {one["task_id"]: one["reason"] for one in told("dead", dsn)["dead_letters"]}
    assert reasons == {"dead": "failed", "dead-forged": "refused", "forged": "refused"}


def test_without_keys_one_that_has_expired_keeps_its_signature(dsn: str) -> None:
    """And so it expires again. To let it run would take a signature that is new."""
    ours = Gator(dsn, keys=[KEY])
    with ours.options(task_id="t1", expires=0.001) as opts:
        task = opts.task(jobs.add, 1, 2)
    assert task.expires is not None
    expires_at = task.expires[1]
    until(lambda: ours.backend.now() > expires_at, "it has expired")
    work_off(ours)
    for keys, dead in (({}, 1), ({"ALLIGATOR_KEYS": KEY}, 0)):
        said("dead", dsn, "retry", "t1", **keys)
        work_off(ours)
        assert ours.backend.count("all").dead == dead
    ours.backend.close()


def test_what_was_put_back_after_it_expired_is_left_out_of_all(dsn: str) -> None:
    ours = Gator(dsn, keys=[KEY])
    with ours.options(task_id="t1", expires=0.001) as opts:
        task = opts.task(jobs.add, 1, 2)
    [queued], _ = Gator(dsn).backend.walk("all", "waiting")
    assert task.expires is not None
    expires_at = task.expires[1]
    until(lambda: ours.backend.now() > expires_at, "it has expired")
    ours.cancel("t1")
    Gator(dsn).backend.push("all", "t1", queued.body)  # by somebody who has seen it
    work_off(ours)
    keys = {"ALLIGATOR_KEYS": KEY}

    for words in (["--all"], ["--all", "--with-dependents"]):
        assert said("dead", dsn, "retry", *words, **keys) == (
            "1 dead letter left out, for what has expired has to be named, and so has what failed "
            "because of it.\n"
        )
    outcome = told("dead", dsn, "retry", "--all", **keys)
    assert ([one["task_id"] for one in outcome["expired"]], outcome["retried"]) == (["t1"], [])
    assert ours.backend.count("all") == (0, 0, 0, 1)
    ours.backend.close()


def test_without_keys_what_is_signed_is_not_retried_with_its_dependents(dsn: str) -> None:
    """They would be told by a task that is not signed, and so in vain."""
    ours, keys = Gator(dsn, keys=[KEY]), {"ALLIGATOR_KEYS": KEY}
    with ours.options(task_id="first", expires=0.001) as opts:
        task = opts.task(jobs.add, 1, 2)
    assert task.expires is not None
    expires_at = task.expires[1]
    with ours.options(task_id="second", depends_on=["first"]) as opts:
        opts.task(jobs.add, 3, 4)
    until(lambda: ours.backend.now() > expires_at, "it has expired")
    work_off(ours)
    work_off(ours)
    assert ours.backend.count("all").dead == 2

    complaint = refused("dead", dsn, "retry", "first", "--with-dependents")

    assert "2 dead letters of these, such as 'first', are signed, and here are no keys" in complaint
    assert ours.backend.count("all") == (0, 0, 0, 2)
    said("dead", dsn, "retry", "first", "--with-dependents", **keys)
    work_off(ours)
    assert sum(ours.backend.count("all")) == 0
    ours.backend.close()


def test_a_key_that_is_too_short_is_told_and_not_shown(dsn: str) -> None:
    complaint = refused("status", dsn, ALLIGATOR_KEYS="hunter2")

    assert "Key 1 of ALLIGATOR_KEYS has 7 bytes; 32 are the least" in complaint
    assert "hunter2" not in complaint
