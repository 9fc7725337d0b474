-- name: get_account
SELECT id, name, plan, status, created_at FROM control.accounts WHERE id = $1;

-- name: find_account
SELECT id, name, plan, status, created_at FROM control.accounts WHERE name = $1;

-- A second caller of the same name gets the row that is there, and holds its lock.
-- name: ensure_account
INSERT INTO control.accounts (id, name, plan, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING id, name, plan, status, created_at;
