"""The tables and functions in PostgreSQL, in a schema of their own: all that ``alligator migrate`` makes.

A version stands in the schema. Whoever finds an older one, or none, brings it up to date, alone (an advisory
lock). Programs of the older version run on meanwhile: so a step adds (columns with a default, tables, indexes,
functions of other parameters), and replaces a function only by one that they can call just as well. A step that
cannot do so sets OLDEST to its version and drops the functions that older programs call: these are refused
then, with a sentence that says why. Whoever finds a newer schema that still serves its version goes on with it.
"""

import functools
import re

from alligator.backends.base import MAX_PRIORITY
from alligator.backends.postgres import functions
from alligator.exceptions import InvalidOption

DEFAULT_SCHEMA = "alligator"
MOVE_AT_ONCE = 1000
"""Delayed tasks that one reserve makes ready: it holds their rows meanwhile."""
FAR = 50
"""Pages of the index of what waits that are many to have been read for a few tasks."""

# Hot tables: rows come and go, each several times changed. Vacuumed often, so that the dead ones are few.
_HOT = """
WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)
"""

_TABLES = """
-- A task waits if it has neither a token nor a time, is delayed if it has a time, held if it has a token.
-- Names sort by their bytes: for every server in the same way, and fast.
CREATE SEQUENCE {s}.places;
CREATE TABLE {s}.tasks (
    queue text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL DEFAULT nextval('{s}.places'),  -- the order in its queue, among those of its priority
    priority smallint NOT NULL DEFAULT 0,
    lapses integer NOT NULL DEFAULT 0,
    keeps_place boolean NOT NULL DEFAULT false,  -- when it is due, seq stays as it is
    due_at float8,                               -- infinity: until someone says otherwise
    token text COLLATE "C",
    body bytea NOT NULL,
    -- The task to queue when it is over, if it has a follow.
    follow_id text COLLATE "C",
    on_success bytea,
    on_failure bytea,
    -- What it becomes when its hand-out ends, if a held one was replaced.
    new_body bytea,
    new_due_at float8,
    new_priority smallint,
    PRIMARY KEY (queue, task_id)
) {hot};
CREATE INDEX tasks_waiting ON {s}.tasks (queue, priority DESC, seq)
    WHERE token IS NULL AND due_at IS NULL;
CREATE INDEX tasks_delayed ON {s}.tasks (queue, due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_held ON {s}.tasks (token) WHERE token IS NOT NULL;
CREATE INDEX tasks_replaced ON {s}.tasks (queue) WHERE new_body IS NOT NULL;
-- One row a hand-out, not a task: to extend it is one update, however many tasks it holds.
CREATE TABLE {s}.leases (
    token text COLLATE "C" PRIMARY KEY,
    worker text COLLATE "C" NOT NULL,
    lapses_at float8 NOT NULL
) {hot};
CREATE INDEX leases_in_order ON {s}.leases (lapses_at);
CREATE INDEX leases_by_worker ON {s}.leases (worker);
CREATE TABLE {s}.dead (
    letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,
    body bytea NOT NULL,
    note bytea NOT NULL,  -- UTF-8; no text here, for that knows no NUL
    buried_at float8 NOT NULL
);
CREATE INDEX dead_in_order ON {s}.dead (queue, letter_id);
CREATE INDEX dead_by_id ON {s}.dead (queue, task_id, letter_id);
CREATE TABLE {s}.records (
    key text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    expires_at float8
) {hot};
-- Processes that wait to be told of something on a channel. Not logged: who is gone waits no more.
CREATE UNLOGGED TABLE {s}.waiters (
    who text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    until float8 NOT NULL,
    PRIMARY KEY (channel, who)
) {hot};
CREATE INDEX records_expiring ON {s}.records (expires_at) WHERE expires_at IS NOT NULL;
"""

# Others must not wait for long behind one who waits for a table; nor does anybody here.
_ALONE = """\
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(hashtext('alligator.migrate'));
"""

# Not IF NOT EXISTS: that asks for the right to create schemas even where there is nothing to create.
_BEGIN = """\
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{channel}') THEN
        CREATE SCHEMA {s};
    END IF;
END $$;
CREATE TABLE {s}.version (
    version integer NOT NULL,
    oldest integer NOT NULL  -- of the programs that can work with it
);
INSERT INTO {s}.version VALUES (0, 0);
"""

# For SQL that was printed and is run by hand, maybe later.
_STILL = """\
DO $$ BEGIN
    IF (SELECT version FROM {s}.version) <> {found} THEN
        RAISE EXCEPTION 'The schema {channel} is not of version {found} any more: nothing was done.';
    END IF;
END $$;
"""

_END = "UPDATE {s}.version SET version = {version}, oldest = {oldest};\n"

STEPS: tuple[str, ...] = (_TABLES,)
"""What brings the tables from each version to the next one. The functions come after them, each time."""
VERSION = len(STEPS)
"""Of what they make."""
OLDEST = 1
"""The oldest version whose programs can work with that."""


def check_schema(name: str) -> str:
    """Return the name of a schema, which is plain enough to stand in SQL and to name a channel.

    Raises:
        InvalidOption: It is not.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,49}", name) or name.startswith("pg_"):
        raise InvalidOption(
            f"schema={name!r}: write up to 50 lower-case letters, digits and underscores, no digit first."
        )
    return name


@functools.lru_cache(maxsize=100)  # a tenth of what a push costs here
def filled(sql: str, schema: str) -> str:
    """Return SQL with what depends on the schema filled in."""
    parts = {
        "{s}": f'"{schema}"',
        "{channel}": schema,
        "{hot}": _HOT.strip(),
        "{along_indexes}": functions.ALONG_INDEXES.strip(),
        "{soon}": functions.SOON,
        "{above_all}": f"{MAX_PRIORITY + 1}::smallint",
        "{at_once}": str(MOVE_AT_ONCE),
        "{far}": str(FAR),
    }
    return re.sub(r"\{\w+\}", lambda found: parts[found[0]], sql)


def alone(schema: str) -> str:
    """Return the SQL with which a transaction that migrates begins: one at a time."""
    return filled(_ALONE, schema)


def migration(schema: str, found: int | None) -> str:
    """Return the SQL that brings a schema to our version; it is to be run in one transaction.

    Args:
        schema: Its name.
        found: The version that it has; None: it is not there, or empty.
    """
    begin = _BEGIN if found is None else _STILL.replace("{found}", str(found))
    end = _END.replace("{version}", str(VERSION)).replace("{oldest}", str(OLDEST))
    return filled("".join([_ALONE, begin, *STEPS[found or 0 :], *functions.ALL, end]), schema)
