-- How many of these positions the read models have not passed yet.
-- name: not_passed
SELECT count(*)
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS e (topic, partition, next_offset)
LEFT JOIN read.positions AS p USING (topic, partition)
WHERE COALESCE(p.next_offset, 0) < e.next_offset;

-- By partition of `events`, from the account book: the records from $2 up to $3 without an outcome, how many and which
-- first. Ask when the read models have passed what decided them.
-- name: undecided
SELECT s.partition, count(i) AS undecided, (array_agg(k * 4096 + i ORDER BY k, i))[:5] AS first
FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS s (partition, start, until)
LEFT JOIN LATERAL generate_series(s.start / 4096, (s.until - 1) / 4096) AS k ON true
LEFT JOIN read.account_book AS b ON (b.partition, b.bucket) = (s.partition, k)
LEFT JOIN LATERAL generate_series(greatest(s.start - k * 4096, 0), least(s.until - k * 4096, 4096) - 1) AS i
    ON b.bucket IS NULL OR get_bit(b.decided, i::integer) = 0
GROUP BY s.partition;

-- Since when the oldest of these waits, of the events with ids from $1 on (whole day partitions). It reads all of them:
-- ask it only where there are some.
-- name: undecided_since
SELECT min(e.received_at)
FROM read.events AS e
WHERE e.id >= $1::uuid
    AND NOT EXISTS (SELECT FROM read.event_outcomes AS o
                    WHERE o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset");

-- name: forget_settled
DELETE FROM read.account_book AS b
USING unnest($1::integer[], $2::bigint[]) AS s (partition, start)
WHERE b.partition = s.partition AND (b.bucket + 1) * 4096 <= s.start;

-- Children that a fact names and nobody has asked for, of the outcomes of records that the broker took from $1 up to $2;
-- of an event that is replayed its latest outcome tells when.
-- name: never_asked
SELECT count(*)
FROM (SELECT DISTINCT event FROM read.event_outcomes WHERE decided_at >= $1 AND decided_at < $2) AS o
JOIN read.event_matches AS m USING (event)
WHERE CASE m.kind
        WHEN 'run' THEN
            NOT EXISTS (SELECT FROM read.runs AS r WHERE r.id = m.child AND r.created_at IS NOT NULL)
        ELSE NOT EXISTS (SELECT FROM read.deliveries AS d WHERE d.id = m.child AND d.created_at IS NOT NULL)
    END
    AND (SELECT max(l.decided_at) FROM read.event_outcomes AS l WHERE l.event = o.event) < $2;

-- Runs that are neither over nor at any step, which no run ever is: their terminal fact, or a step's, was lost.
-- $1 = ids from then on (whole day partitions), $2 = started before that moment.
-- name: stuck
SELECT r.id
FROM read.runs AS r
WHERE r.id >= $1::uuid AND r.status = 'running' AND r.started_at < $2
    AND NOT EXISTS (SELECT FROM read.steps AS s WHERE s.run = r.id AND s.status IN ('running', 'retrying'))
LIMIT 1000;

-- What waits is few among many, which statistics do not tell: only an index may be gone through. In a transaction.
-- name: by_index
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_parallel_append']) AS name;

-- Since when the oldest that is not over waits at each stage behind the matcher, of those that wait for the stage
-- itself: what a timer holds back is none of these before it is due, nor what a flow or its endpoint's rate holds
-- back. $1 = ids from then on (whole day partitions), $2 = now.
-- name: oldest
SELECT 'orchestrator' AS stage, min(created_at) AS since
FROM read.runs
WHERE id >= $1::uuid AND status = 'queued' AND waiting_reason IS NULL
UNION ALL
SELECT 'executor', min(started_at) FROM read.step_attempts WHERE run >= $1::uuid AND status = 'running'
UNION ALL
SELECT 'scheduler', min(retry_at) FROM read.steps WHERE run >= $1::uuid AND status = 'retrying' AND retry_at <= $2
UNION ALL
SELECT 'dispatcher', min(COALESCE(next_attempt_at, created_at))
FROM read.deliveries
WHERE id >= $1::uuid AND status IN ('queued', 'retrying') AND COALESCE(next_attempt_at, created_at) <= $2
    AND endpoint NOT IN (SELECT e.id FROM control.webhook_endpoints AS e WHERE e.rate IS NOT NULL);
