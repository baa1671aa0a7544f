"""From a callable to its import path and back; a new id; running a coroutine."""

import inspect
import os
import signal
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

from alligator.exceptions import UnknownCallableError, UnknownModuleError

if TYPE_CHECKING:
    from alligator.reading import Reading

READING: "ContextVar[Reading | None]" = ContextVar("alligator_reading", default=None)
"""How names lead to functions while a task is read that came from a queue; None: as anywhere."""


def determine_module(func: Callable[..., Any]) -> str:
    """Return the dotted path of the module that a callable comes from.

    Raises:
        UnknownModuleError: It does not say (a ``functools.partial``, an instance with ``__call__``).

    Example:
        >>> from random import choice
        >>> determine_module(choice)
        'random'
    """
    # An instance also answers to __module__, with that of its class, but cannot be imported from it.
    # A class method is where the class is that it is called on, which may have inherited it.
    source = _class_of(func) or func
    module = getattr(source, "__module__", None) if hasattr(func, "__name__") else None
    if not isinstance(module, str):
        raise UnknownModuleError(
            f"{func!r} does not say which module it comes from, so no worker could import it. "
            "Put a plain function around it, and queue that."
        )
    return module


def determine_name(func: Callable[..., Any]) -> str:
    """Return the name by which a callable is found in its module, such as "send" or "Mailer.send".

    Where no name leads back to the callable (a lambda, a closure), its own ``__qualname__`` is returned.

    Example:
        >>> from random import choice
        >>> determine_name(choice)
        'choice'
    """
    module_name = determine_module(func)
    qualname: str = getattr(func, "__qualname__", func.__name__)
    # A bound method that a module offers under a plain name, as random.choice is, has the
    # qualname of its class's function, which is another callable: try both.
    names = [qualname, func.__name__]
    if owner := _class_of(func):
        names.append(f"{owner.__qualname__}.{func.__name__}")
    for name in names:
        if _finds(module_name, name, func):
            return name
    return qualname


def is_importable(func: Callable[..., Any]) -> bool:
    """Return whether importing a callable's module and name leads to that same callable."""
    return _finds(determine_module(func), determine_name(func), func)


def import_module(module_name: str) -> ModuleType:
    """Import a module by its dotted path.

    Raises:
        UnknownModuleError: There is none, or importing it failed.

    Example:
        >>> import_module("random").__name__
        'random'
    """
    try:
        __import__(module_name)  # importlib.import_module takes five times as long, for each task
        return sys.modules[module_name]
    except Exception as err:
        raise UnknownModuleError(
            f"Cannot import module {module_name!r}: {type(err).__name__}: {err}"
        ) from err


def import_attr(module_name: str, attr_name: str) -> Any:
    """Import a module and return one of its attributes, which may be dotted ("Mailer.send").

    Raises:
        UnknownModuleError: There is no such module, or importing it failed.
        UnknownCallableError: The module has no such attribute.
        TaskRefused: This is where a task is read, and that may not run here. Nothing was imported.

    Example:
        >>> import_attr("random", "choice")([7])
        7
    """
    if (reading := READING.get()) is not None:
        return reading.find(module_name, attr_name)
    found: Any = import_module(module_name)
    for part in attr_name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UnknownCallableError(
                f"Module {module_name!r} has no {attr_name!r}. Was it renamed or moved, "
                "or does this worker run another version of the code?"
            ) from None
    return found


def new_id() -> str:
    """Return a new UUID of version 7, as text.

    Its first 48 bits are the time in milliseconds, so that the ids of neighbours lie near each other in
    a store's index: inserting and deleting then touches few pages (RFC 9562, section 5.7 and 6.11).
    """
    moment, chance = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10)
    digits, variant = chance[1:].hex(), "89ab"[chance[0] & 3]
    return f"{moment[:8]}-{moment[8:]}-7{digits[:3]}-{variant}{digits[3:6]}-{digits[6:]}"


def run_coroutine(value: Any) -> Any:
    """Run what an ``async def`` function returned to its end; return any other value as it is."""
    if not inspect.iscoroutine(value):
        return value
    import asyncio  # here, for it takes longer to import than all of Alligator

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(value)
    # This thread has a loop, which runs the caller: another thread's loop it must be.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, value).result()


def take_default(number: int) -> None:
    """Do with a signal what a program does that has no handler: for a copy of ours that a task has forked."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _class_of(func: Callable[..., Any]) -> type | None:
    """Return the class that a class method is bound to."""
    owner = getattr(func, "__self__", None)
    return owner if isinstance(owner, type) else None


def _finds(module_name: str, name: str, func: Callable[..., Any]) -> bool:
    try:
        return bool(import_attr(module_name, name) == func)
    except (UnknownModuleError, UnknownCallableError):
        return False
