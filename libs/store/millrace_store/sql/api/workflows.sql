-- name: insert_workflow
INSERT INTO control.workflows
    (account, id, version, name, description, status, definition, draft, is_changed, created_at, updated_at)
VALUES ($1, $2, 1, $3, $4, 'draft', $5, $6, true, $7, $7)
RETURNING *;

-- name: get_workflow
SELECT * FROM control.workflows WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_workflow
SELECT * FROM control.workflows WHERE account = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE;

-- `strpos` of what is folded: a search for `%` finds a per cent sign.
-- name: list_workflows
SELECT * FROM control.workflows
WHERE account = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
  AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR strpos(lower(name), lower($4)) > 0)
ORDER BY id DESC LIMIT $5 OFFSET $6;

-- name: count_workflows
SELECT count(*) AS total FROM control.workflows
WHERE account = $1 AND deleted_at IS NULL
  AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0);

-- name: save_workflow
UPDATE control.workflows
SET version = version + 1, name = $3, description = $4, status = $5, definition = $6, draft = $7, is_changed = $8,
    published = $9, compiled = $10, updated_at = $11
WHERE account = $1 AND id = $2
RETURNING *;

-- name: insert_version
INSERT INTO control.workflow_versions (account, workflow, n, name, definition, published_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: list_versions
SELECT * FROM control.workflow_versions
WHERE account = $1 AND workflow = $2 AND ($3::integer IS NULL OR n < $3)
ORDER BY n DESC LIMIT $4;

-- name: delete_workflow
UPDATE control.workflows SET version = version + 1, deleted_at = $3, updated_at = $3 WHERE account = $1 AND id = $2
RETURNING *;

-- name: all_workflows
SELECT * FROM control.workflows ORDER BY account, id;
