-- An account's connections to other platforms.

-- name: insert_connection
INSERT INTO control.connections
    (account, id, public_id, version, connector, name, url, config, sealed_secrets, enabled, declared, declared_at,
     endpoint, created_at, updated_at)
VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $11, $11)
RETURNING *;

-- name: count_connections
SELECT count(*) FROM control.connections WHERE account = $1 AND deleted_at IS NULL;

-- name: get_connection
SELECT * FROM control.connections WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_connection
SELECT * FROM control.connections WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- Newest first by id.
-- name: list_connections
SELECT * FROM control.connections
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3;

-- name: update_connection
UPDATE control.connections
SET version = version + 1, name = $3, url = $4, config = $5, sealed_secrets = $6, enabled = $7, declared = $8,
    declared_at = $9, endpoint = $10, updated_at = $9
WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_connection
UPDATE control.connections
SET version = version + 1, deleted_at = $3, sealed_secrets = '', config = '{}' WHERE account = $1 AND id = $2;

-- Whom a platform posts to: its address is all it says, and the connector then checks who it is.
-- name: find_connection
SELECT c.* FROM control.connections AS c
JOIN control.accounts AS a ON a.id = c.account
WHERE c.public_id = $1 AND c.deleted_at IS NULL AND a.enabled;

-- One webhook more. A failure in a row is one that nothing but failures followed.
-- name: count_call
UPDATE control.connections
SET received = received + 1, last_received_at = $3,
    refused = refused + ($4 = 'refused')::integer,
    failed = failed + ($4 = 'failed')::integer,
    timed_out = timed_out + ($4 = 'timed_out')::integer,
    events = events + $5,
    failures_in_row = CASE WHEN $4 IN ('failed', 'timed_out') THEN failures_in_row + 1
        WHEN $4 = 'handled' THEN 0 ELSE failures_in_row END,
    last_event_at = CASE WHEN $5 > 0 THEN $3 ELSE last_event_at END,
    last_error_at = CASE WHEN $6::text IS NULL THEN last_error_at ELSE $3 END,
    last_error = COALESCE($6, last_error)
WHERE account = $1 AND id = $2;
