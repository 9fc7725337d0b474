-- Some of those that are over ($2), the oldest first; each new key takes a few with it, so they do not gather.
-- name: forget
DELETE FROM control.idempotency_keys AS k
USING (SELECT account, api_key, key FROM control.idempotency_keys
       WHERE account = $1 AND asked_at <= $2 ORDER BY asked_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS over
WHERE k.account = over.account AND k.api_key = over.api_key AND k.key = over.key;

-- The row as it stands now: of the first request under this key, whose end was waited for, unless that is over ($6).
-- name: claim
INSERT INTO control.idempotency_keys AS k (account, api_key, key, request, asked_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (account, api_key, key) DO UPDATE SET
    request = CASE WHEN k.asked_at > $6 THEN k.request ELSE excluded.request END,
    status = CASE WHEN k.asked_at > $6 THEN k.status END,
    body = CASE WHEN k.asked_at > $6 THEN k.body END,
    asked_at = CASE WHEN k.asked_at > $6 THEN k.asked_at ELSE excluded.asked_at END
RETURNING request, status, body, asked_at;

-- One row where the work is now this request's.
-- name: hold
UPDATE control.idempotency_keys SET held_until = $6
WHERE account = $1 AND api_key = $2 AND key = $3 AND request = $4 AND status IS NULL
    AND (held_until IS NULL OR held_until <= $5)
RETURNING true;

-- It failed: whoever asks again may do it.
-- name: let_go
UPDATE control.idempotency_keys SET held_until = NULL
WHERE account = $1 AND api_key = $2 AND key = $3 AND request = $4 AND held_until = $5;

-- The first answer stands.
-- name: keep
UPDATE control.idempotency_keys SET status = $5, body = $6
WHERE account = $1 AND api_key = $2 AND key = $3 AND request = $4 AND status IS NULL;
