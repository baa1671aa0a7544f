"""The loop (being written)."""


class Worker:
    """Being written."""
