"""A stage on which another system plays: its workers and producers, the same tasks, killer and checker."""

import signal
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alligator.verify.findings import Findings, found_in
from chaos.controls.systems import PYTHON, System, environment_of
from chaos.stage import LONGEST, Stage
from chaos.stores import Place
from tests.integration import jobs
from tests.integration.scenes import Program, kill, members_of

QUIET = 1.0
"""Seconds without a new line in the journal: nothing runs any more."""
STARTED_WITHIN = 10.0
"""Seconds for workers to start, and to look what others have left behind."""


class ForeignStage(Stage):
    """A stage whose producers and workers are another system's.

    Args:
        system: Which.
        place: Its store.
        folder: For the journal and output.
        seed: Of all that is left to chance.
        size: How much of it: 1.0 is all.
    """

    def __init__(
        self, system: Callable[[str], System], place: Place, folder: Path, seed: int, size: float
    ) -> None:
        super().__init__(place, folder, seed, size)
        self.system = system(place.dsn)
        self.environment = environment_of(place.dsn)

    @contextmanager
    def producing(
        self, names: Iterable[str], func: Callable[..., Any] = jobs.work, *args: Any, **options: Any
    ) -> Generator[None]:
        """Push tasks one by one, in a process."""
        assert func is jobs.work
        assert not options
        seconds = str(*args or [0.0])
        typed = self.folder / "names"
        typed.write_text("".join(f"{name}\n" for name in names))
        words = ["-m", "chaos.controls.producer", self.system.app, self.journal.path, seconds]
        program = self._foreign(words, typed)
        try:
            yield
        finally:
            self.expect(program.wait(120.0) == 0, f"the producer failed: {program.stderr[-300:]}")

    def is_over(self) -> bool:
        """Whether nobody pushes any more, and nothing waits; or it takes too long."""
        if time.monotonic() > self._began_at + LONGEST:
            return True
        producers = [one for one in self.programs if "chaos.controls.producer" in one.words]
        return not any(one.runs for one in producers) and self.is_done()

    def is_done(self) -> bool:
        """Whether nothing waits."""
        return not self.system.waiting()

    def start(self, *options: str, target: str = "", **environment: str) -> Program:
        """Start as many workers as ``latergator`` would, with those options."""
        assert options[0] == "--workers"
        assert not target
        return self._foreign(self.system.workers(int(options[1])))

    def at_work(self, program: Program, since: float = 0.0) -> list[int]:
        """Return the workers of a program that have started a task."""
        if not self.system.leaves_orphans:
            return super().at_work(program, since)
        members = members_of(program.pid)
        busy = {one.parent for one in members}
        return [one.pid for one in members if one.parent == program.pid and one.pid in busy]

    def kill(self, pid: int) -> None:
        """Kill a process, and what it has started, where that would go on without it."""
        if self.system.leaves_orphans:
            kill(pid, signal.SIGSTOP)  # it is not to see the others die
            everyone = [member for one in self.programs for member in members_of(one.pid)]
            for member in everyone:
                if member.parent == pid:
                    super().kill(member.pid)
        super().kill(pid)

    def come_to_rest(self, within: float = 60.0) -> None:
        """Wait until nothing waits or runs; twice, where the system looks again at what died."""
        self._settle(within)
        if self.system.rest:
            for wait in (0.0, self.system.rest):
                time.sleep(wait)
                self.system.let_time_pass()
                self.start("--workers", "2")  # one that starts looks at once
            self._settle(within, STARTED_WITHIN)

    def _settle(self, within: float, quiet: float = QUIET) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            before = self.journal.entries()
            time.sleep(quiet)
            if self.is_done() and len(self.journal.entries()) == len(before):
                return
        self.remarks.append(f"not at rest within {within:g} s: {self.system.waiting()} tasks wait")

    def findings(self) -> Findings:
        """Judge what happened."""
        kept = self.system.kept()
        for where, names in kept.items():
            self.show(f"{len(names)} kept as {where}")
        return found_in(self.journal, kept=set[str]().union(*kept.values()))

    def _foreign(self, words: Iterable[str], typed: Path | None = None) -> Program:
        output = self.folder / f"program-{len(self.programs)}"
        reading = {} if typed is None else {"typed": typed}
        python, programs = str(PYTHON), self.programs
        return Program([*words], output, self.environment, python, among=programs, **reading)
