"""Whether a callable can be queued: by a name that leads back to it, and with arguments that fit it."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from alligator.exceptions import InvalidArguments, UnknownCallableError
from alligator.utils import determine_module, determine_name, is_importable


@lru_cache(maxsize=1024)
def _path_of(func: Callable[..., Any]) -> tuple[str, str]:
    module, name = determine_module(func), determine_name(func)
    if not is_importable(func):
        raise UnknownCallableError(
            f"{module}.{name} cannot be a task: importing that name does not lead back to it, as with a "
            "lambda, a function inside a function, or a method of an instance. Queue a function of a "
            "module, a static or a class method; or run this one at once with is_async=False."
        )
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise UnknownCallableError(
            f"{module}.{name} cannot be a task: it is a generator function, and to call one runs none of "
            "its code. Queue a function that goes through what it yields."
        )
    return module, name


def path_of(func: Callable[..., Any]) -> tuple[str, str]:
    """Return the module and the name by which another process finds a callable.

    Raises:
        UnknownModuleError: It does not say where it comes from.
        UnknownCallableError: No name leads back to it, or to call it would do nothing.
    """
    try:
        hash(func)
    except TypeError:  # a method of something unhashable: no module holds that
        return _path_of.__wrapped__(func)
    return _path_of(func)


def check_other_process(func: Callable[..., Any]) -> None:
    """Check that a callable is not one of ``__main__``, which is another module in every process.

    Raises:
        UnknownCallableError: It is.
    """
    module, name = path_of(func)
    if module == "__main__":
        raise UnknownCallableError(
            f"{name} lives in the script that is running, which a worker would look for in vain: its "
            f"own __main__ is another. Move {name} into a module of its own, and import it from there."
        )


def check_arguments(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Check that a callable can be called with these arguments.

    Raises:
        InvalidArguments: Too many, too few, or an unknown name. The message says which.
    """
    if not kwargs and _takes(func, len(args)):
        return
    try:
        signature = _signature(func)
    except (ValueError, TypeError):  # some builtins have none: only calling them tells
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as err:
        name = getattr(func, "__qualname__", type(func).__qualname__)
        shown = f"{name}{_without_values(signature)}"
        raise InvalidArguments(f"{shown} cannot be called like this: {err}.") from None


def _without_values(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature with names only, for messages that workers keep and log: a default may be a secret."""
    empty = inspect.Parameter.empty
    return inspect.Signature(
        [
            one.replace(annotation=empty, default=empty if one.default is empty else _VALUE)
            for one in signature.parameters.values()
        ]
    )


class _Value:
    """Stands for any."""

    def __repr__(self) -> str:
        return "..."


_VALUE = _Value()


def _signature(func: Callable[..., Any]) -> inspect.Signature:
    # Of what is called, not of what it wraps: a decorator may fill in arguments.
    try:
        signature = _signatures.get(func)
    except TypeError:  # it cannot be a key
        return inspect.signature(func, follow_wrapped=False)
    if signature is None:
        signature = _signatures[func] = inspect.signature(func, follow_wrapped=False)
    return signature


# Weak: a closure or a method, run at once, must not live on here with all that it refers to.
_signatures: WeakKeyDictionary[Callable[..., Any], inspect.Signature] = WeakKeyDictionary()


def _takes(func: Callable[..., Any], count: int) -> bool:
    """Whether a plain function takes just ``count`` positional arguments: the usual case, made fast."""
    if type(func) is not FunctionType:
        return False
    code = func.__code__
    return (
        code.co_argcount == count
        and not code.co_kwonlyargcount
        and not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    )
