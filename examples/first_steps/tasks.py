"""What is to be done later: plain functions of a module that workers can import."""

from pathlib import Path


def count_words(path: str) -> None:
    words = Path(path).read_text(encoding="utf-8").split()
    print(f"{path} has {len(words)} words.")
