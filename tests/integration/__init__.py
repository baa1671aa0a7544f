"""Workers as real processes, with real signals and real deaths."""
