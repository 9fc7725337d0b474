-- Forms and their submissions.

-- name: insert_form
INSERT INTO control.forms (account, id, public_id, version, name, description, fields, status, created_at, updated_at)
VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $8)
RETURNING *;

-- Nothing where its public address is taken, be it by one that was deleted.
-- name: ensure_form
INSERT INTO control.forms (account, id, public_id, version, name, description, fields, status, created_at, updated_at)
VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $8)
ON CONFLICT (public_id) DO NOTHING;

-- name: get_form
SELECT * FROM control.forms WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_form
SELECT * FROM control.forms WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- A form that takes answers stays as it is until they are in.
-- name: share_form
SELECT * FROM control.forms WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR SHARE;

-- By the name in its public address, whoever asks.
-- name: all_public_form
SELECT * FROM control.forms WHERE public_id = $1 AND status = 'published' AND deleted_at IS NULL;

-- name: list_forms
SELECT * FROM control.forms
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3 OFFSET $4;

-- name: count_forms
SELECT count(*) FROM control.forms WHERE account = $1 AND deleted_at IS NULL;

-- name: update_form
UPDATE control.forms
SET version = version + 1, name = $3, description = $4, fields = $5, status = $6, updated_at = $7
WHERE account = $1 AND id = $2
RETURNING *;

-- name: delete_form
UPDATE control.forms SET version = version + 1, deleted_at = $3, updated_at = $3 WHERE account = $1 AND id = $2;

-- name: insert_submission
INSERT INTO control.submissions (account, id, form, data, submitted_by, created_at, nonce)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (account, form, nonce) WHERE nonce IS NOT NULL DO NOTHING
RETURNING *;

-- name: submission_of_page
SELECT * FROM control.submissions WHERE account = $1 AND form = $2 AND nonce = $3;

-- name: get_submission
SELECT * FROM control.submissions WHERE account = $1 AND form = $2 AND id = $3;

-- name: list_submissions
SELECT * FROM control.submissions
WHERE account = $1 AND form = $2 AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4 OFFSET $5;

-- name: count_submissions
SELECT count(*) FROM control.submissions WHERE account = $1 AND form = $2;

-- Of all accounts, the oldest first.
-- name: all_untold_submissions
SELECT s.*, f.name AS form_name FROM control.submissions AS s
JOIN control.forms AS f ON f.account = s.account AND f.id = s.form
WHERE s.told_at IS NULL AND s.created_at < $1
ORDER BY s.created_at LIMIT $2;

-- name: tell_submission
UPDATE control.submissions SET told_at = $3 WHERE account = $1 AND id = $2;
