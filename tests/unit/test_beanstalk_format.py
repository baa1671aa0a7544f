"""How names, priorities and bodies look in beanstalkd."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator.backends.base import MAX_PRIORITY
from alligator.backends.beanstalk import format as form
from alligator.exceptions import InvalidOption

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
SURPLUSES = st.integers(-1000, 1000)
PRIORITIES = st.integers(-MAX_PRIORITY, MAX_PRIORITY)


@given(NAMES | st.from_regex(r"[-+0-9_$./;()a]{1,12}", fullmatch=True))
def test_a_queues_tube_is_one_that_beanstalkd_takes_and_leads_back(name: str) -> None:
    tube = form.tube_of(name)

    assert re.fullmatch(r"[A-Za-z0-9+/;._()$][-A-Za-z0-9+/;._()$]{0,199}", tube)
    assert form.queue_of(tube) == name
    assert not form.is_dead_tube(tube)


@given(st.from_regex(r"[+0-9_]{1,8}", fullmatch=True))
def test_a_tube_that_greenstalk_takes_for_a_number_comes_out_as_it_was(name: str) -> None:
    tube = form.tube_of(name)
    try:
        read = str(int(tube))
    except ValueError:
        return
    assert read == tube


@given(NAMES, NAMES)
def test_two_queues_have_two_tubes(one: str, other: str) -> None:
    assert (form.tube_of(one) == form.tube_of(other)) == (one == other)
    assert (form.dead_tube_of(one) == form.dead_tube_of(other)) == (one == other)


def test_the_longest_tube_has_notes_of_its_own() -> None:
    long = "q" * form.MAX_TUBE

    assert form.tube_of(long) == long
    assert len(form.dead_tube_of(long)) <= form.MAX_TUBE
    assert form.dead_tube_of(long) != form.dead_tube_of("q" * (form.MAX_TUBE - 1))
    with pytest.raises(InvalidOption):
        form.tube_of(long + "q")
    with pytest.raises(InvalidOption):
        form.tube_of("ř" * 34)


@pytest.mark.parametrize("tube", ["a$b", "$", "$zz", "$ff", "a$.dead"])
def test_a_tube_of_others_is_called_as_it_is(tube: str) -> None:
    assert form.queue_of(tube) == tube


@given(PRIORITIES, SURPLUSES)
def test_a_surplus_leads_back_and_leaves_the_priority(priority: int, surplus: int) -> None:
    pri = form.urgency(priority, surplus)

    assert 0 <= pri < 2**32
    assert form.surplus_in(pri) == surplus
    assert form.with_surplus(pri, 0) == form.urgency(priority)


@given(PRIORITIES, PRIORITIES, SURPLUSES, SURPLUSES)
def test_a_higher_priority_is_more_urgent_whatever_the_surplus(
    one: int, other: int, first: int, second: int
) -> None:
    if one > other:
        assert form.urgency(one, first) < form.urgency(other, second)


@given(SURPLUSES)
def test_no_surplus_puts_a_job_behind_those_that_have_none(surplus: int) -> None:
    assert form.urgency(0, surplus) <= form.urgency(0)


@given(st.integers(0, 2**32 - 1), SURPLUSES)
def test_every_urgency_stays_one(pri: int, surplus: int) -> None:
    assert 0 <= form.with_surplus(pri, surplus) < 2**32


BODIES = st.binary(max_size=50) | st.binary(max_size=50).map(
    lambda rest: b"alligator-job 1 " + rest
)


@given(BODIES, st.none() | st.text())
def test_what_a_job_carries_leads_back(body: bytes, task_id: str | None) -> None:
    carried = form.task_in(form.job_body(body, task_id), 7)

    assert carried == ("7" if task_id is None else task_id, body)


@given(BODIES)
def test_any_body_can_be_read(body: bytes) -> None:
    form.task_in(body, 7)


@pytest.mark.parametrize(
    ("seconds", "whole"),
    [
        (0.0, 0),
        (0.01, 1),
        (1.0, 1),
        (1.01, 2),
        (-5.0, 0),
        (1e12, 2**32 - 1),
        (float("inf"), 2**32 - 1),
    ],
)
def test_seconds_are_never_cut_short(seconds: float, whole: int) -> None:
    assert form.whole_seconds(seconds) == whole
