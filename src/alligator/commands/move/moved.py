"""What ``alligator move`` has done so far."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Moved:
    """What has been moved, and what stays."""

    waiting: int = 0
    delayed: int = 0
    dead: int = 0
    schedules: int = 0
    running: int = 0
    """Tasks that run, and stay."""
    stay: int = 0
    """Other tasks that stay, for whatever reason."""
    dead_stay: int = 0
    """Dead letters that stay."""
    schedules_stay: int = 0
    """Schedules that stay."""
    blocked: int = 0
    """Tasks that stay for what they depend on: it runs, or is only just over."""
    clashing: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Queues and ids of tasks that stay, for another one of that id is queued where they were to go."""
    clashing_schedules: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Queues and names of schedules that stay, for there is one of that name where they were to go."""
    skipped: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Queues and ids of those that cannot be moved, and why."""
    at_least_once: bool = False
    """Whether a task may have run twice, had this been killed: one of the stores cannot list its tasks."""

    @property
    def tasks(self) -> int:
        """How many tasks have been moved."""
        return self.waiting + self.delayed

    @property
    def is_all(self) -> bool:
        """Whether nothing stays."""
        return not (self.running or self.stay or self.dead_stay or self.schedules_stay)


Tell = Callable[[Moved], None]
"""Is called again and again, with what has been moved so far."""
