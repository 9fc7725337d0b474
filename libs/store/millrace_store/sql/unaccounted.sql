-- name: take_lock
SELECT pg_try_advisory_lock($1);

-- What the read models know to be missing: records without an outcome, by partition of `events`, and children that a
-- fact names and nobody has asked for. $1 = ids from then on (whole day partitions), $2 = known before that moment; of
-- an event that is replayed its latest outcome tells since when. The shortest way to a wrong answer is a projector that
-- is behind: ask only when it is not.
-- name: undecided
SELECT p.partition, count(e.id) AS undecided
FROM read.positions AS p
LEFT JOIN read.events AS e
    ON e.partition = p.partition AND e.id >= $1::uuid AND e.received_at < $2
    AND NOT EXISTS (SELECT FROM read.event_outcomes AS o
                    WHERE o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset")
WHERE p.topic = 'events'
GROUP BY p.partition;

-- name: never_asked
SELECT
    (SELECT count(*)
     FROM read.event_matches AS m
     WHERE m.event >= $1::uuid AND m.kind = 'delivery'
        AND NOT EXISTS (SELECT FROM read.deliveries AS d WHERE d.id = m.child AND d.created_at IS NOT NULL)
        AND (SELECT max(o.decided_at) FROM read.event_outcomes AS o WHERE o.event = m.event) < $2)
    +
    (SELECT count(*)
     FROM read.event_matches AS m
     WHERE m.event >= $1::uuid AND m.kind = 'run'
        AND NOT EXISTS (SELECT FROM read.runs AS r WHERE r.id = m.child AND r.created_at IS NOT NULL)
        AND (SELECT max(o.decided_at) FROM read.event_outcomes AS o WHERE o.event = m.event) < $2)
    AS never_asked;

-- Since when the oldest that is not over waits at each stage, of those that wait for the stage itself: what a timer
-- holds back is none of these before it is due. $1 as above, $2 = now.
-- name: oldest
SELECT 'matcher' AS stage, min(e.received_at) AS since
FROM read.events AS e
WHERE e.id >= $1::uuid
    AND NOT EXISTS (SELECT FROM read.event_outcomes AS o
                    WHERE o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset")
UNION ALL
SELECT 'orchestrator', min(created_at) FROM read.runs WHERE id >= $1::uuid AND status = 'queued'
UNION ALL
SELECT 'executor', min(started_at) FROM read.step_attempts WHERE run >= $1::uuid AND status = 'running'
UNION ALL
SELECT 'scheduler', min(retry_at) FROM read.steps WHERE run >= $1::uuid AND status = 'retrying' AND retry_at <= $2
UNION ALL
SELECT 'dispatcher', min(COALESCE(next_attempt_at, created_at))
FROM read.deliveries
WHERE id >= $1::uuid AND status IN ('queued', 'retrying') AND COALESCE(next_attempt_at, created_at) <= $2;
