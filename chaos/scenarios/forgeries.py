"""Messages of those who have no key."""

from collections import Counter

from alligator import Gator, Task, notes
from alligator.backends.base import as_bytes
from alligator.signing import Keyring, place_of
from chaos.campaign import scenario
from chaos.stage import Stage
from tests.integration import jobs

KEY, ANOTHER = "key-of-the-campaign-and-no-other-s", "key-of-somebody-else-who-has-this-one"
TASKS = 1000


@scenario(quick=0.1, quick_on=["redis"], patience=0.1)
def forged_messages(stage: Stage) -> None:
    """Among signed tasks are as many unsigned, or signed by a stranger, for another queue, for another task."""
    signed = Gator(stage.dsn, keys=[KEY])
    workers = [stage.start("--workers", "1", ALLIGATOR_KEYS=KEY) for _ in range(2)]
    forged: list[bytes] = []
    for number, name in enumerate(stage.names(TASKS)):
        stage.push(name, gator=signed)
        forged.append(_forged(stage, f"forged{number}", way=number % 4))
        stage.gator.backend.push(stage.gator.queue_name, f"forged{number}", forged[-1])
    stage.come_to_rest()
    signed.backend.close()
    letters = stage.dead
    missing = Counter(forged) - Counter(letter.body for letter in letters)
    stage.expect(not missing, f"not buried, or not whole: {[*missing][:5]}")
    stage.expect(len(letters) == len(forged), f"{len(letters)} of {len(forged)} are buried")
    reasons = {notes.read(letter.note)["reason"] for letter in letters}
    stage.expect(reasons == {"refused"}, f"buried as {reasons}")
    stage.expect(all(worker.runs for worker in workers), "a worker has ended")
    # What a forged task does is in the journal, too: it ran though nobody had pushed it.
    stage.gator.backend.purge_dead(stage.gator.queue_name, [one.letter_id for one in letters])
    stage.show(f"{len(letters)} refused")


def _forged(stage: Stage, name: str, way: int) -> bytes:
    task = Task(task_id=name)
    task.to_call(jobs.work, stage.journal.path, name)
    body = as_bytes(task.serialize())
    # A store that does not know tasks by their ids cannot tell under which one a task was pushed.
    ids = [name] if stage.gator.backend.keeps_ids else []
    here = place_of("task", stage.gator.queue_name, *ids)
    match way:
        case 0:
            return body
        case 1:
            return Keyring([ANOTHER]).sign(here, body)
        case 2:
            return Keyring([KEY]).sign(place_of("task", "elsewhere", *ids), body)
        case _:
            return Keyring([KEY]).sign(here, body).replace(b"forged", b"gorged")
