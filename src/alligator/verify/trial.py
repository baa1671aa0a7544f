"""A trial of a store: tasks are pushed and run while workers are killed and stopped and connections cut."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alligator.backends.base import Ack, DeadLetter
from alligator.dsn import DSN
from alligator.exceptions import (
    AlligatorException,
    BackendRefused,
    BackendUnavailable,
)
from alligator.gator import Gator
from alligator.retries import MAX_DELIVERIES
from alligator.utils import new_id
from alligator.verify import jobs
from alligator.verify.addresses import server_of, through, with_lease
from alligator.verify.crew import Crew
from alligator.verify.findings import Findings, broken_off, found_in
from alligator.verify.journal import Journal
from alligator.verify.proxy import Proxy
from alligator.verify.target import moved

LEASE = 3.0
"""Seconds: short, so that much can happen. It is the shortest that beanstalkd can do."""
STOPPED_FOR = 1.5 * LEASE
CREWS = 2
PROCESSES = 2
"""Worker processes of each crew."""
EVERY = 1.2
"""Seconds between two disturbances, at the most."""
PACE = 0.01
"""Seconds between two pushes."""
AHEAD = 100
"""Tasks that are pushed ahead of the workers, at about the most: the store is not to be filled."""
LOOK_EVERY = 25
"""Pushes after which it is looked how far the workers are."""
PATIENCE = 20.0
"""Seconds in which nothing at all may happen, before it is given up to wait for more."""
ANSWER_WITHIN = 30.0
"""Seconds for the store to answer again."""
ATTEMPT_EVERY = 0.05
CLEAN_WITHIN = 15.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial."""

    findings: Findings
    wrongly_dead: list[str]
    """Tasks that were set aside though nothing had befallen them, or not often enough, and why."""
    stuck: int
    """Tasks that were still queued when nothing happened any more."""
    stops: int
    cuts: int
    was_cut_short: bool = False
    """Whether it was told to end before its time."""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return self.findings.is_good and not self.wrongly_dead and not self.stuck


class Trial:
    """A trial of the store of a Gator.

    Args:
        gator: Whose store.
        target: What workers are to be pointed at: a DSN, or module:gator.
        queue_name: The queue, which is to be empty.
        seconds: For how long workers are disturbed.
        ended: Is set to end it before its time.
        tell: Is told what happens, as it does.
    """

    def __init__(
        self,
        gator: Gator,
        target: str,
        queue_name: str,
        seconds: float,
        ended: threading.Event,
        tell: Tell,
    ) -> None:
        self._user_gator = gator
        self._target = target
        self._queue_name = queue_name
        self._seconds = seconds
        self._ended = ended
        self._tell = tell
        self._rng = random.Random()
        self._leaving: list[Crew] = []
        self._count = self._stops = self._cuts = 0
        self._stopped: tuple[Crew, float] | None = None

    def run(self) -> Verdict:
        """Carry it out. Nothing of it is left in the store.

        Raises:
            AlligatorException: It could not be carried out.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alligator-")))
            self._folder = folder
            self._journal = Journal(folder / "journal")
            proxy = stack.enter_context(self._between())
            dsn = self._user_gator.dsn
            address = through(dsn, proxy.port) if proxy else dsn.url
            self._address = with_lease(DSN.parse(address), LEASE)
            self._gator = moved(self._user_gator, self._address, self._queue_name)
            stack.callback(self._gator.backend.close)
            stack.callback(self._clean)
            self._crews = [self._crew() for _ in range(CREWS)]
            stack.callback(self._end_crews)
            with self._producing():
                self._begin()
                self._disturb(proxy)
            stuck = self._come_to_rest()
            self._end_crews()
            return self._judged(stuck)

    @contextmanager
    def _between(self) -> Generator[Proxy | None]:
        """Put a proxy before the store's server, if workers find it by its DSN and it answers through one."""
        server = server_of(self._user_gator.dsn)
        if server is None or "://" not in self._target:
            what = (
                "there is no server of one plain address"
                if server is None
                else "name a DSN for that"
            )
            self._tell(f"Connections are not cut: {what}.")
            yield None
            return
        host, port = server
        with Proxy(port, host) as proxy:
            there = moved(
                self._user_gator, through(self._user_gator.dsn, proxy.port), self._queue_name
            )
            try:
                there.backend.count(self._queue_name)
                passes = True
            except AlligatorException as err:
                self._tell(f"Connections are not cut: there is no answer through a proxy. {err}")
                passes = False
            finally:
                there.backend.close()
            yield proxy if passes else None

    def _crew(self) -> Crew:
        self._count += 1
        log = self._folder / f"workers-{self._count}"
        words = ["--queue", self._queue_name, "--workers", f"{PROCESSES}", "--lease", f"{LEASE:g}"]
        words += ["--grace", f"{2 * LEASE:g}", "--quiet"]  # longer than any task takes
        environment = dict(os.environ)
        if "://" in self._target:  # not as a word: every user of the machine can read those
            environment["ALLIGATOR_CONN"] = self._address
        else:
            words.insert(0, self._target)
        return Crew(words, environment, log, self._journal)

    def _end_crews(self) -> None:
        every = [*self._crews, *self._leaving]
        for _ in range(2 if self._ended.is_set() else 1):  # the second time: at once
            for crew in every:
                crew.tell_to_leave()
            time.sleep(ATTEMPT_EVERY)  # two signals at once may be one
        for crew in every:
            crew.end()

    # Those who push:

    @contextmanager
    def _producing(self) -> Generator[None]:
        """Push tasks while the block runs."""
        over = threading.Event()
        failed: list[Exception] = []

        def produce() -> None:
            number = 0
            try:
                while not over.wait(PACE):
                    # Now and then, for it takes a while to count.
                    if number % LOOK_EVERY or number - self._finished() < AHEAD:
                        number += 1
                        self._push(number)
            except Exception as err:
                failed.append(err)
                self._ended.set()

        thread = threading.Thread(target=produce)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failed:
            raise failed[0]

    def _finished(self) -> int:
        return len(self._journal.names("finish"))

    def _push(self, number: int) -> None:
        name = f"t{number}"
        self._journal.note("push", name)
        deadline = time.monotonic() + ANSWER_WITHIN
        while True:
            try:
                task = self._gator.task_class(task_id=name)
                self._gator.push(task, jobs.work, self._journal.path, name, _seconds(number))
                break
            except BackendUnavailable:
                if not self._gator.backend.keeps_ids:
                    return  # it may be there, and a second push would be a second task
                if time.monotonic() > deadline:
                    raise
                time.sleep(ATTEMPT_EVERY)
        self._journal.note("pushed", name)

    # Those who disturb them:

    def _begin(self) -> None:
        """Start the workers, and wait until each crew runs tasks."""
        for crew in self._crews:
            crew.start()
        deadline = time.monotonic() + ANSWER_WITHIN
        while not all(self._at_work(crew) for crew in self._crews):
            for crew in self._crews:
                if not crew.runs or time.monotonic() > deadline:
                    why = " ".join(crew.said.split("\n")[-4:]).strip() or "They run no task."
                    raise BackendRefused(f"Workers cannot be started. {why}")
            if self._ended.wait(ATTEMPT_EVERY):
                return

    def _disturb(self, proxy: Proxy | None) -> None:
        began = time.monotonic()
        ways: list[Callable[[], str]]
        ways = [self._kill_one, self._stop, self._kill_one, self._kill_crew, self._leave]
        if proxy is not None:
            ways += [partial(self._cut, proxy), partial(self._cut_amid, proxy)]
        gap = min(EVERY, self._seconds / len(ways))
        coming = self._rng.sample(ways, len(ways))
        is_over = False
        while not self._ended.wait(gap) and not is_over:
            self._go_on()
            what = coming.pop()()
            self._tell(f"{time.monotonic() - began:6.1f} s  {what}")
            if not coming:  # each was done, at least once, however slow all is
                is_over = time.monotonic() - began > self._seconds
                coming = self._rng.sample(ways, len(ways))
        if self._stopped is not None:
            crew, until = self._stopped
            self._ended.wait(max(0.0, until - time.monotonic()))
            self._stopped = None
            crew.go()

    def _kill_one(self) -> str:
        crew = self._awake()
        victims = self._at_work(crew) or crew.children
        if not victims:
            return "no process to kill"
        crew.kill_one(self._rng.choice(victims))
        return "killed a worker process"

    def _kill_crew(self) -> str:
        crew = self._awake()
        count = crew.kill()
        crew.start()
        return f"killed a latergator with its processes, {count} in all, and started another"

    def _leave(self) -> str:
        crew = self._awake()
        crew.tell_to_leave()
        self._leaving.append(crew)
        self._crews[self._crews.index(crew)] = successor = self._crew()
        successor.start()
        return "told a latergator to leave, and started another"

    def _stop(self) -> str:
        if self._stopped is not None:
            return "one latergator is still stopped"
        crew = self._awake()
        count = crew.stop()
        self._stops += 1
        self._stopped = crew, time.monotonic() + STOPPED_FOR
        return f"stopped a latergator with its processes, {count} in all, for {STOPPED_FOR:g} s"

    def _go_on(self) -> None:
        """Let those go on whose time has come."""
        if self._stopped is not None and time.monotonic() > self._stopped[1]:
            crew, _ = self._stopped
            self._stopped = None
            crew.go()

    def _cut(self, proxy: Proxy) -> str:
        self._journal.note("cut")
        proxy.cut()
        self._cuts += 1
        return "cut all connections"

    def _cut_amid(self, proxy: Proxy) -> str:
        self._journal.note("cut")
        proxy.cut_after(self._rng.randrange(1, 400))
        time.sleep(ATTEMPT_EVERY)
        proxy.cut_after(None)
        self._journal.note("cut")
        self._cuts += 1
        return "cut a connection amid an answer"

    def _awake(self) -> Crew:
        """Return a crew that is not stopped; one that works, if there is one."""
        stopped = self._stopped[0] if self._stopped else None
        awake = [crew for crew in self._crews if crew is not stopped]
        return self._rng.choice([crew for crew in awake if self._at_work(crew)] or awake)

    def _at_work(self, crew: Crew) -> list[int]:
        started = {entry.pid for entry in self._journal.entries("start")}
        return [pid for pid in crew.children if pid in started]

    # How it ends:

    def _come_to_rest(self) -> int:
        """Wait until all is done, as long as anything happens; return how many tasks are still queued."""
        seen, moved_at = -1, time.monotonic()
        while not self._ended.is_set():
            left = self._left()
            done = len(self._journal.entries())
            now = time.monotonic()
            if done != seen:
                seen, moved_at = done, now
            # What is lost cannot be waited for; what a store does not count may still come back.
            if not left and (not self._missing() or now > moved_at + LEASE + 1.0):
                return 0
            if now > moved_at + PATIENCE:
                return left
            self._ended.wait(ATTEMPT_EVERY)
        return 0

    def _left(self) -> int:
        with suppress(BackendUnavailable):
            return sum(self._gator.backend.count(self._queue_name)[:3])
        return 1

    def _missing(self) -> bool:
        return bool({*self._journal.names("pushed")} - {*self._journal.names("finish")})

    def _judged(self, stuck: int) -> Verdict:
        dead = {self._name_of(letter): letter.note for letter in self._dead()}
        wrongly = [
            f"{name}: {note:.200}"
            for name, note in dead.items()
            if broken_off(self._journal, name) < MAX_DELIVERIES
        ]
        found = found_in(self._journal, kept=dead)
        return Verdict(found, wrongly, stuck, self._stops, self._cuts, self._ended.is_set())

    def _dead(self) -> list[DeadLetter]:
        try:
            return self._gator.backend.dead(self._queue_name, limit=1000)
        except BackendRefused:  # it keeps none, or not where they can be seen
            return []

    def _name_of(self, letter: DeadLetter) -> str:
        with suppress(Exception):  # the user's class reads it
            return str(self._gator.task_class.deserialize(letter.body).func_args[1])
        return letter.task_id

    def _clean(self) -> None:
        """Take all out of the queue, and what comes back with a lease, too."""
        backend, worker = self._gator.backend, new_id()
        deadline = time.monotonic() + CLEAN_WITHIN
        while True:
            with suppress(AlligatorException):
                backend.drop_all(self._queue_name)
                # What dead workers held comes back to who asks for it.
                held = backend.reserve([self._queue_name], worker, limit=1000, lease=LEASE)
                backend.settle([Ack(one) for one in held.reservations])
                if letters := [letter.letter_id for letter in self._dead()]:
                    backend.purge_dead(self._queue_name, letters)
                if not sum(backend.count(self._queue_name)):
                    backend.forget(self._queue_name)
                    return
            if time.monotonic() > deadline:
                self._tell(f"Queue {self._queue_name} could not be emptied: look at it.")
                return
            time.sleep(ATTEMPT_EVERY)


def _seconds(number: int) -> float:
    """Return how long a task takes: most hardly any time, some a while, a few longer than their lease."""
    if number % 400 == 40:
        return 1.5 * LEASE
    return LEASE / 10 if number % 50 == 0 else 0.02
