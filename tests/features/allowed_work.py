"""Functions of a program that says what may run; and names that lead elsewhere."""

import os as os
from collections.abc import Callable
from os import system as system  # pyright: ignore[reportDeprecated] -- it is to be refused
from random import choice as choice
from tarfile import TarFile
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


class Kind(type):
    """A class of classes, which has a method."""

    def add_to_class(cls, name: str, value: str) -> None:
        done.append(name)
        setattr(cls, name, value)


class Archive(TarFile):
    """A class with functions that it has from one of elsewhere, and with some of its own."""

    taken = Mailer.by_class

    @classmethod
    def own(cls) -> None:
        done.append("own")


class Listing(Archive):
    """A class with functions that it has from one of here, and from one of elsewhere."""


class Made(metaclass=Kind):
    """A class that answers to a method which is none of its own."""


class Box(dict[str, str]):
    """A class that has a class method from one of those that are built in."""


class Text(str):
    """A class that has a static method from one of those."""


class Shelf:
    """A class with one in it."""

    class Tape(Archive):
        """One of these."""


open_archive = Archive.open
"""A function of elsewhere, by the name of a class from here."""
