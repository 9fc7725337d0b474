-- name: dropped_among
SELECT day FROM control.dropped_days WHERE day = ANY($1::date[]);

-- name: dropped_days
SELECT day FROM control.dropped_days;

-- name: write_down
INSERT INTO control.dropped_days (day, first_id, after_id) VALUES ($1, $2::uuid, $3::uuid) ON CONFLICT (day) DO NOTHING;

-- $1 = what is kept where there is no account.
-- name: first_shown
SELECT (now() AT TIME ZONE 'UTC')::date - COALESCE(max(retention_days), $1::integer) FROM control.accounts;

-- name: tables_among
SELECT c.relname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY($2::text[]);

-- name: parts
SELECT c.relname, c.relispartition
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname ~ '_d[0-9]{8}$';

-- What a wrong clock, or a table that could not be changed at once, left in the default partitions: days since 1970.
-- name: days_of_strays
WITH strays AS (
    SELECT id FROM read.events_default
    UNION ALL SELECT event FROM read.event_outcomes_default
    UNION ALL SELECT event FROM read.event_matches_default
    UNION ALL SELECT id FROM read.runs_default
    UNION ALL SELECT run FROM read.steps_default
    UNION ALL SELECT run FROM read.step_attempts_default
    UNION ALL SELECT id FROM read.deliveries_default
    UNION ALL SELECT delivery FROM read.delivery_attempts_default
    UNION ALL SELECT owner FROM read.payloads_default
)
SELECT ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 86400000 AS day FROM strays
UNION
SELECT floor(extract(epoch FROM at) / 86400)::bigint FROM read.dead_letters_default;

-- $1 = the first id of a day, $2 = the first one behind it.
-- name: unfinished
SELECT CASE
    WHEN EXISTS (SELECT FROM read.runs WHERE id >= $1::uuid AND id < $2::uuid AND status IN ('queued', 'running'))
    THEN 'a run'
    WHEN EXISTS (SELECT FROM read.deliveries
                 WHERE id >= $1::uuid AND id < $2::uuid AND status IN ('queued', 'retrying'))
    THEN 'a delivery'
    WHEN EXISTS (SELECT FROM read.events AS e
                 WHERE e.id >= $1::uuid AND e.id < $2::uuid
                     AND NOT EXISTS (SELECT FROM read.event_outcomes AS o
                                     WHERE o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset"
                                         AND o.event >= $1::uuid AND o.event < $2::uuid))
    THEN 'an event that was not decided'
END;
