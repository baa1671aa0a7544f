"""Whether a task is tried again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator.retries import MAX_DELIVERIES, backoff, is_poison, wait_for_code


def test_backoff_doubles_from_its_base() -> None:
    assert [backoff(attempt, base=10) for attempt in range(1, 6)] == [10, 20, 40, 80, 160]


def test_backoff_ends_at_its_cap() -> None:
    assert backoff(9, base=10) == 2560
    assert backoff(10, base=10) == 3600
    assert backoff(10, base=10, cap=100) == 100


@given(attempt=st.integers(1, 10**6), base=st.floats(0, 1e300))
def test_backoff_never_overflows(attempt: int, base: float) -> None:
    assert 0 <= backoff(attempt, base=base) <= 3600


@given(attempt=st.integers(1, 10**4), base=st.floats(0, 1e9))
def test_backoff_never_shrinks(attempt: int, base: float) -> None:
    assert backoff(attempt, base=base) <= backoff(attempt + 1, base=base)


@pytest.mark.parametrize(
    ("deliveries", "poison"), [(1, False), (2, False), (3, False), (4, True), (100, True)]
)
def test_a_task_is_poison_when_it_was_handed_out_in_vain_three_times(
    deliveries: int, poison: bool
) -> None:
    assert is_poison(deliveries) is poison


def test_a_store_may_allow_fewer_deliveries() -> None:
    assert not is_poison(1, limit=1)
    assert is_poison(2, limit=1)


def test_the_wait_for_code_doubles_and_ends() -> None:
    assert MAX_DELIVERIES == 3
    assert [wait_for_code(n, base=10) for n in (1, 2, 3, 4)] == [10, 20, None, None]
    assert wait_for_code(1, base=10, limit=1) is None
