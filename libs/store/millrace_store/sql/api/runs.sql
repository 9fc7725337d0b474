-- Newest first by (created_at, id): what is kept, and of earlier days what is not over. That is little, and found by its
-- status before anything else is asked of it (OFFSET 0 keeps the planner from looking for it by a filter).
-- name: list_runs
SELECT id, status, plan, plan_kind, plan_version, plan_name, subscription, event, identifier, requested_by,
       error_code, error_message, created_at, started_at, ended_at, flow_key, waiting_reason, waiting_until,
       absorbed_into
FROM (
    (SELECT * FROM read.runs
     WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
       AND ($5::text IS NULL OR status = $5) AND ($6::uuid IS NULL OR plan = $6)
       AND ($7::uuid IS NULL OR event = $7) AND ($8::uuid IS NULL OR subscription = $8)
     ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT * FROM (
        SELECT * FROM read.runs
        WHERE account = $1 AND id < (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
          AND status IN ('queued', 'running')
        OFFSET 0) AS live
     WHERE ($5::text IS NULL OR status = $5) AND ($6::uuid IS NULL OR plan = $6)
       AND ($7::uuid IS NULL OR event = $7) AND ($8::uuid IS NULL OR subscription = $8)
     ORDER BY created_at DESC, id DESC LIMIT $4)
) AS listed
ORDER BY created_at DESC, id DESC LIMIT $4;

-- name: get_run
SELECT * FROM read.runs
WHERE account = $1 AND id = $2 AND (id >= (SELECT control.first_kept($1)) OR status IN ('queued', 'running'));

-- name: steps_of_run
SELECT run, node, type, status, attempts, started_at, ended_at, retry_at, error_code, error_message, output
FROM read.steps WHERE account = $1 AND run = $2 ORDER BY started_at NULLS LAST, node;

-- name: attempts_of_run
SELECT node, attempt, status, started_at, ended_at, duration_ms, error_code, error_message, retry_at
FROM read.step_attempts WHERE account = $1 AND run = $2 ORDER BY node, attempt;

-- As list_runs, but of several statuses: each is found by its index, and the newest of all are taken.
-- name: list_runs_of_statuses
SELECT id, status, plan, plan_kind, plan_version, plan_name, subscription, event, identifier, requested_by,
       error_code, error_message, created_at, started_at, ended_at, flow_key, waiting_reason, waiting_until,
       absorbed_into
FROM unnest($5::text[]) AS wanted (wanted_status) CROSS JOIN LATERAL (
    (SELECT * FROM read.runs
     WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
       AND status = wanted_status AND ($6::uuid IS NULL OR plan = $6)
     ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT * FROM (
        SELECT * FROM read.runs
        WHERE account = $1 AND id < (SELECT control.first_kept($1)) AND (created_at, id) < ($2, $3)
          AND status IN ('queued', 'running')
        OFFSET 0) AS live
     WHERE status = wanted_status AND ($6::uuid IS NULL OR plan = $6)
     ORDER BY created_at DESC, id DESC LIMIT $4)
) AS listed
ORDER BY created_at DESC, id DESC LIMIT $4;
