-- People of an account.

-- name: insert_person
INSERT INTO control.people (account, id, email, name, role, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: get_person
SELECT * FROM control.people WHERE account = $1 AND id = $2 AND removed_at IS NULL;

-- Owners come and go one at a time: the last must not leave.
-- name: lock_owners
SELECT id FROM control.people WHERE account = $1 AND role = 'owner' AND removed_at IS NULL ORDER BY id FOR UPDATE;

-- name: lock_person
SELECT * FROM control.people WHERE account = $1 AND id = $2 AND removed_at IS NULL FOR UPDATE;

-- name: list_people
SELECT * FROM control.people
WHERE account = $1 AND removed_at IS NULL AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3;

-- name: update_person
UPDATE control.people SET name = $3, role = $4, updated_at = $5 WHERE account = $1 AND id = $2 RETURNING *;

-- name: remove_person
UPDATE control.people SET removed_at = $3, updated_at = $3 WHERE account = $1 AND id = $2;
