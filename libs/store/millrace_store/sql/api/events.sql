-- Newest first by (received_at, id); rows without `created_at` elsewhere are stubs and stay below the lists. Nothing is
-- shown of days before `first_kept`; statements without it are asked after one that has it.
-- name: list_events
SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, control.payload_bytes(properties) AS bytes
FROM read.events
WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND (received_at, id) < ($2, $3)
ORDER BY received_at DESC, id DESC LIMIT $4;

-- name: list_events_of
SELECT id, identifier, received_at, "timestamp", unique_key, ordering_key, control.payload_bytes(properties) AS bytes
FROM read.events
WHERE account = $1 AND id >= (SELECT control.first_kept($1)) AND identifier = $5 AND (received_at, id) < ($2, $3)
ORDER BY received_at DESC, id DESC LIMIT $4;

-- name: get_event
SELECT e.*, o.outcome, o.decided_at, o.reason
FROM read.events e
LEFT JOIN read.event_outcomes o ON o.event = e.id AND o.partition = e.partition AND o."offset" = e."offset"
WHERE e.account = $1 AND e.id = $2 AND e.id >= (SELECT control.first_kept($1));

-- A duplicate with a reason is no post: a replay wrote the event twice.
-- name: event_repeats
SELECT count(*) FROM read.event_outcomes
WHERE account = $1 AND event = $2 AND outcome = 'duplicate' AND reason IS NULL;

-- name: matches_of_event
SELECT m.kind, m.child, m.subscription, m.endpoint, r.status AS run_status, r.plan, r.plan_kind, d.status AS delivery_status
FROM read.event_matches m
LEFT JOIN read.runs r ON m.kind = 'run' AND r.account = m.account AND r.id = m.child
LEFT JOIN read.deliveries d ON m.kind = 'delivery' AND d.account = m.account AND d.id = m.child
WHERE m.account = $1 AND m.event = $2
ORDER BY m.kind, m.child LIMIT $3;

-- name: count_matches
SELECT count(*) FROM read.event_matches WHERE account = $1 AND event = $2;
