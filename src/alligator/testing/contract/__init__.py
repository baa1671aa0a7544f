"""What every store does: one suite, run on each of them. The fixtures are those of ``alligator.testing``."""
