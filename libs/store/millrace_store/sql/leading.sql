-- name: take_lock
SELECT pg_try_advisory_lock($1);
