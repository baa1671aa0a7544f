"""Servers that die, and come back with what they have on disk."""

import time

from chaos.campaign import scenario
from chaos.stage import Stage
from tests.integration import jobs
from tests.integration.scenes import until

TASKS = 10_000
KILLS = 5


@scenario(["redis", "postgres", "beanstalk"], quick=0.03, quick_on=["redis", "beanstalk"])
def server_killed(stage: Stage) -> None:
    """The server is killed five times while tasks are pushed and run, and started anew."""
    names = stage.names(TASKS)
    program = stage.start("--workers", "2")
    with stage.producing(names, jobs.work, 0.002):
        until(lambda: len(stage.at_work(program)) == 2, "both work")
        for number in range(1, KILLS + 1):
            due = len(names) * number // (KILLS + 1)
            until(lambda: stage.pushed >= due, "tasks are pushed", within=60)  # noqa: B023 -- called at once
            stage.restart_server(away=stage.rng.uniform(0.0, 0.3))
            stage.come_back(program, since=time.monotonic())
    stage.come_to_rest()
    for word in ("died", "Leaving"):
        stage.expect(word not in program.stderr, f"a worker process has not borne it: {word}")
