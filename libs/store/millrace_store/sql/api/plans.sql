-- name: insert_plan
INSERT INTO control.plans
    (account, id, version, kind, name, description, definition, compiled, created_at, updated_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $8)
RETURNING *;

-- name: get_plan
SELECT * FROM control.plans WHERE account = $1 AND id = $2 AND kind = $3 AND deleted_at IS NULL;

-- name: lock_plan
SELECT * FROM control.plans WHERE account = $1 AND id = $2 AND kind = $3 AND deleted_at IS NULL FOR UPDATE;

-- name: list_plans
SELECT * FROM control.plans
WHERE account = $1 AND kind = $2 AND deleted_at IS NULL AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4;

-- name: update_plan
UPDATE control.plans
SET version = $3, name = $4, description = $5, definition = $6, compiled = $7, updated_at = $8
WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_plan
UPDATE control.plans SET version = version + 1, deleted_at = $3, updated_at = $3 WHERE account = $1 AND id = $2
RETURNING *;

-- name: all_plans
SELECT * FROM control.plans ORDER BY account, id;
