"""The examples of docstrings say what happens."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import alligator

MODULES = [
    module.name
    for module in pkgutil.walk_packages(alligator.__path__, "alligator.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["alligator", *MODULES])
def test_the_examples_of_a_module_run_as_written(name: str, tmp_path: Path) -> None:
    results = doctest.testmod(importlib.import_module(name), extraglobs={"tmp_path": tmp_path})

    assert results.failed == 0, "see what was printed"
