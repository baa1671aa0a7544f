"""Old names of functions: what was queued before one was renamed or moved finds it all the same."""

import re
from collections.abc import Mapping
from functools import lru_cache
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

    def now(self, path: str) -> str:
        """Return what a path is today; most are as they were."""
        old = path
        while old and old not in self._renamed:
            old = old.rpartition(".")[0]
        return self._renamed[old] + path[len(old) :] if old else path

    def find(self, module_name: str, attr_name: str) -> tuple[str, str]:
        """Return in which module, and by which name there, something is to be found today."""
        path = f"{module_name}.{attr_name}"
        now = self.now(path)
        return (module_name, attr_name) if now == path else _parted(now)


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


@lru_cache(maxsize=1024)
def _parted(path: str) -> tuple[str, str]:
    """Return the module of a path, and what follows it: the author of the program says only the whole."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            is_module = find_spec(module) is not None
        except Exception:  # what it is in is no package, or cannot be imported
            is_module = False
        if is_module:
            return module, ".".join(parts[length:])
    return ".".join(parts[:-1]), parts[-1]  # whoever imports it says what is wrong
