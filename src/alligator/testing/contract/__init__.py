"""What every store does: one suite, run on each of them. The fixtures are in conftest.py, here and one up."""
