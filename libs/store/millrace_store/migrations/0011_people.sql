-- People of an account, keys that are theirs, keys that are changed for others, and the account that test keys act on.
CREATE TABLE control.people (
    account    text        NOT NULL REFERENCES control.accounts,
    id         uuid        NOT NULL,
    email      text        NOT NULL,
    name       text,
    role       text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (account, id)
);
CREATE UNIQUE INDEX ON control.people (account, lower(email)) WHERE removed_at IS NULL;
CREATE INDEX ON control.people (account, id DESC) WHERE removed_at IS NULL;

ALTER TABLE control.api_keys
    ADD COLUMN person            uuid,
    ADD COLUMN old_digest        text UNIQUE,
    ADD COLUMN old_sealed_secret text,
    ADD COLUMN old_until         timestamptz,
    ADD COLUMN last_used_at      timestamptz,
    ADD FOREIGN KEY (account, person) REFERENCES control.people;
CREATE INDEX ON control.api_keys (account, person) WHERE person IS NOT NULL;
COMMENT ON COLUMN control.api_keys.person IS 'whose key it is: his role bounds what it may';
COMMENT ON COLUMN control.api_keys.old_digest IS 'of the key before the last rotation, good until old_until';
COMMENT ON COLUMN control.api_keys.last_used_at IS 'for a request to the API; the gateway tells nobody';

ALTER TABLE control.accounts ADD COLUMN test_of text UNIQUE REFERENCES control.accounts;
COMMENT ON COLUMN control.accounts.test_of IS 'the account whose test keys act on this one';
