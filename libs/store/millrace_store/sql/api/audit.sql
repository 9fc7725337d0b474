-- name: list_audit
SELECT * FROM read.audit
WHERE account = $1 AND (at, id) < ($2, $3)
    AND ($5::text IS NULL OR kind = $5)
    AND ($6::text IS NULL OR actor = $6)
    AND ($7::text IS NULL OR action = $7)
    AND ($8::text IS NULL OR outcome = $8)
    AND ($9::text IS NULL OR run = $9)
    AND ($10::timestamptz IS NULL OR at >= $10)
    AND ($11::timestamptz IS NULL OR at < $11)
ORDER BY at DESC, id DESC LIMIT $4;

-- name: get_audit
SELECT * FROM read.audit WHERE account = $1 AND id = $2;
