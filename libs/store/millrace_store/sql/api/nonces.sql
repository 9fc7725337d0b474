-- No row = it was used before, and still counts ($5 is now). Each takes a few with it whose time is over, so they do not
-- gather.
-- name: spend
WITH forgotten AS (
    DELETE FROM control.spent_nonces AS n
    USING (SELECT account, api_key, nonce FROM control.spent_nonces
           WHERE account = $1 AND valid_until <= $5 AND (api_key, nonce) <> ($2, $3)
           ORDER BY valid_until LIMIT $6 FOR UPDATE SKIP LOCKED) AS over
    WHERE n.account = over.account AND n.api_key = over.api_key AND n.nonce = over.nonce
)
INSERT INTO control.spent_nonces AS n (account, api_key, nonce, valid_until) VALUES ($1, $2, $3, $4)
ON CONFLICT (account, api_key, nonce) DO UPDATE SET valid_until = excluded.valid_until WHERE n.valid_until <= $5
RETURNING valid_until;
