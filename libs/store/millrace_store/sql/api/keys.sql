-- The plan is the account's and the role the person's: whoever changes one publishes the keys anew. Keys of the account
-- that an account's test keys act on are listed with its own.
-- name: insert_key
INSERT INTO control.api_keys
    (account, id, version, name, surface, hint, digest, scopes, test, sealed_secret, created_at, expires_at, person)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING *, (SELECT plan FROM control.accounts WHERE id = $1) AS plan,
    (SELECT role FROM control.people WHERE account = $1 AND id = $12) AS role;

-- name: get_key
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
LEFT JOIN control.people p ON p.account = k.account AND p.id = k.person
WHERE (k.account = $1 OR a.test_of = $1) AND k.id = $2;

-- name: find_key
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
LEFT JOIN control.people p ON p.account = k.account AND p.id = k.person
WHERE k.digest = $1;

-- name: lock_key
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
LEFT JOIN control.people p ON p.account = k.account AND p.id = k.person
WHERE (k.account = $1 OR a.test_of = $1) AND k.id = $2 FOR UPDATE OF k;

-- name: list_keys
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
LEFT JOIN control.people p ON p.account = k.account AND p.id = k.person
WHERE (k.account = $1 OR k.account = (SELECT id FROM control.accounts WHERE test_of = $1))
    AND ($2::uuid IS NULL OR k.id < $2)
ORDER BY k.id DESC LIMIT $3;

-- name: keys_of_person
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
JOIN control.people p ON p.account = k.account AND p.id = k.person
WHERE k.account = $1 AND k.person = $2 AND k.revoked_at IS NULL ORDER BY k.id FOR UPDATE OF k;

-- name: revoke_key
UPDATE control.api_keys SET revoked_at = $3, version = version + 1 WHERE account = $1 AND id = $2
RETURNING *, NULL AS plan, NULL AS role;

-- name: rename_key
UPDATE control.api_keys SET name = $3, version = version + 1 WHERE account = $1 AND id = $2;

-- The key before is good until $6; one that was kept from an earlier rotation is over.
-- name: rotate_key
UPDATE control.api_keys
SET old_digest = digest, old_sealed_secret = sealed_secret, old_until = $6, digest = $3, hint = $4, sealed_secret = $5,
    version = version + 1
WHERE account = $1 AND id = $2;

-- name: next_version
UPDATE control.api_keys SET version = version + 1 WHERE account = $1 AND id = $2;

-- Of many accounts: when their keys were last seen.
-- name: all_used
UPDATE control.api_keys AS k SET last_used_at = u.at
FROM unnest($1::text[], $2::uuid[], $3::timestamptz[]) AS u (account, id, at)
WHERE k.account = u.account AND k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at);

-- name: all_keys
SELECT k.*, a.plan, p.role FROM control.api_keys k JOIN control.accounts a ON a.id = k.account
LEFT JOIN control.people p ON p.account = k.account AND p.id = k.person
ORDER BY k.account, k.id;
