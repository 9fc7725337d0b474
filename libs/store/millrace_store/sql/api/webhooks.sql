-- name: insert_endpoint
INSERT INTO control.webhook_endpoints
    (account, id, version, url, description, events, sealed_secret, enabled, retry_schedule_s, timeout_s, concurrency,
     rate, created_at, updated_at, judged_since, disabled_at, disabled_reason, style,
     priority)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $12, CASE WHEN NOT $7 THEN $12::timestamptz END,
        CASE WHEN NOT $7 THEN 'requested' END, $13, $14)
RETURNING *;

-- name: get_endpoint
SELECT * FROM control.webhook_endpoints WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_endpoint
SELECT * FROM control.webhook_endpoints WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- name: list_endpoints
SELECT * FROM control.webhook_endpoints
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3 OFFSET $4;

-- name: count_endpoints
SELECT count(*) AS total FROM control.webhook_endpoints WHERE account = $1 AND deleted_at IS NULL;

-- An endpoint that is enabled, or goes elsewhere, is judged anew.
-- name: update_endpoint
UPDATE control.webhook_endpoints
SET version = version + 1, url = $3, description = $4, events = $5, enabled = $6, retry_schedule_s = $7,
    timeout_s = $8, concurrency = $9, rate = $10, updated_at = $11, style = $12,
    priority = $13,
    judged_since = CASE WHEN url <> $3 OR $6 AND NOT enabled THEN $11 ELSE judged_since END,
    disabled_at = CASE WHEN $6 THEN NULL ELSE COALESCE(disabled_at, $11) END,
    disabled_reason = CASE WHEN $6 THEN NULL ELSE COALESCE(disabled_reason, 'requested') END
WHERE account = $1 AND id = $2
RETURNING *;

-- name: rotate_secret
UPDATE control.webhook_endpoints
SET version = version + 1, old_sealed_secret = sealed_secret, old_secret_until = $4, sealed_secret = $3,
    updated_at = $5
WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_endpoint
UPDATE control.webhook_endpoints
SET version = version + 1, deleted_at = $3, updated_at = $3, old_sealed_secret = NULL, old_secret_until = NULL
WHERE account = $1 AND id = $2
RETURNING *;

-- Several replicas may look at once: each takes what the others have not locked.
-- name: forget_old_secrets
UPDATE control.webhook_endpoints
SET version = version + 1, old_sealed_secret = NULL, old_secret_until = NULL
WHERE (account, id) IN (
    SELECT account, id FROM control.webhook_endpoints
    WHERE old_secret_until <= $1 AND deleted_at IS NULL ORDER BY account, id LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: all_endpoints
SELECT * FROM control.webhook_endpoints ORDER BY account, id;
