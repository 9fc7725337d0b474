-- name: positions
SELECT topic, partition, next_offset FROM read.positions;

-- name: row_counts
SELECT
    (SELECT count(*) FROM read.events) AS events,
    (SELECT count(*) FROM read.event_outcomes) AS event_outcomes,
    (SELECT count(*) FROM read.event_matches) AS event_matches,
    (SELECT count(*) FROM read.runs) AS runs,
    (SELECT count(*) FROM read.steps) AS steps,
    (SELECT count(*) FROM read.step_attempts) AS step_attempts,
    (SELECT count(*) FROM read.deliveries) AS deliveries,
    (SELECT count(*) FROM read.delivery_attempts) AS delivery_attempts,
    (SELECT count(*) FROM read.dead_letters) AS dead_letters;
