"""Those who push: killed, and with a network that swallows all that they say."""

import time
from itertools import pairwise

from alligator import Gator
from alligator.verify.proxy import Proxy
from chaos.campaign import scenario
from chaos.files import check_file
from chaos.stage import Stage
from tests.integration import jobs
from tests.integration.scenes import Program, until

TASKS = 10_000
KILLS = 5
SILENT = 30
"""Seconds."""
ANSWERS_WITHIN = {"redis": 25.0, "postgres": 35.0, "beanstalk": 25.0}
"""Seconds for a push to return or fail, and for the first one to return when the network is back.

A client takes a connection for lost that says nothing for 10 s (PostgreSQL's: 20), and then tries a new one.
"""


@scenario(["sqlite", "redis", "postgres"], quick=0.1, quick_on=["sqlite"], patience=0.2)
def producer_killed(stage: Stage) -> None:
    """Who pushes is killed five times in 10,000 pushes, and another one goes on where it was."""
    # Nobody works meanwhile: a push that did not return is repeated, which would be the same task only while
    # that is queued.
    tasks = stage.many(TASKS)
    moments = sorted(stage.rng.sample(range(1, tasks), KILLS))
    for moment in moments:
        program = _pushing(stage, tasks)
        until(lambda: len(stage.journal.entries("pushed")) >= moment, "tasks are pushed", within=90)  # noqa: B023
        stage.expect(program.runs, "it has pushed all before it could be killed")
        stage.kill_tree(program)
        check_file(stage)
    last = _pushing(stage, tasks)
    status = last.wait(within=90)
    stage.expect(status == 0, f"it ended with {status}: {last.stderr:.500}")
    waiting = stage.counts.waiting
    stage.expect(waiting == tasks, f"{tasks} were pushed, and {waiting} wait")
    stage.start("--workers", "2")


def _pushing(stage: Stage, tasks: int) -> Program:
    return stage.python("-m", "chaos.pushing_on", stage.dsn, stage.journal.path, f"{tasks}")


@scenario(["redis", "postgres", "beanstalk"], patience=0.5)
def network_silent_to_producers(stage: Stage) -> None:
    """The network of those who push, not of workers, swallows everything for half a minute, closing nothing."""
    assert stage.place.server is not None
    port = stage.place.server.port
    within = ANSWERS_WITHIN[stage.place.name]
    stage.start("--workers", "2")
    direct = stage.gator
    with Proxy(port) as proxy:
        stage.gator = Gator(stage.dsn.replace(f":{port}", f":{proxy.port}"))
        try:
            stage.produce(["before"])
            proxy.fall_silent()
            silent_at = time.monotonic()
            with stage.producing(stage.names(1000), jobs.work):
                time.sleep(stage.many(SILENT))
                amid = [one for one in stage.journal.entries("pushed") if one.at > silent_at]
                stage.expect(not amid, f"{len(amid)} pushes returned, though nothing passed")
                proxy.speak()
                spoke_at = time.monotonic()
        finally:
            stage.gator.backend.close()
            stage.gator = direct
    pushed = [one.at for one in stage.journal.entries("pushed") if one.at > spoke_at]
    took = min(pushed, default=float("inf")) - spoke_at
    stage.show(f"pushes again after {took:.1f} s")
    stage.expect_measured(took <= within, f"pushes again only after {took:.1f} s")
    if (
        direct.backend.keeps_ids
    ):  # else none is repeated: it is asked for other things until there are answers
        tries = [one.at for one in stage.journal.entries() if one.kind in ("push", "pushed")]
        longest = max(later - one for one, later in pairwise(tries))
        stage.show(f"a push took {longest:.1f} s at the most")
        stage.expect_measured(longest <= within, f"a push took {longest:.1f} s")
