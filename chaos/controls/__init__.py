"""Negative controls: the campaign on what is known to lose tasks, for a harness has to be able to fail."""
