-- Newest first by (created_at, id): what is kept, and of earlier days what is not over. That is little, and found by its
-- status before anything else is asked of it (OFFSET 0 keeps the planner from looking for it by a filter).
-- name: list_deliveries
SELECT id, endpoint, event, subscription, type, status, attempts, next_attempt_at, last_status, error_code,
       error_message, created_at, ended_at
FROM (
    (SELECT * FROM read.deliveries
     WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
       AND ($5::text IS NULL OR status = $5) AND ($6::uuid IS NULL OR endpoint = $6)
       AND ($7::uuid IS NULL OR event = $7)
     ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT * FROM (
        SELECT * FROM read.deliveries
        WHERE account = $1 AND id < (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
          AND status IN ('queued', 'retrying')
        OFFSET 0) AS live
     WHERE ($5::text IS NULL OR status = $5) AND ($6::uuid IS NULL OR endpoint = $6)
       AND ($7::uuid IS NULL OR event = $7)
     ORDER BY created_at DESC, id DESC LIMIT $4)
) AS listed
ORDER BY created_at DESC, id DESC LIMIT $4;

-- name: get_delivery
SELECT * FROM read.deliveries
WHERE account = $1 AND id = $2 AND (id >= (SELECT control.first_kept($1)) OR status IN ('queued', 'retrying'));

-- name: attempts_of_delivery
SELECT n, outcome, at, duration_ms, url, status, error_code, error_message, response, retry_at
FROM read.delivery_attempts WHERE account = $1 AND delivery = $2 ORDER BY n;
