-- Roots of an account's days, newest first.
-- name: list_roots
SELECT account, day, leaves, root, previous, chain
FROM read.receipt_roots WHERE account = $1 AND day < $2 ORDER BY day DESC LIMIT $3;

-- The chunks that may hold ids between two ($4, $5), in the account's first $3 days from a moment on: leaves are sorted
-- by id, so those of a day are neighbours. Of more than $6 a day the last.
-- name: chunks_between
SELECT r.account, r.day, r.leaves, r.root, r.previous, r.chain, l.first, l.entries
FROM (SELECT account, day, leaves, root, previous, chain
      FROM read.receipt_roots WHERE account = $1 AND day >= $2 ORDER BY day LIMIT $3) AS r
CROSS JOIN LATERAL (
    SELECT first, last_id, entries
    FROM read.receipt_leaves WHERE account = r.account AND day = r.day AND first_id <= $5
    ORDER BY first_id DESC LIMIT $6
) AS l
WHERE l.last_id >= $4
ORDER BY r.day, l.first;

-- name: chunk_roots
SELECT root FROM read.receipt_leaves WHERE account = $1 AND day = $2 ORDER BY first;

-- Of any account: a root names its own.
-- name: chunk_of_root
SELECT r.account, r.day, r.leaves, r.root, r.previous, r.chain, l.first, l.entries
FROM read.receipt_roots AS r
JOIN read.receipt_leaves AS l ON l.account = r.account AND l.day = r.day AND l.first = $2
WHERE r.root = $1 LIMIT 1;

-- name: seed
SELECT seed FROM read.receipt_seeds ORDER BY "offset" LIMIT 1;

-- name: closed_until
SELECT max(day) + interval '1 day' FROM read.receipt_days;

-- name: has_event
SELECT EXISTS (SELECT FROM read.events WHERE account = $1 AND id = $2 AND id >= (SELECT control.first_kept($1)));

-- name: has_run
SELECT EXISTS (SELECT FROM read.runs WHERE account = $1 AND id = $2 AND id >= (SELECT control.first_kept($1)));

-- name: has_delivery
SELECT EXISTS (SELECT FROM read.deliveries WHERE account = $1 AND id = $2 AND id >= (SELECT control.first_kept($1)));
