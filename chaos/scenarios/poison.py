"""Tasks that kill the process which runs them."""

from collections import Counter

from chaos.campaign import scenario
from chaos.jobs import WAYS, die
from chaos.stage import POISON, Stage
from tests.integration import jobs

GOOD = 2000
BAD = 3
"""How many of each way to die."""


@scenario(patience=0.5)
def poison(stage: Stage) -> None:
    """Among good tasks are some that exit, abort, read where nothing is, or are killed for their memory."""
    good = stage.names(GOOD)
    bad = [f"{way} {number}" for number in range(stage.many(BAD)) for way in WAYS]
    stage.rightly_dead |= set(bad)
    every = len(good) // len(bad)
    for number, name in enumerate(bad):
        stage.push_batch(good[number * every : (number + 1) * every], jobs.work, 0.002)
        stage.push(name, die, name.rpartition(" ")[0])
    stage.push_batch(good[len(bad) * every :], jobs.work, 0.002)
    program = stage.start("--workers", "3")
    stage.come_to_rest()
    starts = Counter(stage.journal.names("start"))
    stage.expect(
        all(starts[name] == POISON for name in bad),
        f"started not {POISON} times: {[f'{name}: {starts[name]}' for name in bad if starts[name] != POISON]}",
    )
    stage.expect(
        sorted(stage.names_of_dead()) == sorted(bad), f"the dead letters: {stage.names_of_dead()}"
    )
    if stage.gator.backend.shares_leases:  # else what was done, but not yet settled, runs again
        again = [name for name in good if starts[name] > 1]
        stage.expect(not again, f"good tasks that started again: {again}")
    stage.expect(program.runs, "latergator has ended")
