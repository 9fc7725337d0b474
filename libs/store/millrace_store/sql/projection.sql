-- How a batch of the projector is written. The statements that merge take the columns of the projector's tables in the
-- same order; what is stored is always earlier in the log than what comes (within one topic), or of another topic.

-- name: known_positions
SELECT topic, partition, next_offset, record_time FROM read.positions;

-- name: begin_positions
INSERT INTO read.positions (topic, partition, next_offset)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[])
ON CONFLICT (topic, partition) DO NOTHING;

-- The first statement of every batch: fewer rows than asked for = someone else has moved on.
-- name: move_positions
UPDATE read.positions AS p
SET next_offset = m.next_offset, record_time = COALESCE(m.record_time, p.record_time)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::timestamptz[])
    AS m (topic, partition, expected, next_offset, record_time)
WHERE p.topic = m.topic AND p.partition = m.partition AND p.next_offset = m.expected;

-- name: merge_events
INSERT INTO read.events
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::integer[], $10::jsonb[], $11::integer[], $12::bigint[], $13::bytea[], $14::jsonb[], $15::text[])
ON CONFLICT (id) DO NOTHING;

-- name: merge_event_outcomes
INSERT INTO read.event_outcomes
SELECT * FROM unnest(
    $1::uuid[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[], $8::text[])
ON CONFLICT (event, partition, "offset") DO NOTHING;

-- name: merge_event_matches
INSERT INTO read.event_matches
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::uuid[])
ON CONFLICT (event, kind, child) DO NOTHING;

-- Strength of a status: queued, stale, running, dead_lettered, then any other end; of two ends the first stands. Of
-- what it waits for the latest that was told stands. A start that comes again may say another flow: the first one's
-- stands, also if it had none.
-- name: merge_runs
INSERT INTO read.runs AS r
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::integer[], $7::text[], $8::uuid[], $9::uuid[],
    $10::text[], $11::text[], $12::bytea[], $13::bytea[], $14::text[], $15::text[], $16::timestamptz[],
    $17::timestamptz[], $18::timestamptz[], $19::text[], $20::text[], $21::timestamptz[], $22::bytea[], $23::uuid[])
ON CONFLICT (id) DO UPDATE SET
    plan = COALESCE(r.plan, EXCLUDED.plan),
    plan_kind = COALESCE(r.plan_kind, EXCLUDED.plan_kind),
    plan_version = COALESCE(r.plan_version, EXCLUDED.plan_version),
    plan_name = COALESCE(r.plan_name, EXCLUDED.plan_name),
    subscription = COALESCE(r.subscription, EXCLUDED.subscription),
    event = COALESCE(r.event, EXCLUDED.event),
    identifier = COALESCE(r.identifier, EXCLUDED.identifier),
    requested_by = COALESCE(r.requested_by, EXCLUDED.requested_by),
    input = COALESCE(r.input, EXCLUDED.input),
    created_at = COALESCE(r.created_at, EXCLUDED.created_at),
    started_at = COALESCE(r.started_at, EXCLUDED.started_at),
    flow_key = CASE WHEN r.created_at IS NULL THEN EXCLUDED.flow_key ELSE r.flow_key END,
    waiting_until = CASE WHEN EXCLUDED.waiting_reason IS NULL THEN r.waiting_until ELSE EXCLUDED.waiting_until END,
    waiting_reason = COALESCE(EXCLUDED.waiting_reason, r.waiting_reason),
    bundle = COALESCE(r.bundle, EXCLUDED.bundle),
    (status, output, error_code, error_message, ended_at, absorbed_into) = (
        SELECT s.status, s.output, s.error_code, s.error_message, s.ended_at, s.absorbed_into
        FROM (VALUES
            (0, r.status, r.output, r.error_code, r.error_message, r.ended_at, r.absorbed_into),
            (1, EXCLUDED.status, EXCLUDED.output, EXCLUDED.error_code, EXCLUDED.error_message, EXCLUDED.ended_at,
                EXCLUDED.absorbed_into)
        ) AS s (turn, status, output, error_code, error_message, ended_at, absorbed_into)
        ORDER BY CASE s.status WHEN 'queued' THEN 0 WHEN 'stale' THEN 1 WHEN 'running' THEN 2
            WHEN 'dead_lettered' THEN 3 ELSE 4 END DESC, s.turn
        LIMIT 1);

-- A later attempt stands over an earlier one, its result over its beginning; completed and failed stand over all.
-- name: merge_steps
INSERT INTO read.steps AS s
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[], $8::timestamptz[],
    $9::timestamptz[], $10::text[], $11::text[], $12::bytea[])
ON CONFLICT (run, node) DO UPDATE SET
    type = COALESCE(s.type, EXCLUDED.type),
    started_at = COALESCE(s.started_at, EXCLUDED.started_at),
    (status, attempts, ended_at, retry_at, error_code, error_message, output) = (
        SELECT c.status, c.attempts, c.ended_at, c.retry_at, c.error_code, c.error_message, c.output
        FROM (VALUES
            (0, s.status, s.attempts, s.ended_at, s.retry_at, s.error_code, s.error_message, s.output),
            (1, EXCLUDED.status, EXCLUDED.attempts, EXCLUDED.ended_at, EXCLUDED.retry_at, EXCLUDED.error_code,
                EXCLUDED.error_message, EXCLUDED.output)
        ) AS c (turn, status, attempts, ended_at, retry_at, error_code, error_message, output)
        ORDER BY s.status IN ('completed', 'failed') AND c.turn = 0 DESC, c.attempts DESC, c.status <> 'running' DESC,
            c.turn
        LIMIT 1);

-- name: merge_step_attempts
INSERT INTO read.step_attempts AS a
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
    $8::double precision[], $9::text[], $10::text[], $11::timestamptz[])
ON CONFLICT (run, node, attempt) DO UPDATE SET
    started_at = COALESCE(a.started_at, EXCLUDED.started_at),
    (status, ended_at, duration_ms, error_code, error_message, retry_at) = (
        SELECT c.status, c.ended_at, c.duration_ms, c.error_code, c.error_message, c.retry_at
        FROM (VALUES
            (0, a.status, a.ended_at, a.duration_ms, a.error_code, a.error_message, a.retry_at),
            (1, EXCLUDED.status, EXCLUDED.ended_at, EXCLUDED.duration_ms, EXCLUDED.error_code, EXCLUDED.error_message,
                EXCLUDED.retry_at)
        ) AS c (turn, status, ended_at, duration_ms, error_code, error_message, retry_at)
        ORDER BY c.status <> 'running' DESC, c.turn
        LIMIT 1);

-- Strength of a status: queued, stale, retrying (the later one), dead_lettered, then any other end; of two ends the first stands.
-- name: merge_deliveries
INSERT INTO read.deliveries AS d
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::integer[],
    $9::timestamptz[], $10::integer[], $11::text[], $12::text[], $13::bytea[], $14::timestamptz[], $15::timestamptz[])
ON CONFLICT (id) DO UPDATE SET
    subscription = COALESCE(d.subscription, EXCLUDED.subscription),
    type = COALESCE(d.type, EXCLUDED.type),
    body = COALESCE(d.body, EXCLUDED.body),
    created_at = COALESCE(d.created_at, EXCLUDED.created_at),
    attempts = GREATEST(d.attempts, EXCLUDED.attempts),
    (status, next_attempt_at, last_status, error_code, error_message, ended_at) = (
        SELECT c.status, c.next_attempt_at, c.last_status, c.error_code, c.error_message, c.ended_at
        FROM (VALUES
            (0, d.attempts, d.status, d.next_attempt_at, d.last_status, d.error_code, d.error_message, d.ended_at),
            (1, EXCLUDED.attempts, EXCLUDED.status, EXCLUDED.next_attempt_at, EXCLUDED.last_status,
                EXCLUDED.error_code, EXCLUDED.error_message, EXCLUDED.ended_at)
        ) AS c (turn, attempts, status, next_attempt_at, last_status, error_code, error_message, ended_at)
        ORDER BY
            CASE c.status WHEN 'queued' THEN 0 WHEN 'stale' THEN 1 WHEN 'retrying' THEN 2
                WHEN 'dead_lettered' THEN 3 ELSE 4 END DESC,
            CASE c.status WHEN 'retrying' THEN -c.attempts END,
            c.turn
        LIMIT 1);

-- name: merge_delivery_attempts
INSERT INTO read.delivery_attempts
SELECT * FROM unnest(
    $1::uuid[], $2::integer[], $3::text[], $4::text[], $5::timestamptz[], $6::double precision[], $7::text[],
    $8::integer[], $9::text[], $10::text[], $11::text[], $12::timestamptz[])
ON CONFLICT (delivery, n) DO NOTHING;

-- name: merge_account_book
INSERT INTO read.account_book AS b
SELECT n.partition, n.bucket, NULLIF(n.decided, repeat('1', 4096)::bit(4096))
FROM unnest($1::integer[], $2::bigint[], $3::bit(4096)[]) AS n (partition, bucket, decided)
ON CONFLICT (partition, bucket) DO UPDATE SET
    decided = NULLIF(b.decided | EXCLUDED.decided, repeat('1', 4096)::bit(4096));

-- name: merge_dead_letters
INSERT INTO read.dead_letters
SELECT * FROM unnest(
    $1::text[], $2::integer[], $3::bigint[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::integer[],
    $9::bigint[], $10::bytea[], $11::bytea[], $12::jsonb[])
ON CONFLICT (topic, partition, "offset", at) DO NOTHING;

-- name: merge_payloads
INSERT INTO read.payloads
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::bytea[])
ON CONFLICT (owner, digest) DO NOTHING;

-- The first stands. One that differs leaves its chain behind; rows of one batch may hold such a one already.
-- name: merge_receipt_roots
INSERT INTO read.receipt_roots AS r
SELECT * FROM unnest(
    $1::text[], $2::timestamptz[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::timestamptz[])
ON CONFLICT (account, day) DO UPDATE SET
    other_chain = COALESCE(
        r.other_chain, CASE WHEN EXCLUDED.chain <> r.chain THEN EXCLUDED.chain ELSE EXCLUDED.other_chain END);

-- name: merge_receipt_leaves
INSERT INTO read.receipt_leaves
SELECT * FROM unnest(
    $1::text[], $2::timestamptz[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::timestamptz[])
ON CONFLICT (account, day, first) DO NOTHING;

-- name: merge_receipt_days
INSERT INTO read.receipt_days
SELECT * FROM unnest($1::timestamptz[], $2::bigint[], $3::bigint[], $4::jsonb[], $5::timestamptz[])
ON CONFLICT (day) DO NOTHING;

-- name: merge_receipt_seeds
INSERT INTO read.receipt_seeds
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::timestamptz[])
ON CONFLICT ("offset") DO NOTHING;

-- Each row is what one event says of a thing; an event that is there from another place is a repeat of its uniqueKey and
-- says nothing (asked for one by one: a join might read a day of events). Of two that name a member the later stands, and
-- nothing from before an erasure: the order in which they are read does not matter. Rows are locked in the order of
-- their keys, since projectors share them.
-- name: merge_entities
WITH said AS MATERIALIZED (
    SELECT n.*
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::text[], $8::jsonb[],
        $9::uuid[], $10::integer[], $11::bigint[])
        AS n (account, kind, id, at, created_ms, updated_ms, erased, members, event, partition, "offset")
    WHERE COALESCE(
        (SELECT (e.partition, e."offset") = (n.partition, n."offset") FROM read.events AS e WHERE e.id = n.event), true)
), things AS MATERIALIZED (
    SELECT DISTINCT ON (account, kind, id) account, kind, id, min(at) OVER one AS at,
        min(created_ms) OVER one AS created_ms, updated_ms, max(erased COLLATE "C") OVER one AS erased,
        event, partition, "offset"
    FROM said
    WINDOW one AS (PARTITION BY account, kind, id)
    ORDER BY account, kind, id, updated_ms DESC, partition DESC, "offset" DESC
), members AS MATERIALIZED (
    SELECT account, kind, id, jsonb_object_agg(key, value) AS members
    FROM (
        SELECT DISTINCT ON (s.account, s.kind, s.id, m.key) s.account, s.kind, s.id, m.key, m.value
        FROM said AS s, jsonb_each(s.members) AS m
        ORDER BY s.account, s.kind, s.id, m.key, (m.value ->> 0) COLLATE "C" DESC
    ) AS last
    JOIN (SELECT account, kind, id, COALESCE(erased, '') AS erased FROM things) AS t USING (account, kind, id)
    WHERE (value ->> 0) COLLATE "C" > t.erased
    GROUP BY account, kind, id
)
INSERT INTO read.entities AS t
SELECT h.account, h.kind, h.id, h.at, h.created_ms, h.updated_ms, h.erased, COALESCE(m.members, '{}'), h.event,
    h.partition, h."offset"
FROM things AS h
LEFT JOIN members AS m USING (account, kind, id)
ORDER BY h.account, h.kind, h.id
ON CONFLICT (account, kind, id) DO UPDATE SET
    at = LEAST(t.at, EXCLUDED.at),
    created_ms = LEAST(t.created_ms, EXCLUDED.created_ms),
    erased = GREATEST(t.erased, EXCLUDED.erased),
    members = COALESCE((
        SELECT jsonb_object_agg(b.key, b.value)
        FROM (
            SELECT DISTINCT ON (key) key, value
            FROM (SELECT * FROM jsonb_each(t.members) UNION ALL SELECT * FROM jsonb_each(EXCLUDED.members)) AS a
            WHERE (value ->> 0) COLLATE "C" > COALESCE(GREATEST(t.erased, EXCLUDED.erased), '')
            ORDER BY key, (value ->> 0) COLLATE "C" DESC
            LIMIT 128) AS b), '{}'),
    (updated_ms, event, partition, "offset") = (
        SELECT l.updated_ms, l.event, l.partition, l."offset"
        FROM (VALUES
            (t.updated_ms, t.event, t.partition, t."offset"),
            (EXCLUDED.updated_ms, EXCLUDED.event, EXCLUDED.partition, EXCLUDED."offset")
        ) AS l (updated_ms, event, partition, "offset")
        ORDER BY l.updated_ms DESC, l.partition DESC, l."offset" DESC
        LIMIT 1);

-- name: merge_audit
INSERT INTO read.audit
SELECT * FROM unnest(
    $1::text[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
    $17::double precision[], $18::bytea[], $19::bytea[])
ON CONFLICT (account, id) DO NOTHING;
