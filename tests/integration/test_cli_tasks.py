"""The command ``alligator`` where it tells of one task, cancels one that runs, and lists schedules."""

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from alligator import Concurrency, Gator
from alligator.backends.base import Bury, Message
from alligator.schedules import Scheduler
from alligator.testing.stores import FAR_OFF, QUEUE, opened, push, take
from tests.integration import jobs
from tests.integration.scenes import Scene, until
from tests.integration.test_cli import (
    alligator,
    bury,
    on_terminal,
    only_sqlite,
    refused,
    said,
    told,
)

KEYS = {
    *("task_id", "queue", "state", "why", "callable", "attempt", "retries", "priority"),
    *("deliveries", "position", "due_at", "expires_at", "blocked_by", "limit", "held_by"),
    *("since", "lease_until", "worker", "stop_asked", "progress", "death", "ended_at", "reason"),
    *("error", "kept_until", "history", "consumers", "signature", "at"),
}
A_MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


def told_of(dsn: str, task_id: str) -> Any:
    """Return what is told of a task that one queue knows."""
    [task] = told("show", dsn, task_id)["tasks"]
    assert set(task) == KEYS
    return task


def why(dsn: str, task_id: str) -> str:
    """Return the one sentence."""
    sentence = said("why", dsn, task_id)
    assert sentence.count("\n") == 1
    return sentence.rstrip("\n")


# Showing a task, and saying why it does not run


def test_of_one_that_waits_is_shown_what_is_known(dsn: str) -> None:
    gator = Gator(dsn)
    gator.task(jobs.add, 1, 2)
    with gator.options(task_id="t1", retries=2, expires=FAR_OFF) as opts:
        opts.task(jobs.add, 1, 2)
    sentence = "Task 't1' waits behind 1 other, but no worker that is alive takes from queue 'all'."

    assert why(dsn, "t1") == sentence
    lines = said("show", dsn, "t1").splitlines()
    assert lines[:6] == [
        "id        t1",
        "queue     all",
        "state     waiting",
        f"why       {sentence}",
        "callable  tests.integration.jobs.add",
        "attempt   1; 2 more may follow",
    ]
    assert re.fullmatch(rf"expires   {A_MOMENT} \(in 59 min\)", lines[6])
    assert lines[7:] == []
    task = told_of(dsn, "t1")
    assert (task["state"], task["position"], task["why"]) == ("waiting", 1, sentence)
    assert (task["due_at"], task["error"], task["history"]) == (None, None, [])
    assert told("why", dsn, "t1")["tasks"][0]["position"] == 1


def test_each_reason_is_told(dsn: str) -> None:
    gator = Gator(dsn)
    reasons: dict[str, dict[str, Any]] = {
        "later": {"delay_by": FAR_OFF},
        "after": {"depends_on": "later"},
    }
    for name, options in reasons.items():
        with gator.options(task_id=name, **options) as opts:
            opts.task(jobs.add, 1, 2)
    with gator.options(task_id="done", keep_result=FAR_OFF) as opts:
        opts.task(jobs.add, 1, 2)
    assert gator.pop() is not None

    assert re.fullmatch(
        rf"Task 'later' is delayed until {A_MOMENT} \(in 59 min\); but no worker that is alive takes from "
        "queue 'all'.",
        why(dsn, "later"),
    )
    assert why(dsn, "after") == "Task 'after' waits until 'later' has succeeded."
    assert told_of(dsn, "after")["blocked_by"] == [{"task_id": "later", "queue": "all"}]
    assert re.fullmatch(rf"Task 'done' succeeded at {A_MOMENT} \(.+\).", why(dsn, "done"))
    shown = said("show", dsn, "done")
    assert re.search(rf"^result    kept until {A_MOMENT} \(in 59 min\)$", shown, re.MULTILINE)


def test_of_one_that_runs_is_told_where(scene: Scene) -> None:
    limit = Concurrency("api", 1)
    scene.push("first", jobs.wait_at_gate, str(scene.folder / "gate-first"), limit=limit)
    program = scene.latergator("--threads", "2")
    scene.started("first")
    scene.push("second", limit=limit)
    until(lambda: scene.gator.status("second").state == "limited", "the second waits for the first")

    sentence = why(scene.dsn, "first")
    match = re.fullmatch(
        rf"Task 'first' has been running since {A_MOMENT} \(.+\) in process (\d+) of host '(.+)', on a lease "
        rf"until {A_MOMENT} \(in \d+ s\) that is extended while the worker is alive.",
        sentence,
    )
    assert match is not None, sentence
    assert (int(match[1]), match[2]) == (program.children[0], socket.gethostname())
    task = told_of(scene.dsn, "first")
    assert task["worker"]["pid"] == program.children[0]
    assert why(scene.dsn, "second") == (
        "Task 'second' is kept back by the limit 'api': no more than 1 may run at a time, and 'first' runs."
    )
    task = told_of(scene.dsn, "second")
    assert task["limit"] == {"kind": "concurrency", "key": "api", "n": 1, "per": None}
    assert task["held_by"] == [{"task_id": "first", "queue": "all"}]
    scene.open("first")
    scene.finished("second")


def test_of_one_whose_worker_was_killed_is_told_when_another_takes_it(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--lease", "2")
    scene.started("t1")
    until(lambda: scene.gator.status("t1").worker, "the worker is known")
    program.kill_all()
    until(lambda: scene.gator.status("t1").worker is None, "nobody has heard of the worker")

    assert re.fullmatch(
        rf"Task 't1' was taken at {A_MOMENT} \(.+\) by a worker that .+ lapse[sd] at {A_MOMENT} \(.+\).*; but "
        "no worker that is alive takes from queue 'all'.",
        why(scene.dsn, "t1"),
    )


def test_of_one_that_failed_is_told_with_what_and_what_went_before(dsn: str) -> None:
    gator = Gator(dsn)
    with gator.options(task_id="t1", retries=1) as opts:
        opts.task(jobs.add, 1, None)
    gator.pop()
    with pytest.raises(TypeError) as raised:
        gator.pop()

    sentence = why(dsn, "t1")
    assert re.match(rf"Task 't1' failed for good at {A_MOMENT} ", sentence)
    assert sentence.endswith(f": TypeError: {raised.value}.")
    lines = said("show", dsn, "t1").splitlines()
    assert lines[4:] == [
        "callable  tests.integration.jobs.add",
        "attempt   2",
        f"error     TypeError: {raised.value}",
        f"before    attempt 1 failed: TypeError: {raised.value}",
    ]
    task = told_of(dsn, "t1")
    assert (task["state"], task["reason"]) == ("failed", "failed")
    [before] = task["history"]
    assert (set(before), before["attempt"]) == ({"attempt", "error", "at"}, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", before["at"])


def test_how_far_it_is_is_shown(scene: Scene) -> None:
    scene.push_gated("t1")
    scene.latergator()
    scene.started("t1")
    records = scene.gator.backend.records
    assert records is not None
    found = scene.gator.backend.find(QUEUE, "t1")
    assert found is not None
    value = {"done": 1500, "total": 6000, "note": "resizing\x1b[2J", "at": 1e11}
    value["token"] = found.token
    records.set("progress/all:t1", json.dumps(value).encode())

    line = "progress  1,500 of 6,000 (25 %), resizing\\x1b[2J; said just now"
    assert line in said("show", scene.dsn, "t1").splitlines()
    assert told_of(scene.dsn, "t1")["progress"]["note"] == "resizing\x1b[2J"
    records.set(
        "progress/all:t1", json.dumps({**value, "done": 0.5, "total": 0, "note": ""}).encode()
    )
    assert "progress  0.5; said just now" in said("show", scene.dsn, "t1").splitlines()


def test_of_one_that_nobody_knows_it_is_complained(dsn: str) -> None:
    with opened(dsn) as backend:
        push(backend, "t1", to="mail")

    for command in ("show", "why"):
        assert refused(command, dsn, "t2") == (
            "alligator: Nothing is known of a task 't2' in any of 2 queues: it was never put there, or it is "
            "done and forgotten. (keep_result keeps what became of a task. Only of what is dead, a part of its "
            "id will do.)"
        )
        assert "a task 't1' in queue 'all': it was" in refused(command, dsn, "t1", "--queue", "all")
        assert told(command, dsn, "t2", status=1) == {"tasks": []}


def test_of_a_dead_one_a_part_of_its_id_will_do(dsn: str) -> None:
    bury(dsn, "01a204bb-4485-7d76-a3e5-876f7491e3cb")

    for part in ("876f7491e3cb", "01a204bb-4485"):
        [task] = told("show", dsn, part)["tasks"]
        assert task["task_id"] == "01a204bb-4485-7d76-a3e5-876f7491e3cb"


def test_a_task_is_found_in_any_queue_and_told_of_in_each(dsn: str) -> None:
    bury(dsn, "t1")
    with opened(dsn) as backend:
        push(backend, "t1", to="mail")
        push(backend, "t1", to="another")

    assert [task["queue"] for task in told("show", dsn, "t1")["tasks"]] == [
        QUEUE,
        "another",
        "mail",
    ]
    assert said("why", dsn, "t1").count("Task 't1' ") == 3
    assert said("show", dsn, "t1").count("\n\nid        t1\n") == 2
    [task] = told("show", dsn, "t1", "--queue", "mail")["tasks"]
    assert (task["queue"], task["state"]) == ("mail", "waiting")


def test_what_is_over_is_found_in_a_queue_that_is_empty_by_now(scene: Scene) -> None:
    with Gator(scene.dsn, "mail").options(task_id="t1", keep_result=FAR_OFF) as opts:
        opts.task(jobs.add, 1, 2)
    scene.latergator("--queue", "mail")
    mail = Gator(scene.dsn, "mail")
    until(lambda: mail.status("t1").state == "succeeded" and mail.len() == 0, "it is done")

    assert told_of(scene.dsn, "t1")["queue"] == "mail"
    mail.backend.close()


@only_sqlite
def test_names_and_errors_cannot_forge_lines(dsn: str) -> None:
    forged = "evil\r\nalligator: all is well\x1b[31m"
    with opened(dsn) as backend:
        history = [{"attempt": forged, "error": forged}]
        options = {"attempt": 2, "history": history, "limit": {"rate": [forged, 1, 1]}}
        payload = {"task_id": "t1", "retries": 0, "module": forged, "callable": forged}
        body = json.dumps({**payload, "options": options}).encode()
        backend.push_many(QUEUE, [Message(name, body) for name in ("t1", "t2")])
        backend.settle([Bury(take(backend), forged)])
        with_odd_name = Message("t3", body)
        backend.push_many("evil\u202ename", [with_odd_name])

    for command in ("show", "why"):
        for task_id in ("t1", "t2", "t3", "evil\u202eid"):
            ran = alligator(command, dsn, task_id)
            output = ran.stdout + ran.stderr
            assert all(char.isprintable() or char == "\n" for char in output)
            assert not [line for line in ran.stdout.splitlines() if line.startswith("alligator")]
        ran = alligator(command, dsn, "t1", "--json")
        assert json.loads(ran.stdout)["tasks"][0]["error"] == "evil alligator: all is well\x1b[31m"


@only_sqlite
@pytest.mark.parametrize("command", ["show", "why", "cancel"])
def test_an_id_that_no_task_can_have_is_wrong_use(dsn: str, command: str) -> None:
    with opened(dsn) as backend:
        backend.count(QUEUE)

    for words in ([], [""], ["a\nb"], ["x" * 256], ["\udcff"]):
        refused(command, dsn, *words, status=2)


def test_memory_of_another_process_is_refused(tmp_path: Path) -> None:
    assert "memory of another process" in refused("show", "locmem://", "t1")
    assert "There is no file" in refused("why", f"sqlite://{tmp_path}/none.db", "t1")


# Canceling one that runs


def test_one_that_runs_is_asked_to_end(scene: Scene) -> None:
    scene.push_gated("t1")
    program = scene.latergator("--grace", "60")
    scene.started("t1")

    assert said("cancel", scene.dsn, "t1") == (
        "'t1' in queue 'all' runs, and was asked to end: a call of tests.integration.jobs.wait_at_gate.\n"
    )
    assert why(scene.dsn, "t1").endswith("; it is asked to end, for it was canceled.")
    assert told("cancel", scene.dsn, "t1") == {
        "canceled": [],
        "asked_to_end": [
            {
                "task_id": "t1",
                "queue": "all",
                "callable": "tests.integration.jobs.wait_at_gate",
            }
        ],
    }
    scene.open("t1")
    until(lambda: scene.counts.running == 0, "it has ended")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_what_waits_is_canceled_and_what_is_over_is_not(dsn: str) -> None:
    bury(dsn, "dead")
    with opened(dsn) as backend:
        push(backend, "t1")

    assert told("cancel", dsn, "t1") == {
        "canceled": [{"task_id": "t1", "queue": "all", "callable": None}],
        "asked_to_end": [],
    }
    assert re.match(rf"Task 't1' was canceled at {A_MOMENT} ", why(dsn, "t1"))
    assert "'dead' is dead" in refused("cancel", dsn, "dead")
    assert refused("cancel", dsn, "t1") == (
        "alligator: 't1' neither waits nor is delayed, nor does it run: it is done, or unknown. (Only a whole "
        "id will do.)"
    )


# Schedules


def test_schedules_are_listed_and_removed(dsn: str) -> None:
    Gator(dsn).every(7200, jobs.add, 1, 2, name="often")
    Gator(dsn, "mail").cron("0 7 * * *", jobs.add, 1, 2, name="morning")
    Gator(dsn, "mail").every(60, jobs.add, 1, 2, name="often")

    lines = said("schedules", dsn).splitlines()
    assert lines[0].split() == ["name", "queue", "when", "next", "last", "callable"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["often", "all"],
        ["morning", "mail"],
        ["often", "mail"],
    ]
    assert "every 2 h       in 1 h" in lines[1]
    assert lines[1].endswith("never  tests.integration.jobs.add")
    assert [one["name"] for one in told("schedules", dsn)["schedules"]] == [
        "often",
        "morning",
        "often",
    ]
    [one] = told("schedules", dsn, "--queue", "all")["schedules"]
    assert (one["every"], one["cron"], one["last_at"]) == (7200.0, None, None)

    assert said("schedules", dsn, "remove", "often", "--queue", "all") == (
        "Removed schedule 'often' of queue 'all'.\n"
    )
    assert refused("schedules", dsn, "remove", "often", "--queue", "all") == (
        "alligator: No schedule has the name 'often' in queue 'all'."
    )
    assert told("schedules", dsn, "remove", "often") == {
        "removed": [{"name": "often", "queue": "mail"}]
    }
    assert told("schedules", dsn, "remove", "often", status=1) == {"removed": []}
    assert said("schedules", dsn, "--queue", "all") == "No schedules in queue 'all'.\n"
    assert len(told("schedules", dsn)["schedules"]) == 1


@only_sqlite
def test_where_nothing_is_scheduled_it_says_so(dsn: str) -> None:
    with opened(dsn) as backend:
        backend.count(QUEUE)

    assert said("schedules", dsn) == "No schedules.\n"
    assert told("schedules", dsn) == {"schedules": [], "unreadable": []}


def test_schedules_that_nobody_looks_after_are_told(dsn: str) -> None:
    gator = Gator(dsn, "mail")
    gator.every(60, jobs.add, 1, 2, name="often")
    assert "overdue" not in said("schedules", dsn)
    records = gator.backend.records
    assert records is not None
    [(key, value)] = records.list("schedules:mail").items()
    due_at = gator.backend.now() - 200
    records.set(key, json.dumps({**json.loads(value), "due_at": due_at}).encode())

    lines = said("schedules", dsn).splitlines()
    assert "every 1 min  overdue, 3 min  never" in lines[1]
    assert lines[2:] == [
        "",
        "1 schedule is overdue: no worker with --schedule seems to be at work on 'mail'.",
    ]
    Scheduler(gator.backend, ["mail"], gator.task_class).tick()
    assert "overdue" not in said("schedules", dsn)
    assert re.search(r"  (just now|[0-9]+ s ago)  ", said("schedules", dsn))


@only_sqlite
def test_a_schedule_that_cannot_be_read_is_told_of(dsn: str) -> None:
    gator = Gator(dsn)
    gator.every(60, jobs.add, 1, 2, name="damaged")
    records = gator.backend.records
    assert records is not None
    [key] = records.list("schedules:all")
    records.set(key, b'{"every": "often"}')
    problem = "It cannot be read: the record's 'every' is 'often'"

    assert refused("schedules", dsn) == (
        f"alligator: Schedule 'damaged' of queue 'all' queues nothing here: {problem}"
    )
    gator.every(60, jobs.add, 1, 2, name="fine")
    assert told("schedules", dsn, status=1)["unreadable"] == [
        {"name": "damaged", "queue": "all", "problem": problem}
    ]
    assert told("schedules", dsn, status=1)["schedules"][0]["name"] == "fine"
    said("schedules", dsn, "remove", "damaged")
    assert "fine" in said("schedules", dsn)


@only_sqlite
def test_odd_names_of_schedules_are_listed_and_can_be_removed(dsn: str) -> None:
    for name in ("a/b:c", "-1", "evil\u202ename", "it's", "x" * 200):
        Gator(dsn, name[:40]).every(60, jobs.add, 1, 2, name=name)

    shown = said("schedules", dsn)
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "evil\\u202ename" in shown
    assert max(map(len, on_terminal("schedules", dsn, columns=100))) <= 100
    for name in ("a/b:c", "evil\u202ename", "it's", "x" * 200):
        assert told("schedules", dsn, "remove", name)["removed"][0]["name"] == name
    assert "'-1'" in said("schedules", dsn, "remove", "--", "-1")
    for name in ("", "a\nb", "\udcff", "x" * 201):
        refused("schedules", dsn, "remove", name, status=2)
