-- name: get_account
SELECT *, control.kept_since(id) FROM control.accounts WHERE id = $1;

-- name: find_account
SELECT * FROM control.accounts WHERE name = $1 FOR UPDATE;

-- A second caller of the same name inserts nothing and finds the row instead.
-- name: insert_account
INSERT INTO control.accounts (id, version, name, plan, created_at, retention_days) VALUES ($1, 1, $2, $3, $4, $5)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- Where an account's test keys act: made when the first of them is.
-- name: insert_test_account
INSERT INTO control.accounts (id, version, name, plan, created_at, retention_days, test_of)
SELECT $2, 1, name || ' (test)', plan, $3, retention_days, id FROM control.accounts WHERE id = $1
ON CONFLICT DO NOTHING
RETURNING *;

-- name: test_account
SELECT * FROM control.accounts WHERE test_of = $1;

-- name: update_account
UPDATE control.accounts SET version = version + 1, unordered = $2 WHERE id = $1 RETURNING *;

-- name: lock_account
SELECT flow FROM control.accounts WHERE id = $1 FOR UPDATE;

-- name: set_flow
UPDATE control.accounts SET version = version + 1, flow = $2 WHERE id = $1 RETURNING *;

-- Nobody but the read models follows it: no version, and nothing for `control`.
-- name: keep_account
UPDATE control.accounts SET retention_days = $2 WHERE id = $1;

-- name: all_accounts
SELECT * FROM control.accounts ORDER BY id;
