-- What closing a day and verifying it ask of the receipt chain.
-- name: seed
SELECT seed FROM read.receipt_seeds ORDER BY "offset" LIMIT 1;

-- name: last_day
SELECT day, ends FROM read.receipt_days ORDER BY day DESC LIMIT 1;

-- name: chain_before
SELECT chain FROM read.receipt_roots WHERE account = $1 AND day < $2 ORDER BY day DESC LIMIT 1;

-- name: contradictions
SELECT account, day FROM read.receipt_roots WHERE other_chain IS NOT NULL ORDER BY account, day LIMIT $1;

-- $2 = one account, or null for all.
-- name: roots_of_day
SELECT account, leaves, root, previous, chain
FROM read.receipt_roots WHERE day = $1 AND ($2::text IS NULL OR account = $2) ORDER BY account;

-- name: chunk
SELECT entries, root FROM read.receipt_leaves WHERE account = $1 AND day = $2 AND first = $3;
