-- Roots of an account's days, newest first.
-- name: list_roots
SELECT account, day, leaves, root, previous, chain
FROM read.receipt_roots WHERE account = $1 AND day < $2 ORDER BY day DESC LIMIT $3;

-- name: days_from
SELECT account, day, leaves, root, previous, chain
FROM read.receipt_roots WHERE account = $1 AND day >= $2 ORDER BY day LIMIT $3;

-- The chunks of a day that may hold ids between two: leaves are sorted by id, so those are neighbours. Of more than $5
-- the last.
-- name: chunks_between
SELECT first, ids, contents
FROM (SELECT first, last_id, ids, contents
      FROM read.receipt_leaves
      WHERE account = $1 AND day = $2 AND first_id <= $4
      ORDER BY first_id DESC LIMIT $5) AS below
WHERE last_id >= $3
ORDER BY first;

-- name: chunk_roots
SELECT root FROM read.receipt_leaves WHERE account = $1 AND day = $2 ORDER BY first;

-- name: chunk
SELECT ids, contents FROM read.receipt_leaves WHERE account = $1 AND day = $2 AND first = $3;

-- Of any account: a root names its own.
-- name: find_root
SELECT account, day, leaves, root, previous, chain FROM read.receipt_roots WHERE root = $1 LIMIT 1;

-- name: seed
SELECT seed FROM read.receipt_seeds ORDER BY "offset" LIMIT 1;

-- name: closed_until
SELECT max(day) + interval '1 day' FROM read.receipt_days;

-- name: has_event
SELECT EXISTS (SELECT FROM read.events WHERE account = $1 AND id = $2);

-- name: has_run
SELECT EXISTS (SELECT FROM read.runs WHERE account = $1 AND id = $2);

-- name: has_delivery
SELECT EXISTS (SELECT FROM read.deliveries WHERE account = $1 AND id = $2);
