"""What is done to tasks and records in PostgreSQL: functions in the schema, so that each takes one round trip.

``{s}`` stands for the schema. A function runs in the transaction of its call: nearly always one of its own.

Locks. Tasks of several rows are locked in the order of their ids where they are put in, and otherwise without
waiting (SKIP LOCKED), or one after the other. The row of a lease is never waited for by who has locked a task.
What may still meet head on is told apart by the server, and the client repeats it.

A transaction of an application's may lock a task for long, which it replaces. A worker must not wait for it
longer than its client for an answer: else it would be handed tasks of which nobody knows. So what workers call
says SOON.

Time is that of the server's clock, in seconds since 1970; ``infinity`` is for what waits until it is told.
"""

# PostgreSQL keeps the plans of a function's statements. It may have made them while a table was empty, and
# would then read a million rows from end to end: so only plans that go along an index. And what has no such
# plan looks so costly to it then that it would compile it. This is set for what clients call, and holds for
# what that calls in turn.
#
# Of two indexes it may still take the wrong one. So a task is found by its queue and id, both by "=", and what
# else must be true of it is written so that no index knows it: IS NOT DISTINCT FROM for a token, (queue || '').
ALONG_INDEXES = """
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off
"""

SOON = "SET lock_timeout = '5s'"

_CLOCK = """
CREATE OR REPLACE FUNCTION {s}.seconds() RETURNS float8 LANGUAGE sql VOLATILE AS $$
    SELECT extract(epoch FROM clock_timestamp())::float8
$$;
"""

# Putting in.

_HAS_ROOM = """
-- Whether there is room for those tasks of some ids that are not here already. No more are counted than it
-- takes to know. Who asks is alone with it until the end of its transaction.
CREATE OR REPLACE FUNCTION {s}.has_room(_queue text, _most integer, _ids text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    coming bigint;
    room bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{channel}'), hashtext(_queue));
    coming := (
        SELECT count(*) FROM unnest(_ids) AS given (id)
        WHERE (SELECT count(*) FROM {s}.tasks WHERE queue = _queue AND task_id = id) = 0
    );
    room := greatest(0, _most - coming + 1);
    RETURN coming = 0 OR _most >= coming + (
        SELECT count(*) FROM (SELECT 1 FROM {s}.tasks
            WHERE queue = _queue AND token IS NULL AND due_at IS NULL LIMIT room) AS waiting
    ) + (
        SELECT count(*) FROM (SELECT 1 FROM {s}.tasks
            WHERE queue = _queue AND due_at IS NOT NULL LIMIT room) AS delayed
    );
END $$;
"""

_PUSH = """
-- Queues tasks that replace none. Returns the ids of those queued; NULL: there is no room.
CREATE OR REPLACE FUNCTION {s}.push(
    _queue text, _most integer, _ids text[], _bodies bytea[], _delays float8[], _due_ats float8[],
    _priorities smallint[], _follow_ids text[], _on_success bytea[], _on_failure bytea[]
) RETURNS text[] {along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
    queued text[];
BEGIN
    IF _most IS NOT NULL AND NOT {s}.has_room(_queue, _most, _ids) THEN
        RETURN NULL;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT id, body, greatest(at + coalesce(delay, 0), coalesce(due, 0)) AS due,
            coalesce(prio, 0) AS prio, follow, success, failure, nextval('{s}.places') AS place
        FROM unnest(_ids, _bodies, _delays, _due_ats, _priorities, _follow_ids, _on_success, _on_failure)
            AS given (id, body, delay, due, prio, follow, success, failure)
    ), put AS (
        INSERT INTO {s}.tasks
            (queue, task_id, seq, priority, due_at, body, follow_id, on_success, on_failure)
        SELECT _queue, id, place, prio, CASE WHEN due > at THEN due END, body, follow, success, failure
        FROM given ORDER BY id COLLATE "C", place
        ON CONFLICT DO NOTHING RETURNING task_id
    ) SELECT coalesce(array_agg(task_id), ARRAY[]::text[]) INTO queued FROM put;
    IF queued <> ARRAY[]::text[] THEN
        PERFORM {s}.tell(_queue);
    END IF;
    RETURN queued;
END $$;
"""

_PUSH_ONE = """
-- Queues a task of which nothing else is told, as most are pushed: in half the time. Returns whether it was.
CREATE OR REPLACE FUNCTION {s}.push_one(_queue text, _id text, _body bytea) RETURNS boolean
{along_indexes} AS $$
BEGIN
    INSERT INTO {s}.tasks (queue, task_id, body) VALUES (_queue, _id, _body) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM {s}.tell(_queue);
    RETURN true;
END $$;
"""

_PUSH_EACH = """
-- Queues tasks of which some replace others. Returns for each whether it was queued; NULL: there is no room.
CREATE OR REPLACE FUNCTION {s}.push_each(
    _queue text, _most integer, _ids text[], _bodies bytea[], _delays float8[], _due_ats float8[],
    _priorities smallint[], _follow_ids text[], _on_success bytea[], _on_failure bytea[],
    _replace boolean[]
) RETURNS boolean[] {along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
    one record;
    done boolean;
    queued boolean[] := ARRAY[]::boolean[];
BEGIN
    IF _most IS NOT NULL AND NOT {s}.has_room(_queue, _most, _ids) THEN
        RETURN NULL;
    END IF;
    PERFORM {s}.lock_tasks(_queue, _ids);
    FOR one IN
        SELECT id, body, CASE WHEN due > at THEN due END AS due, prio, follow, success, failure, again
        FROM (
            SELECT *, greatest(at + coalesce(delay, 0), coalesce(due_then, 0)) AS due FROM unnest(
                _ids, _bodies, _delays, _due_ats, _priorities, _follow_ids, _on_success, _on_failure,
                _replace
            ) AS given (id, body, delay, due_then, prio, follow, success, failure, again)
        ) AS given
    LOOP
        LOOP
            done := one.again AND {s}.replace(_queue, one.id, one.body, one.due, one.prio);
            EXIT WHEN done;
            INSERT INTO {s}.tasks (queue, task_id, priority, due_at, body)
            VALUES (_queue, one.id, coalesce(one.prio, 0), one.due, one.body)
            ON CONFLICT DO NOTHING;
            done := FOUND;
            EXIT WHEN done OR NOT one.again;  -- else it has come in between
        END LOOP;
        IF done AND one.follow IS NOT NULL THEN
            PERFORM {s}.watch(_queue, one.id, one.follow, one.success, one.failure);
        END IF;
        queued := queued || done;
    END LOOP;
    PERFORM {s}.tell(_queue);
    RETURN queued;
END $$;

CREATE OR REPLACE FUNCTION {s}.lock_tasks(_queue text, _ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    given text;
BEGIN
    FOR given IN SELECT id FROM unnest(_ids) AS all_given (id) ORDER BY id COLLATE "C" LOOP
        PERFORM 1 FROM {s}.tasks WHERE queue = _queue AND task_id = given FOR UPDATE;
    END LOOP;
END $$;

-- Lets a task be another one, now or when its hand-out ends. Returns false: there is none.
CREATE OR REPLACE FUNCTION {s}.replace(
    _queue text, _id text, _body bytea, _due float8, _priority smallint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {s}.tasks SET body = _body, due_at = _due, priority = coalesce(_priority, 0), lapses = 0,
        seq = nextval('{s}.places'), keeps_place = false
    WHERE queue = _queue AND task_id = _id AND token IS NULL;
    IF FOUND THEN
        RETURN true;
    END IF;
    UPDATE {s}.tasks
    SET new_body = _body, new_due_at = _due, new_priority = coalesce(_priority, 0)
    WHERE queue = _queue AND task_id = _id AND token IS NOT NULL;
    RETURN FOUND;
END $$;

-- Lets what was kept aside be the task, now that its hand-out is over.
CREATE OR REPLACE FUNCTION {s}.put_replacement(_queue text, _id text, _at float8) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {s}.tasks SET token = NULL, body = new_body, priority = new_priority, lapses = 0,
        due_at = CASE WHEN new_due_at > _at THEN new_due_at END,
        seq = nextval('{s}.places'), keeps_place = false,
        new_body = NULL, new_due_at = NULL, new_priority = NULL
    WHERE queue = _queue AND task_id = _id;
    PERFORM {s}.tell(_queue);
END $$;
"""

_PUSH_IF = """
-- Queues a task and swaps a record, or does neither.
CREATE OR REPLACE FUNCTION {s}.push_if(
    _key text, _old bytea, _new bytea,
    _queue text, _most integer, _ids text[], _bodies bytea[], _delays float8[], _due_ats float8[],
    _priorities smallint[], _follow_ids text[], _on_success bytea[], _on_failure bytea[],
    _replace boolean[]
) RETURNS boolean {along_indexes} AS $$
BEGIN
    IF NOT {s}.swap(_key, _old, _new, NULL) THEN
        RETURN false;
    END IF;
    PERFORM {s}.push_each(_queue, _most, _ids, _bodies, _delays, _due_ats, _priorities,
        _follow_ids, _on_success, _on_failure, _replace);
    RETURN true;
END $$;
"""

_WATCH = """
-- Lets a task be followed by another, unless it has a follow. Returns whether there is such a task.
CREATE OR REPLACE FUNCTION {s}.watch(
    _queue text, _id text, _follow_id text, _success bytea, _failure bytea
) RETURNS boolean {along_indexes} AS $$
BEGIN
    UPDATE {s}.tasks SET follow_id = _follow_id, on_success = _success, on_failure = _failure
    WHERE queue = _queue AND task_id = _id AND follow_id IS NULL;
    RETURN FOUND OR EXISTS (SELECT 1 FROM {s}.tasks WHERE queue = _queue AND task_id = _id);
END $$;

CREATE OR REPLACE FUNCTION {s}.queue_follow(_queue text, _id text, _body bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF _id IS NOT NULL THEN
        INSERT INTO {s}.tasks (queue, task_id, priority, body)
        VALUES (_queue, _id, {above_all}, _body) ON CONFLICT DO NOTHING;
        PERFORM {s}.tell(_queue);
    END IF;
END $$;
"""

_RESCHEDULE = """
-- Lets delayed tasks be due at another moment. Returns for each whether it was delayed.
CREATE OR REPLACE FUNCTION {s}.reschedule(_queue text, _ids text[], _due float8) RETURNS boolean[]
{along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
    given text;
    moved boolean[] := ARRAY[]::boolean[];
BEGIN
    PERFORM {s}.lock_tasks(_queue, _ids);
    FOREACH given IN ARRAY _ids LOOP
        UPDATE {s}.tasks SET
            due_at = CASE WHEN _due > at THEN _due END,
            seq = CASE WHEN _due > at OR keeps_place THEN seq ELSE nextval('{s}.places') END
        WHERE queue = _queue AND task_id = given AND due_at IS NOT NULL;
        moved := moved || FOUND;
    END LOOP;
    PERFORM {s}.tell(_queue);
    RETURN moved;
END $$;
"""

_RETRY_DEAD = """
-- Moves dead letters to the end of their queue. Returns those moved.
CREATE OR REPLACE FUNCTION {s}.retry_dead(_queue text, _letters bigint[], _due float8)
RETURNS bigint[] {along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
    given bigint;
    moved bigint[] := ARRAY[]::bigint[];
BEGIN
    FOREACH given IN ARRAY _letters LOOP
        PERFORM 1 FROM {s}.dead WHERE queue = _queue AND letter_id = given FOR UPDATE;
        CONTINUE WHEN NOT FOUND;  -- somebody else is faster
        INSERT INTO {s}.tasks (queue, task_id, priority, body, due_at)
        SELECT queue, task_id, priority, body, CASE WHEN _due > at THEN _due END
        FROM {s}.dead WHERE queue = _queue AND letter_id = given
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            DELETE FROM {s}.dead WHERE queue = _queue AND letter_id = given;
            moved := moved || given;
        END IF;
    END LOOP;
    PERFORM {s}.tell(_queue);
    RETURN moved;
END $$;
"""

# Handing out, and taking back.

_RESERVE = """
-- Settles; then makes ready what is due, takes back what lapsed, and hands out the first tasks of these queues,
-- in order. The last row tells no task, but by what token the others are held, which settlements (counted from
-- 0) came too late, and in how many seconds there may be something to hand out, if there is nothing now.
--
-- A transaction that is open for long, of whomever, keeps in the index what has been handed out since, and to
-- look from its beginning is to step over all that. Where that is much, the last row tells for each queue how
-- far it has come, for the caller to begin there the next time: a place (NULL: at the beginning), and the
-- priority that it is in (NULL: there was nothing in any). So what comes to a place before is seen only when
-- there is nothing behind; where there was nothing at all, only if it is to look everywhere.
CREATE OR REPLACE FUNCTION {s}.reserve(
    _queues text[], _whose text, _worker text, _lease float8, _limit integer,
    _kinds text[], _from text[], _ids text[], _tokens text[], _delays float8[], _lapsed boolean[],
    _contents bytea[], _priorities smallint[], _places bigint[], _everywhere boolean
) RETURNS TABLE (
    its_queue text, its_id text, its_body bytea, its_lapses integer,
    hand_out text, late integer[], ready_in float8, priorities smallint[], places bigint[]
) {along_indexes} {soon} AS $$
DECLARE
    at float8;
    room integer := _limit;
    taken integer;
    first tid[];
    last record;
    last_place bigint;
    pages bigint;
BEGIN
    IF _kinds IS NOT NULL THEN
        late := {s}.settle(_kinds, _from, _ids, _tokens, _delays, _lapsed, _contents);
    END IF;
    at := {s}.seconds();
    hand_out := _whose || '.' || round(at * 1000)::bigint;
    PERFORM {s}.take_back(at);
    priorities := array_fill(NULL::smallint, ARRAY[cardinality(_queues)]);
    places := array_fill(NULL::bigint, ARRAY[cardinality(_queues)]);
    FOR n IN 1 .. cardinality(_queues) LOOP
        its_queue := _queues[n];
        PERFORM {s}.fall_due(its_queue, at);
        -- By their addresses, which nobody changes while they are locked: by any other way to find them again,
        -- PostgreSQL may think that it had best read the whole queue.
        first := ARRAY[]::tid[];
        IF _places[n] IS NOT NULL THEN
            priorities[n] := _priorities[n];
            places[n] := _places[n];
            first := {s}.first_waiting(its_queue, _priorities[n], _places[n], room);
            IF first <> ARRAY[]::tid[] THEN
                SELECT priority, seq INTO last FROM {s}.tasks WHERE ctid = first[cardinality(first)];
                IF last.priority < _priorities[n] THEN
                    priorities[n] := last.priority;
                    places[n] := last.seq;
                ELSIF last.priority = coalesce(_priorities[n], 0) THEN
                    places[n] := last.seq;
                END IF;
            END IF;
        END IF;
        IF first = ARRAY[]::tid[]
            AND (_everywhere OR _places[n] IS NULL OR _priorities[n] IS NOT NULL)
        THEN
            pages := {s}.pages_read();
            last_place := coalesce(pg_sequence_last_value('{s}.places'::regclass), 0);
            first := ARRAY(
                SELECT ctid FROM {s}.tasks
                WHERE queue = its_queue AND token IS NULL AND due_at IS NULL
                ORDER BY priority DESC, seq LIMIT room FOR UPDATE SKIP LOCKED
            );
            priorities[n] := NULL;
            places[n] := NULL;
            IF {s}.pages_read() - pages > {far} + room / 16 THEN
                places[n] := last_place;
                IF first <> ARRAY[]::tid[] THEN
                    SELECT priority, seq INTO last FROM {s}.tasks
                    WHERE ctid = first[cardinality(first)];
                    priorities[n] := last.priority;
                    places[n] := last.seq;
                END IF;
            END IF;
        END IF;
        CONTINUE WHEN first = ARRAY[]::tid[];
        RETURN QUERY
            WITH held AS (
                UPDATE {s}.tasks SET token = hand_out
                WHERE ctid = ANY (first)
                RETURNING task_id, body, lapses, priority, seq
            )
            SELECT its_queue, task_id, body, lapses, NULL::text, NULL::integer[], NULL::float8,
                NULL::smallint[], NULL::bigint[]
            FROM held ORDER BY priority DESC, seq;
        GET DIAGNOSTICS taken = ROW_COUNT;
        room := room - taken;
        EXIT WHEN room <= 0;
    END LOOP;
    IF room < _limit THEN
        INSERT INTO {s}.leases VALUES (hand_out, _worker, at + _lease);
    ELSE
        IF _everywhere THEN
            PERFORM {s}.take_back_strays();
        END IF;
        ready_in := least(
            (SELECT lapses_at FROM {s}.leases ORDER BY lapses_at LIMIT 1),
            (SELECT min((
                SELECT due_at FROM {s}.tasks WHERE queue = given AND due_at IS NOT NULL
                ORDER BY due_at LIMIT 1
            )) FROM unnest(_queues) AS looked_at (given))
        ) - at;
    END IF;
    its_queue := NULL;
    RETURN NEXT;
END $$;

-- Those of a higher priority, which are few as a rule; then those behind a place; then, if that is in a
-- priority, those of a lower one: as many as there is room for, before another queue has its turn.
CREATE OR REPLACE FUNCTION {s}.first_waiting(
    _queue text, _priority smallint, _place bigint, _most integer
) RETURNS tid[] LANGUAGE plpgsql AS $$
DECLARE
    here smallint := coalesce(_priority, 0);
    first tid[];
    room integer;
BEGIN
    first := ARRAY(
        SELECT ctid FROM {s}.tasks
        WHERE queue = _queue AND token IS NULL AND due_at IS NULL AND priority > here
        ORDER BY priority DESC, seq LIMIT _most FOR UPDATE SKIP LOCKED
    );
    room := _most - cardinality(first);
    IF room > 0 THEN
        first := first || ARRAY(
            SELECT ctid FROM {s}.tasks
            WHERE queue = _queue AND token IS NULL AND due_at IS NULL
                AND priority = here AND seq > _place
            ORDER BY seq LIMIT room FOR UPDATE SKIP LOCKED
        );
        room := _most - cardinality(first);
    END IF;
    -- Where there is nothing yet, the caller looks everywhere.
    IF room > 0 AND _priority IS NOT NULL AND first <> ARRAY[]::tid[] THEN
        first := first || ARRAY(
            SELECT ctid FROM {s}.tasks
            WHERE queue = _queue AND token IS NULL AND due_at IS NULL AND priority < here
            ORDER BY priority DESC, seq LIMIT room FOR UPDATE SKIP LOCKED
        );
    END IF;
    RETURN first;
END $$;

-- How many pages of the index of what waits were looked at in this transaction, to begin with somewhere.
CREATE OR REPLACE FUNCTION {s}.pages_read() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN pg_stat_get_xact_blocks_fetched('{s}.tasks_waiting'::regclass);
END $$;

CREATE OR REPLACE FUNCTION {s}.fall_due(_queue text, _at float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due text;
BEGIN
    -- One by one, for each that joins the end is to do so after the one before it.
    FOR due IN
        SELECT task_id FROM {s}.tasks WHERE queue = _queue AND due_at <= _at
        ORDER BY due_at, seq LIMIT {at_once} FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE {s}.tasks SET due_at = NULL,
            seq = CASE WHEN keeps_place THEN seq ELSE nextval('{s}.places') END
        WHERE queue = _queue AND task_id = due;
    END LOOP;
END $$;

-- Takes back what lapsed. What somebody is about to settle is left to them: they are not late yet.
CREATE OR REPLACE FUNCTION {s}.take_back(_at float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lapsed text;
    one record;
BEGIN
    FOR lapsed IN
        SELECT token FROM {s}.leases WHERE lapses_at <= _at ORDER BY lapses_at FOR UPDATE SKIP LOCKED
    LOOP
        FOR one IN
            SELECT queue, task_id, new_body IS NOT NULL AS is_replaced FROM {s}.tasks
            WHERE token = lapsed ORDER BY seq FOR UPDATE SKIP LOCKED
        LOOP
            IF one.is_replaced THEN
                PERFORM {s}.put_replacement(one.queue, one.task_id, _at);
            ELSE
                UPDATE {s}.tasks SET token = NULL, lapses = lapses + 1
                WHERE queue = one.queue AND task_id = one.task_id;
                PERFORM {s}.tell(one.queue);
            END IF;
        END LOOP;
        PERFORM {s}.end_empty_leases(ARRAY[lapsed]);
    END LOOP;
END $$;

-- Gives a lease that has lapsed to what is held without one, should somebody have deleted that.
CREATE OR REPLACE FUNCTION {s}.take_back_strays() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known text := '';
BEGIN
    LOOP  -- from token to token along the index
        SELECT token INTO known FROM {s}.tasks WHERE token > known ORDER BY token LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF NOT EXISTS (SELECT 1 FROM {s}.leases WHERE token = known) THEN
            INSERT INTO {s}.leases VALUES (known, {s}.worker_of(known), 0) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END $$;

-- Forgets hand-outs of which nothing is left. Where two end the last tasks of one at once, neither can know:
-- then it is forgotten when it lapses.
CREATE OR REPLACE FUNCTION {s}.end_empty_leases(_tokens text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {s}.leases WHERE token = ANY (ARRAY(
        SELECT token FROM {s}.leases
        WHERE token = ANY (ARRAY(SELECT DISTINCT given FROM unnest(_tokens) AS all_given (given)))
            AND NOT EXISTS (SELECT 1 FROM {s}.tasks WHERE tasks.token = leases.token)
        FOR UPDATE SKIP LOCKED
    ));
END $$;

-- Hands out one task by its id.
CREATE OR REPLACE FUNCTION {s}.reserve_task(
    _queue text, _id text, _whose text, _worker text, _lease float8
) RETURNS TABLE (its_body bytea, its_lapses integer, hand_out text) {along_indexes} {soon} AS $$
DECLARE
    at float8 := {s}.seconds();
BEGIN
    hand_out := _whose || '.' || round(at * 1000)::bigint;
    UPDATE {s}.tasks SET token = hand_out, due_at = NULL
    WHERE queue = _queue AND task_id = _id AND token IS NULL
    RETURNING body, lapses INTO its_body, its_lapses;
    IF FOUND THEN
        INSERT INTO {s}.leases VALUES (hand_out, _worker, at + _lease);
        RETURN NEXT;
    END IF;
END $$;
"""

_EXTEND = """
-- Lets leases end later. Returns what is held no more, counted from 0.
CREATE OR REPLACE FUNCTION {s}.extend(_queues text[], _ids text[], _tokens text[], _lease float8)
RETURNS integer[] {along_indexes} {soon} AS $$
DECLARE
    lost integer[];
    held text[];
BEGIN
    -- First, so that nobody takes back meanwhile what is found to be held.
    PERFORM 1 FROM {s}.leases WHERE token = ANY (_tokens) ORDER BY token FOR UPDATE;
    SELECT coalesce(array_agg(n - 1 ORDER BY n) FILTER (WHERE task_id IS NULL), ARRAY[]::bigint[]),
        array_agg(DISTINCT token) FILTER (WHERE task_id IS NOT NULL)
    INTO lost, held
    FROM unnest(_queues, _ids, _tokens) WITH ORDINALITY AS given (its_queue, its_id, its_token, n)
    LEFT JOIN {s}.tasks ON queue = its_queue AND task_id = its_id
        AND token IS NOT DISTINCT FROM its_token;
    INSERT INTO {s}.leases
    SELECT given, {s}.worker_of(given), {s}.seconds() + _lease FROM unnest(held) AS all_held (given)
    ORDER BY given
    ON CONFLICT (token) DO UPDATE SET lapses_at = excluded.lapses_at;
    RETURN lost;
END $$;

CREATE OR REPLACE FUNCTION {s}.worker_of(_token text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(_token, '\\.[^.]*\\.[^.]*$', '')
$$;
"""

_RECOVER = """
-- Gives back what a worker holds. Returns how many tasks that was.
CREATE OR REPLACE FUNCTION {s}.recover(_queues text[], _worker text, _started text[]) RETURNS bigint
{along_indexes} {soon} AS $$
DECLARE
    at float8 := {s}.seconds();
    its_tokens text[] := ARRAY(SELECT token FROM {s}.leases WHERE worker = _worker);
    one record;
    given_back bigint := 0;
BEGIN
    FOR one IN
        SELECT queue, task_id, new_body IS NOT NULL AS is_replaced FROM {s}.tasks
        WHERE token = ANY (its_tokens) AND (queue || '') = ANY (_queues) ORDER BY seq FOR UPDATE
    LOOP
        IF one.is_replaced THEN
            PERFORM {s}.put_replacement(one.queue, one.task_id, at);
        ELSE
            UPDATE {s}.tasks
            SET token = NULL, lapses = lapses + (one.task_id = ANY (_started))::integer
            WHERE queue = one.queue AND task_id = one.task_id;
        END IF;
        given_back := given_back + 1;
        PERFORM {s}.tell(one.queue);
    END LOOP;
    PERFORM {s}.end_empty_leases(its_tokens);
    RETURN given_back;
END $$;
"""

# Ending.

_SETTLE = """
-- Settles in this order, and returns what came too late, counted from 0. The kinds are ack, fail (an ack of
-- what did not succeed), release and bury; a content is a new body or a note.
CREATE OR REPLACE FUNCTION {s}.settle(
    _kinds text[], _queues text[], _ids text[], _tokens text[], _delays float8[], _lapsed boolean[],
    _contents bytea[]
) RETURNS integer[] {along_indexes} {soon} AS $$
DECLARE
    at float8 := {s}.seconds();
    one record;
    late integer[] := ARRAY[]::integer[];
BEGIN
    FOR one IN
        SELECT * FROM unnest(_kinds, _queues, _ids, _tokens, _delays, _lapsed, _contents) WITH ORDINALITY
            AS given (kind, its_queue, id, its_token, delay, has_lapsed, content, n)
    LOOP
        IF one.kind = 'ack' THEN
            -- Nearly all are this, of a task that has no replacement and no follow.
            DELETE FROM {s}.tasks WHERE queue = one.its_queue AND task_id = one.id
                AND token IS NOT DISTINCT FROM one.its_token
                AND follow_id IS NULL AND new_body IS NULL;
            CONTINUE WHEN FOUND;
        END IF;
        IF NOT {s}.settle_one(one.kind, one.its_queue, one.id, one.its_token,
            coalesce(one.delay, 0), coalesce(one.has_lapsed, false), one.content, at)
        THEN
            late := late || (one.n - 1)::integer;
        END IF;
    END LOOP;
    PERFORM {s}.end_empty_leases(_tokens);
    RETURN late;
END $$;

CREATE OR REPLACE FUNCTION {s}.settle_one(
    _kind text, _queue text, _id text, _token text, _delay float8, _lapsed boolean, _content bytea,
    _at float8
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    task {s}.tasks;
BEGIN
    SELECT * INTO task FROM {s}.tasks
    WHERE queue = _queue AND task_id = _id AND token IS NOT DISTINCT FROM _token FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF _kind = 'bury' THEN
        INSERT INTO {s}.dead (queue, task_id, priority, body, note, buried_at)
        VALUES (_queue, _id, task.priority, task.body, _content, _at);
    END IF;
    IF task.new_body IS NOT NULL THEN
        PERFORM {s}.put_replacement(_queue, _id, _at);
    ELSIF _kind = 'release' THEN
        UPDATE {s}.tasks SET token = NULL,
            due_at = CASE WHEN _delay > 0 THEN _at + _delay END,
            body = coalesce(_content, body),
            lapses = _lapsed::integer + CASE WHEN _content IS NULL THEN lapses ELSE 0 END,
            seq = CASE WHEN _content IS NULL THEN seq ELSE nextval('{s}.places') END,
            keeps_place = _content IS NULL
        WHERE queue = _queue AND task_id = _id;
        PERFORM {s}.tell(_queue);
    ELSE
        DELETE FROM {s}.tasks WHERE queue = _queue AND task_id = _id;
        PERFORM {s}.queue_follow(_queue, task.follow_id,
            CASE _kind WHEN 'ack' THEN task.on_success ELSE task.on_failure END);
    END IF;
    RETURN true;
END $$;
"""

_COMPLETE = """
-- Acknowledges a task in a transaction of the caller's, or makes that fail. The lease stays until the worker
-- has settled: who extends it must not have to wait for that transaction.
CREATE OR REPLACE FUNCTION {s}.complete(_queue text, _id text, _token text) RETURNS void
{along_indexes} AS $$
BEGIN
    IF NOT {s}.settle_one('ack', _queue, _id, _token, 0, false, NULL, {s}.seconds()) THEN
        RAISE EXCEPTION 'Task % went to another worker: what it has written here is void.', quote_literal(_id)
            USING ERRCODE = 'AL001';
    END IF;
END $$;
"""

_CANCEL = """
-- Takes out a task that nobody holds, and returns its body. A held one loses its replacement.
CREATE OR REPLACE FUNCTION {s}.cancel(_queue text, _id text) RETURNS bytea {along_indexes} AS $$
DECLARE
    task {s}.tasks;
BEGIN
    DELETE FROM {s}.tasks WHERE queue = _queue AND task_id = _id AND token IS NULL
    RETURNING * INTO task;
    IF FOUND THEN
        PERFORM {s}.queue_follow(_queue, task.follow_id, task.on_failure);
    ELSE
        UPDATE {s}.tasks SET new_body = NULL, new_due_at = NULL, new_priority = NULL
        WHERE queue = _queue AND task_id = _id AND new_body IS NOT NULL;
    END IF;
    RETURN task.body;
END $$;
"""

_DROP_ALL = """
-- Takes out all that nobody holds.
CREATE OR REPLACE FUNCTION {s}.drop_all(_queue text) RETURNS void {along_indexes} AS $$
DECLARE
    ids text[];
    bodies bytea[];
BEGIN
    WITH gone AS (
        DELETE FROM {s}.tasks WHERE queue = _queue AND token IS NULL
        RETURNING seq, follow_id, on_failure
    )
    SELECT array_agg(follow_id ORDER BY seq), array_agg(on_failure ORDER BY seq) INTO ids, bodies
    FROM gone WHERE follow_id IS NOT NULL;
    UPDATE {s}.tasks SET new_body = NULL, new_due_at = NULL, new_priority = NULL
    WHERE queue = _queue AND new_body IS NOT NULL;
    -- After the others: these are not dropped.
    PERFORM {s}.queue_follow(_queue, id, body) FROM unnest(ids, bodies) AS follows (id, body);
END $$;
"""

_MOVING = """
-- Takes out tasks that nobody holds, if they are as listed and the record is as told, and notes each. Returns
-- which. The record stays as it is until this is committed: who changes it then stops all that comes later.
CREATE OR REPLACE FUNCTION {s}.take_out(
    _queue text, _key text, _value bytea, _ids text[], _bodies bytea[], _dues float8[],
    _priorities smallint[], _follow_ids text[], _notes text[]
) RETURNS boolean[] {along_indexes} AS $$
DECLARE
    one record;
    may boolean;
    taken boolean[] := ARRAY[]::boolean[];
BEGIN
    PERFORM 1 FROM {s}.records WHERE key = _key AND value = _value FOR SHARE;
    may := FOUND;
    FOR one IN
        SELECT * FROM unnest(_ids, _bodies, _dues, _priorities, _follow_ids, _notes)
            AS given (id, its_body, due, prio, follow, note)
    LOOP
        DELETE FROM {s}.tasks WHERE may AND queue = _queue AND task_id = one.id
            AND token IS NOT DISTINCT FROM NULL AND body = one.its_body
            AND coalesce(due_at, 0) = one.due AND priority = one.prio
            AND coalesce(follow_id, '') = one.follow;
        taken := taken || FOUND;
        IF taken[cardinality(taken)] THEN
            INSERT INTO {s}.records VALUES (one.note, _value, NULL)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = NULL;
        END IF;
    END LOOP;
    RETURN taken;
END $$;

-- Puts dead letters, unless they are there. Returns which.
CREATE OR REPLACE FUNCTION {s}.put_dead(
    _queue text, _ids text[], _bodies bytea[], _notes bytea[], _moments float8[], _priorities smallint[]
) RETURNS boolean[] {along_indexes} AS $$
DECLARE
    one record;
    put boolean[] := ARRAY[]::boolean[];
BEGIN
    FOR one IN
        SELECT * FROM unnest(_ids, _bodies, _notes, _moments, _priorities)
            AS given (id, its_body, its_note, moment, prio)
    LOOP
        INSERT INTO {s}.dead (queue, task_id, priority, body, note, buried_at)
        SELECT _queue, one.id, one.prio, one.its_body, one.its_note, one.moment WHERE NOT EXISTS (
            SELECT 1 FROM {s}.dead WHERE queue = _queue AND task_id = one.id
            AND body = one.its_body AND note = one.its_note AND buried_at = one.moment
        );
        put := put || FOUND;
    END LOOP;
    RETURN put;
END $$;
"""

# Waking who waits.

_TELL = """
-- Whether anybody waits. In a transaction of the caller's: or may, by the time that is committed.
CREATE OR REPLACE FUNCTION {s}.has_waiters(_channel text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN current_setting('alligator.joined', true) = 'yes' OR EXISTS (
        SELECT 1 FROM {s}.waiters WHERE channel = _channel AND until > {s}.seconds());
END $$;

-- Tells those who wait that there may be something for them, when the transaction commits; if there are any,
-- for NOTIFY makes the commits of all take turns. Of the same words of one transaction, PostgreSQL sends one.
CREATE OR REPLACE FUNCTION {s}.tell(_queue text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF {s}.has_waiters('') THEN
        PERFORM pg_notify('{channel}', _queue);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {s}.tell_of_records(_keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF {s}.has_waiters('.records') THEN
        PERFORM pg_notify('{channel}.records',
            CASE cardinality(_keys) WHEN 1 THEN left(_keys[1], 1000) ELSE '' END);
    END IF;
END $$;

-- Notes that somebody waits for some seconds. Who looks after this misses nothing, but for what is just being
-- committed by one who did not see this yet.
CREATE OR REPLACE FUNCTION {s}.wait(_who text, _channel text, _seconds float8) RETURNS void
{along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
BEGIN
    INSERT INTO {s}.waiters VALUES (_who, _channel, at + _seconds)
    ON CONFLICT (channel, who) DO UPDATE SET until = excluded.until;
    DELETE FROM {s}.waiters WHERE channel = _channel AND until < at;
END $$;

CREATE OR REPLACE FUNCTION {s}.wait_no_more(_who text) RETURNS void {along_indexes} AS $$
BEGIN
    DELETE FROM {s}.waiters WHERE channel IN ('', '.records') AND who = _who;
END $$;
"""

# Records.

_RECORDS = """
CREATE OR REPLACE FUNCTION {s}.set_records(_keys text[], _values bytea[], _ttls float8[]) RETURNS void
{along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
BEGIN
    INSERT INTO {s}.records
    SELECT * FROM unnest(_keys, _values, ARRAY(SELECT at + ttl FROM unnest(_ttls) AS given (ttl)))
        AS given (its_key, its_value, until) ORDER BY its_key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at;
    PERFORM {s}.forget_expired(2 * cardinality(_keys), at);
    PERFORM {s}.tell_of_records(_keys);
END $$;

-- Two for one: what has expired cannot pile up.
CREATE OR REPLACE FUNCTION {s}.forget_expired(_most integer, _at float8) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {s}.records WHERE key = ANY (ARRAY(
        SELECT key FROM {s}.records WHERE expires_at <= _at
        ORDER BY expires_at LIMIT _most FOR UPDATE SKIP LOCKED
    ));
END $$;

-- Writes a value if it still is the old one (NULL: absent). Returns whether it was.
CREATE OR REPLACE FUNCTION {s}.swap(_key text, _old bytea, _new bytea, _ttl float8) RETURNS boolean
{along_indexes} AS $$
DECLARE
    at float8 := {s}.seconds();
    done boolean;
BEGIN
    IF _old IS NULL THEN
        INSERT INTO {s}.records VALUES (_key, _new, at + _ttl)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
            WHERE records.expires_at <= at;
    ELSE
        UPDATE {s}.records SET value = _new, expires_at = at + _ttl
        WHERE key = _key AND value = _old AND (expires_at > at) IS NOT FALSE;
    END IF;
    done := FOUND;
    IF done THEN
        PERFORM {s}.forget_expired(2, at);
        PERFORM {s}.tell_of_records(ARRAY[_key]);
    END IF;
    RETURN done;
END $$;

CREATE OR REPLACE FUNCTION {s}.delete_records(_keys text[]) RETURNS void {along_indexes} AS $$
BEGIN
    PERFORM 1 FROM {s}.records WHERE key = ANY (_keys) ORDER BY key FOR UPDATE;
    DELETE FROM {s}.records WHERE key = ANY (_keys);
END $$;
"""

ALL = (
    _CLOCK,
    _TELL,
    _HAS_ROOM,
    _PUSH,
    _PUSH_ONE,
    _PUSH_EACH,
    _WATCH,
    _RESCHEDULE,
    _RETRY_DEAD,
    _SETTLE,
    _COMPLETE,
    _RESERVE,
    _EXTEND,
    _RECOVER,
    _CANCEL,
    _DROP_ALL,
    _MOVING,
    _RECORDS,
    _PUSH_IF,
)
"""The functions, in whose text ``{s}``, ``{channel}``, ``{soon}`` and more are to be filled in."""
