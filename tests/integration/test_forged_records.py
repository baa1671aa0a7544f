"""Workers and commands on a store whose records somebody has overwritten: they live, and go on."""

import signal

from alligator.backends.base import Release
from alligator.testing.stores import records_of
from tests.integration.scenes import ON_SQLITE, Scene, until

KEYS = [
    *(f"{family}/all:{name}" for family in ("stops", "deaths", "progress") for name in ("again", "long")),
    *("stops/all:other", "stops/all:canceled", "stops/stacks-x", "needs:all:long/all:again"),
    *("dependents:all:again/all:long", "outcomes/all:again", "results/all:again"),
    *("schedules:all/s", "schedules/all", "workers/w1", "stacks/x/w1", "limits/concurrency:api"),
]  # fmt: skip
DEEP = b"[" * 100_000
HUGE = b'{"token": "w.1.%b", "reason": "canceled", "done": NaN, "at": 1e999}' % (b"9" * 400)


VALUES = {key: (DEEP, HUGE)[number % 2] for number, key in enumerate(KEYS)}


@ON_SQLITE
def test_latergator_and_the_commands_bear_what_anybody_has_written(scene: Scene) -> None:
    store = scene.gator.backend
    scene.push("again")
    [held] = store.reserve(["all"], "w1", lease=60).reservations
    store.settle([Release(held, lapsed=True)])
    scene.push_gated("long")
    records_of(store).set_many(VALUES)

    workers = scene.latergator("--threads", "2", "--grace", "0.2", "--schedule")
    scene.finished("again")
    scene.started("long")
    # Who hears of it has looked at what was asked of all tasks, beside that.
    scene.push_gated("canceled")
    scene.started("canceled")
    scene.gator.cancel("canceled")
    until(lambda: scene.gator.status("canceled").state != "running", "it is canceled")
    for status, words in (
        (0, ["status"]),
        (0, ["list"]),
        (0, ["show", "long"]),
        (0, ["why", "long"]),
        (1, ["schedules"]),  # one of them cannot be read: that is told
        (0, ["stacks"]),
    ):
        command = scene.python("-m", "alligator", words[0], scene.dsn, *words[1:])
        assert command.wait() == status
        assert "Traceback" not in command.stderr
    records_of(store).set_many(VALUES)
    workers.signal(signal.SIGTERM)

    assert workers.wait() == 0
    assert "Traceback" not in workers.stderr
    assert "died" not in workers.stderr
    assert scene.counts == (1, 0, 0, 0)
