"""Old names of functions: what was queued before one was renamed or moved finds it all the same."""

import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from alligator.exceptions import InvalidOption

_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Aliases:
    """What functions, classes or modules were called, and are called now.

    Args:
        renamed: New dotted paths by old ones. That of a module, or of a class, renames all that is in it; of
            several that fit, the longest counts.

    Raises:
        InvalidOption: One is no dotted path.

    Example:
        >>> aliases = Aliases({"shop.mail": "shop.post", "shop.mail.send": "shop.post.deliver"})
        >>> aliases.now("shop.mail.send"), aliases.now("shop.mail.Letter.send"), aliases.now("shop.mails.send")
        ('shop.post.deliver', 'shop.post.Letter.send', 'shop.mails.send')
    """

    def __init__(self, renamed: Mapping[str, str]) -> None:
        self._renamed = _checked(renamed)
        self._most = max((old.count(".") + 1 for old in self._renamed), default=1)

    def now(self, path: str) -> str:
        """Return what a path is today; most are as they were."""
        # No more than the longest that was renamed: a stranger may have sent a path of a million dots.
        parts = path.split(".", self._most)[: self._most]
        for count in range(len(parts), 0, -1):
            old = ".".join(parts[:count])
            if (new := self._renamed.get(old)) is not None:
                return path if _is_new(path, old, new) else new + path[len(old) :]
        return path

    def find(self, module_name: str, attr_name: str) -> tuple[str, str]:
        """Return in which module, and by which name there, something is to be found today.

        What that module is in is imported.
        """
        return self._find(module_name, attr_name, _is_there)

    def find_loaded(self, module_name: str, attr_name: str) -> tuple[str, str]:
        """Return the same, as far as modules are loaded. Nothing is imported."""
        return self._find(module_name, attr_name, _is_loaded)

    def _find(
        self, module_name: str, attr_name: str, is_module: Callable[[str], bool]
    ) -> tuple[str, str]:
        path = f"{module_name}.{attr_name}"
        now = self.now(path)
        return (module_name, attr_name) if now == path else _parted(now, is_module)


def _is_new(path: str, old: str, new: str) -> bool:
    """Return whether a path is one of today already: a module may have become a package, with itself in it."""
    return f"{new}.".startswith(f"{old}.") and f"{path}.".startswith(f"{new}.")


def _checked(renamed: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(renamed, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] -- it comes from users
        raise InvalidOption(
            f'aliases tells new names by old ones, such as {{"shop.mail.send": "shop.post.send"}}; not '
            f"{renamed!r:.100}."
        )
    found: dict[str, str] = {}
    for old, new in renamed.items():
        for path in (old, new):
            if not _PATH.fullmatch(str(path)):
                raise InvalidOption(
                    f"aliases has {path!r:.100}, which is no dotted path such as 'shop.mail.send'."
                )
        found[old] = new
    return found


def _parted(path: str, is_module: Callable[[str], bool]) -> tuple[str, str]:
    """Return the module of a path, and what follows it: the author of the program says only the whole."""
    module, *rest = path.split(".")
    while len(rest) > 1 and is_module(f"{module}.{rest[0]}"):
        module += f".{rest.pop(0)}"
    return module, ".".join(rest)


def _is_there(module_name: str) -> bool:
    # Asked for anew each time: what is not there yet may be on its way, in the middle of a deploy.
    try:
        return _is_loaded(module_name) or find_spec(module_name) is not None
    except Exception:  # what it is in is no package, or cannot be imported
        return False


def _is_loaded(module_name: str) -> bool:
    return sys.modules.get(module_name) is not None
