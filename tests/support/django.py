"""Django, set up once in a process, whichever test is the first to use it."""

import importlib
from typing import Any


def django_settings() -> Any:
    """Return Django's settings. Any: Django has no types of its own."""
    settings: Any = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure(USE_TZ=True)
        setup: Any = importlib.import_module("django").setup
        setup()
    return settings
