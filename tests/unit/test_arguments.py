"""What a task's arguments may be: what fits its function, and what JSON carries there and back."""

import base64
import enum
import gc
import json
import math
import uuid
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alligator import Gator, Options, Task
from alligator.exceptions import InvalidArguments, UnreadableTask
from alligator.payloads import MAX_DEPTH, decode
from alligator.signatures import check_arguments
from tests.unit import jobs
from tests.unit.steps import popped


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.IntEnum):
    RED = 1


class Size(enum.StrEnum):
    SMALL = "small"


class Text(str):
    __slots__ = ()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def circular_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def as_lists(value: Any) -> Any:
    """Return a value as it comes back: tuples as lists."""
    kind = type(value).__name__
    if kind in ("list", "tuple"):
        return [as_lists(item) for item in value]
    if kind == "dict":
        return {key: as_lists(item) for key, item in value.items()}
    return value


# What fits the function


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "reason"),
    [
        (jobs.add, (), {}, "missing a required argument: 'a'"),
        (jobs.add, (1,), {}, "missing a required argument: 'b'"),
        (jobs.add, (1, 2, 3), {}, "too many positional arguments"),
        (jobs.add, (1, 2), {"c": 3}, "got an unexpected keyword argument 'c'"),
        (jobs.add, (1, 2), {"a": 3}, "multiple values for argument 'a'"),
        (jobs.add, (1,), {"a": 3}, "multiple values for argument 'a'"),
        (jobs.only_by_name, ("x",), {}, "too many positional arguments"),
        (jobs.only_by_place, (), {"name": "x"}, "'name'"),
        (jobs.Mailer.send_as, (), {}, "missing a required argument: 'to'"),
        (jobs.add_soon, (1,), {}, "missing a required argument: 'b'"),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_arguments_that_do_not_fit_the_function_are_refused(
    gator: Gator,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reason: str,
    is_async: bool,
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        gator.push(Task(is_async=is_async), func, *args, **kwargs)

    assert func.__qualname__ in str(caught.value)
    assert reason in str(caught.value)
    assert gator.len() == 0
    assert jobs.seen == []


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_refused_argument_can_be_caught_as_python_would_raise_it(
    gator: Gator, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        gator.task(jobs.add, 1)


def test_a_builtin_that_shows_no_signature_takes_any_arguments(gator: Gator) -> None:
    gator.task(max, 1, 2)

    assert popped(gator).result == 2


def test_a_decorator_that_takes_anything_is_asked_and_not_what_it_wraps(gator: Gator) -> None:
    gator.task(jobs.double, 1, 2)

    with pytest.raises(TypeError, match="positional argument"):
        gator.pop()


def test_the_arguments_of_what_cannot_be_remembered_are_checked_too(gator: Gator) -> None:
    with (
        gator.options(is_async=False) as opts,
        pytest.raises(InvalidArguments, match="too many positional arguments"),
    ):
        opts.task(jobs.Unhashable(), 1)


def test_what_has_run_at_once_is_not_kept(gator: Gator) -> None:
    class Mailer:
        def send(self, to: str) -> str:
            return f"sent to {to}"

    mailer = Mailer()
    with gator.options(is_async=False) as opts:
        assert opts.task(mailer.send, to="you").result == "sent to you"

    gone = weakref.ref(mailer)
    del mailer
    gc.collect()

    assert gone() is None


@pytest.mark.parametrize("way", ["task", "options", "push"])
def test_no_name_of_an_argument_is_taken(gator: Gator, way: str) -> None:
    names = {"task": "t", "func": "f", "self": "s"}
    if way == "task":
        gator.task(jobs.notify, **names)
    elif way == "options":
        with gator.options(retries=1) as opts:
            opts.task(jobs.notify, **names)
    else:
        gator.push(Task(), jobs.notify, **names)

    assert popped(gator).result == ["t", "f", "s"]


def test_options_and_a_functions_own_arguments_of_the_same_name_do_not_mix(gator: Gator) -> None:
    with gator.options(retries=2, task_id="outer") as opts:
        opts.task(jobs.with_retries, retries=7, task_id="inner", is_async=False)

    task = popped(gator)

    assert task.result == [7, "inner", False]
    assert (task.retries, task.task_id, task.is_async) == (2, "outer", True)


# What JSON carries

REFUSED: list[tuple[Any, str]] = [
    (math.nan, "is nan, which JSON has no number for"),
    (math.inf, "is inf, which JSON has no number for"),
    (-math.inf, "is -inf, which JSON has no number for"),
    (b"bytes", "of type bytes, which JSON cannot carry. Pass base64 text"),
    (bytearray(b"bytes"), "of type bytearray, which JSON cannot carry. Pass base64 text"),
    (datetime(2026, 1, 2, tzinfo=UTC), "of type datetime, which JSON cannot carry. Pass its iso"),
    (date(2026, 1, 2), "of type date, which JSON cannot carry. Pass its isoformat()"),
    ({1, 2}, "of type set, which JSON cannot carry. Pass a sorted list"),
    (frozenset({1, 2}), "of type frozenset, which JSON cannot carry. Pass a sorted list"),
    (Decimal("1.1"), "of type Decimal, which JSON cannot carry. Pass its str()"),
    (uuid.UUID(int=1), "of type UUID, which JSON cannot carry. Pass its str()"),
    (Path("a/b"), "of type PosixPath, which JSON cannot carry. Pass its str()"),
    (complex(1, 2), "of type complex, which JSON cannot carry"),
    (object(), "of type object, which JSON cannot carry. Pass an identifier"),
    (jobs.mailer, "of type Mailer, which JSON cannot carry. Pass an identifier"),
    (jobs.add, "of type function, which JSON cannot carry"),
    (range(3), "of type range, which JSON cannot carry"),
    ({1: "one"}, "has the key 1. JSON makes every key a string"),
    ({None: "none"}, "has the key None"),
    ({True: "yes"}, "has the key True"),
    ({("a", "b"): 1}, "has the key ('a', 'b')"),
    ("\ud800", "has a lone surrogate"),
    ({"\udfff": 1}, "has a lone surrogate"),
    (["fine", {"deep": ("\ud800",)}], "has a lone surrogate"),
    ([1, [math.nan]], "is nan"),
    ({"a": {"b": b""}}, "['a']['b'] is of type bytes"),
    (nested(MAX_DEPTH + 1), f"nests deeper than {MAX_DEPTH} levels"),
    (circular_list(), "or holds itself"),
    (circular_dict(), "or holds itself"),
    (10**5000, "an integer too large for text"),
    ([1, {"big": -(10**5000)}], "an integer too large for text"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda part: repr(type(part).__name__))
def test_what_json_cannot_carry_is_refused(gator: Gator, value: Any, reason: str) -> None:
    for args, kwargs, name in [((value,), {}, "Argument 1"), ((), {"value": value}, "'value'")]:
        with pytest.raises(InvalidArguments) as caught:
            gator.task(jobs.echo, *args, **kwargs)

        message = str(caught.value)
        assert name in message
        assert "tests.unit.jobs.echo" in message
        assert reason in message
    assert gator.len() == 0


def test_the_message_of_a_refusal_stays_short(gator: Gator) -> None:
    with pytest.raises(InvalidArguments) as caught:
        gator.task(jobs.echo, {"k" * 10_000: {("long",) * 10_000: 1}})

    assert len(str(caught.value)) < 500


def test_nothing_is_refused_where_nothing_is_carried(gator: Gator) -> None:
    with gator.options(is_async=False) as opts:
        assert opts.task(jobs.echo, {1, 2}).result == {1, 2}


ACCEPTED: list[Any] = [
    None,
    True,
    0,
    -1,
    2**64,
    10**4000,
    0.1,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    "",
    "\x00\n\u2028\U0001f40a",
    "é" * 1000,
    [],
    {},
    [[], {}, [None]],
    {"": 0, "a b": [1]},
    nested(MAX_DEPTH),
    Colour.RED,
    Size.SMALL,
    Text("text"),
    OrderedDict([("a", 1)]),
    Counter("aab"),
    {Size.SMALL: 1},
    base64.b64encode(b"bytes").decode(),
]


@pytest.mark.parametrize("value", ACCEPTED, ids=lambda value: repr(value)[:20])
def test_what_is_accepted_comes_back_equal(gator: Gator, value: Any) -> None:
    gator.task(jobs.echo, value)

    assert popped(gator).result == value


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((), []),
        ((1, (2, "x")), [1, [2, "x"]]),
        ({"a": (1,)}, {"a": [1]}),
        (Point(1, 2), [1, 2]),
    ],
)
def test_a_tuple_comes_back_as_a_list(gator: Gator, value: Any, back: Any) -> None:
    gator.task(jobs.echo, value)

    assert popped(gator).result == back


def test_the_same_value_twice_is_no_circle(gator: Gator) -> None:
    shared = ["shared"]
    gator.task(jobs.echo, [shared, shared, {"again": shared}])

    assert popped(gator).result == [["shared"], ["shared"], {"again": ["shared"]}]


characters = st.characters(exclude_categories=["Cs"])
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters)
)
carriable = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(characters), inner)
    ),
)
anything = st.recursive(
    plain
    | st.text(st.characters(categories=["Cs", "L", "Cc"]))
    | st.floats()
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.complex_numbers()
    | st.sets(st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
    ),
)


@given(args=st.lists(carriable), kwargs=st.dictionaries(st.text("abcdef", min_size=1), carriable))
def test_arguments_survive_the_queue(args: list[Any], kwargs: dict[str, Any]) -> None:
    task = Task()
    task.to_call(jobs.take, *args, **kwargs)

    back = Task.deserialize(task.serialize())

    assert list(back.func_args) == as_lists(args)
    assert back.func_kwargs == as_lists(kwargs)


@given(value=anything)
def test_an_argument_is_refused_or_comes_back_equal(value: Any) -> None:
    task = Task()
    task.to_call(jobs.echo, value)
    try:
        data = task.serialize()
    except InvalidArguments:
        return

    [back] = Task.deserialize(data).func_args

    assert back == as_lists(value)
    json.loads(data, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def test_options_hold_no_arguments(gator: Gator) -> None:
    # task() and options() are two calls so that these never mix; see Options.task.
    assert isinstance(gator.options(), Options)
    with pytest.raises(ValueError, match="The function's own arguments go to task"):
        gator.options(value=1)


def sign_in(name: str, password: str = "s3cr3t-pw") -> None:
    """Take a default that is nobody else's business."""


def test_an_error_tells_no_value_of_a_default() -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_arguments(sign_in, [], {})

    assert str(caught.value) == (
        "sign_in(name, password=...) cannot be called like this: missing a required argument: 'name'."
    )


@pytest.mark.parametrize("name", ["args", "kwargs"])
def test_an_error_tells_no_argument_of_what_cannot_be_read(name: str) -> None:
    payload = {"task_id": "t1", "retries": 0, "module": "m", "callable": "f", name: "s3cr3t-pw"}

    with pytest.raises(UnreadableTask) as caught:
        decode(json.dumps(payload))

    assert str(caught.value) == f"The payload's {name!r} is of type str."
