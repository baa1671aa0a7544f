"""Writes the table of what each store can do into docs/stores.md, from the flags of the stores' classes.

python scripts/stores_table.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alligator.backends import loading
from alligator.backends.base import Backend
from alligator.dsn import DSN

PAGE = Path(__file__).parents[1] / "docs" / "stores.md"
BEGIN = (
    "<!-- Made by scripts/stores_table.py: change the flags or the rows there, and run it. -->\n\n"
)
END = "\n<!-- end of what was made -->\n"

# No client connects before it is asked something.
STORES = {
    "memory": "locmem://",
    "SQLite": "sqlite:///tmp/queue.db",
    "PostgreSQL": "postgres://localhost/queue",
    "Redis, Valkey": "redis://localhost/0",
    "Beanstalk": "beanstalk://localhost/",
    "SQS": "sqs://us-west-2/",
    "five methods": "five://",
}


class FiveMethods:
    """A store of someone's own with the documented methods alone; nobody calls them here."""

    def __init__(self, conn_string: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Row:
    """What a user may ask of a store, and how it is answered."""

    what: str
    needs: tuple[str, ...] = ()
    """The attributes of ``Backend`` that it needs."""
    no: str = "no"
    partly: Mapping[str, str] = field(default_factory=dict[str, str])
    """What is said where it is possible, but one of these flags is False."""
    yes: str = "yes"
    but: Mapping[str, str] = field(default_factory=dict[str, str])
    """What no flag tells, by store."""

    def cell(self, store: str, backend: Backend) -> str:
        """Return what to say of a store."""
        if store in self.but:
            return self.but[store]
        if not all(_has(backend, need) for need in self.needs):
            return self.no
        return next(
            (text for flag, text in self.partly.items() if not _has(backend, flag)), self.yes
        )


_LEASE = ("can_lease",)
_SINGLE = ("can_find", "records")
_CLIENTS = "up to the client"

ROWS = [
    Row("`retries`, `retry_on`, `give_up_on`, `expires`, `timeout`, hooks, batches, coroutines"),
    Row(
        "`delay_by`, `delay_until`, `backoff`",
        ("can_delay",),
        "refused",
        {"knows_fractions": "in whole seconds"},
    ),
    Row("`priority`", ("can_prioritize",), "refused"),
    Row("`if_exists`", ("can_find",), "refused"),
    Row("`depends_on`, `limit`, schedules", _SINGLE, "refused"),
    Row("`keep_result`, `task.wait`, `gator.result`", ("records",), "with `results=`"),
    Row("a `task_id` of your own", ("keeps_ids",), "in the payload alone"),
    Row(
        "a push that is repeated",
        ("keeps_ids",),
        "queues another task",
        yes="queues nothing",
        but={"five methods": _CLIENTS},
    ),
    Row("`max_length`", (), partly={"limits_exactly": "about"}, yes="exactly"),
    Row("`gator.get`, `gator.cancel` of what is queued", ("can_pick",), "refused"),
    Row("`gator.status` of what is queued", ("can_find",), "refused"),
    Row(
        "`alligator list`, `alligator check`, `alligator stacks`",
        ("can_walk", "records"),
        "refused",
    ),
    Row("canceling what runs, progress, resuming", _SINGLE),
    Row(
        "`gator.using(connection)`: your own transaction",
        ("spans_processes",),
        "refused",
        {"can_join": "by an outbox"},
    ),
    Row("`gator.completing(connection)`", ("can_lease", "can_join"), "refused"),
    Row(
        "order, within a priority",
        ("keeps_order",),
        "about as pushed",
        {"orders_by_due": "as pushed; retries at the end"},
        "as pushed or due",
        {"five methods": _CLIENTS},
    ),
    Row(
        "what a worker held that died",
        _LEASE,
        "is lost",
        {"can_recover": "runs again, at the latest when its lease ends"},
        "runs again",
        {"memory": "goes with it, if it was the process"},
    ),
    Row(
        "who may extend a lease",
        _LEASE,
        "no leases",
        {"shares_leases": "the process that took it"},
        "its parent, too",
    ),
    Row("who lost a lease is told", _LEASE, "no leases", {"tells_late": "not always"}),
    Row("poison is counted", _LEASE),
    Row(
        "dead letters",
        _LEASE,
        "logged, with the payload",
        but={"SQS": "in a queue that you name"},
    ),
    Row(
        "dropping a queue",
        _LEASE,
        "drops what waits",
        {"drop_spares_held": "what runs is not run again if its worker dies"},
        "drops what waits",
    ),
    Row("queues are made by", ("makes_queues",), "you", yes="the first push"),
    Row(
        "names of queues",
        ("carries_any_name",),
        "some are refused",
        yes="any",
        but={"five methods": _CLIENTS},
    ),
    Row(
        "the biggest task",
        but={
            "memory": "as memory allows",
            **dict.fromkeys(("SQLite", "PostgreSQL", "Redis, Valkey"), "hundreds of megabytes"),
            "SQS": "1 MiB, less 512 bytes",
            "five methods": _CLIENTS,
        },
    ),
    Row(
        "workers",
        ("spans_processes",),
        "threads of this process",
        yes="on any machine",
        but={"SQLite": "on one machine", "five methods": _CLIENTS},
    ),
    Row(
        "survives a power cut",
        but={
            "memory": "no",
            "Redis, Valkey": "as it is set up",
            "Beanstalk": "as it is started",
            "five methods": _CLIENTS,
        },
    ),
    Row(
        "an idle worker asks",
        but={
            "memory": "nothing",
            "SQLite": "20 times a second, a glance at the file",
            **dict.fromkeys(("PostgreSQL", "Redis, Valkey", "Beanstalk"), "every 5 s"),
            "SQS": "every 2 s (`poll`)",
            "five methods": "every `--nap`",
        },
    ),
    Row(
        "to install",
        but={
            "memory": "nothing",
            "SQLite": "nothing",
            "PostgreSQL": "`alligator[postgres]`",
            "Redis, Valkey": "`alligator[redis]`",
            "Beanstalk": "`alligator[beanstalk]`",
            "SQS": "`alligator[sqs]`",
            "five methods": "your client",
        },
    ),
]


def table() -> str:
    """Return the table, in Markdown."""
    backends = {store: _built(dsn) for store, dsn in STORES.items()}
    rows = [["", *STORES], ["---"] * (1 + len(STORES))]
    for row in ROWS:
        rows.append([row.what, *(_cell(row, *item) for item in backends.items())])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows).replace("|  |", "| |")


def with_table(page: str) -> str:
    """Return a page with the table in its place."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table()}{END}{tail}"


def _cell(row: Row, store: str, backend: Backend) -> str:
    if row.what == "the biggest task" and backend.max_bytes is not None:
        return f"{backend.max_bytes:,} bytes"
    return row.cell(store, backend)


def _built(dsn: str) -> Backend:
    own = FiveMethods if dsn.startswith("five") else None
    return loading.build(DSN.parse(dsn), own)


def _has(backend: Backend, need: str) -> bool:
    return getattr(backend, need) not in (None, False)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
