-- name: append_entry
INSERT INTO control.control_outbox (kind, account, aggregate, version, value) VALUES ($1, $2, $3, $4, $5);

-- By id: an aggregate's versions are taken under its lock, so its ids rise with them.
-- name: unpublished_entries
SELECT id, kind, account, aggregate, version, value
FROM control.control_outbox
WHERE published_position IS NULL
ORDER BY id
LIMIT $1;

-- name: mark_published
UPDATE control.control_outbox SET published_position = $2 WHERE id = ANY($1::bigint[]) AND published_position IS NULL;

-- name: count_unpublished
SELECT count(*) FROM control.control_outbox WHERE published_position IS NULL;
