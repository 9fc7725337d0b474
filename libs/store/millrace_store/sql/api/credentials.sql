-- Nothing when there is one of this name.
-- name: insert_credential
INSERT INTO control.credentials
    (account, id, version, name, type, sealed_value, place, parameter, prefix, hosts, created_at, updated_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $10)
ON CONFLICT (account, name) WHERE deleted_at IS NULL DO NOTHING
RETURNING *;

-- name: get_credential
SELECT * FROM control.credentials WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_credential
SELECT * FROM control.credentials WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- By id or name, kept from being deleted until the end of the transaction.
-- name: hold_credential
SELECT * FROM control.credentials
WHERE account = $1 AND deleted_at IS NULL AND (id = $2::uuid OR name = $3::text) FOR SHARE;

-- name: list_credentials
SELECT * FROM control.credentials
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3 OFFSET $4;

-- name: count_credentials
SELECT count(*) AS total FROM control.credentials WHERE account = $1 AND deleted_at IS NULL;

-- name: update_credential
UPDATE control.credentials
SET version = version + 1, sealed_value = $3, place = $4, parameter = $5, prefix = $6, hosts = $7, updated_at = $8
WHERE account = $1 AND id = $2
RETURNING *;

-- The value goes at once.
-- name: delete_credential
UPDATE control.credentials SET version = version + 1, sealed_value = '', deleted_at = $3, updated_at = $3
WHERE account = $1 AND id = $2
RETURNING *;

-- name: plans_with_credentials
SELECT kind, id, name, definition FROM control.plans
WHERE account = $1 AND deleted_at IS NULL AND strpos(definition, '"credential"') > 0 ORDER BY id;

-- What was saved last, and what events start.
-- name: workflows_with_credentials
SELECT id, definition, compiled FROM control.workflows
WHERE account = $1 AND deleted_at IS NULL
  AND (strpos(definition, '"credential"') > 0 OR position('"credential"'::bytea IN compiled) > 0)
ORDER BY id;

-- name: integrations_of_credential
SELECT id FROM control.integrations WHERE account = $1 AND credential = $2 AND deleted_at IS NULL ORDER BY id;

-- name: all_credentials
SELECT * FROM control.credentials ORDER BY account, id;
