"""Messages of those who have no key."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from alligator import Gator, Task, notes
from alligator.backends.base import as_bytes
from alligator.signed_store import knows_ids
from alligator.signing import Keyring, place_of
from chaos.campaign import scenario
from chaos.stage import Stage
from tests.integration import jobs

KEY, ANOTHER = "key-of-the-campaign-and-no-other-s", "key-of-somebody-else-who-has-this-one"
TASKS = 1000
WAYS = 5
LATE = 3
"""Tasks that are put back when they are over."""
EXPIRES = 0.2
"""Seconds."""


@scenario(quick=0.1, quick_on=["redis"], patience=0.1)
def forged_messages(stage: Stage) -> None:
    """Among signed tasks are as many unsigned, altered, signed by a stranger, or copied from elsewhere."""
    signed = Gator(stage.dsn, keys=[KEY])
    workers = [stage.start("--workers", "1", ALLIGATOR_KEYS=KEY) for _ in range(2)]
    forged: list[bytes] = []
    for number, name in enumerate(stage.names(TASKS)):
        stage.push(name, gator=signed)
        forged.append(_forged(stage, f"forged{number}", way=number % WAYS))
        stage.gator.backend.push(stage.gator.queue_name, f"forged{number}", forged[-1])
    stage.come_to_rest()
    _put_back_late(stage, forged)
    signed.backend.close()
    letters = stage.dead
    missing = Counter(forged) - Counter(letter.body for letter in letters)
    stage.expect(not missing, f"not buried, or not whole: {[*missing][:5]}")
    stage.expect(len(letters) == len(forged), f"{len(letters)} of {len(forged)} are buried")
    reasons = Counter(notes.read(letter.note)["reason"] for letter in letters)
    stage.expect(
        reasons == {"refused": len(forged) - LATE, "expired": LATE}, f"buried as {reasons}"
    )
    stage.expect(all(worker.runs for worker in workers), "a worker has ended")
    # What a forged task does is in the journal, too: it ran though nobody had pushed it.
    stage.gator.backend.purge_dead(stage.gator.queue_name, [one.letter_id for one in letters])
    stage.show(f"{reasons['refused']} refused, {reasons['expired']} too late")


def _put_back_late(stage: Stage, forged: list[bytes]) -> None:
    """Put back what was taken from the store, with a signature that fits, when it is to start no more."""
    ring, queue = Keyring([KEY]), stage.gator.queue_name
    for number in range(LATE):
        name = f"late{number}"
        task = Task(task_id=name, expires=datetime.now(UTC) + timedelta(seconds=EXPIRES))
        task.to_call(jobs.work, stage.journal.path, name)
        here = place_of("task", queue, _kept_id(stage, name))
        forged.append(ring.sign(here, as_bytes(task.serialize())))
    time.sleep(2 * EXPIRES)
    for number, body in enumerate(forged[-LATE:]):
        stage.gator.backend.push(queue, f"late{number}", body)
    stage.come_to_rest()


def _forged(stage: Stage, name: str, way: int) -> bytes:
    task = Task(task_id=name)
    task.to_call(jobs.work, stage.journal.path, name)
    body = as_bytes(task.serialize())
    kept_id = _kept_id(stage, name)
    here = place_of("task", stage.gator.queue_name, kept_id)
    match way:
        case 0:
            return body
        case 1:
            return Keyring([ANOTHER]).sign(here, body)
        case 2:
            return Keyring([KEY]).sign(place_of("task", "elsewhere", kept_id), body)
        case 3 if kept_id:
            return Keyring([KEY]).sign(
                place_of("task", stage.gator.queue_name, f"not-{name}"), body
            )
        case _:
            return Keyring([KEY]).sign(here, body).replace(b"forged", b"gorged")


def _kept_id(stage: Stage, name: str) -> str:
    # A store that does not know tasks by their ids cannot tell under which one a task was pushed.
    return name if knows_ids(stage.gator.backend) else ""
