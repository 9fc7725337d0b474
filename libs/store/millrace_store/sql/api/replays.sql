-- The events of a range in the order in which they were received, behind a cursor ($2, $3): at most $5, and no more
-- than $6 bytes of properties beyond the first.
-- name: events_between
SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, hops, extensions, properties
FROM (SELECT *, sum(control.payload_bytes(properties)) OVER (ORDER BY received_at, id) - control.payload_bytes(properties) AS before
      FROM (SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, hops, extensions, properties
            FROM read.events
            WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND (received_at, id) > ($2, $3) AND received_at < $4
            ORDER BY received_at, id LIMIT $5) AS page) AS weighed
WHERE before < $6
ORDER BY received_at, id;

-- name: events_of_between
SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, hops, extensions, properties
FROM (SELECT *, sum(control.payload_bytes(properties)) OVER (ORDER BY received_at, id) - control.payload_bytes(properties) AS before
      FROM (SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, hops, extensions, properties
            FROM read.events
            WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND identifier = $7 AND (received_at, id) > ($2, $3) AND received_at < $4
            ORDER BY received_at, id LIMIT $5) AS page) AS weighed
WHERE before < $6
ORDER BY received_at, id;

-- name: hold_account
SELECT FROM control.accounts WHERE id = $1 FOR UPDATE;

-- name: count_live
SELECT count(*) FROM control.replays WHERE account = $1 AND ended_at IS NULL;

-- name: subscription_of_replay
SELECT enabled FROM control.subscriptions WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: insert_replay
INSERT INTO control.replays (account, id, state, since, until, pattern, filter, "where", subscription, per_s, cursor_at,
    cursor_id, requested_by, created_at, updated_at)
VALUES ($1, $2, 'waiting', $3, $4, $5, $6, $7, $8, $9, $3, '00000000-0000-0000-0000-000000000000', $10, $11, $11)
RETURNING *;

-- name: get_replay
SELECT * FROM control.replays WHERE account = $1 AND id = $2;

-- name: list_replays
SELECT * FROM control.replays WHERE account = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3;

-- name: end_replay
UPDATE control.replays SET state = $3, reason = $4, ended_at = $5, updated_at = $5
WHERE account = $1 AND id = $2 AND ended_at IS NULL
RETURNING *;

-- name: live_replays
SELECT r.*, r.subscription IS NULL OR s.id IS NOT NULL AS is_heard
FROM control.replays AS r
LEFT JOIN control.subscriptions AS s
    ON s.account = r.account AND s.id = r.subscription AND s.deleted_at IS NULL AND s.enabled
WHERE r.ended_at IS NULL
ORDER BY r.id LIMIT $1;

-- name: begin_replays
UPDATE control.replays SET state = 'running', updated_at = $2 WHERE id = ANY($1::uuid[]) AND state = 'waiting';

-- Compare and set: no row = another worker has moved on. One cancelled meanwhile still tells how far it came.
-- name: move_replay
UPDATE control.replays
SET cursor_at = $5, cursor_id = $6, looked_at = looked_at + $7, written = written + $8, updated_at = $9
WHERE account = $1 AND id = $2 AND cursor_at = $3 AND cursor_id = $4;

-- $1 = now, by the clock that wrote the rows.
-- name: live_by_state
SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'running') AS running,
    GREATEST(0, COALESCE(extract(epoch FROM $1::timestamptz - min(updated_at)), 0))::float8 AS oldest_age_s
FROM control.replays WHERE ended_at IS NULL;
