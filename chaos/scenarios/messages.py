"""What messages carry: anything at all, nothing that can be read, code that is not there yet."""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from alligator import Task, notes
from alligator.backends.base import Message, as_bytes
from alligator.exceptions import InvalidArguments, TaskTooBig
from alligator.verify.journal import Journal
from chaos import payloads
from chaos.campaign import scenario
from chaos.stage import Stage
from chaos.stores import LEASE
from tests.integration import jobs

PAYLOADS = 2000
UNCARRIABLE = 0.1
"""Of them."""
MESSAGES = 1000
AT_ONCE = 50
"""Messages in one step."""
SOON = 0.1
"""Seconds until a worker tries again what it cannot read, in place of 10."""
NEW = 100
"""Tasks of the next version, beside as many that both versions know."""
WAIT = 0.5
"""As ``SOON``, so that some are buried, and others are not, until the next version is there."""


def receive(journal: str, name: str, *args: Any, **kwargs: Any) -> None:
    """Note what has come."""
    Journal(journal).note("start", name)
    _received(journal).note(repr([[*args], kwargs]), name)
    Journal(journal).note("finish", name)


def _received(journal: str) -> Journal:
    return Journal(f"{journal}-received")


@scenario(quick=0.1, quick_on=["sqlite", "redis"], patience=0.1)
def payloads_by_chance(stage: Stage) -> None:
    """Tasks carry whatever JSON can carry, and are refused what it cannot: what comes is what was sent."""
    workers = stage.start("--workers", "2")
    sent: dict[str, str] = {}
    for name in stage.names(PAYLOADS):
        is_bad = stage.rng.random() < UNCARRIABLE
        value = payloads.unfit(stage.rng) if is_bad else payloads.payload(stage.rng)
        args, kwargs = ((value,), {}) if stage.rng.random() < 0.5 else ((), {"value": value})
        stage.journal.note("push", name)
        try:
            with stage.gator.options(task_id=name) as opts:
                opts.task(receive, stage.journal.path, name, *args, **kwargs)
        except (InvalidArguments, TaskTooBig) as err:
            stage.journal.note("refused", name)
            is_right = is_bad or isinstance(err, TaskTooBig)
            stage.expect(is_right, f"{name} was refused: {err!s:.300}")
        else:
            stage.journal.note("pushed", name)
            stage.expect(not is_bad, f"{name} was not refused: {value!r:.300}")
            sent[name] = repr(payloads.as_it_comes((args, kwargs)))
    stage.come_to_rest()
    came = {entry.name: entry.kind for entry in _received(stage.journal.path).entries()}
    wrong = [name for name in sent if came.get(name) != sent[name]]
    stage.expect(
        not wrong, f"not what was sent: {[(sent[one], came.get(one)) for one in wrong[:2]]}"
    )
    stage.show(f"{stage.many(PAYLOADS) - len(sent)} refused")
    stage.expect(workers.runs, "latergator has ended")


@scenario(quick=0.03, quick_on=["redis", "beanstalk"], patience=0.1)
def spoiled_messages(stage: Stage) -> None:
    """Among good messages are as many that somebody has spoiled: those are buried whole, and end no worker."""
    workers = [stage.worker(code_wait=SOON, lease=LEASE) for _ in range(2)]
    spoiled: list[bytes] = []
    for names in _batches(stage.names(MESSAGES)):
        bad = [payloads.spoiled(stage.rng, _message("bad", "/dev/null")) for _ in names]
        messages = [Message(f"bad{len(spoiled) + n}", body) for n, body in enumerate(bad)]
        messages += [Message(name, _message(name, stage.journal.path)) for name in names]
        stage.rng.shuffle(messages)
        for name in names:
            stage.journal.note("push", name)
        stage.gator.backend.push_many(stage.gator.queue_name, messages)
        for name in names:
            stage.journal.note("pushed", name)
        spoiled += bad
    stage.come_to_rest()
    letters = stage.dead
    missing = Counter(spoiled) - Counter(letter.body for letter in letters)
    stage.expect(not missing, f"not buried, or not whole: {list(missing)[:5]}")
    stage.expect(len(letters) == len(spoiled), f"{len(letters)} of {len(spoiled)} are buried")
    stage.expect(all(worker.runs for worker in workers), "a worker has ended")
    stage.gator.backend.purge_dead(stage.gator.queue_name, [one.letter_id for one in letters])
    stage.show(f"{len(letters)} buried")


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


def _message(name: str, journal: str) -> bytes:
    task = Task(task_id=name)
    task.to_call(jobs.work, journal, name)
    return as_bytes(task.serialize())


NEW_CODE = """
from alligator.verify.journal import Journal


def work(journal, name):
    Journal(journal).note("start", name)
    Journal(journal).note("finish", name)
"""


@scenario(patience=0.5)
def two_versions_at_once(stage: Stage) -> None:
    """Tasks are pushed that only the next version knows; its workers come later, beside the old ones."""
    folder = stage.folder / "next"
    folder.mkdir()
    (folder / "new_code.py").write_text(NEW_CODE)
    old = stage.worker(code_wait=WAIT, lease=LEASE)
    for name in stage.names(NEW):
        stage.push(f"{name}-known")
        fields = json.loads(_message(name, stage.journal.path)) | {"module": "new_code"}
        stage.journal.note("push", name)
        stage.gator.backend.push(stage.gator.queue_name, name, json.dumps(fields))
        stage.journal.note("pushed", name)
    old.says("cannot be read or imported")
    stage.environment["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    new = stage.worker(code_wait=WAIT, lease=LEASE)
    stage.come_to_rest()
    letters = stage.dead
    reasons = {notes.read(letter.note)["reason"] for letter in letters}
    stage.expect(reasons <= {"unreadable"}, f"buried as {reasons}")
    stage.show(f"{len(letters)} buried, and retried")
    old.signal(signal.SIGTERM)
    old.wait()
    back = stage.gator.backend.retry_dead(
        stage.gator.queue_name, [one.letter_id for one in letters]
    )
    stage.expect(len(back) == len(letters), f"{len(back)} of {len(letters)} were retried")
    stage.come_to_rest()
    stage.expect(new.runs, "the new worker has ended")
