-- name: insert_integration
INSERT INTO control.integrations (account, id, provider, name, base_url, credential, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING *;

-- name: get_integration
SELECT * FROM control.integrations WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: list_integrations
SELECT * FROM control.integrations
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3 OFFSET $4;

-- name: count_integrations
SELECT count(*) AS total FROM control.integrations WHERE account = $1 AND deleted_at IS NULL;

-- name: delete_integration
UPDATE control.integrations SET deleted_at = $3 WHERE account = $1 AND id = $2 AND deleted_at IS NULL RETURNING id;

-- name: integration_with_credential
SELECT i.base_url, i.provider, c.* FROM control.integrations i JOIN control.credentials c
    ON c.account = i.account AND c.id = i.credential
WHERE i.account = $1 AND i.id = $2 AND i.deleted_at IS NULL;

-- name: keep_test
UPDATE control.integrations
SET tested_at = $3, test_status = $4, test_http_status = $5, test_duration_ms = $6, test_message = $7
WHERE account = $1 AND id = $2;
