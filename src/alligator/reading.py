"""Reading what is queued: only what may be imported is, and old names lead to what they stand for today."""

from typing import TYPE_CHECKING, Any

from alligator.tasks import Task
from alligator.utils import READING, import_attr

if TYPE_CHECKING:
    from alligator.aliases import Aliases
    from alligator.allowing import Allowed


class Reading:
    """How names in a payload lead to functions and exceptions.

    Args:
        allowed: What may be imported; None: anything.
        aliases: What was renamed; None: nothing.
    """

    def __init__(self, allowed: "Allowed | None", aliases: "Aliases | None") -> None:
        self._allowed = allowed
        self._aliases = aliases

    def read(self, kind: type[Task], body: bytes) -> Task:
        """Read a task, and import what it names.

        Raises:
            TaskRefused: That is not allowed. (A class with a form of its own may import by other ways than by
                ``import_attr``: what it comes back with is looked at, too.)
        """
        token = READING.set(self)
        try:
            task = kind.deserialize(body)
        finally:
            READING.reset(token)
        if self._allowed is not None and _is_own(kind):
            for func in (task.func, task.on_start, task.on_success, task.on_error):
                if func is not None:
                    self._allowed.check(func)
        return task

    def find(self, module_name: str, attr_name: str) -> Any:
        """Import a function by the name that a payload has for it.

        Raises:
            TaskRefused: It is not allowed.
            UnknownModuleError, UnknownCallableError: There is none.
        """
        module_name, attr_name = self._today(module_name, attr_name)
        if self._allowed is None:
            return self._plainly(module_name, attr_name)
        return self._allowed.find(module_name, attr_name)

    def find_type(self, module_name: str, attr_name: str) -> Any:
        """Return a type of exception by the name that a payload has for it.

        Raises:
            TaskRefused: It is not allowed.
            UnknownModuleError, UnknownCallableError: There is none.
        """
        if self._allowed is None:
            return self._plainly(*self._today(module_name, attr_name))
        if self._aliases is not None:
            module_name, attr_name = self._aliases.find_loaded(module_name, attr_name)
        return self._allowed.find_type(module_name, attr_name)

    def _plainly(self, module_name: str, attr_name: str) -> Any:
        # What a module does when it is imported is its own affair: it may look for functions, too.
        token = READING.set(None)
        try:
            return import_attr(module_name, attr_name)
        finally:
            READING.reset(token)

    def _today(self, module_name: str, attr_name: str) -> tuple[str, str]:
        if self._aliases is None:
            return module_name, attr_name
        if self._allowed is not None:  # first, for to look for a module imports what it is in
            self._allowed.check_path(self._aliases.now(f"{module_name}.{attr_name}"))
        token = READING.set(None)
        try:
            return self._aliases.find(module_name, attr_name)
        finally:
            READING.reset(token)


def reading_by(allowed: "Allowed | None", aliases: "Aliases | None") -> Reading | None:
    """Return how to read what is queued; None: without further ado."""
    return None if allowed is None and aliases is None else Reading(allowed, aliases)


def _is_own(kind: type[Task]) -> bool:
    """Whether a class reads its tasks in a way of its own."""
    ours = getattr(Task.deserialize, "__func__", None)
    return getattr(kind.deserialize, "__func__", None) is not ours
