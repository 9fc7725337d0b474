-- name: positions
SELECT topic, partition, next_offset FROM read.positions;

-- $1 = one account, or null for all.
-- name: row_counts
SELECT
    (SELECT count(*) FROM read.events WHERE $1::text IS NULL OR account = $1) AS events,
    (SELECT count(*) FROM read.event_outcomes WHERE $1::text IS NULL OR account = $1) AS event_outcomes,
    (SELECT count(*) FROM read.event_matches WHERE $1::text IS NULL OR account = $1) AS event_matches,
    (SELECT count(*) FROM read.runs WHERE $1::text IS NULL OR account = $1) AS runs,
    (SELECT count(*) FROM read.steps WHERE $1::text IS NULL OR account = $1) AS steps,
    (SELECT count(*) FROM read.step_attempts WHERE $1::text IS NULL OR account = $1) AS step_attempts,
    (SELECT count(*) FROM read.deliveries WHERE $1::text IS NULL OR account = $1) AS deliveries,
    (SELECT count(*) FROM read.delivery_attempts WHERE $1::text IS NULL OR account = $1) AS delivery_attempts,
    (SELECT count(*) FROM read.dead_letters WHERE $1::text IS NULL OR account = $1) AS dead_letters;
