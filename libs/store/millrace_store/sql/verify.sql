-- name: positions
SELECT topic, partition, next_offset FROM read.positions;

-- $1 = one account, or null for all. Of a day that was dropped some rows may still be on their way out: none counts.
-- name: row_counts
SELECT
    (SELECT count(*) FROM read.events WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.events AS r ON r.id >= d.first_id AND r.id < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS events,
    (SELECT count(*) FROM read.event_outcomes WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.event_outcomes AS r ON r.event >= d.first_id AND r.event < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS event_outcomes,
    (SELECT count(*) FROM read.event_matches WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.event_matches AS r ON r.event >= d.first_id AND r.event < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS event_matches,
    (SELECT count(*) FROM read.runs WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.runs AS r ON r.id >= d.first_id AND r.id < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS runs,
    (SELECT count(*) FROM read.steps WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.steps AS r ON r.run >= d.first_id AND r.run < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS steps,
    (SELECT count(*) FROM read.step_attempts WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.step_attempts AS r ON r.run >= d.first_id AND r.run < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS step_attempts,
    (SELECT count(*) FROM read.deliveries WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.deliveries AS r ON r.id >= d.first_id AND r.id < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS deliveries,
    (SELECT count(*) FROM read.delivery_attempts WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.delivery_attempts AS r ON r.delivery >= d.first_id AND r.delivery < d.after_id
       WHERE $1::text IS NULL OR account = $1) AS delivery_attempts,
    (SELECT count(*) FROM read.dead_letters WHERE $1::text IS NULL OR account = $1)
    - (SELECT count(*) FROM control.dropped_days AS d JOIN read.dead_letters AS r
           ON r.at >= d.day::timestamp AT TIME ZONE 'UTC' AND r.at < (d.day + 1)::timestamp AT TIME ZONE 'UTC'
       WHERE $1::text IS NULL OR account = $1) AS dead_letters;
