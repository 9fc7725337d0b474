-- name: list_dead_letters
SELECT topic, partition, "offset", at, reason, source_topic, source_partition, source_offset
FROM read.dead_letters
WHERE account = $1 AND at >= $4 AND at < $5
  AND ($2::text IS NULL OR source_topic = $2) AND ($3::text IS NULL OR strpos(lower(reason), lower($3)) > 0)
  AND (at, topic, partition, "offset") < ($6, $7, $8, $9)
ORDER BY at DESC, topic DESC, partition DESC, "offset" DESC LIMIT $10;

-- name: count_dead_letters
SELECT count(*) FROM (
    SELECT FROM read.dead_letters
    WHERE account = $1 AND at >= $4 AND at < $5
      AND ($2::text IS NULL OR source_topic = $2) AND ($3::text IS NULL OR strpos(lower(reason), lower($3)) > 0)
    LIMIT $6
) AS counted;

-- name: get_dead_letter
SELECT * FROM read.dead_letters WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4;
