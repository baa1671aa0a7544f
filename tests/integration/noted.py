"""A module that notes that it was imported, for tests of tasks that nobody is to import."""

import os
from pathlib import Path

if "NOTED" in os.environ:
    Path(os.environ["NOTED"]).write_text("imported")


def run(*args: object, **kwargs: object) -> None:
    """Do nothing: to be here is enough."""
