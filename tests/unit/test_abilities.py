"""What a store cannot honour it refuses before anything is queued, and ignores nothing. No server is asked."""

import inspect
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alligator import Concurrency, Gator, Task
from alligator.backends import abilities
from alligator.backends.abilities import LACKS, NEEDS, STORES, stores_with
from alligator.backends.base import Backend, Message
from alligator.exceptions import InvalidOption
from alligator.options import OPTIONS
from alligator.queueing import Options
from tests.unit import jobs
from tests.unit.five_methods import FiveMethods

ROOT = Path(__file__).parents[2]

NO_SERVER = "localhost:1"
DSNS = {
    "locmem": "locmem://",
    "sqlite": "sqlite:///no/such/folder/queue.db",
    "postgres": f"postgres://{NO_SERVER}/queue",
    "redis": f"redis://{NO_SERVER}/0",
    "beanstalk": f"beanstalk://{NO_SERVER}/",
    "sqs": f"sqs://us-west-2/?endpoint=http://{NO_SERVER}&access_key=a&secret_key=b",
    "five": "five://",
}

SINGLE = {"if_exists", "depends_on", "limit", "keep_result"}
REFUSED: dict[str, set[str]] = {
    "beanstalk": SINGLE,
    "sqs": {*SINGLE, "priority"},
    "five": {*SINGLE, "priority", "delay_by", "delay_until", "backoff"},
}
"""Options by store; others honour all."""

Check = Callable[[Message, dict[str, Any]], bool]


def carries(name: str) -> Check:
    """Return whether the options of a payload have one; what it says is for those above the store."""
    return lambda _, payload: name in payload["options"]


ASKED: dict[str, tuple[dict[str, Any], Check]] = {
    "delay_by": ({"delay_by": 60}, lambda message, _: message.delay == 60),
    "delay_until": ({"delay_until": 2e9}, lambda message, _: message.due_at == 2e9),
    "priority": ({"priority": 7}, lambda message, _: message.priority == 7),
    "if_exists": ({"if_exists": "replace"}, lambda message, _: message.replaces),
    "task_id": ({"task_id": "mine"}, lambda _, payload: payload["task_id"] == "mine"),
    "retries": ({"retries": 3}, lambda _, payload: payload["retries"] == 3),
    "is_async": ({"is_async": True}, lambda _, payload: payload["async"]),
    "backoff": ({"backoff": 2}, carries("backoff")),
    "max_backoff": ({"max_backoff": 600}, carries("max_backoff")),
    "retry_on": ({"retry_on": [OSError]}, carries("retry_on")),
    "give_up_on": ({"give_up_on": [OSError]}, carries("give_up_on")),
    "expires": ({"expires": 600}, carries("expires")),
    "timeout": ({"timeout": 30}, carries("timeout")),
    "keep_result": ({"keep_result": 60}, carries("keep_result")),
    "limit": ({"limit": Concurrency("key", 1)}, carries("limit")),
    "on_start": ({"on_start": jobs.add}, carries("on_start")),
    "on_success": ({"on_success": jobs.add}, carries("on_success")),
    "on_error": ({"on_error": jobs.add}, carries("on_error")),
}
"""By option: how a task is told, and whether that arrives at the store. ``depends_on`` asks the store first."""


def gator_at(store: str, results: str | None = None) -> Gator:
    own = FiveMethods if store == "five" else None
    return Gator(DSNS[store], backend_class=own, results=results)


def pushed(gator: Gator, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Return a list that what is pushed arrives in, and not at the store."""
    arrived: list[Message] = []

    def push(_: str, messages: Sequence[Message], **__: object) -> list[bool]:
        arrived.extend(messages)
        return [True] * len(messages)

    monkeypatch.setattr(
        gator.backend, "push_many" if gator.backend.keeps_ids else "push_named", push
    )
    monkeypatch.setattr(gator.backend, "now", lambda: 1e9)
    return arrived


@pytest.mark.parametrize("store", DSNS)
@pytest.mark.parametrize("option", ASKED)
def test_an_option_is_honoured_or_refused(
    store: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, arrives = ASKED[option]
    gator = gator_at(store)
    arrived = pushed(gator, monkeypatch)

    if option in REFUSED.get(store, ()):
        with pytest.raises(InvalidOption, match=f"what {option} needs: .*use a store that can"):
            gator.options(**asked).task(jobs.add, 1, 2)
        assert arrived == []
    else:
        gator.options(**asked).task(jobs.add, 1, 2)
        [message] = arrived
        assert arrives(message, json.loads(message.body))


@pytest.mark.parametrize("store", DSNS)
def test_dependencies_are_possible_or_refused(store: str) -> None:
    gator, task = gator_at(store), Task(depends_on=["t1"])

    if store in REFUSED:
        with pytest.raises(InvalidOption, match="what depends_on needs: leave it out, or use"):
            gator.prepare(task, jobs.add, 1, 2)
    else:
        assert gator.prepare(task, jobs.add, 1, 2) is task


def test_no_option_is_left_out_here() -> None:
    of_a_task = {*inspect.signature(Task).parameters} - {"legacy"}

    assert {*ASKED, "depends_on"} == of_a_task
    assert of_a_task >= {name for name, option in OPTIONS.items() if option.check is not None}


@pytest.mark.parametrize("store", REFUSED)
def test_another_store_for_results_lets_them_be_kept(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gator = gator_at(store, results="locmem://")
    arrived = pushed(gator, monkeypatch)

    gator.options(keep_result=60).task(jobs.add, 1, 2)

    [message] = arrived
    assert json.loads(message.body)["options"]["keep_result"] == 60


def using(gator: Gator) -> None:
    with gator.using(object()):
        pytest.fail("a connection that is none")


CALLS: dict[str, tuple[Callable[[Gator], object], set[str]]] = {
    "get()": (lambda gator: gator.get("t1"), {"sqs"}),
    "cancel()": (lambda gator: gator.cancel("t1"), {"sqs"}),
    "every() and cron()": (lambda gator: gator.every(60, jobs.add, 1, 2), {*REFUSED}),
    "every() and cron() ": (lambda gator: gator.cron("@daily", jobs.add, 1, 2), {*REFUSED}),
    "using()": (using, {"locmem"}),
}


@pytest.mark.parametrize(
    ("store", "call"),
    [(store, call) for call, (_, stores) in CALLS.items() for store in sorted(stores)],
)
def test_a_call_that_a_store_cannot_carry_out_is_refused(store: str, call: str) -> None:
    gator = gator_at(store)

    with pytest.raises(InvalidOption) as caught:
        CALLS[call][0](gator)

    what = call.strip()
    able = ", ".join(stores_with(*NEEDS[what]))
    assert str(caught.value) == (
        f"The store {gator.dsn} cannot do what {what} needs: use a store that can ({able})."
    )
    assert set(STORES) - CALLS[call][1] == set(stores_with(*NEEDS[what]))


@pytest.mark.parametrize("store", ["beanstalk", "sqs", "five"])
def test_a_store_ignores_no_replacement(store: str) -> None:
    with pytest.raises(InvalidOption, match="what replaces and follow needs"):
        gator_at(store).backend.push_many("all", [Message("t1", b"", replaces=True)])


# The flags, and what is made of them.


@pytest.mark.parametrize("store", STORES)
def test_what_is_told_of_a_store_is_what_its_class_says(store: str) -> None:
    backend = gator_at(store).backend
    needs = {need for needs in NEEDS.values() for need in needs}

    lacks = {need for need in needs if getattr(backend, need) in (None, False)}

    assert lacks == {need for need, stores in LACKS.items() if store in stores}
    assert LACKS.keys() <= needs


@pytest.mark.parametrize("store", DSNS)
def test_a_flag_is_as_a_full_store_has_it_unless_the_store_says_no(store: str) -> None:
    backend = gator_at(store).backend
    flags = {name for name, value in vars(Backend).items() if isinstance(value, bool)}

    assert {name for name in flags if not getattr(Backend, name)} == {"can_join"}
    for name, value in vars(type(backend)).items():
        if name.startswith("can_") or name in flags:
            assert name in flags, f"{name} is no flag"
            assert value != getattr(Backend, name), f"{name} need not be said"


def test_the_sentence_names_those_that_can() -> None:
    assert abilities.refusal("my://", "priority", way_out="leave it out") == (
        "The store my:// cannot do what priority needs: leave it out, or use a store that can "
        "(locmem, sqlite, postgres, redis, beanstalk)."
    )


def test_the_table_of_the_docs_is_made_of_the_flags() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "stores_table.py"))
    page = (ROOT / "docs" / "stores.md").read_text()

    assert made["table"]() in page
    assert made["with_table"](page) == page, "run scripts/stores_table.py"


def test_every_flag_is_in_the_table() -> None:
    source = (ROOT / "scripts" / "stores_table.py").read_text()
    flags = {name for name, value in vars(Backend).items() if isinstance(value, bool)}

    assert [name for name in sorted(flags) if f'"{name}"' not in source] == []


def test_options_of_a_block_are_refused_with_the_store_s_name() -> None:
    options = Options(gator_at("sqs"), priority=1)

    with pytest.raises(
        InvalidOption, match=r"The store sqs://us-west-2/\?endpoint=.*secret_key=\*"
    ):
        options.task(jobs.add, 1, 2)
