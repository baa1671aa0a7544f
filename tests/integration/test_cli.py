"""The command ``alligator``, as people and programs run it."""

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, keys, version
from alligator.backends.base import Bury, Message
from alligator.testing.stores import (
    FAR_OFF,
    QUEUE,
    opened,
    push,
    records_of,
    take,
    take_ready,
)
from tests.examples.commands import clean_environment
from tests.integration import jobs
from tests.integration.scenes import ROOT, Scene, until
from tests.support import forked
from tests.support.servers import Server

SECRET = "hunter2"
FIRST = "01a203a5-8211-77ee-9153-51efc05a6c10"
SECOND = "01a203a5-8211-7817-8e8b-244bd7a854a8"

only_sqlite = pytest.mark.parametrize("dsn", ["sqlite"], indirect=True)


def alligator(*words: object, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    given = [*map(str, words)], ROOT, clean_environment(**environment)
    # Python heeds its own variables when it starts.
    is_to_start = any(name.startswith("PYTHON") for name in environment)
    return forked.started(*given) if is_to_start else forked.run(*given)


def said(*words: object, **environment: str | Path) -> str:
    """Return what a command prints that must succeed."""
    ran = alligator(*words, **environment)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


def told(*words: object, status: int = 0) -> Any:
    """Return what a command tells with ``--json``."""
    ran = alligator(*words, "--json")
    assert ran.returncode == status, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def refused(*words: object, status: int = 1, **environment: str | Path) -> str:
    """Return what a command complains of, in one line (and, of wrong use, how to use it)."""
    ran = alligator(*words, **environment)
    assert (ran.returncode, ran.stdout) == (status, ""), ran.stdout + ran.stderr
    *usage, complaint = ran.stderr.splitlines()
    assert complaint.startswith("alligator")
    assert bool(usage) == (status == 2)
    assert "Traceback" not in ran.stderr
    return complaint


def on_terminal(*words: object, columns: int = 80, typed: str = "") -> list[str]:
    """Return the lines that a command shows on a terminal, where someone has typed something."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = clean_environment()
    environment.pop("COLUMNS", None)
    os.write(ours, typed.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "alligator", *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with process:
        while part := _read(ours):
            shown += part
    os.close(ours)
    return shown.decode().replace("\r\n", "\n").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # on Linux: the command has ended, and nobody has it open any more
        return b""


def bury(
    dsn: str, *names: str, of: str = QUEUE, error: str = "ValueError: broken", body: bytes = b""
) -> None:
    """Make tasks of these names dead letters, in this order."""
    note = {"reason": "failed", "error": error, "traceback": f"Traceback of\n{error}\n"}
    payloads = {
        name: body
        or json.dumps(
            {
                "task_id": name,
                "retries": 0,
                "module": "shop.mail",
                "callable": "send",
                "args": [SECRET],
            }
        ).encode()
        for name in names
    }
    with opened(dsn) as backend:
        backend.push_many(of, [Message(name, payload) for name, payload in payloads.items()])
        held = take_ready(backend, len(names), of=of)
        assert backend.settle([Bury(one, json.dumps(note)) for one in held]) == []


def names_of(dsn: str, queue: str = QUEUE) -> list[str]:
    """Take what waits in a queue; return the names, in order."""
    with opened(dsn) as backend:
        return [held.task_id for held in take_ready(backend, 10_000, of=queue)]


def ids(document: Any, key: str = "dead_letters") -> list[str]:
    return [entry["task_id"] for entry in document[key]]


# How many, and who works


def test_status_counts_tasks_by_queue_and_state(dsn: str) -> None:
    bury(dsn, "d1", of="mail")
    with opened(dsn) as backend:
        push(backend, "t1", "t2", "t3")
        push(backend, "later", delay=FAR_OFF)
        take(backend)
        push(backend, "m1", to="mail")

    assert told("status", dsn) == {
        "queues": [
            {"queue": "all", "waiting": 2, "delayed": 1, "running": 1, "dead": 0},
            {"queue": "mail", "waiting": 1, "delayed": 0, "running": 0, "dead": 1},
        ],
        "workers": [],
    }
    assert said("status", dsn, "--queue", "mail").splitlines() == [
        "queue  waiting  delayed  running  dead",
        "mail         1        0        0     1",
        "",
        "No workers are alive in queue 'mail'.",
    ]


@only_sqlite
def test_status_shows_large_numbers_with_separators(dsn: str) -> None:
    with opened(dsn) as backend:
        push(backend, *map(str, range(12_345)))

    assert "all     12,345        0        0     0" in said("status", dsn).splitlines()


@only_sqlite
def test_status_of_a_store_that_holds_nothing_shows_its_own_queue(dsn: str) -> None:
    with opened(dsn) as backend:
        backend.count(QUEUE)  # makes the file

    assert "all          0        0        0     0" in said("status", dsn).splitlines()


def test_status_shows_the_workers_that_live_and_what_they_take_from(scene: Scene) -> None:
    program = scene.latergator("--workers", "2", "--queue", "mail", "--queue", "all")
    program.says("starting")  # before that there may be no file yet
    until(lambda: len(told("status", scene.dsn)["workers"]) == 2, "both workers are shown")

    status = told("status", scene.dsn)
    assert [entry["queue"] for entry in status["queues"]] == ["all", "mail"]
    assert {worker["pid"] for worker in status["workers"]} == set(program.children)
    assert all(worker["queues"] == ["mail", "all"] for worker in status["workers"])
    shown = said("status", scene.dsn).splitlines()
    assert [line.split() for line in shown[4:5]] == [["worker", "pid", "up", "queues"]]
    assert all(line.endswith("mail, all") for line in shown[5:])
    assert told("status", scene.dsn, "--queue", "other")["workers"] == []

    program.signal(15)
    assert program.wait() == 0
    assert told("status", scene.dsn)["workers"] == []


@only_sqlite
def test_a_target_may_be_a_gator_or_come_from_the_environment(dsn: str, tmp_path: Path) -> None:
    bury(dsn, "d1")
    (tmp_path / "shop.py").write_text(f"from alligator import Gator\ngator = Gator({dsn!r})\n")

    assert "d1" in said("dead", "shop:gator", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert "No workers are alive." in said("status", ALLIGATOR_CONN=dsn)


# Dead letters: looking


def test_dead_letters_are_listed_the_newest_first(dsn: str) -> None:
    for name, queue in [("d1", "all"), ("d2", "mail"), ("d3", "all")]:
        bury(dsn, name, of=queue)

    listed = told("dead", dsn)
    assert (listed["total"], ids(listed)) == (3, ["d3", "d2", "d1"])
    assert set(listed["dead_letters"][0]) == {
        *("task_id", "queue", "letter_id", "buried_at"),
        *("reason", "callable", "error", "payload_bytes", "signature"),
    }
    assert ids(told("dead", dsn, "--limit", "2")) == ["d3", "d2"]
    assert ids(told("dead", dsn, "--queue", "mail")) == ["d2"]
    lines = said("dead", dsn, "--limit", "2").splitlines()
    assert lines[0].split() == ["id", "queue", "died", "reason", "callable", "error"]
    assert lines[1].split("  ")[0] == "d3"
    assert lines[1].endswith("failed  shop.mail.send  ValueError: broken")
    assert lines[-1] == "The newest 2 of 3; --limit N shows more."


@pytest.mark.parametrize("action", [[], ["retry", "--all"], ["purge", "--all", "--yes"]])
@only_sqlite
def test_where_nothing_is_dead_it_says_so(dsn: str, action: list[str]) -> None:
    with opened(dsn) as backend:
        push(backend, "t1")

    assert said("dead", dsn, *action) == "No dead letters.\n"
    assert said("dead", dsn, "--queue", "mail", *action) == "No dead letters in queue 'mail'.\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ValueError: one\n  two\nthree", "ValueError: one two three"),
        (
            '  File "x.py", line 1\n    print 1\n    ^^^\nSyntaxError: invalid',
            "SyntaxError: invalid",
        ),
        ("\x1b[2J\rall is well", "\\x1b[2J all is well"),
        ("a\u202eb\x00c\u2028d\x9be", "a\\u202eb\\x00c d\\x9be"),
        ("lone \udcff", "lone \\udcff"),
        ("", ""),
    ],
)
@only_sqlite
def test_an_error_takes_one_line_of_harmless_characters(dsn: str, error: str, line: str) -> None:
    bury(dsn, "d1", error=error)

    listed = said("dead", dsn)
    assert listed.splitlines()[1].partition("shop.mail.send")[2] == f"  {line}".rstrip()
    shown = said("dead", dsn, "show", "d1")
    assert f"error     {line}" in shown.splitlines()
    assert all(char.isprintable() or char == "\n" for char in listed + shown)
    assert told("dead", dsn)["dead_letters"][0]["error"] == error


@only_sqlite
def test_names_that_came_past_our_checks_cannot_forge_lines(dsn: str) -> None:
    forged = "evil\r\nalligator: all is well\x1b[31m"
    bury(dsn, forged, of=forged)
    with opened(dsn) as backend:
        push(backend, forged, to=forged)

    for words in (["status", dsn], ["dead", dsn], ["dead", dsn, "show", "well\\x1b[31m"]):
        ran = alligator(*words)
        assert all(char.isprintable() or char == "\n" for char in ran.stdout + ran.stderr)
        assert not [line for line in ran.stdout.splitlines() if line.startswith("alligator")]
    told_of = told("dead", dsn, "retry", "--all", status=1)
    assert ids(told_of, "stayed") == [forged]
    assert alligator("dead", dsn, "retry", "--all").stdout.count("\n") == 1


UNFIT = ["\ud800", "a\0b", "", "a\nb", "x" * 5000]
"""What no queue can be called, and not every store can be asked for."""


def test_queues_that_only_records_tell_of_end_no_command(dsn: str) -> None:
    worker = {"worker": "w1", "host": "h", "pid": 1, "started_at": 1.0, "queues": [QUEUE, *UNFIT]}
    with opened(dsn) as backend:
        push(backend, "t1")
        records_of(backend).set("workers/w1", json.dumps(worker).encode(), 60)
        records_of(backend).set_many({f"schedules/{keys.escaped(name)}": b"" for name in UNFIT})

    assert [one["queue"] for one in told("status", dsn)["queues"]] == [QUEUE]
    assert told("status", dsn)["workers"][0]["queues"] == [QUEUE]
    assert told("show", dsn, "t1")["tasks"][0]["state"] == "waiting"
    for words in (["why", "t1"], ["stacks"], ["schedules"]):
        assert said(words[0], dsn, *words[1:])
    assert "t2" in refused("why", dsn, "t2")
    assert told("check", dsn, status=1)["looked_at"] == 1


@only_sqlite
def test_on_a_terminal_a_list_fits_it_and_shows_enough_of_an_id_to_find_it(dsn: str) -> None:
    bury(dsn, FIRST, error="ValueError: " + "long " * 50)
    bury(dsn, "a-name-of-my-own-that-is-very-long-" * 3, of="a queue with a long name " * 3)

    wide, narrow = on_terminal("dead", dsn), on_terminal("dead", dsn, columns=50)
    assert max(map(len, wide)) == 80
    assert max(map(len, narrow)) <= 80  # some columns are never cut
    for line in wide[1:]:
        part = line.split()[0]
        assert said("dead", dsn, "show", part).count("traceback") == 1
    piped = said("dead", dsn).splitlines()
    assert piped[2].startswith(FIRST)
    assert piped[2].endswith("long " * 49 + "long")


@only_sqlite
def test_wide_characters_do_not_shift_columns(dsn: str) -> None:
    with opened(dsn) as backend:
        push(backend, "t1", to="\u90ae\u4ef6")

    assert "\u90ae\u4ef6         1        0        0     0" in said("status", dsn).splitlines()


def test_show_tells_all_but_the_arguments(dsn: str) -> None:
    gator = Gator(dsn)
    with gator.options(task_id="d1") as opts:
        opts.task(jobs.add, 4711, None)
    with pytest.raises(TypeError) as raised:
        gator.pop()

    shown = said("dead", dsn, "show", "d1")
    for line in (
        "id        d1",
        "queue     all",
        "callable  tests.integration.jobs.add",
        "reason    failed",
        f"error     TypeError: {raised.value}",
        "        return a + b",
        f"    TypeError: {raised.value}",
    ):
        assert line in shown.splitlines()
    assert "4711" not in shown
    assert "        4711," in said("dead", dsn, "show", "--payload", "d1").splitlines()

    [letter] = told("dead", dsn, "show", "d1")["dead_letters"]
    assert letter["traceback"].endswith(f"TypeError: {raised.value}\n")
    assert "payload" not in letter
    [letter] = told("dead", dsn, "show", "d1", "--payload")["dead_letters"]
    assert json.loads(letter["payload"])["args"] == [4711, None]


def test_show_tells_of_each_of_a_tasks_dead_letters(dsn: str) -> None:
    for error in ("first", "second", "third"):
        bury(dsn, "d1", error=error)

    told_of = told("dead", dsn, "show", "d1")
    assert [letter["error"] for letter in told_of["dead_letters"]] == ["third", "second", "first"]
    newest = said("dead", dsn, "show", "d1", "--limit", "1")
    assert newest.count("error     third") == 1
    assert newest.endswith("The newest 1 of 3; --limit N shows more.\n")


@pytest.mark.parametrize("body", [b"\xff\x00\x1b[2J", b"[" * 100_000, b'{"task_id": 3}', b"17"])
@only_sqlite
def test_what_no_one_can_read_is_shown_nevertheless(dsn: str, body: bytes) -> None:
    bury(dsn, "d1", body=body)
    with opened(dsn) as backend:
        push(backend, "noteless")
        backend.settle([Bury(take(backend), "17")])

    assert said("dead", dsn).splitlines()[2].split()[-3:] == ["?", "ValueError:", "broken"]
    shown = said("dead", dsn, "show", "d1", "--payload")
    assert f"payload   {len(body):,} bytes" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert told("dead", dsn)["dead_letters"][1]["callable"] is None
    assert told("dead", dsn, "show", "noteless")["dead_letters"][0]["error"] == "17"


def test_a_part_of_an_id_will_do_if_no_other_begins_or_ends_so(dsn: str) -> None:
    bury(dsn, FIRST)
    bury(dsn, SECOND, of="mail")

    assert ids(told("dead", dsn, "show", FIRST[-6:])) == [FIRST]
    assert ids(told("dead", dsn, "show", SECOND[:16])) == [SECOND]
    assert ids(told("dead", dsn, "show", FIRST[:4], "--queue", "all")) == [FIRST]
    assert "part of several ids" in refused("dead", dsn, "purge", FIRST[:8])
    assert refused("dead", dsn, "show", FIRST[-3:]) == (
        f"alligator: No dead letter has the id '{FIRST[-3:]}'."
    )


# Dead letters: retrying and purging


def test_retry_queues_a_task_again(dsn: str) -> None:
    bury(dsn, "d1", "d2", "d3")

    assert said("dead", dsn, "retry", "d1", "d3") == "2 dead letters queued again.\n"
    assert names_of(dsn) == ["d1", "d3"]
    assert ids(told("dead", dsn)) == ["d2"]


def test_retry_leaves_what_is_queued_again_meanwhile(dsn: str) -> None:
    bury(dsn, "d1", "d2")
    with opened(dsn) as backend:
        push(backend, "d1")

    ran = alligator("dead", dsn, "retry", "d1", "d2")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.splitlines() == [
        "1 dead letter queued again.",
        "d1 in queue 'all': its task is queued again already, so this dead letter stays.",
    ]
    assert ids(told("dead", dsn, "retry", "--all", status=1), "stayed") == ["d1"]


def test_retry_takes_the_newest_of_a_tasks_dead_letters(dsn: str) -> None:
    for number in range(3):
        bury(dsn, "d1", body=b'{"number": %d}' % number)

    outcome = told("dead", dsn, "retry", "d1", status=1)
    assert (len(outcome["retried"]), len(outcome["stayed"])) == (1, 2)
    with opened(dsn) as backend:
        assert take(backend).body == b'{"number": 2}'


def test_retry_all_moves_any_number_in_the_order_they_died(dsn: str) -> None:
    names = [f"d{number}" for number in range(1234)]
    bury(dsn, *names)
    bury(dsn, "m1", of="mail")

    assert said("dead", dsn, "retry", "--all") == "1,235 dead letters queued again.\n"
    assert names_of(dsn) == names
    assert names_of(dsn, "mail") == ["m1"]
    assert told("dead", dsn)["total"] == 0


def test_retry_all_ends_though_the_tasks_fail_again(scene: Scene) -> None:
    for number in range(300):
        scene.push(f"d{number}", jobs.fail, "plain")
    scene.latergator("--quiet")
    until(lambda: scene.counts.dead == 300, "all have failed")

    assert said("dead", scene.dsn, "retry", "--all") == "300 dead letters queued again.\n"
    until(lambda: scene.counts.dead == 300, "all have failed again")
    assert len(scene.journal.entries("start", "d0")) == 2


def test_purge_removes_dead_letters_for_good(dsn: str) -> None:
    bury(dsn, "d1", "d2")
    bury(dsn, "d1", "m1", of="mail")

    assert said("dead", dsn, "purge", "d1") == "2 dead letters purged.\n"
    assert said("dead", dsn, "purge", "--all", "--yes", "--queue", "mail") == (
        "1 dead letter purged.\n"
    )
    assert ids(told("dead", dsn)) == ["d2"]
    assert ids(told("dead", dsn, "purge", "--all", "--yes"), "purged") == ["d2"]
    assert (told("dead", dsn)["total"], names_of(dsn)) == (0, [])


@only_sqlite
def test_purge_all_asks_the_person_at_the_terminal(dsn: str) -> None:
    bury(dsn, *map(str, range(1000)))

    assert "add --yes" in refused("dead", dsn, "purge", "--all", status=2)
    for answer in ("\n", "n\n", "yellow\n", "\x04"):
        shown = on_terminal("dead", dsn, "purge", "--all", typed=answer)
        assert "Purge 1,000 dead letters for good? [y/N] " in "".join(shown)
        assert shown[-1].endswith("alligator: Nothing is purged.")
    assert told("dead", dsn)["total"] == 1000
    assert on_terminal("dead", dsn, "purge", "--all", typed="y\n")[-1].endswith(
        "1,000 dead letters purged."
    )
    assert told("dead", dsn)["total"] == 0


@pytest.mark.parametrize("action", ["retry", "purge"])
def test_of_several_ids_those_that_are_known_are_dealt_with(dsn: str, action: str) -> None:
    bury(dsn, "d1", "d2")

    ran = alligator("dead", dsn, action, "d1", "gone", "d2", "d1")
    assert ran.returncode == 1
    assert ran.stdout.startswith("2 dead letters ")
    assert ran.stderr == "alligator: No dead letter has the id 'gone'.\n"
    assert told("dead", dsn, action, "gone", status=1)["not_found"] == ["gone"]


# Canceling


def test_cancel_takes_out_what_waits_or_is_delayed_in_any_queue(dsn: str) -> None:
    with Gator(dsn, "mail").options(task_id="t1") as opts:
        opts.task(jobs.add, 1, 2)
    with opened(dsn) as backend:
        push(backend, "t2", delay=FAR_OFF)

    assert said("cancel", dsn, "t1") == (
        "Canceled t1 in queue 'mail', a call of tests.integration.jobs.add.\n"
    )
    assert refused("cancel", dsn, "t2", "--queue", "mail")
    assert told("cancel", dsn, "t2") == {
        "canceled": [{"task_id": "t2", "queue": "all", "callable": None}],
        "asked_to_end": [],
    }
    with opened(dsn) as backend:
        assert (backend.len("mail"), backend.len("all")) == (0, 0)


def test_cancel_says_that_a_task_does_not_wait(dsn: str) -> None:
    bury(dsn, "dead")

    assert "'dead' is dead" in refused("cancel", dsn, "dead")
    assert "'unknown' neither waits" in refused("cancel", dsn, "unknown")
    assert told("dead", dsn)["total"] == 1


# What goes wrong


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing", "neither a DSN such as"),
        (f"reddis://me:{SECRET}@localhost", "No backend for 'reddis'"),
        (f"redis://me:{SECRET}@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0 does not answer"),
        (f"redis://me:{SECRET}@localhost:none/0", "is no Redis DSN"),
        ("locmem://", "memory of another process"),
        ("sqlite://", "names no file"),
        ("sqlite:///nowhere/queue.db", "There is no file /nowhere/queue.db"),
        (f"sqlite://{__file__}", "is no SQLite file"),
        ("nowhere:gator", "No module named 'nowhere'"),
        ("os:sep", "is a str, not a Gator"),
        ("sqlite:///tmp/x\nalligator: forged", "There is no file"),
    ],
)
def test_a_target_that_leads_nowhere_is_told_of_in_a_line(target: str, words: str) -> None:
    complaint = refused("status", target)
    assert words in complaint
    assert SECRET not in complaint


def test_a_store_that_needs_a_package_names_it(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'redis'\", name='redis')\n"
    )

    complaint = refused("status", "redis://localhost", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert "pip install 'alligator[redis]'" in complaint


def test_a_module_that_tells_a_password_when_it_fails_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(f"raise ValueError('redis://me:{SECRET}@host')\n")

    complaint = refused("status", "leaky:gator", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert "redis://***@host" in complaint
    assert SECRET not in complaint


def test_a_server_that_wants_another_password_is_told_of_without_it(redis_server: Server) -> None:
    target = redis_server.dsn.replace("redis://", f"redis://nobody:{SECRET}@")

    complaint = refused("status", target)
    assert "redis://***@" in complaint
    assert SECRET not in complaint


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["status"],
        ["dead"],
        [f"redis://me:{SECRET}@host", "status"],
        ["status", "locmem://", f"redis://me:{SECRET}@host"],
        ["cancel", "locmem://"],
        ["dead", "locmem://", "--limit", "0"],
        ["dead", "locmem://", "--queue", ""],
        ["dead", "locmem://", "show", "\udcff"],
    ],
)
def test_wrong_use_is_told_how_it_is_used(words: list[str]) -> None:
    assert SECRET not in refused(*words, status=2)


@pytest.mark.parametrize("words", [[], ["d1", "--all"]])
@only_sqlite
def test_retry_wants_ids_or_all(dsn: str, words: list[str]) -> None:
    bury(dsn, "d1")

    assert "IDs of tasks, or say --all" in refused("dead", dsn, "retry", *words, status=2)
    assert "--limit is for" in refused("dead", dsn, "--limit", 1, "retry", "--all", status=2)


@only_sqlite
def test_nobody_reading_is_no_reason_to_complain(dsn: str) -> None:
    bury(dsn, "d1")
    reading, writing = os.pipe()
    os.close(reading)

    ran = subprocess.run(
        [sys.executable, "-m", "alligator", "dead", dsn],
        cwd=ROOT,
        env=clean_environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (128 + 13, b"")


def test_it_tells_its_version() -> None:
    assert said("--version") == f"alligator {version()}\n"
