-- name: list_dead_letters
SELECT topic, partition, "offset", at, reason, source_topic, source_partition, source_offset
FROM read.dead_letters
WHERE account = $1 AND (at, topic, partition, "offset") < ($2, $3, $4, $5)
ORDER BY at DESC, topic DESC, partition DESC, "offset" DESC LIMIT $6;

-- name: get_dead_letter
SELECT * FROM read.dead_letters WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4;
