-- Nonces of signed requests that were taken, for as long as the request itself would hold: the second one with the same
-- nonce is refused by every replica. No reference to the account: its lock would meet that of who holds the account.
CREATE TABLE control.spent_nonces (
    account     text        NOT NULL,
    api_key     text        NOT NULL,
    nonce       text        NOT NULL,
    valid_until timestamptz NOT NULL,
    PRIMARY KEY (account, api_key, nonce)
);
CREATE INDEX ON control.spent_nonces (account, valid_until);
