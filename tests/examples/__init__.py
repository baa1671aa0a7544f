"""Tests of examples/: each is run as a person would run it."""
