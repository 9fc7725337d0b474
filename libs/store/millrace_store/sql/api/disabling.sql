-- Which endpoints are to be disabled, by what the read models know of their deliveries; and the events about it.

-- Endpoints that answered 410 since they are judged.
-- name: gone_endpoints
SELECT e.account, e.id, min(d.ended_at) AS since
FROM read.deliveries d
JOIN control.webhook_endpoints e ON e.account = d.account AND e.id = d.endpoint
WHERE d.error_code = 'http_410' AND d.status = 'failed' AND d.ended_at > e.judged_since
  AND e.enabled AND e.deleted_at IS NULL
GROUP BY e.account, e.id LIMIT $1;

-- Endpoints of which every attempt since $1 or longer has failed, the latest of them after $2: who is not called is not
-- judged. Of most one look at the newest deliveries shows that they are well; only of the others is all looked through.
-- name: failing_endpoints
WITH suspects AS MATERIALIZED (
    SELECT e.account, e.id, e.judged_since
    FROM control.webhook_endpoints e
    WHERE e.enabled AND e.deleted_at IS NULL AND e.judged_since < $1
      AND (SELECT bool_or(newest.status <> 'succeeded')
                  AND NOT bool_or(newest.status = 'succeeded' AND newest.ended_at > $1)
           FROM (SELECT d.status, d.ended_at FROM read.deliveries d
                 WHERE d.account = e.account AND d.endpoint = e.id AND d.attempts > 0
                 ORDER BY d.created_at DESC, d.id DESC LIMIT $3) newest)
)
SELECT s.account, s.id, failed.since
FROM suspects s
CROSS JOIN LATERAL (
    SELECT COALESCE(max(d.ended_at), s.judged_since) AS until
    FROM read.deliveries d
    WHERE d.account = s.account AND d.endpoint = s.id AND d.status = 'succeeded' AND d.ended_at > s.judged_since
) well
CROSS JOIN LATERAL (
    SELECT min(each.since) AS since, max(each.latest) AS latest
    FROM read.deliveries d
    CROSS JOIN LATERAL (  -- delivery by delivery: joined with all attempts, it would read whole days of them
        SELECT min(a.at) AS since, max(a.at) AS latest
        FROM read.delivery_attempts a
        WHERE a.account = d.account AND a.delivery = d.id AND a.outcome <> 'succeeded' AND a.at > well.until
    ) each
    WHERE d.account = s.account AND d.endpoint = s.id
) failed
WHERE failed.since <= $1 AND failed.latest > $2;

-- Takes it only if it is still the endpoint that was judged.
-- name: disable_endpoint
UPDATE control.webhook_endpoints
SET version = version + 1, enabled = false, disabled_at = $4, disabled_reason = $5, updated_at = $4
WHERE account = $1 AND id = $2 AND enabled AND deleted_at IS NULL AND judged_since < $3
RETURNING *;

-- name: insert_disabling
INSERT INTO control.disablings (account, endpoint, disabled_at, reason, since) VALUES ($1, $2, $3, $4, $5);

-- name: untold_disablings
SELECT account, endpoint, disabled_at, reason, since
FROM control.disablings WHERE told_at IS NULL ORDER BY disabled_at LIMIT $1;

-- name: tell_disabling
UPDATE control.disablings SET told_at = $4 WHERE account = $1 AND endpoint = $2 AND disabled_at = $3;
