"""What a worker may import and run: names of functions, by patterns, looked at before anything is imported."""

import re
import sys
from collections.abc import Callable, Sequence
from inspect import isroutine
from typing import Any

from alligator.exceptions import InvalidOption, TaskRefused, UnknownCallableError
from alligator.signatures import path_of
from alligator.utils import READING, determine_module, import_module

_PATTERN = re.compile(r"(?:[^\W\d]|\*)[\w*]*(?:\.(?:[^\W\d]|\*)[\w*]*)*")
_FEW = 5
"""Patterns to name in an error."""


class Allowed:
    """The functions that a worker may run.

    A pattern is a dotted path. ``*`` stands for a name, or a part of one, and for no dot: ``myapp.tasks.*``
    is the functions of that module, and not what is in its classes or in modules below it. ``**``, as the
    last part, is all below. Neither stands for a name that begins with an underscore: a pattern has to spell
    that out.

    A name that fits is still refused if it leads to no function, or to one that the module has imported from
    elsewhere: ``myapp.tasks.*`` does not open ``subprocess.run`` because ``myapp.tasks`` uses it; nor, of a
    class there, what it has from a base class in another module.

    Args:
        patterns: At least one.

    Raises:
        InvalidOption: There is none, or one makes no sense.

    Example:
        >>> allowed = Allowed(["myapp.tasks.*"])
        >>> [name in allowed for name in ("myapp.tasks.send", "myapp.tasks._send", "myapp.tasks.os.system")]
        [True, False, False]
    """

    def __init__(self, patterns: str | Sequence[str]) -> None:
        self.patterns = _checked([patterns] if isinstance(patterns, str) else patterns)
        self._fits = re.compile("|".join(map(_expression, self.patterns))).fullmatch

    def __repr__(self) -> str:
        return f"<Allowed {', '.join(self.patterns)}>"

    def __contains__(self, path: str) -> bool:
        return self._fits(path) is not None

    def check(self, func: Callable[..., Any]) -> None:
        """Check that a function may run, by the name that leads to it.

        Raises:
            TaskRefused: It may not.
            UnknownModuleError, UnknownCallableError: No name leads to it.
        """
        # It is known by its names in this program, and not by those that a payload may have for it.
        token = READING.set(None)
        try:
            module_name, attr_name = path_of(func)
        finally:
            READING.reset(token)
        path = f"{module_name}.{attr_name}"
        self.check_path(path)
        self._check_kind(func, path)
        self._check_bound(func, module_name, path)

    def check_path(self, path: str) -> None:
        """Check that a name is one of those that may run.

        Raises:
            TaskRefused: It is not.
        """
        if path not in self:
            raise self._refused(path, "is not among what may run here")

    def find(self, module_name: str, attr_name: str) -> Any:
        """Import a function, if it is allowed.

        Raises:
            TaskRefused: It is not; and unless only the function itself showed that, nothing was imported.
            UnknownModuleError, UnknownCallableError: There is none.
        """
        path = f"{module_name}.{attr_name}"
        self.check_path(path)
        # What a module does when it is imported is its own affair: it may look for functions, too.
        token = READING.set(None)
        try:
            within: Any = None
            found: Any = import_module(module_name)
            parts = attr_name.split(".")
            for place, part in enumerate(parts):
                if place and not isinstance(found, type):
                    raise self._refused(path, "leads through something that is no class")
                within, found = found, getattr(found, part)
                if place:
                    self._check_home(within, parts[place:], module_name, path)
        except AttributeError:
            raise UnknownCallableError(f"Module {module_name!r} has no {attr_name!r}.") from None
        finally:
            READING.reset(token)
        self._check_kind(found, path)
        if getattr(found, "__self__", None) is not within:
            self._check_bound(found, module_name, path)
        if (
            determine_module(found) != module_name
        ):  # imported there from elsewhere, where it may not be allowed
            self.check(found)
        return found

    def find_type(self, module_name: str, attr_name: str) -> Any:
        """Return a type of exception that a task names in ``retry_on``. Nothing is imported for it.

        Its module is loaded already, where the task's own needs it; to compare with it is to run nothing.
        """
        found: Any = sys.modules.get(module_name)
        for part in attr_name.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            path = f"{module_name}.{attr_name}"
            raise self._refused(path, "is no exception of a module that is loaded here")
        return found

    def _check_kind(self, func: Any, path: str) -> None:
        # The latter two: what functools.wraps has made, as lru_cache does, and functions of Cython.
        is_function = isroutine(func) or hasattr(func, "__wrapped__") or hasattr(func, "__code__")
        if isinstance(func, type) or not callable(func) or not is_function:
            raise self._refused(path, "is no function")

    def _check_bound(self, func: Any, module_name: str, path: str) -> None:
        """Check a class method, by the class that it is bound to."""
        if isinstance(owner := getattr(func, "__self__", None), type):
            self._check_home(owner, [getattr(func, "__name__", "")], module_name, path)

    def _check_home(self, owner: type, parts: Sequence[str], module_name: str, path: str) -> None:
        """Check what a class has from another one: that may be of a module which is not allowed.

        Args:
            owner: The class that was asked.
            parts: What it was asked for, and what then follows.
            module_name: What that is allowed to be of.
            path: The whole name, for errors.
        """
        home = next((one for one in owner.__mro__ if parts[0] in vars(one)), None)
        if home is None:  # as type.mro is, which each class answers to
            raise self._refused(path, "belongs to what the class is made by, and not to the class")
        own_path = ".".join((home.__module__, home.__qualname__, *parts))
        if home.__module__ != module_name and own_path not in self:
            raise self._refused(
                path,
                f"is not its own: {own_path!r:.200}, which it is, is not among what may run here",
            )

    def _refused(self, path: str, why: str) -> TaskRefused:
        few = ", ".join(self.patterns[:_FEW]) + (", ..." if len(self.patterns) > _FEW else "")
        return TaskRefused(f"{path!r:.200} {why}: allow has {few}")


def _checked(patterns: Any) -> tuple[str, ...]:
    try:
        found = tuple(patterns)
    except TypeError:
        found = ()
    if not found:
        raise InvalidOption(
            f'allow lists what may run, such as ["myapp.tasks.*"]; not {patterns!r:.100}. '
            "Leave it out to let everything run."
        )
    for pattern in found:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern) or _is_odd(pattern):
            raise InvalidOption(
                f"allow has {pattern!r:.100}, which is no dotted path of names such as 'myapp.tasks.send', "
                "'myapp.tasks.*' or 'myapp.**'."
            )
    return found


def _is_odd(pattern: str) -> bool:
    """Whether a pattern has a ``**`` that is not its whole last part."""
    *parts, last = pattern.split(".")
    return any("**" in part for part in parts) or ("**" in last and last != "**")


def _expression(pattern: str) -> str:
    """Return a pattern as a regular expression."""
    return r"\.".join(map(_part, pattern.split(".")))


def _part(part: str) -> str:
    if part == "**":
        return r"(?!_)\w+(?:\.(?!_)\w+)*"
    if part == "*":
        return r"(?!_)\w+"
    if "*" not in part:
        return part
    begin, *between, end = part.split("*")
    # What stands between two stars is where it comes first (?>), and is sought nowhere else: a stranger may
    # have sent a name of many thousand characters, and to try all ways to divide that would take hours.
    expression = "".join([begin, *(rf"(?>\w*?{text})" for text in between), rf"\w*{end}"])
    return expression if begin else f"(?!_){expression}"
