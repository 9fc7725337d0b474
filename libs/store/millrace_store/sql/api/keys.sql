-- The plan is the account's: whoever changes it publishes the account's keys anew.
-- name: insert_key
INSERT INTO control.api_keys
    (account, id, version, name, surface, hint, digest, scopes, test, sealed_secret, created_at, expires_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11)
RETURNING *, (SELECT plan FROM control.accounts WHERE id = $1) AS plan;

-- name: get_key
SELECT k.*, a.plan FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
WHERE k.account = $1 AND k.id = $2;

-- name: find_key
SELECT k.*, a.plan FROM control.api_keys k JOIN control.accounts a ON a.id = k.account WHERE k.digest = $1;

-- name: lock_key
SELECT k.*, a.plan FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
WHERE k.account = $1 AND k.id = $2 FOR UPDATE OF k;

-- name: list_keys
SELECT k.*, a.plan FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
WHERE k.account = $1 AND ($2::uuid IS NULL OR k.id < $2)
ORDER BY k.id DESC LIMIT $3;

-- name: revoke_key
UPDATE control.api_keys SET revoked_at = $3, version = version + 1 WHERE account = $1 AND id = $2
RETURNING *, NULL AS plan;

-- name: all_keys
SELECT k.*, a.plan FROM control.api_keys k JOIN control.accounts a ON a.id = k.account ORDER BY k.account, k.id;
