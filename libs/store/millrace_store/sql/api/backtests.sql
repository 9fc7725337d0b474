-- The own outcome of each: of the record that is the event, not of a repeat's, a replay's, or of one sent again. Looked up
-- event by event: as a plain join it would read whole partitions.
-- name: own_outcomes
SELECT fitting.id, own.outcome
FROM unnest($2::uuid[]) AS fitting (id), LATERAL (
    SELECT o.outcome
    FROM read.events AS e
    JOIN read.event_outcomes AS o ON o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset"
    WHERE e.account = $1 AND e.id = fitting.id LIMIT 1
) AS own;

-- name: is_open
SELECT enabled FROM control.webhook_endpoints WHERE account = $1 AND id = $2 AND deleted_at IS NULL;

-- How long the latest runs of a plan took that are over.
-- name: run_times
SELECT count(*) AS runs, avg(took_s) AS mean_s,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY took_s) AS p95_s
FROM (SELECT extract(epoch FROM ended_at - COALESCE(started_at, created_at))::float8 AS took_s
      FROM read.runs
      WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND plan = $2 AND ended_at IS NOT NULL
        AND created_at < 'infinity'
      ORDER BY created_at DESC, id DESC LIMIT $3) AS latest;
