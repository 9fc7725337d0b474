-- name: insert_action
INSERT INTO control.actions
    (account, id, version, name, contract, digest, signature, signed_by, sealed_secret, seal, created_at, updated_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $10)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: lock_action
SELECT * FROM control.actions WHERE account = $1 AND name = $2 AND deleted_at IS NULL FOR UPDATE;

-- name: get_action
SELECT * FROM control.actions WHERE account = $1 AND name = $2 AND deleted_at IS NULL;

-- With where its newest version stands on `control`: null = not there yet.
-- name: action_to_run
SELECT a.*, o.published_position
FROM control.actions a
LEFT JOIN control.control_outbox o
    ON o.kind = 'action' AND o.account = $1 AND o.aggregate = 'act_' || replace(a.id::text, '-', '')
    AND o.version = a.version
WHERE a.account = $1 AND a.name = $2 AND a.deleted_at IS NULL;

-- name: list_actions
SELECT * FROM control.actions
WHERE account = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR name > $2)
ORDER BY name LIMIT $3;

-- name: count_actions
SELECT count(*) FROM control.actions WHERE account = $1 AND deleted_at IS NULL;

-- name: update_action
UPDATE control.actions
SET version = version + 1, contract = $3, digest = $4, signature = $5, signed_by = $6, seal = $7, updated_at = $8
WHERE account = $1 AND id = $2
RETURNING *;

-- name: rotate_action
UPDATE control.actions SET version = version + 1, sealed_secret = $3, seal = $4, updated_at = $5
WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_action
UPDATE control.actions SET version = version + 1, deleted_at = $3, updated_at = $3 WHERE account = $1 AND id = $2
RETURNING *;

-- name: insert_version
INSERT INTO control.action_versions
    (account, action, version, contract, digest, signature, signed_by, registered_by, registered_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: list_versions
SELECT * FROM control.action_versions
WHERE account = $1 AND action = $2 AND ($3::bigint IS NULL OR version < $3)
ORDER BY version DESC LIMIT $4;

-- The key that signs contracts, by its id or by its public half; none when it is not in force.
-- name: signing_key
SELECT k.id, k.scopes, k.sealed_secret, p.role, CASE WHEN k.old_until > $4 THEN k.old_sealed_secret END AS old_sealed_secret
FROM control.api_keys AS k LEFT JOIN control.people AS p ON p.account = k.account AND p.id = k.person
WHERE k.account = $1 AND (k.id = $2 OR k.digest = $3 OR k.old_digest = $3 AND k.old_until > $4)
    AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $4);

-- name: insert_confirmation
INSERT INTO control.confirmations
    (account, id, action, name, version, digest, params, arguments_hash, prompt, roles, requested_by, requested_role,
     created_at, expires_at, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'pending')
ON CONFLICT DO NOTHING
RETURNING *;

-- name: get_confirmation
SELECT * FROM control.confirmations WHERE account = $1 AND id = $2;

-- name: lock_confirmation
SELECT * FROM control.confirmations WHERE account = $1 AND id = $2 FOR UPDATE;

-- name: list_confirmations
SELECT * FROM control.confirmations
WHERE account = $1 AND ($2::uuid IS NULL OR id < $2)
    AND ($4::text IS NULL OR CASE WHEN state = 'pending' AND expires_at <= $5 THEN 'expired' ELSE state END = $4)
ORDER BY id DESC LIMIT $3;

-- name: decide_confirmation
UPDATE control.confirmations SET state = $3, decided_by = $4, decided_role = $5, decided_at = $6
WHERE account = $1 AND id = $2 AND state = 'pending'
RETURNING *;

-- name: all_untold_confirmations
SELECT account, id FROM control.confirmations
WHERE told IS DISTINCT FROM state AND coalesce(decided_at, created_at) < $1
ORDER BY coalesce(decided_at, created_at) LIMIT $2;

-- One that was decided in the meantime is to be told of again.
-- name: tell_confirmation
UPDATE control.confirmations SET told = $3 WHERE account = $1 AND id = $2 AND state = $3;

-- name: all_actions
SELECT * FROM control.actions ORDER BY account, id;
