-- What steps and integrations prove themselves with, outward. Values are under the key ring, and gone with the row's end.
CREATE TABLE control.credentials (
    account      text        NOT NULL REFERENCES control.accounts,
    id           uuid        NOT NULL,
    version      bigint      NOT NULL,
    name         text        NOT NULL,
    type         text        NOT NULL CHECK (type IN ('api_key', 'bearer', 'basic')),
    sealed_value text        NOT NULL,
    place        text        NOT NULL CHECK (place IN ('header', 'query')),
    parameter    text        NOT NULL,
    prefix       text        NOT NULL,
    hosts        text[]      NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (account, id)
);
CREATE UNIQUE INDEX ON control.credentials (account, name) WHERE deleted_at IS NULL;
CREATE INDEX ON control.credentials (account, id DESC) WHERE deleted_at IS NULL;
COMMENT ON COLUMN control.credentials.parameter IS 'the header, or the query parameter, that it stands in';
COMMENT ON COLUMN control.credentials.hosts IS 'where it may be sent; none = anywhere';
