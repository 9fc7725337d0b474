-- name: payloads_of
SELECT p.owner, p.digest, p.bytes
FROM unnest($2::uuid[], $3::bytea[]) AS w (owner, digest)
JOIN read.payloads AS p ON p.owner = w.owner AND p.digest = w.digest
WHERE p.account = $1;
