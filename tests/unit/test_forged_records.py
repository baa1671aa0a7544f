"""Records that anybody may have written who can reach the store: whatever they say, the others go on."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from alligator import Concurrency, Gator, Rate, registry, schedules, stack_records, stops
from alligator.attempts import Runner
from alligator.backends.base import Release, Reservation
from alligator.checkpoints import resuming
from alligator.commands.move.intents import Intent
from alligator.commands.move.moved import Moved
from alligator.commands.move.schedules import count as count_schedules
from alligator.commands.move.schedules import move_schedules
from alligator.deaths import Death
from alligator.exceptions import AlligatorException
from alligator.limits.gates import NAP
from alligator.outbox.forwarding import _SureStep  # pyright: ignore[reportPrivateUsage]
from alligator.payloads import MOST_DEPTH, mark_of, object_in
from alligator.schedules import Scheduler
from alligator.settling import settle
from alligator.tasks import Task
from alligator.testing.stores import records_of
from tests.unit import jobs
from tests.unit.conftest import Clock

DEEP = 100_000
TOKEN = "w1.1.1700000000000"
ODD_VALUES = [
    b"",
    b"\xff\xfe\x00",
    b"\x00" * 100,
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1),
    b"null",
    b"[]",
    b"{}",
    b"NaN",
    b"9" * 400,
    b"9" * 5000,
    b'"text"',
    b"[[], 1, null, NaN]",
    b'{"": NaN}',
]
NEST = "[" * (MOST_DEPTH - 5) + "]" * (MOST_DEPTH - 5)
ODD_PARTS = [
    *("null", "true", "-1", "0", "1e-300", "NaN", "Infinity", "-Infinity", "1e999", "9" * 400),
    *(
        "9" * 9,
        "9" * 18,
        "1e14",
        '""',
        '"text"',
        r'"\ud800"',
        '"%uD800:%u0000"',
        "[]",
        "{}",
        '{"a": 1}',
    ),
    *(f'"{"9" * 400}"', f'"w.1.{"9" * 400}"', "[1]", "[[1, NaN]]", '["a:b"]', NEST),
]
"""What may stand in the place of anything within a record."""

LIMITED = {
    "guard": ["all:t1", 1.0],
    "called": {"all:t1": [1.0, 1.0, True]},
    "inside": {"all:t0": TOKEN},
    "starts": [[1.0, 1]],
    "first": 1,
    "tail_at": 2,
    "head": ["all:t9"],
    "tail": ["all:t1"],
    "moved_at": 1.0,
    "looked_at": 1.0,
}
SCHEDULE = {
    "every": 10.0,
    "cron": None,
    "timezone": None,
    "task_id": None,
    "replaces": False,
    "body": "{}",
    "encoding": "utf-8",
    "start_at": 1.0,
    "due_at": 11.0,
    "last_due_at": None,
    "last_at": None,
    "rows": [[1.0, 1.0]],
}
EDGE = {"of": 2, "at": 1.0, "due_at": 1.0, "failed": "", "missing_since": 1.0, "own_id": False}
DEATH = {**Death(signal="SIGKILL", exit_status=1, peak_memory=1)._asdict(), "token": TOKEN}
PROGRESS = {"done": 1.0, "total": 2.0, "note": "", "at": 1.0, "passed": [1], "token": TOKEN}
OUTCOME = {"state": "success", "at": 1.0, "reason": "", "error": "", "kept_until": 1e10, "push": ""}
PRESENCE = {"worker": "w1", "host": "h", "pid": 1, "queues": ["all"], "started_at": 1.0}
TOLD = {"queue_name": "all", "task_id": "t1", "token": TOKEN, "seconds": 1.0, "stack": ""}
EVERYBODY = ("t0", "t1", "t2")


def of_each(family: str) -> list[str]:
    return [f"{family}/all:{task_id}" for task_id in EVERYBODY]


RECORDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "stops": ([*of_each("stops"), "stops/%u0000:%uD800", "stops/"], {"token": TOKEN, "reason": "canceled"}),
    "deaths": (of_each("deaths"), DEATH),
    "progress": (of_each("progress"), PROGRESS),
    "outcomes": (of_each("outcomes"), OUTCOME),
    "results": (of_each("results"), {"result": 1, "failure": {"type": "a", "message": "b"}}),
    "needs": (["needs:all:t1/all:t0"], EDGE),
    "dependents": (["dependents:all:t0/all:t1", "dependents:all:t0/%u0000"], EDGE),
    "concurrency": (["limits/concurrency:api"], LIMITED),
    "rate": (["limits/rate:api"], LIMITED),
    "schedules": (["schedules:all/s"], SCHEDULE),
    "cron": (["schedules:all/s"], {**SCHEDULE, "every": None, "cron": "* * * * *", "timezone": "UTC"}),
    "workers": (["workers/w1"], PRESENCE),
    "stacks": (["stacks/q/w1"], {"host": "h", "pid": 1, "tasks": [TOLD]}),
}  # fmt: skip
"""By family: keys that are in use, and what may stand there."""


def forged(template: dict[str, Any]) -> Iterator[bytes]:
    """Yield what somebody may have written in the place of a record."""
    yield from ODD_VALUES
    written = {name: json.dumps(value) for name, value in template.items()}
    for name in template:
        for part in ODD_PARTS:
            told = written | {name: part}
            yield (
                "{" + ",".join(f'"{key}": {value}' for key, value in told.items()) + "}"
            ).encode()


def expected(call: Callable[[], object]) -> None:
    """Call what may raise, but only what it says."""
    try:
        call()
    except AlligatorException:
        pass


class Forgery:
    """A store with tasks of several kinds, and records in it that are forged again and again."""

    def __init__(self, clock: Clock, gator: Gator, keys: Sequence[str], is_rate: bool) -> None:
        self.clock = clock
        self.gator = gator
        self.backend = gator.backend
        self.records = records_of(gator.backend)
        self.keys = keys
        self.limit = Rate("api", 1, 10) if is_rate else Concurrency("api", 1)
        self.value = b""

    def play(self, value: bytes) -> None:
        """Let tasks go through all of it."""
        self.value = value
        self.backend.drop_all("all")
        for family in {key.partition("/")[0] for key in self.keys}:
            self.records.delete(*self.records.list(family))
        with self.gator.options(task_id="t0", limit=self.limit) as opts:
            first = opts.task(jobs.echo, 0)
        with self.gator.options(
            task_id="t1", limit=self.limit, depends_on=[first], keep_result=60, retries=1
        ) as opts:
            opts.task(jobs.echo, 1)
        with self.gator.options(task_id="t2", timeout=5) as opts:
            opts.task(jobs.echo, 2)
        for _ in range(3):
            self._hand_out()
        self._pop(4)
        for task_id in EVERYBODY:
            self._forge()
            self.gator.status(task_id)
            expected(lambda task_id=task_id: self.gator.result(task_id, timeout=0))  # type: ignore[misc]
            self._forge()
            self.gator.cancel(task_id)
        self._pop(2)
        self._look()

    def _hand_out(self) -> None:
        """Let all tasks come to nothing, as where a worker dies."""
        self._forge()
        held = self.backend.reserve(["all"], "w1", limit=10, lease=30).reservations
        stops.canceled(self.backend, held)
        stops.left(self.backend, held)
        resuming(self.backend, [Release(one) for one in held])
        self.backend.settle([Release(one, lapsed=True) for one in held])

    def _pop(self, times: int) -> None:
        for _ in range(times):
            self._forge()
            expected(self.gator.pop)
            self.clock.turn(NAP)

    def _look(self) -> None:
        self._forge()
        for call in (registry.present, stops.listed, schedules.queues):
            call(self.backend)
        schedules.listed(self.backend, "all")
        schedules.bodies(self.backend, "all")
        stack_records.answers_to(self.records, "q")
        scheduler = Scheduler(self.backend, ["all"], Task)
        for seconds in (0.0, 2.0, -1000.0):
            self.clock.turn(seconds)
            scheduler.tick()

    def _forge(self) -> None:
        told = {key: self._by_body(key) for key in self.keys}
        self.records.set_many(told)

    def _by_body(self, key: str) -> bytes:
        """Return what is forged, as a record of the task that the key names: some tell of its body."""
        found = self.backend.find("all", key.rpartition(":")[2])
        if found is None or not self.value.startswith(b"{") or not object_in(self.value):
            return self.value
        return self.value[:-1] + b', "body": %d}' % mark_of(found.body)


@pytest.mark.parametrize("family", RECORDS)
def test_whatever_a_record_says_nobody_ends_or_waits_for_ever(
    family: str, gator: Gator, clock: Clock
) -> None:
    keys, template = RECORDS[family]
    forgery = Forgery(clock, gator, keys, family == "rate")

    for value in forged(template):
        try:
            forgery.play(value)
        except BaseException as err:
            err.add_note(f"by {value[:300]!r}")
            raise


def test_nor_does_who_moves_or_forwards(gator: Gator) -> None:
    records = records_of(gator.backend)
    intent = {"move": "m", "parked_until": 1.0, "n": 1, "due_at": 1.0, "follow": ["t", "", ""]}
    for value in forged(intent):
        Intent.read(value)
    there = records_of(Gator("locmem://").backend)
    for value in forged({"moved_to": "b", "schedule": "e30="}):
        records.set("schedules:all/s", value)
        move_schedules(records, there, ("a", "b"), "all", Moved())
        count_schedules(records, "all")
    for value in forged({"a": 1}):
        records.set("outboxes:all/o", value)
        assert _SureStep(gator.backend, records, "all", "outboxes:all/o").told == []


PAYLOAD: dict[str, Any] = {
    "task_id": "t1",
    "retries": 1,
    "async": True,
    "module": jobs.__name__,
    "callable": "fail",
    "args": [],
    "kwargs": {},
}
HOOK = {"module": jobs.__name__, "callable": "take"}
OPTIONS: dict[str, Any] = {
    "on_start": HOOK,
    "on_error": HOOK,
    "depends_on": [["all", "t0"]],
    "expires": 5e9,
    "backoff": 1.0,
    "max_backoff": 1.0,
    "retry_on": [{"module": "builtins", "callable": "ValueError"}],
    "give_up_on": [],
    "timeout": 1.0,
    "priority": 1,
    "keep_result": 1.0,
    "limit": {"rate": ["api", 1, 1.0]},
    "attempt": 2,
    "history": [{"attempt": 1, "error": "", "at": 1.0, "token": TOKEN}],
    "resumes": TOKEN,
    "push": "",
    "not_before": 1.0,
}
ODD_LIMITS = [
    *('{"rate": ["api", 1, 5e-324]}', '{"rate": ["api", 10000, 1e-300]}', '{"rate": ["api", 1, NaN]}'),
    *('{"rate": ["\\ud800", 1, 1]}', '{"concurrency": ["api", 1e9]}', '{"concurrency": ["api", true]}'),
]  # fmt: skip


def forged_payloads() -> Iterator[bytes]:
    """Yield what somebody may have pushed."""
    written = {name: json.dumps(value) for name, value in PAYLOAD.items()}
    for value in forged(PAYLOAD):
        yield value[:-1] + b', "options": %b}' % json.dumps(OPTIONS).encode()
    options = {name: json.dumps(value) for name, value in OPTIONS.items()}
    forged_options = [(name, part) for name in options for part in ODD_PARTS]
    for name, part in [*forged_options, *(("limit", limit) for limit in ODD_LIMITS)]:
        told = options | {name: part}
        if name != "depends_on":  # else it would wait, and nothing more
            del told["depends_on"]
        body = written | {"options": "{" + ",".join(f'"{k}": {v}' for k, v in told.items()) + "}"}
        yield ("{" + ",".join(f'"{k}": {v}' for k, v in body.items()) + "}").encode()


def test_nor_by_what_a_task_says(gator: Gator, clock: Clock) -> None:
    backend, records = gator.backend, records_of(gator.backend)
    runner = Runner(backend, Task, results=records)
    death, progress = json.dumps(DEATH).encode(), json.dumps(PROGRESS).encode()

    def hand_out() -> list[Reservation]:
        held = backend.reserve(["all"], "w1", limit=10, lease=30).reservations
        stops.left(backend, held)
        clock.turn(1000.0)
        return held

    def work() -> None:
        for held in hand_out():
            settle(backend, runner.attempt(held))

    def play(body: bytes) -> None:
        backend.drop_all("all")
        backend.push("all", "t1", body)
        records.set_many({"deaths/all:t1": death, "progress/all:t1": progress})
        backend.settle(resuming(backend, [Release(held) for held in hand_out()]))
        work()
        backend.settle([Release(held, lapsed=True) for held in hand_out()])
        gator.status("t1")
        for _ in range(3):
            work()
        told = {**SCHEDULE, "body": body.decode(errors="replace")}
        records.set("schedules:all/s", json.dumps(told).encode())
        Scheduler(backend, ["all"], Task).tick()
        work()
        gator.cancel("t1")

    for body in forged_payloads():
        try:
            play(body)
        except BaseException as err:
            err.add_note(f"by {body[:1000]!r}")
            raise
