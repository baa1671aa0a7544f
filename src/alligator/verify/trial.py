"""A trial of a store: tasks are pushed and run while workers are killed and stopped and connections cut."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alligator import keys
from alligator.backends.base import Ack, DeadLetter
from alligator.dsn import DSN
from alligator.exceptions import AlligatorException, BackendRefused, BackendUnavailable
from alligator.gator import Gator
from alligator.retries import MAX_DELIVERIES
from alligator.utils import new_id
from alligator.verify import jobs
from alligator.verify.addresses import server_of, through, with_lease
from alligator.verify.crew import Crew
from alligator.verify.crews import Crews
from alligator.verify.files import is_written_to
from alligator.verify.findings import Findings, batch_of, broken_off, found_in
from alligator.verify.journal import Journal
from alligator.verify.producing import SHORT, producing
from alligator.verify.proxy import Proxy
from alligator.verify.target import moved

LEASE = 3.0
"""Seconds: short, so that much can happen. It is the shortest that beanstalkd can do."""
RECOVERS_WITHIN = 3 * LEASE
"""Seconds from a death that broke off a run to the next start of its task, at the most: the lease, another one
where who took it up was stopped or killed as well, and as much for a machine that does much else."""
HELD_ON = 1.5 * LEASE + 0.3
"""Seconds that a finished task may wait for its settlement: behind the longest task, in one batch."""
UNBEGUN = MAX_DELIVERIES - 1
"""Deliveries that a task may count though it had not begun: where a crew is killed, stopped or cut off, nobody
says so of what it held. Only the last time is a task held alone, and so begins at once."""
STOPPED_FOR = 1.5 * LEASE
PROCESSES = 2
"""Worker processes of each crew."""
EVERY = 1.2
"""Seconds between two disturbances, at the most."""
LOOK = 0.05
"""Seconds between two looks how far things are."""
START_WITHIN = 30.0
"""Seconds for workers to start."""
PATIENCE = 20.0
"""Seconds in which nothing at all may happen, before it is given up to wait for more."""
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
    faults: list[str]
    """What workers did that they were not to do: they ended by themselves, or did not leave."""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        is_bad = self.wrongly_dead or self.stuck or self.faults
        return self.findings.is_good and not is_bad and self.findings.slowest <= RECOVERS_WITHIN


def wrongly_dead(journal: Journal, dead: Mapping[str, str]) -> list[str]:
    """Return which of these tasks nothing had befallen, or not often enough; and their notes.

    Args:
        journal: What happened to them.
        dead: The notes of those that were set aside, by name.
    """
    return [
        f"{name}: {note:.200}"
        for name, note in dead.items()
        if broken_off(journal, name, HELD_ON) < MAX_DELIVERIES - UNBEGUN
    ]


class Trial:
    """A trial of the store of a Gator.

    Args:
        gator: Whose store.
        target: What workers are to be pointed at: a DSN, or module:gator.
        queue_name: The queue, which is to be empty.
        seconds: For about how long workers are disturbed.
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
        self._cuts = 0

    def run(self) -> Verdict:
        """Carry it out. Nothing of it is left in the store.

        Raises:
            AlligatorException: It could not be carried out.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alligator-")))
            self._journal = Journal(folder / "journal")
            proxy = stack.enter_context(self._between())
            dsn = self._user_gator.dsn
            reached_at = through(dsn, proxy.port) if proxy else dsn.url
            address = with_lease(DSN.parse(reached_at), LEASE)
            self._gator = moved(self._user_gator, address, self._queue_name)
            stack.callback(self._gator.backend.close)
            stack.callback(self._clean)
            self._crews = Crews(partial(self._crew, folder, address), self._journal)
            stack.callback(lambda: self._crews.end(at_once=self._ended.is_set()))
            with producing(self._gator, self._journal, LEASE, self._ended.set):
                self._begin()
                self._disturb(proxy)
            stuck = self._come_to_rest()
            self._crews.end(at_once=self._ended.is_set())
            return self._judged(stuck)

    @contextmanager
    def _between(self) -> Generator[Proxy | None]:
        """Put a proxy before the store's server, if workers find it by its DSN and it answers through one."""
        dsn = self._user_gator.dsn
        server = server_of(dsn)
        if server is None:
            self._tell("Connections are not cut: there is no server of one plain address.")
            yield None
        elif "://" not in self._target:
            self._tell("Connections are not cut: name a DSN for that.")
            yield None
        else:
            host, port = server
            with Proxy(port, host) as proxy:
                yield proxy if self._answers_at(through(dsn, proxy.port)) else None

    def _answers_at(self, address: str) -> bool:
        there = moved(self._user_gator, address, self._queue_name).backend
        try:
            there.count(self._queue_name)
        except AlligatorException as err:
            self._tell(f"Connections are not cut: there is no answer through a proxy. {err}")
            return False
        finally:
            there.close()
        return True

    def _crew(self, folder: Path, address: str) -> Crew:
        words = ["--queue", self._queue_name, "--workers", f"{PROCESSES}", "--lease", f"{LEASE:g}"]
        words += ["--grace", f"{2 * LEASE:g}", "--quiet"]  # longer than any task takes
        words += ["--allow", f"{jobs.__name__}.*"]  # also where the user's Gator allows less
        environment = dict(os.environ)
        if "://" in self._target:  # not as a word: every user of the machine can read those
            environment["ALLIGATOR_CONN"] = address
        else:
            words.insert(0, self._target)
        log = folder / f"workers-{new_id()}"
        return Crew(words, environment, log, self._journal, partial(is_written_to, self._gator.dsn))

    def _begin(self) -> None:
        """Start the workers, and wait until each crew runs tasks."""
        self._crews.start()
        deadline = time.monotonic() + START_WITHIN
        while not all(map(self._crews.at_work, self._crews.active)):
            for crew in self._crews.active:
                if not crew.runs or time.monotonic() > deadline:
                    why = crew.last_words or "They run no task."
                    raise BackendRefused(f"Workers cannot be started. {why}")
            if self._ended.wait(LOOK):
                return

    def _disturb(self, proxy: Proxy | None) -> None:
        """Do to workers and connections whatever can be done, again and again."""
        began = time.monotonic()
        crews = self._crews
        stop = partial(crews.stop, STOPPED_FOR)
        ways: list[Callable[[], str]]
        ways = [crews.kill_one, stop, crews.kill_one, crews.kill_all, crews.replace]
        if proxy is not None:
            ways += [partial(self._cut, proxy), partial(self._cut_amid, proxy)]
        gap = min(EVERY, self._seconds / len(ways))
        coming: list[Callable[[], str]] = []
        # Each is done at least once, however slow all is.
        while coming or time.monotonic() - began < self._seconds:
            if self._ended.wait(gap):
                break
            crews.wake()
            coming = coming or random.sample(ways, len(ways))
            what = coming.pop()()
            self._tell(f"{time.monotonic() - began:6.1f} s  {what}")
        self._ended.wait(crews.wakes_in)
        crews.wake()

    def _cut(self, proxy: Proxy) -> str:
        self._journal.note("cut")
        proxy.cut()
        self._cuts += 1
        return "cut all connections"

    def _cut_amid(self, proxy: Proxy) -> str:
        # Nobody says when it is cut: some time between the two notes.
        self._journal.note("cut")
        proxy.cut_after(random.randrange(1, 400))
        time.sleep(LOOK)
        proxy.cut_after(None)
        self._journal.note("cut")
        self._cuts += 1
        return "cut a connection amid an answer"

    def _come_to_rest(self) -> int:
        """Wait until all is done, as long as anything happens; return how many tasks are still queued."""
        seen, moved_at = -1, time.monotonic()
        while not self._ended.wait(LOOK):
            left = self._left()
            done = len(self._journal.entries())
            now = time.monotonic()
            if done != seen:
                seen, moved_at = done, now
            # What is lost cannot be waited for; what a store does not count may still come back.
            if not left and (not self._missing() or now > moved_at + LEASE + 1.0):
                return 0
            if now > moved_at + PATIENCE or not any(crew.runs for crew in self._crews.active):
                return left
        return 0

    def _left(self) -> int:
        with suppress(BackendUnavailable):
            return sum(self._gator.backend.count(self._queue_name)[:3])
        return 1

    def _missing(self) -> bool:
        return bool({*self._journal.names("pushed")} - {*self._journal.names("finish")})

    def _judged(self, stuck: int) -> Verdict:
        dead = {self._name_of(letter): letter.note for letter in self._dead()}
        wrongly = wrongly_dead(self._journal, dead)
        found = found_in(self._journal, kept=dead, batch=batch_of(SHORT), held_on=HELD_ON)
        return Verdict(found, wrongly, stuck, self._crews.stops, self._cuts, self._crews.faults)

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
                    self._forget_records()
                    return
            if time.monotonic() > deadline:
                self._tell(f"Queue {self._queue_name} could not be emptied: look at it.")
                return
            time.sleep(LOOK)

    def _forget_records(self) -> None:
        """Forget what is kept of tasks that were taken out before their end."""
        ref = keys.ref(self._queue_name, "")
        for records in (self._gator.backend.records, self._gator.results):
            if records is None:
                continue
            for family in (keys.PROGRESS, keys.STOPS, keys.DEATHS):
                left = [key for key in records.list(family) if key.startswith(f"{family}/{ref}")]
                records.delete(*left)
