-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1);

-- name: tables_of
SELECT c.relname
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
ORDER BY c.relispartition DESC, c.relname;

-- name: keep_account_book
INSERT INTO read_rebuild.account_book SELECT * FROM read.account_book;

-- Makes them worthless to whoever waits for them; the transaction ends in the swap, or is rolled back.
-- name: take_live_positions
UPDATE read.positions SET next_offset = -1 - next_offset RETURNING topic, partition, -1 - next_offset AS next_offset;

-- name: behind_live
SELECT l.topic, l.partition
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS l (topic, partition, next_offset)
LEFT JOIN read_rebuild.positions AS s USING (topic, partition)
WHERE COALESCE(s.next_offset, 0) < l.next_offset;
