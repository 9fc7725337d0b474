-- name: insert_subscription
INSERT INTO control.subscriptions
    (account, id, version, pattern, filter, "where", priority, target_kind, target_id, enabled, managed_by,
     created_at, updated_at, flow)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12)
RETURNING *;

-- name: get_subscription
SELECT * FROM control.subscriptions WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_subscription
SELECT * FROM control.subscriptions WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- name: list_subscriptions
SELECT * FROM control.subscriptions
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
  AND ($3::text IS NULL OR target_kind = $3) AND ($4::uuid IS NULL OR target_id = $4)
ORDER BY id DESC LIMIT $5;

-- name: update_subscription
UPDATE control.subscriptions
SET version = version + 1, pattern = $3, filter = $4, "where" = $5, priority = $6, target_kind = $7, target_id = $8,
    enabled = $9, updated_at = $10, flow = $11
WHERE account = $1 AND id = $2
RETURNING *;

-- name: set_priority
UPDATE control.subscriptions SET version = version + 1, priority = $3, updated_at = $4 WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_subscription
UPDATE control.subscriptions SET version = version + 1, deleted_at = $3, updated_at = $3
WHERE account = $1 AND id = $2
RETURNING *;

-- Those of an endpoint are locked with it, in the order of their ids.
-- name: lock_managed
SELECT * FROM control.subscriptions
WHERE account = $1 AND managed_by = $2 AND deleted_at IS NULL ORDER BY id FOR UPDATE;

-- name: subscriptions_of_target
SELECT id FROM control.subscriptions
WHERE account = $1 AND target_kind = $2 AND target_id = $3 AND managed_by IS NULL AND deleted_at IS NULL
ORDER BY id LIMIT 10;

-- A target is held while something is pointed at it, so that nobody deletes it in between.
-- name: hold_plan
SELECT id FROM control.plans WHERE account = $1 AND id = $2 AND kind = $3 AND deleted_at IS NULL FOR SHARE;

-- name: hold_workflow
SELECT id, status FROM control.workflows WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR SHARE;

-- name: hold_endpoint
SELECT id FROM control.webhook_endpoints WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR SHARE;

-- name: all_subscriptions
SELECT * FROM control.subscriptions ORDER BY account, id;
