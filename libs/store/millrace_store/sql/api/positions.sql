-- name: positions_of
SELECT topic, partition, next_offset FROM read.positions;

-- name: published_positions
SELECT kind, account, aggregate, version, published_position
FROM control.control_outbox
WHERE published_position IS NOT NULL
  AND (kind, account, aggregate, version) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]));

-- name: waiting
SELECT count(*) AS entries, COALESCE(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_age_s
FROM control.control_outbox WHERE published_position IS NULL;
