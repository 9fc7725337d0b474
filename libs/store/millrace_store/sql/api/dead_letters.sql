-- name: list_dead_letters
SELECT topic, partition, "offset", at, reason, source_topic, source_partition, source_offset
FROM read.dead_letters
WHERE account = $1 AND at >= GREATEST($4, (SELECT control.kept_since($1))) AND at < $5
  AND ($2::text IS NULL OR source_topic = $2) AND ($3::text IS NULL OR strpos(lower(reason), lower($3)) > 0)
  AND (at, topic, partition, "offset") < ($6, $7, $8, $9)
ORDER BY at DESC, topic DESC, partition DESC, "offset" DESC LIMIT $10;

-- name: count_dead_letters
SELECT count(*) FROM (
    SELECT FROM read.dead_letters
    WHERE account = $1 AND at >= GREATEST($4, (SELECT control.kept_since($1))) AND at < $5
      AND ($2::text IS NULL OR source_topic = $2) AND ($3::text IS NULL OR strpos(lower(reason), lower($3)) > 0)
    LIMIT $6
) AS counted;

-- name: get_dead_letter
SELECT * FROM read.dead_letters
WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4 AND at >= (SELECT control.kept_since($1));

-- name: redrives_of
SELECT * FROM control.redrives
WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4 ORDER BY asked_at, key;

-- Oldest first, and none that was sent again before.
-- name: letters_to_redrive
SELECT * FROM read.dead_letters AS d
WHERE account = $1 AND at >= GREATEST($2, (SELECT control.kept_since($1))) AND at < $3 AND source_topic = ANY($4::text[])
    AND ($5::text IS NULL OR strpos(lower(reason), lower($5)) > 0)
    AND NOT EXISTS (SELECT FROM control.redrives AS r
                    WHERE r.account = d.account AND r.topic = d.topic AND r.partition = d.partition
                        AND r."offset" = d."offset")
ORDER BY at, topic, partition, "offset" LIMIT $6;

-- name: count_letters_to_redrive
SELECT count(*) FROM read.dead_letters AS d
WHERE account = $1 AND at >= GREATEST($2, (SELECT control.kept_since($1))) AND at < $3 AND source_topic = ANY($4::text[])
    AND ($5::text IS NULL OR strpos(lower(reason), lower($5)) > 0)
    AND NOT EXISTS (SELECT FROM control.redrives AS r
                    WHERE r.account = d.account AND r.topic = d.topic AND r.partition = d.partition
                        AND r."offset" = d."offset");

-- No row = it was asked for under this key before.
-- name: ask_redrive
INSERT INTO control.redrives (account, topic, partition, "offset", key, state, target, requested_by, asked_at)
VALUES ($1, $2, $3, $4, $5, 'asked', $6, $7, $8)
ON CONFLICT DO NOTHING
RETURNING key;

-- Of one that was certainly not written.
-- name: forget_redrive
DELETE FROM control.redrives
WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4 AND key = $5 AND state = 'asked';

-- name: end_redrive
UPDATE control.redrives SET state = $6, to_partition = $7, to_offset = $8, reason = $9, done_at = $10
WHERE account = $1 AND topic = $2 AND partition = $3 AND "offset" = $4 AND key = $5;
