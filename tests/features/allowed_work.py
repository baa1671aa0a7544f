"""Functions of a program that says what may run; and names that lead elsewhere."""

import os as os
from collections.abc import Callable
from os import system as system  # pyright: ignore[reportDeprecated] -- it is to be refused
from typing import Any

from tests.features.work import do as do
from tests.features.work import done


def send(what: str = "sent") -> str:
    done.append(what)
    return what


def fail(what: str = "failed") -> None:
    done.append(what)
    raise LookupError(what)


def _hidden() -> None:  # pyright: ignore[reportUnusedFunction] -- it is to be refused
    done.append("hidden")


def hook(*_: object) -> None:
    done.append("hook")


async def send_soon() -> None:
    done.append("sent soon")


class Mailer:
    """A class with functions that can be queued."""

    @classmethod
    def by_class(cls) -> None:
        done.append(cls.__name__)

    @staticmethod
    def plainly() -> None:
        done.append("plainly")


class _Callable:
    __name__ = "thing"

    def __call__(self) -> None:
        done.append("called")


thing: Callable[[], Any] = _Callable()
path = os.path
