-- name: get_account
SELECT *, control.kept_since(id) FROM control.accounts WHERE id = $1;

-- name: find_account
SELECT * FROM control.accounts WHERE name = $1 FOR UPDATE;

-- A second caller of the same name inserts nothing and finds the row instead.
-- name: insert_account
INSERT INTO control.accounts (id, version, name, plan, created_at, retention_days) VALUES ($1, 1, $2, $3, $4, $5)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- name: update_account
UPDATE control.accounts SET version = version + 1, unordered = $2 WHERE id = $1 RETURNING *;

-- Nobody but the read models follows it: no version, and nothing for `control`.
-- name: keep_account
UPDATE control.accounts SET retention_days = $2 WHERE id = $1;

-- name: all_accounts
SELECT * FROM control.accounts ORDER BY id;
