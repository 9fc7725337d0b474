-- Providers that an account is connected to, each by a credential, and what the last test of it came to.
CREATE TABLE control.integrations (
    account          text        NOT NULL,
    id               uuid        NOT NULL,
    provider         text        NOT NULL,
    name             text        NOT NULL,
    base_url         text        NOT NULL,
    credential       uuid        NOT NULL,
    created_at       timestamptz NOT NULL,
    deleted_at       timestamptz,
    tested_at        timestamptz,
    test_status      text        CHECK (test_status IN ('succeeded', 'failed')),
    test_http_status integer,
    test_duration_ms double precision,
    test_message     text,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, credential) REFERENCES control.credentials
);
CREATE INDEX ON control.integrations (account, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX ON control.integrations (account, credential) WHERE deleted_at IS NULL;
