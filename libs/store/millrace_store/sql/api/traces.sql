-- What one event, run or delivery went through. Every list is bounded and says by `total` how many rows there are. Of
-- days before `first_kept` only what is not over is told; statements without it are asked after one that has it.
-- name: event
SELECT e.id, e.identifier, e.received_at, e.partition, e."offset", e.replay, o.outcome, o.decided_at, o.duplicate_of,
       o.reason
FROM read.events e
LEFT JOIN read.event_outcomes o ON o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset"
WHERE e.account = $1 AND e.id = $2 AND e.id >= (SELECT control.first_kept($1));

-- Of other records than the event's own: posts of its uniqueKey again, replays, dead letters sent again. Those that are
-- no duplicates come first: they may have started something.
-- name: repeats_of_event
SELECT decided_at, partition, "offset", outcome, reason, count(*) OVER () AS total
FROM read.event_outcomes WHERE account = $1 AND event = $2 AND (partition, "offset") <> ($3, $4)
ORDER BY outcome = 'duplicate', decided_at, partition, "offset" LIMIT $5;

-- Of more children than are shown those come first that are not over: they are what the caller looks for.
-- name: children_of_event
WITH named AS (
    SELECT kind, child, account, subscription, endpoint
    FROM read.event_matches WHERE account = $1 AND event = $2 ORDER BY kind, child LIMIT $4
)
SELECT m.kind, m.child, m.subscription, m.endpoint, COALESCE(r.id, d.id) IS NOT NULL AS is_known,
       count(*) OVER () AS total
FROM named m
LEFT JOIN read.runs r ON m.kind = 'run' AND r.account = m.account AND r.id = m.child
LEFT JOIN read.deliveries d ON m.kind = 'delivery' AND d.account = m.account AND d.id = m.child
ORDER BY COALESCE(r.ended_at, d.ended_at) IS NOT NULL, m.kind, m.child LIMIT $3;

-- name: runs
SELECT id, status, plan, plan_kind, plan_version, plan_name, subscription, event, requested_by, error_code,
       error_message, created_at, started_at, ended_at, flow_key, waiting_reason, waiting_until, absorbed_into
FROM read.runs
WHERE account = $1 AND id = ANY($2::uuid[])
  AND (id >= (SELECT control.first_kept($1)) OR status IN ('queued', 'running'));

-- Of each run the step that is not over, else the last one.
-- name: current_steps
SELECT DISTINCT ON (run) run, node, status, attempts, started_at, ended_at, retry_at,
       COALESCE(retry_at > now(), false) AS is_ahead
FROM read.steps WHERE account = $1 AND run = ANY($2::uuid[])
ORDER BY run, status IN ('running', 'retrying') DESC, started_at DESC NULLS LAST, node;

-- name: step_attempts
SELECT run, node, attempt, status, started_at, ended_at, duration_ms, error_code, error_message, retry_at,
       count(*) OVER () AS total
FROM read.step_attempts WHERE account = $1 AND run = ANY($2::uuid[]) ORDER BY run, node, attempt DESC LIMIT $3;

-- name: deliveries
SELECT d.id, d.endpoint, d.event, d.subscription, d.status, d.attempts, d.next_attempt_at, d.error_code,
       d.error_message, d.created_at, d.ended_at, COALESCE(d.next_attempt_at > now(), false) AS is_ahead, e.rate
FROM read.deliveries d
LEFT JOIN control.webhook_endpoints e ON e.account = d.account AND e.id = d.endpoint
WHERE d.account = $1 AND d.id = ANY($2::uuid[])
  AND (d.id >= (SELECT control.first_kept($1)) OR d.status IN ('queued', 'retrying'));

-- name: delivery_attempts
SELECT delivery, n, outcome, at, duration_ms, status, error_code, error_message, retry_at, count(*) OVER () AS total
FROM read.delivery_attempts WHERE account = $1 AND delivery = ANY($2::uuid[]) ORDER BY delivery, n DESC LIMIT $3;

-- How many deliveries to the same endpoint were asked for earlier and have had no attempt. Looks at no more than $5 of
-- the account's.
-- name: deliveries_before
SELECT count(*)
FROM (SELECT endpoint FROM read.deliveries
      WHERE account = $1 AND status = 'queued' AND (created_at, id) < ($2, $3)
      ORDER BY created_at DESC, id DESC LIMIT $5) AS earlier
WHERE endpoint = $4;
