"""benchmarks/: that they run and find what they expect, with hardly anything to do."""

import pytest

from tests.examples.commands import EXAMPLES, output

BENCHMARKS = EXAMPLES.parent / "benchmarks"


@pytest.mark.parametrize(
    "command",
    [
        "bench.py --tasks 20 --rounds 1 --store locmem",
        "many.py --delayed 20 --tasks 20 --dependents 20 --store sqlite",
        "waiting.py --few 2500 --many 5000 --rounds 2 --store locmem",
    ],
)
def test_a_benchmark_runs(command: str) -> None:
    printed = output(f"python {command}", folder=BENCHMARKS)

    assert printed.endswith("\n")
