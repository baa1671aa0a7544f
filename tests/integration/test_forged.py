"""Workers with keys, and whoever can write to their store: nothing that is forged runs, or is even imported."""

import base64
import json
import random
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from alligator import Gator
from alligator.payloads import MARK
from alligator.signed_store import knows_ids
from alligator.signing import Keyring, place_of
from tests.integration import jobs, noted
from tests.integration.scenes import Scene, played, until
from tests.support.kinds import empty_store

KEY, OLD_KEY, THEIRS = ("ours" * 10, "removed" * 5, "a stranger's" * 3)
GOOD = [f"good-{number}" for number in range(20)]
FLIPPED = 100
CUT = 30


@pytest.fixture(params=["sqlite", "redis", "postgres", "beanstalk"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with played(empty_store(request.param, request), tmp_path) as scene:
        yield scene


def payload(task_id: str, **changes: object) -> bytes:
    """Return a task that would be seen to be imported, as whoever has no key writes it."""
    told: dict[str, object] = {
        "task_id": task_id,
        "retries": 3,
        "async": True,
        "module": noted.__name__,
        "callable": "run",
        "args": [],
        "kwargs": {},
        "options": {},
    }
    return json.dumps(told | changes).encode()


def forged(scene: Scene) -> dict[str, bytes]:
    """Return what a stranger may push: by the ids to push it under."""
    store = scene.gator.backend

    def signed(key: str, task_id: str, body: bytes, queue_name: str = "all") -> bytes:
        place = place_of("task", queue_name, task_id if knows_ids(store) else "")
        return Keyring([key]).sign(place, body)

    hook = {"module": noted.__name__, "callable": "run"}
    harmless = {"module": jobs.__name__, "callable": "add", "args": [1, 2]}
    bodies = {
        "unsigned": payload("unsigned"),
        "hook": payload("hook", **harmless, options={"on_start": hook}),
        "retry-on": payload("retry-on", **harmless, options={"retry_on": [hook]}),
        "expired": payload("expired", options={"expires": 1}),
        "ours": payload("ours", alligator="released", args=["all", "t", True]),
        "of-mail": signed(KEY, "of-mail", payload("of-mail"), "mail"),
        "stranger": signed(THEIRS, "stranger", payload("stranger")),
        "removed": signed(OLD_KEY, "removed", payload("removed")),
        "mark-alone": MARK,
        "no-mac": MARK + payload("no-mac"),
        "zero-mac": MARK + base64.b64encode(bytes(32)) + b":" + payload("zero-mac"),
        "wrapped": MARK + b"A" * 44 + b":" + signed(KEY, "wrapped", payload("wrapped")),
        "rewrapped": signed(THEIRS, "rewrapped", signed(KEY, "rewrapped", payload("rewrapped"))),
        "in-json": json.dumps(signed(KEY, "in-json", payload("in-json")).decode()).encode(),
        "behind-blanks": b"  " + signed(KEY, "behind-blanks", payload("behind-blanks")),
        "longer": signed(KEY, "longer", payload("longer")) + b" ",
        "packed": zlib.compress(payload("packed") + b" " * 1_000_000),
        "no-json": b"\xff\xfe\x00\x80",
        "deep": b"[" * 50_000,
    }
    if store.keeps_ids:  # else a task has another id than it was pushed under
        bodies["of-another"] = signed(KEY, "another", payload("another"))
        bodies["huge"] = signed(THEIRS, "huge", payload("huge", args=["x" * 3_000_000]))
        bodies["huge-json"] = b"[" + b"1," * 1_000_000 + b"1]"
    chance = random.Random(7)
    for number in range(FLIPPED):
        name = f"flipped-{number}"
        changed = bytearray(signed(KEY, name, payload(name)))
        # Each bit of what makes it signed, and some of the rest.
        place = number if number < len(MARK) + 45 else chance.randrange(len(changed))
        changed[place] ^= 1 << chance.randrange(8)
        bodies[name] = bytes(changed)
    for number in range(CUT):
        name = f"cut-{number}"
        body = signed(KEY, name, payload(name))
        bodies[name] = body[: 1 + number * (len(body) - 1) // CUT]
    return bodies


def test_nothing_forged_runs_nor_is_it_imported_nor_lost(scene: Scene, tmp_path: Path) -> None:
    seen = tmp_path / "noted"
    scene.environment = {"ALLIGATOR_KEYS": KEY, "NOTED": str(seen)}
    stranger, bodies = scene.gator.backend, forged(scene)
    scene.gator = Gator(scene.dsn, keys=[KEY, OLD_KEY])
    for number, (task_id, body) in enumerate(bodies.items()):
        stranger.push("all", task_id, body)
        if number % 8 == 0 and number // 8 < len(GOOD):
            scene.push(GOOD[number // 8])
    good = [name for name in GOOD if scene.journal.entries("push", name)]

    workers = scene.latergator("--workers", "2", "--nap", "0.05")
    until(lambda: len(scene.journal.entries("finish")) == len(good), "all that is ours is done")
    until(lambda: scene.counts.dead == len(bodies), "all that is not is buried")
    workers.signal(signal.SIGTERM)
    assert workers.wait() == 0

    assert not seen.exists()
    assert sorted(entry.name for entry in scene.journal.entries("start")) == sorted(good)
    assert sum(scene.counts) == scene.counts.dead
    letters = stranger.dead("all", limit=len(bodies))
    assert sorted(letter.body for letter in letters) == sorted(bodies.values())  # whole
    assert {json.loads(letter.note)["reason"] for letter in letters} == {"refused"}
    assert "died" not in workers.stderr
    assert "Traceback" not in workers.stderr


def test_without_keys_it_would_have_run(scene: Scene, tmp_path: Path) -> None:
    seen = tmp_path / "noted"
    scene.environment = {"NOTED": str(seen)}
    scene.gator.backend.push("all", "unsigned", payload("unsigned"))

    assert scene.latergator("--burst").wait() == 0

    assert seen.exists()


def test_what_is_not_allowed_is_not_imported(scene: Scene, tmp_path: Path) -> None:
    seen = tmp_path / "noted"
    scene.environment = {"NOTED": str(seen)}
    hook = {"module": noted.__name__, "callable": "run"}
    harmless = {"module": jobs.__name__, "callable": "add", "args": [1, 2]}
    bodies = {
        "task": payload("task"),
        **{
            name: payload(name, **harmless, options={name: hook})
            for name in ("on_start", "on_success", "on_error")
        },
        "retry_on": payload("retry_on", **harmless, options={"retry_on": [hook]}),
        "through": payload("through", module=jobs.__name__, callable="os.system", args=["true"]),
        "ours": payload("ours", alligator="released", args=["all", "t", True]),
    }
    for task_id, body in bodies.items():
        scene.gator.backend.push("all", task_id, body)
    scene.push("good")

    workers = scene.latergator("--burst", "--allow", f"{jobs.__name__}.*")

    assert workers.wait() == 0
    assert not seen.exists()
    assert len(scene.journal.entries("finish", "good")) == 1
    letters = scene.gator.backend.dead("all")
    assert {json.loads(letter.note)["reason"] for letter in letters} == {"refused"}
    assert sorted(letter.body for letter in letters) == sorted(bodies.values())
