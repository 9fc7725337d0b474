-- What was answered under an `Idempotency-Key`, for a day. A row and what was done for it commit together, or the row
-- comes first and its answer when all is done; then a request that finds no answer goes on with what is safe to repeat.
-- No reference to the account: its lock would meet that of who holds the account.
CREATE TABLE control.idempotency_keys (
    account  text        NOT NULL,
    api_key  text        NOT NULL,
    key      text        NOT NULL,
    request  bytea       NOT NULL,
    status   integer,
    body     bytea,
    asked_at timestamptz NOT NULL,
    PRIMARY KEY (account, api_key, key)
);
CREATE INDEX ON control.idempotency_keys (account, asked_at);
COMMENT ON COLUMN control.idempotency_keys.request IS 'a digest: the same key with another request is a conflict';
