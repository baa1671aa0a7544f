"""Fixtures for all tests, those of the contract too, which are in the package and not under tests/."""

# In this order: the second has a `store` of its own.
pytest_plugins = ["alligator.testing", "tests.support.kinds"]
