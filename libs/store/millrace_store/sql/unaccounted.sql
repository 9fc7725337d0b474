-- name: take_lock
SELECT pg_try_advisory_lock($1);

-- What the read models know to be missing: records without an outcome, and children that a fact names and nobody has
-- asked for. $1 = ids from then on (whole day partitions), $2 = known before that moment. The shortest way to a wrong
-- answer is a projector that is behind: ask only when it is not.
-- name: unaccounted
SELECT
    (SELECT count(*)
     FROM read.events AS e
     WHERE e.id >= $1::uuid AND e.received_at < $2
        AND NOT EXISTS (SELECT FROM read.event_outcomes AS o
                        WHERE o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset"))
    +
    (SELECT count(*)
     FROM read.event_matches AS m
     WHERE m.event >= $1::uuid AND m.kind = 'delivery'
        AND NOT EXISTS (SELECT FROM read.deliveries AS d WHERE d.id = m.child AND d.created_at IS NOT NULL)
        AND EXISTS (SELECT FROM read.event_outcomes AS o WHERE o.event = m.event AND o.decided_at < $2))
    +
    (SELECT count(*)
     FROM read.event_matches AS m
     WHERE m.event >= $1::uuid AND m.kind = 'run'
        AND NOT EXISTS (SELECT FROM read.runs AS r WHERE r.id = m.child AND r.created_at IS NOT NULL)
        AND EXISTS (SELECT FROM read.event_outcomes AS o WHERE o.event = m.event AND o.decided_at < $2))
    AS unaccounted;
